use std::sync::Arc;

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::*;
use crate::contract::{self, DecodePolicy};
use crate::{
    domain::PayoutStatus,
    http_client::{Answer, HttpSettings},
};

fn connector(more: &str) -> RazorpayX {
    let settings = format!(
        "key_id = \"rzp_live_1\"\nkey_secret = \"s\"\naccount_number = \"78\"\npurpose = \"refund\"\n{more}"
    );
    let http = HttpSettings {
        connect_timeout: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        max_response_bytes: 1,
        max_idle: 1,
        roots: None,
        clock: Arc::default(),
    };
    RazorpayX {
        http: Client::new(http).unwrap(),
        settings: toml::from_str(&settings).unwrap(),
        optional: OptionalFields::default(),
    }
}

fn job(change: impl FnOnce(&mut Value)) -> CreateLink {
    let mut job = json!({
        "merchant_payout_id": "po_1001",
        "address": {},
        "amount": { "minor_amount": 259_900, "currency": "INR" },
        "destination_currency": "INR",
        "customer": { "name": "Asha Example", "email": "asha@example.com" },
        "description": "Refund for order 1001",
    });
    change(&mut job);
    contract::create_link(job.to_string().as_bytes(), None, &DecodePolicy::default()).unwrap()
}

fn sent(connector: &RazorpayX, job: &CreateLink) -> Value {
    let body = connector.body(job, "key").map_err(|rejection| rejection.message).unwrap();
    serde_json::to_value(body).unwrap()
}

fn refused(connector: &RazorpayX, job: &CreateLink) -> Option<String> {
    connector.body(job, "key").err().map(|rejection| rejection.field.unwrap())
}

#[test]
fn a_job_is_sent_in_paise_under_the_records_key() {
    let expected = json!({
        "account_number": "78",
        "contact": { "name": "Asha Example", "email": "asha@example.com" },
        "amount": 259_900,
        "currency": "INR",
        "purpose": "refund",
        "description": "Refund for order 1001",
        "receipt": "key",
        "send_sms": false,
        "send_email": false,
        "notes": { "merchant_payout_id": "po_1001" },
    });
    assert_eq!(sent(&connector(""), &job(|_| ())), expected);
}

#[test]
fn a_jobs_own_words_go_before_the_configured_ones() {
    let configured = connector(
        "description = \"Yours\"\n[defaults]\npurpose = \"salary\"\nlifetime_seconds = 960\nnotes = { a = \"b\" }",
    );
    let plain = sent(&configured, &job(|job| job["description"] = Value::Null));
    assert_eq!((&plain["purpose"], &plain["description"]), (&json!("salary"), &json!("Yours")));
    assert_eq!(plain["notes"], json!({ "a": "b", "merchant_payout_id": "po_1001" }));
    let left = plain["expire_by"].as_i64().unwrap() - OffsetDateTime::now_utc().unix_timestamp();
    assert!((950..=960).contains(&left), "{left}");
    let own = json!({ "purpose": "cashback", "account_number": "79", "send_sms": true }).to_string();
    let own = sent(&configured, &job(|job| job["connector_feature_data"] = own.into()));
    assert_eq!(
        (&own["purpose"], &own["account_number"], &own["send_sms"]),
        (&json!("cashback"), &json!("79"), &json!(true))
    );
}

#[test]
fn a_contact_is_known_or_described() {
    let contact =
        |customer: Value| sent(&connector(""), &job(|job| job["customer"] = customer))["contact"].clone();
    assert_eq!(contact(json!({ "connector_customer_id": "cont_1", "name": "x" })), json!({ "id": "cont_1" }));
    let parts = json!({ "first_name": "Asha", "last_name": "Example", "phone_number": "90000 12345", "phone_country_code": "+91" });
    assert_eq!(contact(parts), json!({ "name": "Asha Example", "contact": "+919000012345" }));
    assert_eq!(
        contact(json!({ "name": "J. R. Jr.", "phone_number": "9000012345" }))["contact"],
        "9000012345"
    );
    assert_eq!(
        contact(json!({ "name": "José Ñandú", "phone_number": "+91 90000-12345" }))["contact"],
        "+919000012345"
    );

    for (customer, field) in [
        (json!({ "connector_customer_id": "cus_1" }), "customer.connector_customer_id"),
        (json!({ "email": "a@example.com" }), "customer.name"),
        (json!({ "name": "Al", "email": "a@example.com" }), "customer.name"),
        (json!({ "name": "x".repeat(51), "email": "a@example.com" }), "customer.name"),
        (json!({ "name": "Ada <b>", "email": "a@example.com" }), "customer.name"),
        (json!({ "name": "Ada (", "email": "a@example.com" }), "customer.name"),
        (json!({ "name": "Asha Example" }), "customer.email"),
        (json!({ "name": "Asha Example", "phone_number": "-" }), "customer.email"),
    ] {
        assert_eq!(refused(&connector(""), &job(|job| job["customer"] = customer)).as_deref(), Some(field));
    }
}

#[test]
fn what_razorpayx_does_not_take_is_refused_before_a_call() {
    for (pointer, value, field) in [
        ("/amount/minor_amount", json!(99), "amount.minor_amount"),
        ("/amount/currency", json!("USD"), "amount.currency"),
        ("/destination_currency", json!("USD"), "destination_currency"),
        ("/description", Value::Null, "description"),
    ] {
        let job = job(|job| *job.pointer_mut(pointer).unwrap() = value);
        assert_eq!(refused(&connector(""), &job).as_deref(), Some(field));
    }
    let token = job(|job| job["access_token"] = "no-pair".into());
    assert_eq!(refused(&connector(""), &token).as_deref(), Some("access_token"));
    for (data, key) in [
        (json!({ "lifetime_seconds": 959 }), "lifetime_seconds"),
        (json!({ "purpose": "" }), "purpose"),
        (json!({ "notes": { "a": "x".repeat(257) } }), "notes"),
        (json!({ "notes": { "merchant_payout_id": "x" } }), "notes"),
        (json!({ "receipt": "x" }), "receipt"),
    ] {
        let job = job(|job| job["connector_feature_data"] = data.to_string().into());
        assert_eq!(refused(&connector(""), &job), Some(format!("connector_feature_data.{key}")));
    }
}

#[test]
fn of_several_links_with_our_receipt_the_oldest_is_ours() {
    let link = |id: &str, receipt: &str, created_at: i64| {
        serde_json::from_value::<Link>(json!({
            "id": id, "status": "issued", "amount": 1, "currency": "INR", "receipt": receipt, "created_at": created_at,
        }))
        .unwrap()
    };
    let several = vec![link("c", "key", 3), link("a", "key", 1), link("b", "key", 2), link("d", "key2", 0)];
    assert_eq!(oldest(several, "key").unwrap().id, "a");
    assert!(oldest(vec![link("d", "KEY", 0)], "key").is_none());
}

#[test]
fn a_cancelled_link_that_expired_is_expired() {
    let (connector, job, trace) = (connector(""), job(|_| ()), crate::domain::TraceContext::default());
    let call = Call {
        job: &job,
        idempotency_key: "key",
        connector_payout_id: None,
        first_called_at: None,
        now: OffsetDateTime::UNIX_EPOCH,
        trace: &trace,
    };
    let answer =
        Answer { status: StatusCode::OK, headers: HeaderMap::new(), body: bytes::Bytes::new(), cut: false };
    for (status, expired_at, expected) in [
        // As in Razorpay's own sample of payout_link.expired.
        ("cancelled", json!(1_794_214_800), PayoutStatus::Expired),
        ("cancelled", Value::Null, PayoutStatus::Cancelled),
        ("expired", json!(1_794_214_800), PayoutStatus::Expired),
    ] {
        let link = json!({
            "id": "poutlk_1", "status": status, "amount": 259_900, "currency": "INR", "receipt": "key",
            "created_at": 1, "cancelled_at": null, "expired_at": expired_at,
        });
        let found = connector.read(serde_json::from_value(link).unwrap(), call, &answer);
        let Some(Finding::Ended { payout_status, .. }) = found else { panic!("{found:?}") };
        assert_eq!(payout_status, expected, "{status} {expired_at}");
    }
}
