//! Shows a message to an operator without its secrets.

use serde_json::{Map, Value};

use super::decode::snake_case;

/// The text in place of a value that may be a secret.
pub const MASKED: &str = "[REDACTED]";

/// The fields whose values are shown: identifiers, amounts, currencies, states and codes. Everything else may be a
/// secret, also a field that no version knows.
const SHOWN: &[&str] = &[
    // Jobs, and messages about links.
    "merchant_payout_id",
    "connector_quote_id",
    "connector_payout_id",
    "connector_payout_method_id",
    "amount.minor_amount",
    "amount.minor_amount.low",
    "amount.minor_amount.high",
    "amount.minor_amount.unsigned",
    "amount.currency",
    "destination_currency",
    "priority",
    "customer.id",
    "customer.connector_customer_id",
    "refresh",
    // Results.
    "payout_status",
    "status_code",
    "sequence",
    "occurred_at",
    "payout_link.expires_at",
    "error.unified_details.code",
    "error.unified_details.message",
    "error.unified_details.user_guidance_message",
    "error.connector_details.code",
];

/// A longer value is not one of these.
const MAX_SHOWN: usize = 255;

/// Returns a message with every value masked that is not an identifier, an amount, a currency, a state or a code.
/// Returns `None` if it is not JSON.
pub fn masked(body: &[u8]) -> Option<Value> {
    let value: Value = serde_json::from_slice(body).ok()?;
    Some(mask(value, ""))
}

fn mask(value: Value, path: &str) -> Value {
    match value {
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|field| mask_field(field, path)).collect())
        }
        // No field of the contract is a list.
        Value::Array(values) => Value::Array(values.iter().map(|_| MASKED.into()).collect()),
        // They say that something is absent.
        Value::Null => Value::Null,
        Value::String(text) if text.is_empty() => Value::String(text),
        value @ (Value::String(_) | Value::Number(_) | Value::Bool(_)) => {
            if SHOWN.contains(&path) && value.as_str().is_none_or(|text| text.len() <= MAX_SHOWN) {
                value
            } else {
                MASKED.into()
            }
        }
    }
}

fn mask_field((name, value): (String, Value), path: &str) -> (String, Value) {
    // A sender that mixes up names and values must not reveal them.
    let is_name = name.len() <= 64 && name.starts_with(|first: char| first.is_ascii_alphabetic());
    if !is_name || !name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
        return (MASKED.to_owned(), MASKED.into());
    }
    let own = snake_case(&name);
    let path = if path.is_empty() { own } else { format!("{path}.{own}") };
    (name, mask(value, &path))
}

/// Returns the values of a message by which operators select: the identifiers, the amount and the currency.
pub fn outline(body: &[u8]) -> Outline {
    let fields: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    let field = |fields: &Map<String, Value>, name: &str| -> Option<Value> {
        fields.iter().find(|(given, _)| snake_case(given) == name).map(|(_, value)| value.clone())
    };
    let short = |value: Value| match value {
        Value::String(text) if text.len() <= MAX_SHOWN => Some(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let inner = |value: Option<Value>, name: &str| match value {
        Some(Value::Object(fields)) => field(&fields, name),
        _ => None,
    };
    let amount = field(&fields, "amount");
    Outline {
        merchant_payout_id: field(&fields, "merchant_payout_id").and_then(short),
        minor_amount: inner(amount.clone(), "minor_amount").and_then(short),
        currency: inner(amount.clone(), "currency").and_then(short),
        error_code: inner(inner(field(&fields, "error"), "unified_details"), "code").and_then(short),
        is_job: amount.is_some()
            || ["address", "destination_currency"].into_iter().any(|name| field(&fields, name).is_some()),
        is_cancel: field(&fields, "reason").is_some(),
        is_status: field(&fields, "refresh").is_some(),
    }
}

/// Values of a message that are no secrets; absent where they cannot be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// The identifier, if the body has one that can be read.
    pub merchant_payout_id: Option<String>,
    /// The amount in minor units, with the digits as they were written.
    pub minor_amount: Option<String>,
    /// The currency as it was written.
    pub currency: Option<String>,
    /// Of a result.
    pub error_code: Option<String>,
    /// It has a field that only a job has.
    pub is_job: bool,
    /// It has a field that only a message has that cancels a link.
    pub is_cancel: bool,
    /// It has a field that only a message has that asks for a link's status.
    pub is_status: bool,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_identifiers_amounts_currencies_and_codes_are_shown() {
        let body = json!({
            "merchantPayoutId": "po_1",
            "amount": { "minor_amount": 1250, "currency": "EUR", "note": "canary-note" },
            "destination_currency": "EUR",
            "customer": { "id": "cus_1", "name": "canary-name", "email": { "value": "canary@example.com" } },
            "payout_method_data": { "card": { "card_number": "4111111111111111" } },
            "access_token": "canary-token",
            "description": "",
            "webhook_url": null,
            "browser_info": { "java_enabled": true, "screen_width": 4111 },
            "tags": ["canary-tag"],
            "4111111111111111": "EUR",
            "payout_link": { "url": "https://links.example/canary" },
        });
        let shown = masked(body.to_string().as_bytes()).unwrap();
        assert_eq!(
            shown,
            json!({
                "merchantPayoutId": "po_1",
                "amount": { "minor_amount": 1250, "currency": "EUR", "note": MASKED },
                "destination_currency": "EUR",
                "customer": { "id": "cus_1", "name": MASKED, "email": { "value": MASKED } },
                "payout_method_data": { "card": { "card_number": MASKED } },
                "access_token": MASKED,
                "description": "",
                "webhook_url": null,
                "browser_info": { "java_enabled": MASKED, "screen_width": MASKED },
                "tags": [MASKED],
                MASKED: MASKED,
                "payout_link": { "url": MASKED },
            })
        );
    }

    #[test]
    fn a_value_under_a_shown_name_at_another_place_is_masked() {
        let body = json!({
            "merchant_payout_id": { "currency": "canary" },
            "customer": { "merchant_payout_id": "canary" },
            "connector_quote_id": "x".repeat(MAX_SHOWN + 1),
            "destination_currency": ["canary"],
        });
        let shown = masked(body.to_string().as_bytes()).unwrap().to_string();
        assert!(!shown.contains("canary") && !shown.contains("xxx"), "{shown}");
        assert_eq!(masked(b"canary"), None);
    }

    #[test]
    fn the_outline_reads_both_spellings() {
        let outline =
            outline(br#"{"merchantPayoutId": "po_1", "amount": {"minorAmount": "12", "currency": "EUR"}}"#);
        assert_eq!(outline.merchant_payout_id.as_deref(), Some("po_1"));
        assert_eq!((outline.minor_amount.as_deref(), outline.currency.as_deref()), (Some("12"), Some("EUR")));
        assert!(outline.is_job && !outline.is_cancel && !outline.is_status);
    }
}
