//! Messages that mean no good, among jobs that do: each ends as the contract says, and the good ones are all created.

use std::collections::BTreeMap;

use lapin::types::{AMQPValue, FieldArray, FieldTable};
use serde_json::{Value, json};

use crate::support::{
    CORRELATION_ID, HEADERS, Job, MESSAGE_ID, REPLY_TO, Setup, World, deep_headers, eventually, job, long,
    short,
};

/// A message, its code, and where there is one the path that is refused.
type Bad = (Job, &'static str, String);

fn invalid(job: Job, field: &str) -> Bad {
    (job, "INVALID_JOB", field.to_owned())
}

/// A good job's body with one member given another value, as text: what no JSON library would write.
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

/// Bodies that are no JSON object, or not by the rules of JSON.
fn bodies() -> Vec<Bad> {
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
    // Encodings that are not UTF-8, and a mark at its beginning.
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
    // Every place at which it may end too early, and every byte that may be another.
    bodies.extend((1..good.len()).step_by(9).map(|end| good[..end].to_vec()));
    bodies.extend((0..good.len()).step_by(13).map(|place| {
        let mut changed = good.clone();
        changed[place] = 0x01;
        changed
    }));
    // Depth and size, at their limits and past them.
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

/// Values of fields: of another type, and at and past every limit.
fn values() -> Vec<Bad> {
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
            // An empty object is a good address, a good customer, a good browser.
            let may_be_empty = matches!(field, "address" | "customer" | "browser_info");
            let may_have_lines = field == "description" && value.contains("000a");
            // A number may be an enum's.
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
    // Twice, in one spelling and in both.
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

/// What stands outside the body.
fn envelopes(world: &World) -> Vec<Bad> {
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
    let names = &world.names;
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

/// Odd, and good all the same: each is created.
fn oddities() -> Vec<Job> {
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

/// The bad messages that became records.
async fn taken_of(world: &World) -> Vec<usize> {
    let cases = "SELECT correlation_id FROM payout_links WHERE correlation_id LIKE 'case %'";
    let cases: Vec<String> = sqlx::query_scalar(cases).fetch_all(&world.pool).await.unwrap();
    cases.iter().map(|case| case["case ".len()..].parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_message_ends_as_the_contract_says_and_every_good_job_is_created() {
    // Given a worker, and messages of every bad kind among good jobs,
    let world = Setup::default()
        .set("jobs.allow_http_webhooks", false)
        .set("webhooks.allowed_networks", "[]")
        .build()
        .await;
    let worker = world.start_worker().await;
    world.publish(job("first")).await;
    world.result_of("first").await;
    let before = worker.most_memory();
    let bad: Vec<Bad> = [bodies(), values(), envelopes(&world)].concat();
    assert!(bad.len() >= 300, "{}", bad.len());
    let mut good = oddities();
    for (number, (bad, ..)) in bad.iter().enumerate() {
        let mut bad = bad.clone().header("x-case", &number.to_string());
        bad.correlation_id.get_or_insert_with(|| format!("case {number}"));
        world.publish(bad).await;
        if number % 5 == 0 {
            let job = job(&format!("good_{number}"));
            world.publish(&job).await;
            good.push(job);
        }
    }
    for job in &good[..oddities().len()] {
        world.publish(job).await;
    }
    // then each bad one is among the dead letters as it was, with its code and its field,
    let mut wrong = Vec::new();
    eventually("the dead letters", async || {
        let taken = taken_of(&world).await;
        assert!(
            taken.is_empty(),
            "taken for good: {:?}",
            taken.iter().map(|case| String::from_utf8_lossy(&bad[*case].0.body)).collect::<Vec<_>>()
        );
        (world.ready(&world.names.dead_queue).await as usize >= bad.len()).then_some(())
    })
    .await;
    for _ in &bad {
        let dead = world.dead_letter().await;
        let case: usize = dead.header("x-case").unwrap().parse().unwrap();
        let (job, code, field) = &bad[case];
        let (said, reason) = (dead.header("x-rejected-code"), dead.header("x-rejected-reason").unwrap());
        let (path, message) = reason.split_once(": ").unwrap_or(("", &reason));
        let is_bounded = reason.len() < 1000 && !reason.chars().any(char::is_control);
        let is_told = field == "?" || path == field || path.starts_with(&format!("{field}."));
        if said.as_deref() != Some(*code) || !is_told || !is_bounded || dead.body != job.body {
            let body = String::from_utf8_lossy(&job.body[..job.body.len().min(120)]).into_owned();
            wrong.push(format!("case {case}: {said:?} {path:?} {message:?}, not {code} {field:?}: {body}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // and is told, within bounds;
    let refused = |heard: &crate::support::Heard| heard.kind() == "payout_link.rejected";
    eventually("every refusal", async || {
        (world.results().iter().filter(|heard| refused(heard)).count() >= bad.len()).then_some(())
    })
    .await;
    assert!(world.results().iter().all(|heard| heard.body.len() < 4096));
    // every good one is created, under the very id that it came with;
    for job in &good {
        let id = job.id();
        assert_eq!(world.result_of(id).await.kind(), "payout_link.created", "{id:?}");
    }
    let made: Vec<String> = sqlx::query_scalar("SELECT merchant_payout_id FROM payout_links")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    assert_eq!(made.len(), good.len() + 1, "nothing else became a record");
    // and the worker kept none of it, nor wrote a line that is more than a line.
    let more = worker.most_memory() - before;
    assert!(more < 64 * 1024 * 1024, "{more} bytes");
    let log = worker.log();
    assert!(log.lines().all(|line| line.len() < 8192 && serde_json::from_str::<Value>(line).is_ok()));
    assert!(!log.contains('\u{1b}') && !log.contains("lease ran out"));
}

/// What a client cannot even take apart is delivered alone until the broker gives it up: innocent jobs that were
/// delivered with it are not taken for poison, and are not refused where they were accepted.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_taken_apart_drags_no_other_with_it() {
    // Given messages whose properties are not text, among good jobs,
    let world = World::new().await;
    world.start_worker().await.stop().await;
    let mut raw = world.raw_publisher();
    let queue = &world.names.jobs_queue;
    for number in 0..20 {
        world.publish(job(&format!("po_{number}"))).await;
        match number {
            3 => raw.publish(queue, &job("bad").body, CORRELATION_ID, &short(b"\xff\xfe")),
            9 => raw.publish(
                queue,
                &job("bad").body,
                REPLY_TO | MESSAGE_ID,
                &[short(b"\xc0\xaf"), short(b"m")].concat(),
            ),
            _ => {}
        }
    }
    // when workers come upon them,
    let (first, second) = (world.start_worker().await, world.start_worker().await);
    // then every good job is created, none refused,
    for number in 0..20 {
        assert_eq!(world.result_of(&format!("po_{number}")).await.kind(), "payout_link.created", "{number}");
    }
    // the bad ones are dead letters, by the broker's own limit,
    for _ in 0..2 {
        eventually("the broker's dead letter", async || {
            (world.ready(&world.names.dead_queue).await >= 2).then_some(())
        })
        .await;
    }
    world.publish(job("after")).await;
    world.result_of("after").await;
    assert!(world.results().iter().all(|heard| heard.kind() == "payout_link.created"));
    for worker in [&first, &second] {
        assert!(!worker.log().contains("job refused"), "{}", worker.log());
    }
}

/// Lists in lists go down a level of the stack each, in the client's parser; and headers that fill a frame leave no
/// room for the reason of a refusal.
#[tokio::test(flavor = "multi_thread")]
async fn headers_of_any_depth_and_size_are_survived() {
    let world = World::new().await;
    let mut worker = world.start_worker().await;
    let mut raw = world.raw_publisher();
    let queue = &world.names.jobs_queue;
    // Given a good job and a bad one with headers thousands of levels deep,
    raw.publish(queue, &job("deep").body, HEADERS, &deep_headers(5000));
    raw.publish(queue, b"bad", HEADERS | MESSAGE_ID, &[deep_headers(5000), short(b"deep and bad")].concat());
    // and a bad one whose headers fill a frame to its last byte,
    let mut table = Vec::new();
    while table.len() < 130_000 {
        table.extend(
            [short(format!("x-{}", table.len()).as_bytes()), b"S".to_vec(), long(&[b'v'; 900])].concat(),
        );
    }
    raw.publish(queue, b"bad", HEADERS | MESSAGE_ID, &[long(&table), short(b"full and bad")].concat());
    // then the good one is created, the others refused and told,
    assert_eq!(world.result_of("deep").await.kind(), "payout_link.created");
    for id in ["deep and bad", "full and bad"] {
        assert_eq!(world.result_of(id).await.error_code().as_deref(), Some("INVALID_JOB"), "{id}");
    }
    // and kept, by the broker where we have no room for the reason.
    eventually("the dead letters", async || (world.ready(&world.names.dead_queue).await == 2).then_some(()))
        .await;
    world.publish(job("after")).await;
    world.result_of("after").await;
    assert!(!worker.log().contains("is away"), "{}", worker.log());
    worker.kill();
}

/// A delivery that comes once too often, of a job that was accepted: the record is there, and the refusal would be a lie.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_is_never_refused_for_coming_again() {
    let world = Setup::default().set("worker.max_deliveries", 3).build().await;
    let worker = world.start_worker().await;
    world.publish(job("po_1")).await;
    let first = world.result_of("po_1").await;
    worker.stop().await;
    world.publish(job("po_1")).await;
    for _ in 0..4 {
        world.deliver_and_give_back().await;
    }
    let _worker = world.start_worker().await;
    let again = world.wait_for_results("po_1", 2).await.remove(1);
    assert_eq!((again.id(), again.kind()), (first.id(), first.kind()));
    assert_eq!(world.ready(&world.names.dead_queue).await, 0);
}
