//! Properties: no input makes the decoder panic, and an accepted job is the same after encoding and decoding.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    POLICY, camel, decode,
    everywhere::{fields, jobs, replaced},
    same, whole, with,
};
use crate::contract::{canonical_request, claimed_identifier, create_link, stored_request};

/// Generates any JSON, shallow, with field names that mean something.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
        Just(json!("EUR")),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        let name = prop_oneof![
            Just("amount"),
            Just("address"),
            Just("value"),
            Just("minor_amount"),
            Just("currency"),
            Just("customer"),
            Just("email"),
            Just("card"),
            Just("payoutMethodData"),
            Just("x"),
        ];
        prop::collection::vec((name, inner), 0..5).prop_map(|fields| {
            Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
        })
    })
}

proptest! {
    #[test]
    fn random_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = create_link(&body, Some("m"), &POLICY);
        let _ = claimed_identifier(&body, Some("m"));
    }

    #[test]
    fn mutated_jobs_never_panic(place in 0..2000_usize, byte in any::<u8>(), cut in 0..2500_usize) {
        let mut body = whole().to_string().into_bytes();
        let place = place % body.len();
        body[place] = byte;
        body.truncate(cut.max(1));
        let _ = create_link(&body, Some("m"), &POLICY);
    }

    #[test]
    fn random_fields_are_taken_or_refused_with_a_path(name in "[a-z_]{1,30}", value in any_json()) {
        if let Err(rejection) = decode(&with(&name, value)) {
            prop_assert!(rejection.field.is_some());
        }
    }

    #[test]
    fn whatever_decodes_decodes_the_same_after_encoding(
        id in "[^\\p{C}]{1,60}", minor_amount in 1..i64::MAX, currency in 1..=160_i64, name in "[^\\x00]{0,40}",
        email in "[^\\x00]{1,40}", country in 0..=249_i64, camels in any::<bool>(), method in any::<bool>(),
    ) {
        let mut job = with("merchant_payout_id", json!(id));
        job["amount"] = json!({ "minor_amount": minor_amount.to_string(), "currency": currency });
        job["customer"] = json!({ "name": name, "email": { "value": email } });
        job["address"] = json!({ "billing_address": { "country_alpha2_code": country, "city": name } });
        if method {
            job["payout_method_data"] = json!({ "sepa": { "iban": email, "bank_city": name } });
        }
        let decoded = decode(&if camels { camel(&job) } else { job }).unwrap();
        prop_assert!(same(&stored_request(canonical_request(&decoded).as_bytes()).unwrap(), &decoded));
        prop_assert_eq!(decoded.amount.minor_units(), minor_amount);
    }

    #[test]
    fn what_is_left_of_a_whole_job_survives_a_round(
        which in any::<prop::sample::Index>(), dropped in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        texts in prop::collection::vec((any::<prop::sample::Index>(), ".{0,40}"), 0..6),
    ) {
        let jobs = jobs();
        let whole = which.get(&jobs);
        let paths: Vec<String> = fields(whole).into_iter().map(|(path, _)| path).collect();
        let dropped = dropped.iter().map(|place| (place.get(&paths), Value::Null));
        let texts = texts.iter().map(|(place, text)| (place.get(&paths), json!(text)));
        let mut job = whole.clone();
        for (path, value) in texts.chain(dropped) {
            if job.pointer(&format!("/{}", path.replace('.', "/"))).is_some() {
                job = replaced(&job, path, value);
            }
        }
        if let Ok(decoded) = decode(&job) {
            prop_assert!(same(&stored_request(canonical_request(&decoded).as_bytes()).unwrap(), &decoded));
            prop_assert!(same(&decode(&camel(&job)).unwrap(), &decoded));
        }
    }
}
