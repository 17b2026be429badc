//! Good jobs, bad jobs, and everything in between.

mod everywhere;
mod properties;
mod sdks;

use serde_json::{Value, json};

use super::*;
use crate::wire::{FingerprintKey, canonical_request, differences, fingerprint};

const POLICY: DecodePolicy = DecodePolicy { allow_http_webhooks: false };

fn decode(job: &Value) -> Result<CreateLink, Rejection> {
    create_link(job.to_string().as_bytes(), None, &POLICY)
}

/// A small good job with one field set to something else.
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

/// Every field, every secret a canary.
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

/// snake_case keys as the proto3 JSON mapping spells them.
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
    canonical_request(first) == canonical_request(second)
}

#[test]
fn every_field_is_read_in_both_spellings() {
    let snake = decode(&whole()).unwrap();
    let camel = decode(&camel(&whole())).unwrap();
    assert!(same(&snake, &camel));
    assert_eq!(snake.amount.minor_units(), 1250);
    assert_eq!(snake.amount.currency.as_str(), "EUR");
    // Nothing was passed over: as many leaves as were given.
    let encoded: Value = serde_json::from_slice(&canonical_request(&snake)).unwrap();
    let count = |value: &Value| value.to_string().matches("canary").count();
    assert_eq!(count(&encoded), count(&whole()));
}

#[test]
fn what_is_encoded_decodes_to_the_same() {
    let job = decode(&whole()).unwrap();
    let again = stored_request(&canonical_request(&job)).unwrap();
    assert!(same(&job, &again));
    assert_eq!(differences(&job, &again), Vec::<String>::new());
}

#[test]
fn debug_shows_no_secret() {
    let shown = format!("{:?}", decode(&whole()).unwrap());
    assert!(!shown.contains("canary"), "{shown}");
}

#[test]
fn every_secret_is_redacted_from_what_others_say() {
    let job = decode(&whole()).unwrap();
    let said: String = (1..=20).map(|number| format!("[canary-{number:02}] ")).collect();
    let redacted = job.redact(&(said + "{\"canary\":1}"));
    assert!(!redacted.contains("canary"), "{redacted}");
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
        with("amount", json!({ "minorAmount": { "low": -1, "high": 2_147_483_647, "unsigned": false }, "currency": 1 })),
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
    let allowed = DecodePolicy { allow_http_webhooks: true };
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

/// Each with the exact path that is refused; all are INVALID_JOB.
#[test]
fn bad_jobs_are_refused_with_the_path_of_the_field() {
    let card = |field: &str, value: Value| {
        let mut card = json!({ "card_number": "canary", "card_exp_month": "1", "card_exp_year": "30" });
        card[field] = value;
        with("payout_method_data", json!({ "card": card }))
    };
    let money =
        |minor_amount: Value| with("amount", json!({ "minor_amount": minor_amount, "currency": "EUR" }));
    let address = |field: &str, value: Value| with("address", json!({ "billing_address": { field: value } }));
    let customer = |field: &str, value: Value| with("customer", json!({ field: value }));
    let browser = |field: &str, value: Value| with("browser_info", json!({ field: value }));
    let bad: Vec<(Value, &str)> = vec![
        (with("merchant_payout_id", json!("")), "merchant_payout_id"),
        (with("merchant_payout_id", json!("x".repeat(256))), "merchant_payout_id"),
        (with("merchant_payout_id", json!("a\nb")), "merchant_payout_id"),
        (with("merchant_payout_id", json!("a\u{0}")), "merchant_payout_id"),
        (with("merchant_payout_id", json!("a\u{85}")), "merchant_payout_id"),
        (with("merchant_payout_id", json!(7)), "merchant_payout_id"),
        (with("merchant_payout_id", json!({ "value": "x" })), "merchant_payout_id"),
        (with("address", Value::Null), "address"),
        (with("address", json!([])), "address"),
        (with("address", json!("x")), "address"),
        (with("address", json!({ "home_address": {} })), "address.home_address"),
        (with("address", json!({ "billing_address": 1 })), "address.billing_address"),
        (address("line4", json!("x")), "address.billing_address.line4"),
        (address("line1", json!(5)), "address.billing_address.line1"),
        (address("line1", json!({ "value": 5 })), "address.billing_address.line1.value"),
        (address("line1", json!("a\u{0}")), "address.billing_address.line1"),
        (address("line1", json!({ "value": "x", "more": 1 })), "address.billing_address.line1.more"),
        (address("country_alpha2_code", json!("UK")), "address.billing_address.country_alpha2_code"),
        (address("country_alpha2_code", json!("gb")), "address.billing_address.country_alpha2_code"),
        (address("country_alpha2_code", json!(251)), "address.billing_address.country_alpha2_code"),
        (address("country_alpha2_code", json!(-1)), "address.billing_address.country_alpha2_code"),
        (address("country_alpha2_code", json!(true)), "address.billing_address.country_alpha2_code"),
        (address("phone_country_code", json!(44)), "address.billing_address.phone_country_code"),
        (with("connector_feature_data", json!(["x"])), "connector_feature_data"),
        (with("connector_feature_data", json!({ "account": "x" })), "connector_feature_data.account"),
        (with("payout_method_data", json!({})), "payout_method_data"),
        (with("payout_method_data", json!({ "card": null })), "payout_method_data"),
        (with("payout_method_data", json!({ "cheque": {} })), "payout_method_data.cheque"),
        (with("payout_method_data", json!({ "venmo": {}, "interac": {} })), "payout_method_data"),
        (with("payout_method_data", json!({ "venmo": "x" })), "payout_method_data.venmo"),
        (with("payout_method_data", json!({ "sepa": {} })), "payout_method_data.sepa.iban"),
        (
            with("payout_method_data", json!({ "pix": { "pix_key": "k" } })),
            "payout_method_data.pix.bank_account_number",
        ),
        (with("payout_method_data", json!({ "ach": { "iban": "x" } })), "payout_method_data.ach.iban"),
        (
            with("payout_method_data", json!({ "ach": { "bank_name": "A Bank" } })),
            "payout_method_data.ach.bank_name",
        ),
        (
            with("payout_method_data", json!({ "ach": { "bank_name": 100_000 } })),
            "payout_method_data.ach.bank_name",
        ),
        (
            with("payout_method_data", json!({ "ach": { "bank_name": "x".repeat(65) } })),
            "payout_method_data.ach.bank_name",
        ),
        (
            with("payout_method_data", json!({ "bacs": { "bank_country_code": "XX" } })),
            "payout_method_data.bacs.bank_country_code",
        ),
        (
            with("payout_method_data", json!({ "passthrough": { "psp_token": "t" } })),
            "payout_method_data.passthrough.token_type",
        ),
        (
            with("payout_method_data", json!({ "passthrough": { "psp_token": "t", "token_type": 0 } })),
            "payout_method_data.passthrough.token_type",
        ),
        (
            with("payout_method_data", json!({ "open_banking_uk": { "iban": "x" } })),
            "payout_method_data.open_banking_uk.account_holder_name",
        ),
        (
            with("payout_method_data", json!({ "apple_pay_decrypt": { "dpan": "d", "expiry_month": "1" } })),
            "payout_method_data.apple_pay_decrypt.expiry_year",
        ),
        (card("card_number", Value::Null), "payout_method_data.card.card_number"),
        (card("card_number", json!("")), "payout_method_data.card.card_number"),
        (card("card_number", json!({})), "payout_method_data.card.card_number"),
        (card("card_number", json!(4242)), "payout_method_data.card.card_number"),
        (card("card_network", json!("")), "payout_method_data.card.card_network"),
        (card("cvc", json!("123")), "payout_method_data.card.cvc"),
        (with("source_bank_data", json!({ "card": {} })), "source_bank_data.card"),
        (with("source_bank_data", json!({ "pix_key": {} })), "source_bank_data.pix_key.pix_key"),
        (with("amount", Value::Null), "amount"),
        (with("amount", json!(1250)), "amount"),
        (with("amount", json!({ "currency": "EUR" })), "amount.minor_amount"),
        (with("amount", json!({ "minor_amount": 1 })), "amount.currency"),
        (with("amount", json!({ "minor_amount": 1, "currency": 0 })), "amount.currency"),
        (with("amount", json!({ "minor_amount": 1, "currency": "euro" })), "amount.currency"),
        (with("amount", json!({ "minor_amount": 1, "currency": 161 })), "amount.currency"),
        (with("amount", json!({ "minor_amount": 1, "currency": "45" })), "amount.currency"),
        (with("amount", json!({ "minor_amount": 1, "currency": "EUR", "value": 1 })), "amount.value"),
        (money(json!(0)), "amount.minor_amount"),
        (money(json!(-1)), "amount.minor_amount"),
        (money(json!(12.5)), "amount.minor_amount"),
        (money(json!("12.5")), "amount.minor_amount"),
        (money(json!("")), "amount.minor_amount"),
        (money(json!("0x10")), "amount.minor_amount"),
        (money(json!("9223372036854775808")), "amount.minor_amount"),
        (money(json!(true)), "amount.minor_amount"),
        (money(json!({ "low": 0, "high": 0, "unsigned": false })), "amount.minor_amount"),
        (money(json!({ "low": -1, "high": -1, "unsigned": true })), "amount.minor_amount"),
        (money(json!({ "low": 1, "unsigned": false })), "amount.minor_amount.high"),
        (money(json!({ "low": 4_294_967_295_u32, "high": 0 })), "amount.minor_amount.low"),
        (money(json!({ "low": 1, "high": 0, "unsigned": 0 })), "amount.minor_amount.unsigned"),
        (money(json!({ "low": 1, "high": 0, "value": 1 })), "amount.minor_amount.value"),
        (with("destination_currency", Value::Null), "destination_currency"),
        (with("destination_currency", json!("XXX")), "destination_currency"),
        (with("customer", json!("Ada")), "customer"),
        (customer("surname", json!("x")), "customer.surname"),
        (customer("name", json!({ "value": "x" })), "customer.name"),
        (customer("name", json!("a\u{0}b")), "customer.name"),
        (customer("id", json!("a\tb")), "customer.id"),
        (customer("email", json!(false)), "customer.email"),
        (
            customer("customer_document_details", json!({ "document_type": "PASSPORT" })),
            "customer.customer_document_details.document_type",
        ),
        (
            customer("customer_document_details", json!({ "document_type": 5 })),
            "customer.customer_document_details.document_type",
        ),
        (with("priority", json!("SLOW")), "priority"),
        (with("priority", json!(7)), "priority"),
        (with("priority", json!(1.5)), "priority"),
        (with("webhook_url", json!("")), "webhook_url"),
        (with("webhook_url", json!("/hook")), "webhook_url"),
        (with("webhook_url", json!("merchant.example/hook")), "webhook_url"),
        (with("webhook_url", json!("http://merchant.example/")), "webhook_url"),
        (with("webhook_url", json!("ftp://merchant.example/")), "webhook_url"),
        (with("webhook_url", json!("https://")), "webhook_url"),
        (with("webhook_url", json!("https:merchant.example/")), "webhook_url"),
        (with("webhook_url", json!("https:\\\\merchant.example/")), "webhook_url"),
        (with("webhook_url", json!(" https://merchant.example/")), "webhook_url"),
        (with("webhook_url", json!("https://merchant.example/a b")), "webhook_url"),
        (with("webhook_url", json!("https://merchant.example/a\nb")), "webhook_url"),
        // Within the limit as it is written, three times past it as it is called.
        (with("webhook_url", json!(format!("https://m.example/{}", "ü".repeat(700)))), "webhook_url"),
        (with("webhook_url", json!("https://user@merchant.example/")), "webhook_url"),
        (with("webhook_url", json!("https://:pw@merchant.example/")), "webhook_url"),
        (with("webhook_url", json!(format!("https://m.example/{}", "x".repeat(2048)))), "webhook_url"),
        (browser("color_depth", json!(-1)), "browser_info.color_depth"),
        (browser("color_depth", json!(4_294_967_296_u64)), "browser_info.color_depth"),
        (browser("java_enabled", json!("true")), "browser_info.java_enabled"),
        (
            browser("time_zone_offset_minutes", json!(2_147_483_648_u64)),
            "browser_info.time_zone_offset_minutes",
        ),
        (browser("plugins", json!("x")), "browser_info.plugins"),
        (with("access_token", json!(1)), "access_token"),
        (with("description", json!("x".repeat(256))), "description"),
        (with("connector_quote_id", json!(1)), "connector_quote_id"),
        (with("connector_quote_id", json!("q\r\n")), "connector_quote_id"),
        (with("connector_payout_id", json!("\u{7f}")), "connector_payout_id"),
        (with("connector_payout_method_id", json!("\u{9f}")), "connector_payout_method_id"),
        (with("reference", json!("x")), "reference"),
        (with("Amount", json!("x")), "Amount"),
        (with("new\nfield", json!("x")), "new\\nfield"),
    ];
    assert!(bad.len() >= 60);
    for (job, path) in bad {
        let rejection = decode(&job).expect_err(&job.to_string());
        assert_eq!(
            (rejection.code, rejection.field.as_deref()),
            (RejectionCode::InvalidJob, Some(path)),
            "{job}"
        );
        assert!(!rejection.message.contains("canary"));
    }
}

#[test]
fn bad_messages_are_refused_whatever_they_are() {
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let bad: Vec<(Vec<u8>, &str)> = vec![
        (b"".to_vec(), "not JSON"),
        (b"null".to_vec(), "not a JSON object"),
        (b"[]".to_vec(), "not a JSON object"),
        (b"\"job\"".to_vec(), "not a JSON object"),
        (b"{} {}".to_vec(), "not JSON"),
        (b"{".to_vec(), "not JSON"),
        (b"{\"a\":1,}".to_vec(), "not JSON"),
        (b"{'a':1}".to_vec(), "not JSON"),
        (b"{\"a\":NaN}".to_vec(), "not JSON"),
        (b"{\"a\":01}".to_vec(), "not JSON"),
        (b"{\"a\":\"\\ud800\"}".to_vec(), "not JSON"),
        (b"{\"a\":\"\x01\"}".to_vec(), "not JSON"),
        (b"\xef\xbb\xbf{}".to_vec(), "not JSON"),
        (b"{\"a\":\"\xff\"}".to_vec(), "not UTF-8"),
        (vec![b' '; 256 * 1024 + 1], "larger than 256 KiB"),
        (vec![b' '; 256 * 1024], "not JSON"),
        (deep(33).into_bytes(), "nested deeper"),
        (deep(32).into_bytes(), "not a JSON object"),
        (deep(100_000).into_bytes(), "nested deeper"),
        (b"{\"$serde_json::private::Number\":\"x\"}".to_vec(), "not a JSON object"),
    ];
    for (body, message) in bad {
        let rejection = create_link(&body, Some("m"), &POLICY).unwrap_err();
        let start = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        assert!(rejection.message.contains(message), "{start}: {}", rejection.message);
        assert_eq!((rejection.code, rejection.field), (RejectionCode::InvalidJob, None), "{start}");
    }
}

#[test]
fn a_field_given_twice_is_refused_under_any_spelling() {
    for (body, path) in [
        (r#"{"merchant_payout_id":"a","merchant_payout_id":"a"}"#, "merchant_payout_id"),
        (r#"{"merchant_payout_id":"a","merchantPayoutId":"a"}"#, "merchant_payout_id"),
        (r#"{"merchant_payout_id":"a","address":{},"address":null}"#, "address"),
        (
            r#"{"merchant_payout_id":"a","address":{"billingAddress":{"line1":"x","line1":"x"}}}"#,
            "address.billing_address.line1",
        ),
    ] {
        let rejection = create_link(body.as_bytes(), None, &POLICY).unwrap_err();
        assert_eq!(rejection.field.as_deref(), Some(path), "{body}");
        assert!(rejection.message.contains("twice"), "{}", rejection.message);
    }
}

#[test]
fn the_fingerprint_follows_the_meaning_and_nothing_else() {
    let key = FingerprintKey::new(&[7; 32]);
    let of = |job: &Value, connector: &str| fingerprint(&decode(job).unwrap(), connector, &key);
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
        fingerprint(&decode(&whole()).unwrap(), "a", &FingerprintKey::new(&[8; 32])),
        "another key"
    );
}
