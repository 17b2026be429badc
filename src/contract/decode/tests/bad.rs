//! Jobs that are refused, each with its code and path.

use serde_json::{Value, json};

use super::{POLICY, decode, with};
use crate::{contract::create_link, domain::RejectionCode};

/// Each with the exact path that is refused; all are `INVALID_JOB`.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
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
