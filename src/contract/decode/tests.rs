//! Good jobs, bad jobs, and everything in between.

mod bad;
mod everywhere;
mod properties;
mod sdks;

use aws_lc_rs::digest;
use serde_json::{Value, json};

use super::*;
use crate::contract::{FingerprintKey, canonical_request, differences, fingerprint};

const POLICY: DecodePolicy =
    DecodePolicy { allow_http_webhooks: false, unknown_fields: UnknownFields::Reject };

fn decode(job: &Value) -> Result<CreateLink, Rejection> {
    create_link(job.to_string().as_bytes(), None, &POLICY)
}

/// Returns a small good job with one field set to something else.
fn with(field: &str, value: Value) -> Value {
    let mut job = json!({
        "merchant_payout_id": "po_1",
        "address": {},
        "amount": { "minor_amount": 1250, "currency": "EUR" },
        "destination_currency": "EUR",
    });
    job[field] = value;
    job
}

/// Returns a job with every field; every secret is a canary.
fn whole() -> Value {
    let address = json!({
        "first_name": "canary-01", "last_name": { "value": "canary-02" }, "line1": "canary-03", "line2": "canary-04",
        "line3": "canary-05", "city": "canary-06", "state": "canary-07", "zip_code": "canary-08",
        "country_alpha2_code": "GB", "email": "canary-09", "phone_number": "canary-10", "phone_country_code": "+44",
    });
    json!({
        "merchant_payout_id": "po_1",
        "address": { "shipping_address": address, "billing_address": address },
        "connector_feature_data": { "value": "{\"canary\":1}" },
        "payout_method_data": { "card": {
            "card_number": "canary-11", "card_exp_month": "canary-12", "card_exp_year": { "value": "canary-13" },
            "card_holder_name": "canary-14", "card_network": "VISA" } },
        "connector_quote_id": "q_1",
        "connector_payout_id": "c_1",
        "amount": { "minor_amount": "1250", "currency": 45 },
        "destination_currency": "EUR",
        "customer": {
            "name": "Ada", "first_name": "A", "last_name": "B", "salutation": "Dr", "id": "cus_1",
            "connector_customer_id": "cc_1", "phone_country_code": "+44", "email": "canary-15",
            "phone_number": "canary-16",
            "customer_document_details": { "document_type": "CPF", "document_number": "canary-17" } },
        "priority": "FAST",
        "connector_payout_method_id": "pm_1",
        "webhook_url": "https://merchant.example/hook?x=1",
        "browser_info": {
            "color_depth": 24, "screen_height": 1080, "screen_width": 1920, "java_enabled": false,
            "java_script_enabled": true, "time_zone_offset_minutes": -60, "language": "en", "accept_header": "*/*",
            "user_agent": "x", "accept_language": "en", "referer": "r", "ip_address": "192.0.2.1", "os_type": "l",
            "os_version": "1", "device_model": "d" },
        "access_token": "canary-18",
        "description": "for Ada",
        "source_bank_data": { "sepa": { "iban": "canary-19", "bic": "canary-20", "bank_name": "NewBank_1" } },
    })
}

/// Returns `snake_case` keys as the proto3 JSON mapping spells them.
fn camel(value: &Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .map(|(name, value)| {
                    let mut parts = name.split('_');
                    let first = parts.next().unwrap().to_owned();
                    let name = parts.fold(first, |name, part| name + &part[..1].to_uppercase() + &part[1..]);
                    (name, camel(value))
                })
                .collect(),
        ),
        other => other.clone(),
    }
}

fn same(first: &CreateLink, second: &CreateLink) -> bool {
    canonical_request(first).as_bytes() == canonical_request(second).as_bytes()
}

#[test]
fn every_field_is_read_in_both_spellings() {
    let snake = decode(&whole()).unwrap();
    let camel = decode(&camel(&whole())).unwrap();
    assert!(same(&snake, &camel));
    assert_eq!(snake.amount.minor_units(), 1250);
    assert_eq!(snake.amount.currency.as_str(), "EUR");
}

#[test]
fn good_jobs_are_taken() {
    let good = [
        with("merchant_payout_id", json!("x".repeat(255))),
        with("merchant_payout_id", json!("Zahlung/ü #1")),
        with("amount", json!({ "minorAmount": "9223372036854775807", "currency": "JPY" })),
        with("amount", json!({ "minor_amount": 1, "currency": 146 })),
        with("destination_currency", json!(1)),
        with("customer", Value::Null),
        with("customer", json!({})),
        with("customer", json!({ "email": { "value": "" } })),
        with("address", json!({ "billing_address": {} })),
        with("address", json!({ "billing_address": { "country_alpha2_code": 0 } })),
        with("priority", json!(6)),
        with("priority", json!(0)),
        with("priority", json!("PAYOUT_PRIORITY_UNSPECIFIED")),
        with("payout_method_data", json!({ "venmo": {} })),
        with("payout_method_data", json!({ "card": null, "pix_key": { "pix_key": "k" } })),
        with(
            "payout_method_data",
            json!({ "passthrough": { "psp_token": "t", "token_type": "SOMETHING_NEW" } }),
        ),
        with("payout_method_data", json!({ "ach": { "bank_name": "A_Bank_Of_Tomorrow" } })),
        with("payout_method_data", json!({ "openBankingUk": { "accountHolderName": "A", "iban": "I" } })),
        with("source_bank_data", json!({ "pixEmv": { "emv": "e" } })),
        with("description", json!("x".repeat(255))),
        with("webhook_url", json!("https://merchant.example:8443/a?b#c")),
        with("webhook_url", json!("HTTPS://merchant.example/ü")),
        with(
            "amount",
            json!({ "minorAmount": { "low": -1, "high": 2_147_483_647, "unsigned": false }, "currency": 1 }),
        ),
        with("description", json!("two\nlines")),
        with("connector_feature_data", json!("{}")),
        with("browser_info", json!({ "colorDepth": "24", "timeZoneOffsetMinutes": "-2147483648" })),
    ];
    for job in good {
        decode(&job).unwrap_or_else(|rejection| panic!("{job}: {rejection:?}"));
    }
    let exponent = r#"{"merchant_payout_id":"a","address":{},"amount":{"minor_amount":1.25e3,"currency":"EUR"},"destination_currency":"EUR"}"#;
    assert_eq!(create_link(exponent.as_bytes(), None, &POLICY).unwrap().amount.minor_units(), 1250);
    let http = with("webhook_url", json!("http://merchant.example/"));
    let allowed = DecodePolicy { allow_http_webhooks: true, ..POLICY };
    assert!(create_link(http.to_string().as_bytes(), None, &allowed).is_ok());
}

#[test]
fn the_message_id_stands_in() {
    let job = with("merchant_payout_id", Value::Null).to_string();
    let decoded = create_link(job.as_bytes(), Some("msg_1"), &POLICY).unwrap();
    assert_eq!(decoded.merchant_payout_id.as_str(), "msg_1");
    let missing = create_link(job.as_bytes(), None, &POLICY).unwrap_err();
    assert_eq!(missing.code, RejectionCode::MissingIdentifier);
    let empty = create_link(job.as_bytes(), Some(""), &POLICY).unwrap_err();
    assert_eq!(empty.code, RejectionCode::MissingIdentifier);
    let bad = create_link(job.as_bytes(), Some("a\u{7}"), &POLICY).unwrap_err();
    assert_eq!((bad.code, bad.field.as_deref()), (RejectionCode::InvalidJob, Some("message_id")));
}

#[test]
fn the_fingerprint_follows_the_meaning_and_nothing_else() {
    let key = FingerprintKey::new(&[7; 32]);
    let of = |job: &Value, connector: &str| {
        fingerprint(&canonical_request(&decode(job).unwrap()), connector, &key)
    };
    let first = of(&whole(), "a");
    assert_eq!(first, of(&camel(&whole()), "a"));
    assert_ne!(first, of(&whole(), "b"), "another connector");
    for field in ["access_token", "browser_info", "webhook_url"] {
        let mut job = whole();
        job[field] = Value::Null;
        assert_eq!(first, of(&job, "a"), "{field} may be fresh");
        assert_eq!(differences(&decode(&whole()).unwrap(), &decode(&job).unwrap()), Vec::<String>::new());
    }
    let other = |field: &str, value: Value| {
        let mut job = whole();
        *job.pointer_mut(field).unwrap() = value;
        (of(&job, "a"), differences(&decode(&whole()).unwrap(), &decode(&job).unwrap()))
    };
    for (field, value, path) in [
        ("/amount/minor_amount", json!(1), "amount.minor_amount"),
        ("/customer/email", json!("x"), "customer.email"),
        ("/payout_method_data/card/card_number", json!("x"), "payout_method_data.card.card_number"),
        ("/address/billing_address/line1", Value::Null, "address.billing_address.line1"),
        ("/priority", json!(0), "priority"),
        ("/connector_feature_data/value", json!("{}"), "connector_feature_data"),
    ] {
        let (changed, paths) = other(field, value);
        assert_ne!(first, changed, "{field}");
        assert_eq!(paths, [path]);
    }
    assert_ne!(
        first,
        fingerprint(&canonical_request(&decode(&whole()).unwrap()), "a", &FingerprintKey::new(&[8; 32])),
        "another key"
    );
}

/// Fingerprints are compared with those that were stored by whichever version came before.
#[test]
fn a_request_has_the_form_and_the_fingerprint_that_it_always_had() {
    let start = |bytes: &[u8]| digest::digest(&digest::SHA256, bytes).as_ref()[..8].to_vec();
    let request = canonical_request(&decode(&whole()).unwrap());
    assert_eq!(start(request.as_bytes()), [139, 28, 31, 35, 188, 223, 245, 238]);
    let fingerprint = fingerprint(&request, "a", &FingerprintKey::new(&[7; 32]));
    assert_eq!(fingerprint[..8], [197, 240, 255, 84, 36, 237, 194, 98]);
    let mut job = whole();
    for field in ["access_token", "browser_info", "webhook_url"] {
        job[field] = Value::Null;
    }
    let request = canonical_request(&decode(&job).unwrap());
    assert_eq!(start(request.as_bytes()), [200, 120, 162, 31, 51, 51, 215, 139]);
}

/// `docs/reference/jobs.md` is what a rejection refers to.
#[test]
fn every_field_and_every_currency_is_documented() {
    let page = include_str!("../../../docs/reference/jobs.md");
    for job in everywhere::jobs() {
        for (path, _) in everywhere::fields(&job) {
            let name = path.rsplit('.').next().unwrap();
            assert!(name == "value" || page.contains(&format!("`{name}`")), "{path}");
        }
    }
    let words: Vec<&str> = page.split_whitespace().collect();
    for currency in PrismEnum::Currency.names() {
        assert!(words.contains(&currency), "{currency}");
    }
}

#[test]
fn unknown_fields_are_rejected_or_ignored_with_their_paths() {
    const IGNORE: DecodePolicy =
        DecodePolicy { allow_http_webhooks: false, unknown_fields: UnknownFields::Ignore };
    let mut job = whole();
    job["payout_purpose"] = json!({ "canary": 1 });
    job["billingDescriptor"] = Value::Null;
    job["amount"]["rate"] = json!("canary");
    job["customer"]["customer_document_details"]["issued_by"] = json!([1]);
    job["payout_method_data"]["card"]["card_issuer"] = json!("canary");
    let paths = [
        "amount.rate",
        "billingDescriptor",
        "customer.customer_document_details.issued_by",
        "payout_method_data.card.card_issuer",
        "payout_purpose",
    ];
    let rejected = decode(&job).unwrap_err();
    assert!(rejected.field.is_some_and(|field| paths.contains(&&*field)));
    let text = job.to_string();
    let (ignored, mut noted) = create_link_noting(text.as_bytes(), None, &IGNORE).unwrap();
    noted.sort();
    assert_eq!(noted, paths);
    // They make no other request.
    let key = FingerprintKey::new(&[7; 32]);
    let of = |job: &CreateLink| fingerprint(&canonical_request(job), "a", &key);
    assert_eq!(of(&ignored), of(&decode(&whole()).unwrap()));
    // A wrong value of a known field is rejected in both modes, and a name is cut and shown in ASCII.
    job["amount"]["minor_amount"] = json!("x");
    assert!(create_link(job.to_string().as_bytes(), None, &IGNORE).is_err());
    let (_, noted) =
        create_link_noting(with(&"ü\n".repeat(100), json!(1)).to_string().as_bytes(), None, &IGNORE).unwrap();
    assert!(noted[0].len() <= 64 && noted[0].is_ascii() && !noted[0].contains('\n'), "{noted:?}");
    let many: String = (0..1000).map(|number| format!("\"f{number}\":1,")).collect();
    let many = with("a", json!(1)).to_string().replacen('{', &format!("{{{many}"), 1);
    assert_eq!(create_link_noting(many.as_bytes(), None, &IGNORE).unwrap().1.len(), 16);
}
