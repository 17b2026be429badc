//! Checks the connectors' requests against the providers' own OpenAPI documents: Revolut's (`json/business.json` in
//! revolut-engineering/revolut-openapi) and Hyperswitch's (`api-reference/v1/openapi_spec_v1.json` in
//! juspay/hyperswitch).
//!
//! The documents are not in this repository. `REVOLUT_OPENAPI` and `HYPERSWITCH_OPENAPI` are their paths. A test
//! without its document prints a note and passes.

use jsonschema::{Draft, Validator};
use serde_json::{Value, json};

use crate::description::{Description, Tested, decoded};

struct Documented {
    variable: &'static str,
    path: &'static str,
    /// Fields that are sent although the document does not have them.
    beside: &'static [&'static str],
}

/// Checks every request against the document. A simulator shares its authors' reading, and the document is the
/// provider's own.
async fn every_request_is_as_documented(description: &Description, documented: &Documented) {
    let Documented { variable, path, beside } = documented;
    let Ok(file) = std::env::var(variable) else {
        println!(
            "{variable} is not set: requests are not checked against {}'s document",
            description.account.kind
        );
        return;
    };
    let document: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let operation = &document["paths"][path]["post"]["requestBody"]["content"]["application/json"];
    let (schema, known) = schema(&document, &operation["schema"]);
    // Given a plain job, and one job for every accepted set of feature data,
    let tested = Tested::start(description).await;
    let mut jobs = vec![description.json("po_plain")];
    for (number, (text, _)) in
        description.feature_data.iter().filter(|(_, wrong)| wrong.is_none()).enumerate()
    {
        let mut job = description.json(&format!("po_{number}"));
        job["connector_feature_data"] = (*text).into();
        jobs.push(job);
    }
    for job in &jobs {
        tested.created(&decoded(job)).await;
    }
    // then each request matches the document, and has no unknown field.
    let ledger = tested.simulator.ledger();
    assert_eq!(ledger.creates().count(), jobs.len());
    for create in ledger.creates() {
        let sent: Value = serde_json::from_slice(&create.body).unwrap();
        let errors: Vec<String> = schema.iter_errors(&sent).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?}: {sent}");
        let names = sent.as_object().unwrap().keys();
        let unknown: Vec<_> =
            names.filter(|name| !known.contains(name) && !beside.contains(&name.as_str())).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}

/// Builds the validator of a schema of OpenAPI 3.0 (JSON Schema draft 4, except for `nullable`), and lists the fields
/// of its object.
fn schema(document: &Value, schema: &Value) -> (Validator, Vec<String>) {
    let mut components = document["components"].clone();
    nullable(&mut components);
    let name = schema["$ref"].as_str().unwrap();
    let fields = document.pointer(name.trim_start_matches('#')).unwrap()["properties"].as_object().unwrap();
    let root = json!({ "$ref": name, "components": components });
    let validator = jsonschema::options().with_draft(Draft::Draft4).build(&root).unwrap();
    (validator, fields.keys().cloned().collect())
}

/// Translates `nullable` to JSON Schema.
fn nullable(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.values_mut().for_each(nullable);
            // Revolut's document gives the longest period as text (`"maximum": "P7D"`), which JSON Schema cannot
            // check.
            object
                .retain(|name, value| !(value.is_string() && matches!(name.as_str(), "minimum" | "maximum")));
            if object.get("nullable") == Some(&Value::Bool(true)) {
                let alone = std::mem::take(object);
                object.clone_from(json!({ "anyOf": [alone, { "type": "null" }] }).as_object().unwrap());
            }
        }
        Value::Array(items) => items.iter_mut().for_each(nullable),
        _ => {}
    }
}

#[tokio::test]
async fn revolut_gets_what_it_documents() {
    let documented = Documented { variable: "REVOLUT_OPENAPI", path: "/payout-links", beside: &[] };
    every_request_is_as_documented(&crate::revolut::REVOLUT, &documented).await;
}

#[tokio::test]
async fn hyperswitch_gets_what_it_documents() {
    // The source accepts this field, and only it identifies a repeat, but the schema does not have it.
    let beside = &["payout_id"];
    let documented = Documented { variable: "HYPERSWITCH_OPENAPI", path: "/payouts/create", beside };
    every_request_is_as_documented(&crate::hyperswitch::HYPERSWITCH, &documented).await;
}
