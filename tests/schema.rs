//! The schemas of the contract: the files are what the code makes, and schema and decoder come to the same verdict.

#![expect(clippy::unwrap_used, reason = "nothing goes on where something fails")]

use jsonschema::Validator;
use payout_link_worker::{
    contract::{DecodePolicy, Schema, create_link},
    domain::EventType,
};
use proptest::{
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, TestRunner},
};
use serde_json::{Map, Value, json};

/// The files that are committed; `payout-link-worker schema NAME > docs/schema/NAME.json` writes one.
const FILES: [(Schema, &str); 4] = [
    (Schema::Job, include_str!("../docs/schema/job.json")),
    (Schema::Result, include_str!("../docs/schema/result.json")),
    (Schema::Webhook, include_str!("../docs/schema/webhook.json")),
    (Schema::AsyncApi, include_str!("../docs/schema/asyncapi.json")),
];

#[test]
fn the_files_are_what_the_code_makes() {
    assert_eq!(FILES.map(|(schema, _)| schema), Schema::ALL);
    for (schema, file) in FILES {
        let name = schema.as_str();
        let made = serde_json::to_string_pretty(&schema.document()).unwrap() + "\n";
        assert_eq!(file, made, "run: payout-link-worker schema {name} > docs/schema/{name}.json");
    }
}

#[test]
fn every_schema_is_a_schema() {
    for schema in [Schema::Job, Schema::Result, Schema::Webhook] {
        jsonschema::draft202012::meta::validate(&schema.document()).unwrap();
    }
    let asyncapi = Schema::AsyncApi.document();
    for (name, message) in asyncapi["components"]["messages"].as_object().unwrap() {
        let schema = &message["payload"]["schema"];
        assert!(jsonschema::draft202012::meta::is_valid(schema), "{name}");
    }
}

fn validator(schema: Schema) -> Validator {
    jsonschema::draft202012::new(&schema.document()).unwrap()
}

/// Returns a valid job with every field.
fn whole() -> Value {
    let address = json!({
        "first_name": "Ada", "last_name": {"value": "Example"}, "line1": "1 Example Street", "line2": "x", "line3": "x",
        "city": "Berlin", "state": "BE", "zip_code": "10115", "country_alpha2_code": "DE", "email": "ada@example.com",
        "phone_number": "1", "phone_country_code": "+49",
    });
    json!({
        "merchant_payout_id": "po_1",
        "address": {"billing_address": address, "shipping_address": address},
        "connector_feature_data": "{}",
        "payout_method_data": {"passthrough": {"psp_token": "t", "token_type": "CARD"}},
        "connector_quote_id": "q_1",
        "connector_payout_id": "c_1",
        "amount": {"minor_amount": 1250, "currency": "EUR"},
        "destination_currency": "EUR",
        "customer": {
            "name": "Ada", "first_name": "Ada", "last_name": "Example", "salutation": "Ms", "id": "cus_1",
            "connector_customer_id": "c", "phone_country_code": "+49", "email": "ada@example.com", "phone_number": "1",
            "customer_document_details": {"document_type": null, "document_number": "1"},
        },
        "priority": "INSTANT",
        "connector_payout_method_id": "m_1",
        "webhook_url": "https://merchant.example/hook",
        "browser_info": {
            "color_depth": 24, "screen_height": "1080", "screen_width": 1920, "java_enabled": false,
            "java_script_enabled": true, "time_zone_offset_minutes": -60, "language": "en", "accept_header": "*/*",
            "user_agent": "x", "accept_language": "en", "referer": "x", "ip_address": "127.0.0.1", "os_type": "x",
            "os_version": "1", "device_model": "x",
        },
        "access_token": {"value": "t"},
        "description": "A payout",
        "source_bank_data": null,
    })
}

/// Values for a field: of each kind of JSON, of each kind of field, and at the ends of ranges.
fn values() -> Vec<Value> {
    let long = |low: Value, high: Value| json!({"low": low, "high": high, "unsigned": false});
    let mut values = vec![
        json!(null),
        json!(""),
        json!("text"),
        json!("nul\u{0}"),
        json!("line\nend"),
        json!("c1\u{85}"),
        json!(true),
        json!([]),
        json!({}),
        json!({"value": "x"}),
        json!({"value": ""}),
        json!({"value": null}),
        json!({"value": 1}),
        json!({"other": "x"}),
        json!("é".repeat(127)),
        json!("x".repeat(255)),
        json!("x".repeat(256)),
        json!("EUR"),
        json!("eur"),
        json!("GB"),
        json!("INSTANT"),
        json!("CURRENCY_UNSPECIFIED"),
        json!("NEW_NAME"),
        json!("https://merchant.example/a@b?c=d#e"),
        json!("http://merchant.example/"),
        json!("https://u@merchant.example/"),
        json!("https://merchant.example/a b"),
        json!("HTTPS://merchant.example"),
        json!("https:merchant.example"),
        json!(0),
        json!(1),
        json!(-1),
        json!(7),
        json!(1.5),
        json!(100_000),
        json!("0"),
        json!("-0"),
        json!("007"),
        json!("12"),
        json!("-12"),
        json!("+5"),
        json!("5x"),
        json!(i32::MAX),
        json!(i64::from(i32::MAX) + 1),
        json!(i32::MIN),
        json!(i64::from(i32::MIN) - 1),
        json!(i32::MAX.to_string()),
        json!("2147483648"),
        json!("-2147483648"),
        json!("-2147483649"),
        json!(i64::MAX.to_string()),
        json!("9223372036854775808"),
        long(json!(5), json!(0)),
        long(json!(0), json!(0)),
        long(json!("0"), json!(1)),
        long(json!(1), json!(-1)),
        long(json!(null), json!(1)),
        json!({"low": 1}),
        json!({"card": {}}),
        json!({"passthrough": {}}),
        json!({"passthrough": {"psp_token": ""}}),
        json!({"passthrough": {"psp_token": {"value": "t"}}}),
    ];
    values.push(json!({"passthrough": {"psp_token": "t"}, "card": null}));
    values
}

/// Returns the paths of every field of the schema, in both spellings, with those of the payout methods.
fn paths(root: &Value, schema: &Value, path: &[String], found: &mut Vec<Vec<String>>) {
    if let Some(place) = schema["$ref"].as_str() {
        let defined = root.pointer(place.strip_prefix('#').unwrap()).unwrap();
        return paths(root, defined, path, found);
    }
    if let Some(properties) = schema["properties"].as_object() {
        for (name, schema) in properties {
            let path = [path, std::slice::from_ref(name)].concat();
            found.push(path.clone());
            paths(root, schema, &path, found);
        }
    }
    schema["anyOf"].as_array().into_iter().flatten().for_each(|schema| paths(root, schema, path, found));
}

/// Sets a value, with the objects around it if they are missing.
fn set(job: &mut Value, path: &[String], value: &Value) {
    let [name, rest @ ..] = path else { return };
    if !job.is_object() {
        *job = Value::Object(Map::new());
    }
    let object = job.as_object_mut().unwrap();
    match rest {
        [] => drop(object.insert(name.clone(), value.clone())),
        rest => set(object.entry(name.clone()).or_insert(Value::Null), rest, value),
    }
}

#[test]
fn schema_and_decoder_come_to_the_same_verdict() {
    let document = Schema::Job.document();
    let validator = validator(Schema::Job);
    let mut fields = Vec::new();
    paths(&document, &document, &[], &mut fields);
    assert!(fields.len() > 300, "{}", fields.len());
    let verdict = |job: &Value| {
        let decoded = create_link(job.to_string().as_bytes(), Some("message"), &DecodePolicy::default());
        (validator.is_valid(job), decoded.map(drop).map_err(|rejection| rejection.message))
    };
    assert_eq!(verdict(&whole()), (true, Ok(())));
    // Each field with each value, one at a time,
    for path in &fields {
        for value in values() {
            let mut job = whole();
            set(&mut job, path, &value);
            let (is_valid, decoded) = verdict(&job);
            assert_eq!(is_valid, decoded.is_ok(), "{path:?} = {value}: {decoded:?}");
        }
    }
    // and several at once, some taken away.
    let change = (any::<Index>(), prop_oneof![4 => select(values()).prop_map(Some), 1 => Just(None)]);
    let mut runner = TestRunner::new(Config { cases: 500, ..Config::default() });
    runner
        .run(&prop::collection::vec(change, 1..5), |changes| {
            let mut job = whole();
            for (field, value) in changes {
                let path = field.get(&fields);
                match value {
                    Some(value) => set(&mut job, path, &value),
                    None => drop(job.as_object_mut().unwrap().remove(&path[0])),
                }
            }
            let (is_valid, decoded) = verdict(&job);
            prop_assert_eq!(is_valid, decoded.is_ok(), "{}: {:?}", job, decoded);
            Ok(())
        })
        .unwrap();
}

#[test]
fn every_event_meets_the_schema_of_webhooks() {
    let validator = validator(Schema::Webhook);
    for event in EventType::ALL.into_iter().filter(|event| *event != EventType::Rejected) {
        let name = event.as_str();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_payout-link-worker"))
            .args(["trigger", name, "--output", "json"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let sent: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(sent["body"]["type"], name);
        assert!(validator.is_valid(&sent["body"]), "{sent}");
    }
}
