//! Tests jobs that a connector accepts, and jobs that it rejects before a call.

use payout_link_worker::domain::{Currency, Money, RejectionCode};
use serde_json::{Value, json};

use crate::description::{Description, Tested, decoded, put, rejected};

/// Checks all 160 currencies: an accepted amount arrives with the same digits, and any other is rejected.
pub async fn every_amount_keeps_its_digits(description: &Description) {
    let tested = Tested::start(description).await;
    let names: Value = serde_json::from_str(include_str!("../../src/domain/prism-enums.json")).unwrap();
    let currencies = names["Currency"].as_object().unwrap().keys().filter_map(|name| Currency::new(name));
    let mut seen = 0;
    for currency in currencies {
        for minor in [1_i64, 99, 100, 123_456, 123_450_000] {
            let mut job = description.json(&format!("{}_{minor}", currency.as_str()));
            job["amount"] = json!({ "minor_amount": minor, "currency": currency.as_str() });
            job["destination_currency"] = currency.as_str().into();
            let (taken, expected) =
                (rejected(&tested, &job), (description.account.amount)(Money::new(minor, currency).unwrap()));
            match (taken, expected) {
                (Some(rejection), None) => {
                    assert_eq!(rejection.code, RejectionCode::UnsupportedByConnector);
                    assert!(rejection.field.unwrap().starts_with("amount."));
                }
                (None, Some(expected)) => {
                    seen += 1;
                    tested.created(&decoded(&job)).await;
                    let ledger = tested.simulator.ledger();
                    let link = ledger.links.last().unwrap();
                    assert_eq!(
                        (link.amount.as_str(), link.currency.as_str()),
                        (&*expected, currency.as_str())
                    );
                }
                (taken, expected) => panic!("{} {minor}: {taken:?}, {expected:?}", currency.as_str()),
            }
        }
    }
    assert!(seen > 0);
}

pub async fn missing_fields_and_settings_are_named(description: &Description) {
    let tested = Tested::start(description).await;
    assert_eq!(rejected(&tested, &description.json("po_1")), None);
    for (pointer, field) in description.required {
        for absent in [None, Some(json!("")), Some(json!("  "))] {
            let mut job = description.json("po_1");
            put(&mut job, pointer, absent);
            let rejection = rejected(&tested, &job).unwrap_or_else(|| panic!("{pointer}"));
            assert_eq!(
                (rejection.code, rejection.field.as_deref()),
                (RejectionCode::InvalidJob, Some(*field))
            );
        }
    }
}

pub async fn an_unsupported_job_is_rejected(description: &Description) {
    let tested = Tested::start(description).await;
    let currency = description.job("po_1").amount.currency.as_str();
    let other = if currency == "USD" { "\"EUR\"" } else { "\"USD\"" };
    let everybody = [("/destination_currency", other, "UNSUPPORTED_BY_CONNECTOR", "destination_currency")];
    for (pointer, value, code, field) in everybody.iter().chain(description.refused) {
        let mut job = description.json("po_1");
        put(&mut job, pointer, Some(serde_json::from_str(value).unwrap()));
        let rejection = rejected(&tested, &job).unwrap_or_else(|| panic!("{pointer} {value}"));
        assert_eq!((rejection.code.as_str(), rejection.field.as_deref()), (*code, Some(*field)), "{value}");
    }
    assert!(tested.simulator.ledger().calls.is_empty());
}

pub async fn feature_data_has_known_keys_alone(description: &Description) {
    let tested = Tested::start(description).await;
    let refused = |text: &str| {
        let mut job = description.json("po_1");
        job["connector_feature_data"] = text.into();
        (rejected(&tested, &job), job)
    };
    for (text, field) in [
        (r#"{"canary_key": 1}"#, "connector_feature_data.canary_key"),
        ("[]", "connector_feature_data"),
        ("canary", "connector_feature_data"),
        ("{\"canary\": ", "connector_feature_data"),
    ] {
        let rejection = refused(text).0.unwrap_or_else(|| panic!("{text}"));
        assert_eq!((rejection.code, rejection.field.as_deref()), (RejectionCode::InvalidJob, Some(field)));
        assert!(!rejection.message.contains("canary"), "{rejection:?}");
    }
    for (number, (text, wrong)) in description.feature_data.iter().enumerate() {
        let (rejection, mut job) = refused(text);
        match (rejection, wrong) {
            (Some(rejection), Some(key)) => {
                assert_eq!(rejection.field, Some(format!("connector_feature_data.{key}")), "{text}");
                assert!(!rejection.message.contains("canary"), "{rejection:?}");
            }
            // The provider accepts the jobs that the connector accepts.
            (None, None) => {
                job["merchant_payout_id"] = format!("po_{number}").into();
                tested.created(&decoded(&job)).await;
            }
            (rejection, _) => panic!("{text}: {rejection:?}"),
        }
    }
}
