//! Every field at every depth, under every payout method: what holds for one has to hold for all of them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{POLICY, camel, decode, same, whole};
use crate::contract::{canonical_request, create_link, differences, stored_request};

/// Returns every payout method with every field it has.
fn methods() -> Vec<Value> {
    let mut methods = banks();
    methods.extend([
        json!({ "card": {
            "card_number": "canary-a", "card_exp_month": "canary-b", "card_exp_year": "canary-c",
            "card_holder_name": { "value": "canary-d" }, "card_network": 2 } }),
        json!({ "apple_pay_decrypt": {
            "dpan": { "value": "canary-a" }, "expiry_month": "canary-b", "expiry_year": "canary-c",
            "card_holder_name": "canary-d", "card_network": "NEW_NETWORK" } }),
        json!({ "paypal": { "email": "canary-a", "telephone_number": "canary-b", "paypal_id": "canary-c" } }),
        json!({ "venmo": { "telephone_number": "canary-a" } }),
        json!({ "interac": { "email": "canary-a" } }),
        json!({ "open_banking_uk": { "account_holder_name": "canary-a", "iban": "canary-b" } }),
        json!({ "passthrough": { "psp_token": "canary-a", "token_type": "NETWORK_TOKEN" } }),
    ]);
    methods
}

/// Returns those of them that money can come from.
fn banks() -> Vec<Value> {
    let bank = |more: Value| {
        let mut bank = json!({ "bank_name": "Bunq", "bank_country_code": "NL", "bank_city": "Utrecht" });
        bank.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        bank
    };
    vec![
        json!({ "ach": bank(json!({ "bank_account_number": "canary-a", "bank_routing_number": "canary-b" })) }),
        json!({ "bacs": bank(json!({ "bank_account_number": "canary-a", "bank_sort_code": "canary-b" })) }),
        json!({ "sepa": bank(json!({ "iban": "canary-a", "bic": "canary-b" })) }),
        json!({ "pix": {
            "bank_name": 25, "bank_branch": "canary-a", "bank_account_number": "canary-b", "pix_key": "canary-c",
            "tax_id": "canary-d", "ispb": "canary-e" } }),
        json!({ "pix_key": { "pix_key": "canary-a" } }),
        json!({ "pix_emv": { "emv": "canary-a" } }),
    ]
}

/// Returns the whole job under each of them.
pub(super) fn jobs() -> Vec<Value> {
    let under = |field: &'static str| {
        move |method: Value| {
            let mut job = whole();
            job[field] = method;
            job
        }
    };
    let methods = methods().into_iter().map(under("payout_method_data"));
    methods.chain(banks().into_iter().map(under("source_bank_data"))).collect()
}

/// Returns the path of every field, those inside of others too, and the value there.
pub(super) fn fields(job: &Value) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    for (name, value) in job.as_object().into_iter().flatten() {
        found.push((name.clone(), value));
        found.extend(fields(value).into_iter().map(|(path, value)| (format!("{name}.{path}"), value)));
    }
    found
}

/// Returns the paths of all fields, a secret's two forms being one.
fn names(job: &Value) -> BTreeSet<String> {
    fields(job).into_iter().map(|(path, _)| path.trim_end_matches(".value").to_owned()).collect()
}

pub(super) fn replaced(job: &Value, path: &str, value: Value) -> Value {
    let mut job = job.clone();
    *job.pointer_mut(&format!("/{}", path.replace('.', "/"))).unwrap() = value;
    job
}

/// Returns `job` as JSON in which the field at `path` stands twice, under `second`'s name the second time.
fn twice(job: &Value, path: &str, second: &str) -> String {
    let marked = replaced(job, path, json!("HERE")).to_string();
    let value = job.pointer(&format!("/{}", path.replace('.', "/"))).unwrap();
    marked.replacen("\"HERE\"", &format!("{value},\"{second}\":{value}"), 1)
}

#[test]
fn every_job_survives_a_round_and_keeps_its_secrets() {
    for job in jobs() {
        let decoded = decode(&job).unwrap();
        let again = stored_request(canonical_request(&decoded).as_bytes()).unwrap();
        assert!(same(&decoded, &again), "{job}");
        assert!(same(&decoded, &decode(&camel(&job)).unwrap()), "{job}");
        assert_eq!(differences(&decoded, &again), Vec::<String>::new());
        let encoded = String::from_utf8(canonical_request(&decoded).as_bytes().to_vec()).unwrap();
        assert_eq!(names(&serde_json::from_str(&encoded).unwrap()), names(&job), "nothing is passed over");
        let canaries = |text: &str| text.matches("canary").count();
        assert_eq!(canaries(&format!("{decoded:?}{decoded:#?}")), 0, "{job}");
        assert_eq!(
            canaries(&crate::domain::Redactor::new(decoded.secrets()).redact(&encoded.replace("\\\"", "\""))),
            0,
            "{job}"
        );
    }
}

#[test]
fn a_wrong_value_is_refused_where_it_stands_and_not_repeated() {
    for job in jobs() {
        for (path, _) in fields(&job) {
            let rejection = decode(&replaced(&job, &path, json!(["canary"]))).expect_err(&path);
            assert_eq!(rejection.field.as_deref(), Some(&*path), "{job}");
            assert!(!format!("{rejection:?}").contains("canary"), "{rejection:?}");
        }
    }
}

#[test]
fn an_unknown_field_is_refused_in_every_object_even_when_it_is_null() {
    for job in jobs() {
        let objects = fields(&job).into_iter().filter(|(_, value)| value.is_object());
        for (path, object) in objects {
            for value in [json!("canary"), Value::Null] {
                let mut object = object.clone();
                object["surprise"] = value;
                let rejection = decode(&replaced(&job, &path, object)).expect_err(&path);
                assert_eq!(rejection.field, Some(format!("{path}.surprise")));
                assert!(!format!("{rejection:?}").contains("canary"), "{rejection:?}");
            }
        }
    }
}

#[test]
fn every_field_is_refused_when_it_is_given_twice() {
    for job in jobs() {
        for (path, _) in fields(&job) {
            let name = path.rsplit('.').next().unwrap();
            let in_camels = camel(&json!({ name: null })).as_object().unwrap().keys().next().unwrap().clone();
            for second in [name, &in_camels] {
                let rejection =
                    create_link(twice(&job, &path, second).as_bytes(), None, &POLICY).expect_err(&path);
                assert_eq!(rejection.field.as_deref(), Some(&*path), "{second}");
                assert!(rejection.message.contains("twice"), "{rejection:?}");
            }
        }
    }
}

#[test]
fn null_is_the_same_as_nothing_in_every_field() {
    for job in jobs() {
        for (path, _) in fields(&job) {
            let mut without = job.clone();
            let (parent, name) = path.rsplit_once('.').unwrap_or(("", &path));
            let pointer =
                if parent.is_empty() { String::new() } else { format!("/{}", parent.replace('.', "/")) };
            without.pointer_mut(&pointer).unwrap().as_object_mut().unwrap().remove(name);
            match (decode(&replaced(&job, &path, Value::Null)), decode(&without)) {
                (Ok(null), Ok(nothing)) => assert!(same(&null, &nothing), "{path}"),
                (Err(null), Err(nothing)) => assert_eq!(null, nothing, "{path}"),
                (null, nothing) => panic!("{path}: {null:?}, {nothing:?}"),
            }
        }
    }
}

#[test]
fn an_empty_string_says_nothing() {
    for job in jobs() {
        let set = |path: &str, value: Value| decode(&replaced(&job, path, value));
        let texts = fields(&job).into_iter().filter(|(path, _)| set(path, json!("any text")).is_ok());
        for (path, _) in texts.filter(|(path, _)| path != "merchant_payout_id") {
            match (set(&path, json!("")), set(&path, Value::Null)) {
                (Ok(empty), Ok(nothing)) => assert!(same(&empty, &nothing), "{path}"),
                (Err(empty), Err(nothing)) => assert_eq!(empty, nothing, "{path}"),
                (empty, nothing) => panic!("{path}: {empty:?}, {nothing:?}"),
            }
        }
    }
}

#[test]
fn a_stored_request_may_be_larger_than_a_message() {
    let mut job = camel(&whole());
    let filled = |job: &Value| job.to_string().len();
    let room = super::super::json::MAX_BYTES - filled(&job);
    job["customer"]["name"] = json!("x".repeat(room + "Ada".len()));
    assert_eq!(filled(&job), super::super::json::MAX_BYTES);
    let encoded = canonical_request(&decode(&job).unwrap());
    assert!(encoded.as_bytes().len() > super::super::json::MAX_BYTES);
    assert!(same(&stored_request(encoded.as_bytes()).unwrap(), &decode(&job).unwrap()));
}
