//! The schema of a job: contract, section 2.

use serde_json::{Map, Value, json};

use crate::domain::{FieldKind, METHODS, MethodKind, PrismEnum, SOURCE_BANKS};

/// The schema of an object while its fields are added, each under both of its spellings.
#[derive(Default)]
struct Object {
    properties: Map<String, Value>,
    conditions: Vec<Value>,
}

impl Object {
    fn optional(mut self, name: &str, schema: Value) -> Self {
        let schema = json!({"anyOf": [{"type": "null"}, schema]});
        self.add(name, &schema);
        self
    }

    fn required(mut self, name: &str, schema: Value) -> Self {
        self.add(name, &schema);
        let spellings = spellings(name);
        let given: Vec<Value> = spellings.iter().map(|name| json!({"required": [name]})).collect();
        self.conditions.push(match &given[..] {
            [only] => only.clone(),
            several => json!({"anyOf": several}),
        });
        self
    }

    fn add(&mut self, name: &str, schema: &Value) {
        let spellings = spellings(name);
        for spelling in &spellings {
            self.properties.insert(spelling.clone(), schema.clone());
        }
        if spellings.len() > 1 {
            self.conditions.push(json!({"not": {"required": spellings}}));
        }
    }

    fn schema(self) -> Value {
        let mut schema = json!({
            "type": "object",
            "properties": self.properties,
            "additionalProperties": false,
        });
        if !self.conditions.is_empty() {
            schema["allOf"] = self.conditions.into();
        }
        schema
    }
}

/// Returns the spellings of a field: `snake_case`, and `lowerCamelCase` where it differs.
fn spellings(name: &str) -> Vec<String> {
    let mut camel = String::with_capacity(name.len());
    let mut letters = name.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '_' => camel.extend(letters.next().map(|letter| letter.to_ascii_uppercase())),
            letter => camel.push(letter),
        }
    }
    if camel == name { vec![camel] } else { vec![name.to_owned(), camel] }
}

pub(super) fn schema() -> Value {
    Object::default()
        .optional(
            "merchant_payout_id",
            json!({
                "type": "string", "minLength": 1, "maxLength": 255, "pattern": IDENTIFIER,
                "description": "255 bytes at most. If it is absent, the message needs a message_id.",
            }),
        )
        .required(
            "address",
            Object::default()
                .optional("shipping_address", address())
                .optional("billing_address", address())
                .schema(),
        )
        .optional("connector_feature_data", secret())
        .optional("payout_method_data", method(METHODS))
        .optional("connector_quote_id", identifier())
        .optional("connector_payout_id", identifier())
        .required(
            "amount",
            Object::default()
                .required("minor_amount", amount())
                .required("currency", given(PrismEnum::Currency))
                .schema(),
        )
        .required("destination_currency", given(PrismEnum::Currency))
        .optional("customer", customer())
        .optional("priority", name(PrismEnum::PayoutPriority))
        .optional("connector_payout_method_id", identifier())
        .optional(
            "webhook_url",
            json!({
                "type": "string", "format": "uri", "pattern": WEBHOOK_URL, "maxLength": 2048,
                "description": "http only where the configuration allows it. No user-info.",
            }),
        )
        .optional("browser_info", browser())
        .optional("access_token", secret())
        .optional(
            "description",
            json!({
                "type": "string", "maxLength": 255, "pattern": TEXT, "description": "255 bytes at most.",
            }),
        )
        .optional("source_bank_data", method(SOURCE_BANKS))
        .schema()
}

/// An https URL without user-info, blanks and control characters.
const WEBHOOK_URL: &str = "^[Hh][Tt][Tt][Pp][Ss]://[^/?#@\\\\\\s\\u0000-\\u001f\\u007f-\\u009f]+\
    ([/?#][^\\s\\u0000-\\u001f\\u007f-\\u009f]*)?$";
/// A text without NUL.
const TEXT: &str = "^[^\\u0000]*$";
/// A text without control characters.
const IDENTIFIER: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$";

fn text() -> Value {
    json!({"type": "string", "pattern": TEXT})
}

fn identifier() -> Value {
    json!({"type": "string", "pattern": IDENTIFIER})
}

/// Describes a secret: a text, or an object with the text as `value`.
fn secret() -> Value {
    let wrapped = Object::default().optional("value", text()).schema();
    json!({"anyOf": [text(), wrapped]})
}

/// Describes a secret that is not empty.
fn given_secret() -> Value {
    let given = json!({"type": "string", "minLength": 1, "pattern": TEXT});
    let wrapped = Object::default().required("value", given.clone()).schema();
    json!({"anyOf": [given, wrapped]})
}

/// Describes a name or a number of a list. 0 means absent.
fn name(list: PrismEnum) -> Value {
    let (names, mut numbers) = values(list, |_| true);
    numbers.push(0);
    numbers.sort_unstable();
    numbers.dedup();
    let mut any = vec![json!({"enum": names}), json!({"type": "integer", "enum": numbers})];
    if list.grows() {
        any.push(json!({"type": "string", "pattern": "^[A-Za-z0-9_]{1,64}$"}));
    }
    json!({"anyOf": any})
}

/// Describes a name or a number of a list that is not absent.
fn given(list: PrismEnum) -> Value {
    let (names, numbers) = values(list, |number| number != 0);
    let mut any = vec![json!({"enum": names}), json!({"type": "integer", "enum": numbers})];
    if list.grows() {
        any.push(json!({
            "type": "string", "pattern": "^[A-Za-z0-9_]{1,64}$", "not": {"enum": values(list, |number| number == 0).0},
        }));
    }
    json!({"anyOf": any})
}

/// Returns the names and the numbers of a list.
fn values(list: PrismEnum, is_wanted: impl Fn(i64) -> bool) -> (Vec<&'static str>, Vec<i64>) {
    let wanted = list.numbered().into_iter().filter(|(_, number)| is_wanted(*number));
    let (names, mut numbers): (Vec<&str>, Vec<i64>) = wanted.unzip();
    numbers.sort_unstable();
    numbers.dedup();
    (names, numbers)
}

/// Describes a positive integer of 64 bits: a number, its digits, or the two halves of a `Long`.
fn amount() -> Value {
    let half = || integer(i64::from(i32::MIN), i64::from(i32::MAX));
    let zero = json!({"anyOf": [{"const": 0}, {"type": "string", "pattern": "^-?0+$"}]});
    let mut long = Object::default()
        .required("low", half())
        .required("high", integer(0, i64::from(i32::MAX)))
        .optional("unsigned", json!({"type": "boolean"}))
        .schema();
    long["not"] = json!({"properties": {"low": zero, "high": zero}, "required": ["low", "high"]});
    json!({"anyOf": [integer(1, i64::MAX), long]})
}

/// Describes a whole number: a number, or its digits in a string.
fn integer(minimum: i64, maximum: i64) -> Value {
    let mut patterns = Vec::new();
    if minimum < 0 {
        patterns.push(format!("-0*({})", up_to(minimum.unsigned_abs())));
    }
    patterns.push(format!("0*({})", up_to(maximum.unsigned_abs())));
    if minimum <= 0 {
        patterns.push("-?0+".to_owned());
    }
    json!({"anyOf": [
        {"type": "integer", "minimum": minimum, "maximum": maximum},
        {"type": "string", "pattern": format!("^({})$", patterns.join("|"))},
    ]})
}

/// Returns a pattern of the numbers from 1 to `most`, without leading zeros.
fn up_to(most: u64) -> String {
    let digits = most.to_string();
    let mut ways = Vec::new();
    if digits.len() > 1 {
        ways.push(format!("[1-9][0-9]{{0,{}}}", digits.len() - 2));
    }
    // The same first digits, then a smaller one, then any.
    for (place, digit) in digits.bytes().enumerate() {
        let lowest = if place == 0 { b'1' } else { b'0' };
        if digit > lowest {
            let (same, left) = (&digits[..place], digits.len() - place - 1);
            let rest = if left == 0 { String::new() } else { format!("[0-9]{{{left}}}") };
            ways.push(format!("{same}[{}-{}]{rest}", char::from(lowest), char::from(digit - 1)));
        }
    }
    ways.push(digits);
    ways.join("|")
}

fn address() -> Value {
    let secrets = [
        "first_name",
        "last_name",
        "line1",
        "line2",
        "line3",
        "city",
        "state",
        "zip_code",
        "email",
        "phone_number",
    ];
    secrets
        .into_iter()
        .fold(Object::default(), |object, name| object.optional(name, secret()))
        .optional("country_alpha2_code", name(PrismEnum::CountryAlpha2))
        .optional("phone_country_code", text())
        .schema()
}

fn customer() -> Value {
    ["name", "first_name", "last_name", "salutation", "phone_country_code"]
        .into_iter()
        .fold(Object::default(), |object, name| object.optional(name, text()))
        .optional("id", identifier())
        .optional("connector_customer_id", identifier())
        .optional("email", secret())
        .optional("phone_number", secret())
        .optional(
            "customer_document_details",
            Object::default()
                .optional("document_type", name(PrismEnum::DocumentType))
                .optional("document_number", secret())
                .schema(),
        )
        .schema()
}

fn browser() -> Value {
    let numbers = ["color_depth", "screen_height", "screen_width"];
    let texts = [
        "language",
        "accept_header",
        "user_agent",
        "accept_language",
        "referer",
        "ip_address",
        "os_type",
        "os_version",
        "device_model",
    ];
    let offset = integer(i64::from(i32::MIN), i64::from(i32::MAX));
    let object = numbers
        .into_iter()
        .fold(Object::default().optional("time_zone_offset_minutes", offset), |object, name| {
            object.optional(name, integer(0, i64::from(u32::MAX)))
        });
    let object = texts.into_iter().fold(object, |object, name| object.optional(name, text()));
    ["java_enabled", "java_script_enabled"]
        .into_iter()
        .fold(object, |object, name| object.optional(name, json!({"type": "boolean"})))
        .schema()
}

/// Describes exactly one method of a table.
fn method(kinds: &[MethodKind]) -> Value {
    let object = kinds.iter().fold(Object::default(), |object, kind| {
        let fields = kind.fields.iter().fold(Object::default(), |object, (field, is_required, of)| {
            match (of, is_required) {
                (FieldKind::Secret, true) => object.required(field, given_secret()),
                (FieldKind::Secret, false) => object.optional(field, secret()),
                (FieldKind::Text, true) => {
                    object.required(field, json!({"type": "string", "minLength": 1, "pattern": TEXT}))
                }
                (FieldKind::Text, false) => object.optional(field, text()),
                (FieldKind::Country, true) => object.required(field, given(PrismEnum::CountryAlpha2)),
                (FieldKind::Country, false) => object.optional(field, name(PrismEnum::CountryAlpha2)),
                (FieldKind::Name(list), true) => object.required(field, given(*list)),
                (FieldKind::Name(list), false) => object.optional(field, name(*list)),
            }
        });
        object.optional(kind.name, fields.schema())
    });
    let mut schema = object.schema();
    let one = kinds
        .iter()
        .flat_map(|kind| spellings(kind.name))
        .map(|name| json!({"required": [name], "properties": {name.as_str(): {"type": "object"}}}));
    schema["oneOf"] = one.collect();
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_a_field_are_known() {
        assert_eq!(spellings("amount"), ["amount"]);
        assert_eq!(spellings("country_alpha2_code"), ["country_alpha2_code", "countryAlpha2Code"]);
    }

    #[test]
    fn digits_are_bounded_to_the_last_one() {
        assert_eq!(up_to(1), "1");
        assert_eq!(up_to(207), "[1-9][0-9]{0,1}|[1-1][0-9]{2}|20[0-6]|207");
    }
}
