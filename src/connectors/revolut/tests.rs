use serde_json::{Value, json};

use super::*;
use crate::connectors::Settings;
use crate::contract::{self, DecodePolicy};

const GBP: &str = "5d6e7f80-1111-4222-8333-944455566601";
const JPY: &str = "5d6e7f80-1111-4222-8333-944455566604";
const OTHER: &str = "5d6e7f80-1111-4222-8333-944455566609";

fn settings(more: &str) -> RevolutSettings {
    toml::from_str(&format!(
        "client_id = \"c\"\nissuer = \"i\"\nprivate_key = \"k\"\nrefresh_token = \"r\"
         accounts = {{ GBP = \"{GBP}\", JPY = \"{JPY}\" }}\n{more}"
    ))
    .unwrap()
}

fn job(change: impl FnOnce(&mut Value)) -> CreateLink {
    let mut job = json!({
        "merchant_payout_id": "po_1001",
        "address": {},
        "amount": { "minor_amount": 2599, "currency": "GBP" },
        "destination_currency": "GBP",
        "customer": { "name": "Ada Example" },
    });
    change(&mut job);
    contract::create_link(job.to_string().as_bytes(), None, &DecodePolicy::default()).unwrap()
}

fn sent(settings: &RevolutSettings, job: &CreateLink) -> String {
    let body = settings.body(job, "key").map_err(|rejection| rejection.message).unwrap();
    serde_json::to_string(&body).unwrap()
}

fn refused(job: &CreateLink) -> Option<String> {
    settings("").body(job, "key").err().map(|rejection| rejection.field.unwrap())
}

#[test]
fn a_job_is_sent_with_the_digits_of_its_amount() {
    let expected = format!(
        r#"{{"request_id":"key","account_id":"{GBP}","counterparty_name":"Ada Example","amount":25.99,"currency":"GBP","reference":"po_1001"}}"#
    );
    assert_eq!(sent(&settings(""), &job(|_| ())), expected);
    for (minor, currency, digits) in [
        (100_i64, "GBP", "1.00"),
        (250_000, "GBP", "2500.00"),
        (110, "GBP", "1.10"),
        (1250, "JPY", "1250"),
        (9_007_199_254_740_993, "JPY", "9007199254740993"),
    ] {
        let job = job(|job| {
            job["amount"] = json!({ "minor_amount": minor, "currency": currency });
            job["destination_currency"] = currency.into();
        });
        let sent = sent(&settings(""), &job);
        assert!(sent.contains(&format!(r#""amount":{digits},"currency":"{currency}""#)), "{sent}");
    }
}

#[test]
fn what_a_job_says_goes_before_what_is_configured() {
    let configured = settings(&format!(
        "[defaults]\naccount_id = \"{OTHER}\"\nreference = \"Refund\"\nexpiry_period = \"P2D\""
    ));
    let value = |settings: &RevolutSettings, job: &CreateLink| -> Value {
        serde_json::from_str(&sent(settings, job)).unwrap()
    };
    let plain = value(&configured, &job(|_| ()));
    assert_eq!(
        (&plain["account_id"], &plain["reference"], &plain["expiry_period"]),
        (&json!(GBP), &json!("Refund"), &json!("P2D"))
    );
    let described = value(&configured, &job(|job| job["description"] = "FaultRule 7".into()));
    assert_eq!(described["reference"], "FaultRule 7");
    let data = json!({ "account_id": OTHER, "reference": "r", "payout_methods": ["revolut", "card"], "expiry_period": "P7D",
        "save_counterparty": true, "transfer_reason_code": "refund" });
    let own = value(&configured, &job(|job| job["connector_feature_data"] = data.to_string().into()));
    for (name, expected) in data.as_object().unwrap() {
        assert_eq!(&own[name], expected);
    }
    // A currency without an account of its own is paid from the default one.
    let euro = job(|job| {
        job["amount"]["currency"] = "EUR".into();
        job["destination_currency"] = "EUR".into();
    });
    assert_eq!(value(&configured, &euro)["account_id"], OTHER);
    // An id that is too long to be read gives way to the key.
    let long = job(|job| job["merchant_payout_id"] = "x".repeat(101).into());
    assert_eq!(value(&settings(""), &long)["reference"], "key");
    let billed = job(|job| {
        job["customer"] = Value::Null;
        job["address"] = json!({ "billing_address": { "first_name": "Ada", "last_name": "B" } });
    });
    assert_eq!(value(&settings(""), &billed)["counterparty_name"], "Ada B");
}

#[test]
fn what_revolut_does_not_take_is_refused_before_a_call() {
    for (pointer, value, field) in [
        ("/amount/minor_amount", json!(99), "amount.minor_amount"),
        ("/amount/minor_amount", json!(250_001), "amount.minor_amount"),
        ("/destination_currency", json!("EUR"), "destination_currency"),
        ("/customer/name", json!(" "), "customer.name"),
        ("/customer", Value::Null, "customer.name"),
    ] {
        assert_eq!(refused(&job(|job| *job.pointer_mut(pointer).unwrap() = value)).as_deref(), Some(field));
    }
    let euro = job(|job| {
        job["amount"]["currency"] = "EUR".into();
        job["destination_currency"] = "EUR".into();
    });
    assert_eq!(refused(&euro).as_deref(), Some("amount.currency"));
    assert_eq!(
        refused(&job(|job| job["description"] = "x".repeat(101).into())).as_deref(),
        Some("description")
    );
    for (data, key) in [
        (json!({ "expiry_period": "P8D" }), "expiry_period"),
        (json!({ "expiry_period": "P0D" }), "expiry_period"),
        (json!({ "expiry_period": "PT24H" }), "expiry_period"),
        (json!({ "reference": "" }), "reference"),
        (json!({ "reference": "x".repeat(101) }), "reference"),
        (json!({ "payout_methods": [] }), "payout_methods"),
        (json!({ "payout_methods": ["cash"] }), "payout_methods"),
        (json!({ "account_id": "main" }), "account_id"),
        (json!({ "request_id": "x" }), "request_id"),
    ] {
        let job = job(|job| job["connector_feature_data"] = data.to_string().into());
        assert_eq!(refused(&job), Some(format!("connector_feature_data.{key}")));
    }
}

#[test]
fn settings_that_cannot_work_are_reported() {
    let wrong =
        RevolutSettings { issuer: "https://merchant.example".into(), ..settings("settle_seconds = 5") };
    let problems = wrong.problems(Duration::from_secs(30), Duration::from_secs(30)).join("\n");
    for setting in ["private_key", "issuer", "settle_seconds"] {
        assert!(problems.contains(setting), "{problems}");
    }
    assert!(!format!("{wrong:?}").contains("\"r\""), "the refresh token");
}

#[test]
fn the_list_is_read_back_to_before_the_first_call_by_revoluts_own_clock() {
    let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
    // A database an hour ahead of Revolut, and a first call two minutes ago.
    let (job, trace) = (job(|_| ()), crate::domain::TraceContext::default());
    let call = Call {
        job: &job,
        idempotency_key: "key",
        connector_payout_id: None,
        first_called_at: Some(at(1_000_000 + 3600)),
        now: at(1_000_120 + 3600),
        trace: &trace,
    };
    let mut answer = Answer {
        status: StatusCode::OK,
        headers: [(reqwest::header::DATE, "Mon, 12 Jan 1970 13:48:40 GMT".parse().unwrap())]
            .into_iter()
            .collect(),
        body: bytes::Bytes::new(),
        cut: false,
    };
    assert_eq!(before_first_call(call, &answer), Some(at(1_000_000 - 600)));
    // Nothing is left out where Revolut does not say what time it is.
    answer.headers.clear();
    assert_eq!(before_first_call(call, &answer), None);
}

#[test]
fn links_of_one_time_are_all_read_whatever_page_they_are_on() {
    let at = |seconds: i64| OffsetDateTime::from_unix_timestamp(1_800_000_000 + seconds).unwrap();
    // The newest first; four to a page.
    let links = [9, 8, 7, 7, 7, 6, 5, 5, 4].map(at);
    let (mut seen, mut before) = (std::collections::BTreeSet::new(), None);
    loop {
        let page =
            links.iter().enumerate().filter(|(_, link)| before.is_none_or(|before| **link < before)).take(4);
        let page: Vec<(usize, OffsetDateTime)> = page.map(|(place, link)| (place, *link)).collect();
        seen.extend(page.iter().map(|(place, _)| *place));
        if page.len() < 4 {
            break;
        }
        before = Some(page_before(page.last().unwrap().1, before).unwrap());
    }
    assert_eq!(seen.len(), links.len());
    // A page of one time leads no further back.
    assert_eq!(page_before(at(7), page_before(at(7), None)), None);
}
