//! Provides malicious messages, and unusual messages that are valid.

use std::collections::BTreeMap;

use lapin::types::{AMQPValue, FieldArray, FieldTable};
use serde_json::{Value, json};

use crate::support::{Job, TestEnv, job};

/// A message, its error code, and the path of the rejected field, or an empty one.
pub(super) type Bad = (Job, &'static str, String);

fn invalid(job: Job, field: &str) -> Bad {
    (job, "INVALID_JOB", field.to_owned())
}

/// Builds a valid job's body with one member replaced by raw text that no JSON library would write.
fn with_text(field: &str, value: &str) -> Job {
    let good = job("po_bad").body;
    let mut body: BTreeMap<String, Value> = serde_json::from_slice(&good).unwrap();
    body.remove(field);
    let rest = serde_json::to_string(&body).unwrap();
    job("po_bad").raw(format!("{{\"{field}\":{value},{}", &rest[1..]).as_bytes())
}

fn with_amount(minor_amount: &str) -> Job {
    with_text("amount", &format!("{{\"minor_amount\":{minor_amount},\"currency\":\"EUR\"}}"))
}

/// Builds bodies that are no JSON object, or no valid JSON.
pub(super) fn bodies() -> Vec<Bad> {
    let good = job("po_bad").body;
    let text = String::from_utf8(good.clone()).unwrap();
    let mut bodies: Vec<Vec<u8>> = [
        "",
        " ",
        "\n",
        "{",
        "}",
        "[",
        "[]",
        "[{}]",
        "null",
        "true",
        "7",
        "\"x\"",
        "\"",
        "{}{}",
        "{},",
        "{]",
        "{\"a\"}",
        "{\"a\":}",
        "{:1}",
        "{a:1}",
        "{'a':1}",
        "{\"a\":1,}",
        "{,}",
        "{\"a\" 1}",
        "nul",
        "NaN",
        "Infinity",
        "-",
        "// comment\n{}",
        "/**/{}",
        "{}//",
        "\u{feff}{}",
        "\u{a0}{}",
        "<job/>",
        "a=1&b=2",
        "--- {}",
        "\0",
        "{}\0",
        "\u{1b}[2J",
        "undefined",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    // Encodings that are not UTF-8, and a byte order mark.
    bodies.push([b"\xef\xbb\xbf", &good[..]].concat());
    bodies.push(text.encode_utf16().flat_map(u16::to_le_bytes).collect());
    bodies.push(text.encode_utf16().flat_map(u16::to_be_bytes).collect());
    bodies.push(text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect());
    for bytes in [
        &b"\xff"[..],
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
        b"\x80",
        b"caf\xe9",
        b"\xc0\x80",
    ] {
        bodies.push([&br#"{"merchant_payout_id":""#[..], bytes, &br#""}"#[..]].concat());
    }
    bodies.push(b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec());
    // Truncated at various positions, and with other bytes.
    bodies.extend((1..good.len()).step_by(9).map(|end| good[..end].to_vec()));
    bodies.extend((0..good.len()).step_by(13).map(|place| {
        let mut changed = good.clone();
        changed[place] = 0x01;
        changed
    }));
    // Depth and size, at their limits and above them.
    for levels in [33, 64, 1000, 100_000] {
        bodies.push(["[".repeat(levels), "]".repeat(levels)].concat().into_bytes());
        bodies.push([r#"{"a":"#.repeat(levels), "1".into(), "}".repeat(levels)].concat().into_bytes());
    }
    bodies.push("[".repeat(200_000).into_bytes());
    bodies.push(vec![b' '; 256 * 1024 + 1]);
    bodies.push([&good[..], &vec![b' '; 256 * 1024]].concat());
    bodies.push(vec![b'9'; 256 * 1024]);
    bodies.into_iter().map(|body| (job("po_bad").raw(&body), "INVALID_JOB", String::new())).collect()
}

/// Builds values of fields: of another type, and at and above every limit.
pub(super) fn values() -> Vec<Bad> {
    let mut bad = Vec::new();
    for amount in [
        "0",
        "-1",
        "-0",
        "1.5",
        "0.1",
        "1e-1",
        "1e19",
        "1e400",
        "9223372036854775808",
        "-9223372036854775808",
        "99999999999999999999999999",
        "\"0\"",
        "\"-5\"",
        "\"\"",
        "\" 5\"",
        "\"5 \"",
        "\"0x10\"",
        "\"1_000\"",
        "\"1,000\"",
        "\"12.50\"",
        "\"9223372036854775808\"",
        "\"٣\"",
        "\"NaN\"",
        "true",
        "null",
        "[]",
        "{}",
        "[5]",
        "{\"value\":5}",
    ] {
        bad.push(invalid(with_amount(amount), "amount.minor_amount"));
    }
    let others =
        ["true", "7", "-1.5", "[]", "{}", "[1]", "{\"x\":1}", "\"\\u0000\"", "\"\\ud800\"", "\"a\\u000ab\""];
    for field in [
        "merchant_payout_id",
        "address",
        "amount",
        "destination_currency",
        "customer",
        "webhook_url",
        "description",
        "connector_quote_id",
        "browser_info",
        "priority",
    ] {
        for value in others {
            // An empty object is a valid address, customer and browser.
            let may_be_empty = matches!(field, "address" | "customer" | "browser_info");
            let may_have_lines = field == "description" && value.contains("000a");
            // A number may be in an enumeration.
            let is_listed = field == "destination_currency" && value == "7";
            if (may_be_empty && value == "{}") || may_have_lines || is_listed {
                continue;
            }
            let (job, path) = (with_text(field, value), if value == "\"\\ud800\"" { "" } else { field });
            bad.push(invalid(job, path));
        }
    }
    for currency in ["eur", "EURO", "XXX", "E", "€UR", "EUR ", "ЕUR"] {
        bad.push(invalid(
            with_text("destination_currency", &json!(currency).to_string()),
            "destination_currency",
        ));
    }
    for id in [
        "x".repeat(256),
        "é".repeat(128),
        "a\u{7f}".into(),
        "a\u{85}b".into(),
        "\u{9b}31m".into(),
        "a\tb".into(),
        "\r\nx: y".into(),
    ] {
        bad.push(invalid(job(&id), "merchant_payout_id"));
    }
    for url in [
        "",
        "x",
        "/",
        "//m.example/",
        "http://m.example/",
        "ftp://m.example/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://",
        "https:///",
        "https://u@m.example/",
        "https://u:p@m.example/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://2130706433/",
        "https://m.example:99999/",
        "https://m example/",
        "https://m.example/\n",
        "https://m.example/\0",
        "data:,x",
        "gopher://m.example/",
        "https://[::1",
        "https://%00/",
    ] {
        bad.push(invalid(job("po_bad").with("webhook_url", json!(url)), "webhook_url"));
    }
    bad.push(invalid(
        job("po_bad").with("webhook_url", json!(format!("https://m.example/{}", "x".repeat(2048)))),
        "webhook_url",
    ));
    bad.push(invalid(job("po_bad").with("description", json!("x".repeat(256))), "description"));
    for name in [
        "surprise",
        "__proto__",
        "constructor",
        "amount ",
        "Amount",
        "AMOUNT",
        "merchantPayoutID",
        "$where",
        "../x",
        "a.b",
    ] {
        bad.push(invalid(job("po_bad").with(name, json!(1)), name));
    }
    for field in ["address", "amount", "destination_currency"] {
        bad.push(invalid(job("po_bad").with(field, Value::Null), field));
    }
    // The member occurs twice, in one spelling and in both.
    for (first, second) in [
        ("amount", "amount"),
        ("merchant_payout_id", "merchantPayoutId"),
        ("destination_currency", "destinationCurrency"),
    ] {
        let body = String::from_utf8(job("po_bad").body).unwrap();
        let value = &serde_json::from_str::<Value>(&body).unwrap()[first];
        let twice = format!("{{\"{second}\":{value},{}", &body[1..]);
        bad.push(invalid(job("po_bad").raw(twice.as_bytes()), "?"));
    }
    bad.push((
        job("po_bad").with("merchant_payout_id", Value::Null),
        "MISSING_IDENTIFIER",
        "merchant_payout_id".into(),
    ));
    let hostile = "x'; DROP TABLE payout_links; --\u{202e}";
    bad.push(invalid(job("po_bad").with("customer", json!({ hostile: 1 })), "customer"));
    bad
}

/// Builds messages with invalid properties and headers.
pub(super) fn envelopes(env: &TestEnv) -> Vec<Bad> {
    let mut bad = Vec::new();
    let table = || FieldTable::from(BTreeMap::from([("x".into(), AMQPValue::LongInt(1))]));
    let wrong = || {
        [
            AMQPValue::Boolean(true),
            AMQPValue::LongInt(42),
            AMQPValue::LongLongInt(i64::MIN),
            AMQPValue::ShortShortUInt(255),
            AMQPValue::Double(1.5),
            AMQPValue::Timestamp(u64::MAX),
            AMQPValue::ByteArray(b"m_1".to_vec().into()),
            AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::LongString("m_1".into())])),
            AMQPValue::FieldTable(table()),
            AMQPValue::LongString(b"\xff\xfe".to_vec().into()),
        ]
    };
    for name in ["x-merchant-id", "x-connector", "X-Merchant-Id"] {
        for value in wrong() {
            bad.push(invalid(job("po_bad").value(name, value), &name.to_lowercase()));
        }
    }
    bad.push(invalid(job("po_bad").merchant("m_1").header("X-MERCHANT-ID", "m_2"), "x-merchant-id"));
    for text in ["x".repeat(256), "x".repeat(100_000), "a\0b".into(), "a\nb".into(), "\u{1b}[31m".into()] {
        bad.push(invalid(job("po_bad").merchant(&text), "x-merchant-id"));
        bad.push((job("po_bad").connector(&text), "UNKNOWN_CONNECTOR", "x-connector".into()));
    }
    for name in ["nobody", "Sandbox", "sandbox ", "../sandbox", "", "'; --"] {
        bad.push((job("po_bad").connector(name), "UNKNOWN_CONNECTOR", "x-connector".into()));
    }
    let names = &env.names;
    for queue in
        [names.jobs_queue.as_str(), names.dead_queue.as_str(), names.unrouted_queue.as_str(), "a\0b", "a\nb"]
    {
        bad.push(invalid(job("po_bad").reply_to(queue), "reply_to"));
    }
    for kind in [
        "text/plain",
        "application/xml",
        "application/jsonp",
        "application/json2",
        "json",
        "*/*",
        "application/octet-stream",
        "\u{0}",
        "multipart/form-data; boundary=x",
    ] {
        bad.push(invalid(job("po_bad").content_type(kind), "content_type"));
    }
    bad.push(invalid(job("po_bad").correlation_id("a\nb"), "correlation_id"));
    for id in ["a\0b", "a\u{85}b"] {
        bad.push(invalid(job("po_bad").with("merchant_payout_id", Value::Null).message_id(id), "message_id"));
    }
    bad
}

/// Builds unusual jobs that are valid: each is created.
pub(super) fn oddities() -> Vec<Job> {
    let ids = [
        "'; DROP TABLE payout_links; --",
        "../../etc/passwd",
        "${jndi:ldap://x}",
        "%s%n",
        "<script>",
        "ﷺ",
        "e\u{301}",
        "é",
        "\u{202e}txt",
        "🏦",
        "{\"a\":1}",
        "NULL",
        "-1",
    ];
    let mut odd: Vec<Job> = ids.iter().map(|id| job(id)).collect();
    odd.push(job(&"x".repeat(255)));
    odd.push(job("priority").properties(|properties| properties.with_priority(255)));
    odd.push(job("encoding").properties(|properties| properties.with_content_encoding("x-nonsense".into())));
    odd.push(job("timestamp").properties(|properties| properties.with_timestamp(u64::MAX)));
    odd.push(
        job("app").properties(|properties| properties.with_app_id("a\nb".into()).with_type("\u{0}".into())),
    );
    odd.push(job("nowhere").reply_to("no such queue"));
    odd.push(job("direct").reply_to("amq.rabbitmq.reply-to.none"));
    odd.push(job("exchange").reply_to("../payout_links.results"));
    odd.push(job("kind").content_type("Application/JSON; charset=utf-8"));
    odd.push(job("void").value("x-merchant-id", AMQPValue::Void));
    odd.push(
        job("trace").header("traceparent", "not a trace\r\nx: y").header("tracestate", &"x".repeat(5000)),
    );
    odd.push(job("deliveries").header("x-delivery-count", "a hundred"));
    odd.push(job("most").amount(i64::MAX));
    let mut later = job("later");
    later.expiration = Some("86400000".into());
    odd.push(later);
    odd
}
