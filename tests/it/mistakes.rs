//! Tests errors in jobs and their rejections. Each rejection says what is wrong, what is expected and what to do, so
//! that its reader needs no other document.

use lapin::types::AMQPValue;
use serde_json::{Value, json};

use crate::support::{Job, Setup, job};

const FIELD: &str = "Correct the field that the description names and publish the job again under the same \
    merchant_payout_id. No payout link was requested.";
const MESSAGE: &str = "Correct the message and publish it again under the same merchant_payout_id. No payout link was requested.";

/// An error, and the whole rejection.
struct Mistake {
    name: &'static str,
    job: Job,
    code: &'static str,
    /// The field, or an empty string for the message as a whole.
    field: &'static str,
    message: &'static str,
    guidance: &'static str,
}

fn invalid(name: &'static str, job: Job, field: &'static str, message: &'static str) -> Mistake {
    let guidance = if field.is_empty() { MESSAGE } else { FIELD };
    Mistake { name, job, code: "INVALID_JOB", field, message, guidance }
}

fn good() -> Job {
    job("po_1")
}

fn amount(minor_amount: Value) -> Job {
    good().with("amount", json!({ "minor_amount": minor_amount, "currency": "EUR" }))
}

fn currency(code: &str) -> Job {
    good().with("amount", json!({ "minor_amount": 1250, "currency": code }))
}

fn webhook(url: &str) -> Job {
    good().with("webhook_url", json!(url))
}

fn encoded(encoding: &str) -> Job {
    good().properties(|properties| properties.with_content_encoding(encoding.into()))
}

const DIGITS: &str = "The amount in minor units (1250 for EUR 12.50) as a whole number is expected here, in digits alone: no \
    decimal point, no separators, no sign but -.";
const ABOVE_ZERO: &str = "The amount must be 1 or more, in minor units: 1250 for EUR 12.50.";
const CURRENCY: &str = "The currency is unknown: a code of ISO 4217 in capitals is expected here, such as EUR (docs/reference/jobs.md has \
    all). Did you mean \"EUR\"?";
const COMPRESSED: &str = "The content encoding says that the message is compressed: publish uncompressed JSON without a content encoding.";
const NOT_PUBLIC: &str = "No webhook can be delivered to this URL: the webhook's host is not a public address; name a public host, or \
    have the network allowed in webhooks.allowed_networks.";

#[expect(clippy::too_many_lines, reason = "a table")]
fn mistakes() -> Vec<Mistake> {
    let minor_amount = "amount.minor_amount";
    let mut all = vec![
        invalid("amount 12.50", amount(json!(12.50)), minor_amount, DIGITS),
        invalid("amount \"12.50\"", amount(json!("12.50")), minor_amount, DIGITS),
        invalid("amount \"1,250\"", amount(json!("1,250")), minor_amount, DIGITS),
        invalid("amount 0", amount(json!(0)), minor_amount, ABOVE_ZERO),
        invalid("amount -5", amount(json!(-5)), minor_amount, ABOVE_ZERO),
        invalid(
            "amount of twenty digits",
            amount(json!("99999999999999999999")),
            minor_amount,
            "The amount in minor units (1250 for EUR 12.50) as a whole number is expected here. This one is out of range: \
             9223372036854775807 is the most.",
        ),
        invalid(
            "no amount",
            good().with("amount", Value::Null),
            "amount",
            "The field is missing or empty. EUR 12.50 is {\"minor_amount\": 1250, \"currency\": \"EUR\"}.",
        ),
        invalid(
            "amount as a number",
            good().with("amount", json!(1250)),
            "amount",
            "An object is expected here, not a number.",
        ),
        invalid("currency eur", currency("eur"), "amount.currency", CURRENCY),
        invalid("currency EURO", currency("EURO"), "amount.currency", CURRENCY),
        invalid(
            "a currency that is near to none",
            currency("YEN"),
            "amount.currency",
            "The currency is unknown: a code of ISO 4217 in capitals is expected here, such as EUR (docs/reference/jobs.md has all).",
        ),
        invalid(
            "no address",
            good().with("address", Value::Null),
            "address",
            "The field is missing or empty. It is required; an empty object, {}, is enough.",
        ),
        invalid(
            "country UK",
            good().with("address", json!({ "billing_address": { "country_alpha2_code": "UK" } })),
            "address.billing_address.country_alpha2_code",
            "The country is unknown: a code of ISO 3166-1 alpha-2 in capitals is expected here, such as GB. Did you mean \"GB\"?",
        ),
        invalid(
            "priority urgent",
            good().with("priority", json!("urgent")),
            "priority",
            "The value is unknown: one of INSTANT, FAST, REGULAR, WIRE, CROSS_BORDER, INTERNAL is expected here.",
        ),
        invalid(
            "priority fast",
            good().with("priority", json!("fast")),
            "priority",
            "The value is unknown: one of INSTANT, FAST, REGULAR, WIRE, CROSS_BORDER, INTERNAL is expected here. Did you mean \
             \"FAST\"?",
        ),
        invalid(
            "webhook_ur",
            good().with("webhook_ur", json!("https://merchant.example.com/")),
            "webhook_ur",
            "The field is unknown. Did you mean \"webhook_url\"?",
        ),
        invalid(
            "a field near to none",
            good().with("amount", json!({ "minor_amount": 1250, "currency": "EUR", "pence": 1 })),
            "amount.pence",
            "The field is unknown. Known here are: minor_amount, currency.",
        ),
        invalid(
            "a field in two spellings",
            good().with("merchantPayoutId", json!("po_1")),
            "merchant_payout_id",
            "The field is given twice: give it once. snake_case and lowerCamelCase are one field.",
        ),
        invalid(
            "http webhook",
            webhook("http://merchant.example.com/webhooks"),
            "webhook_url",
            "The URL is not https: it must begin with https:// (jobs.allow_http_webhooks takes http as well, for tests).",
        ),
        invalid(
            "webhook without a scheme",
            webhook("merchant.example.com/webhooks"),
            "webhook_url",
            "The value is not an absolute URL, such as https://merchant.example.com/webhooks.",
        ),
        invalid("webhook to 127.0.0.1", webhook("https://127.0.0.1/webhooks"), "webhook_url", NOT_PUBLIC),
        invalid(
            "webhook to localhost",
            webhook("https://localhost/webhooks"),
            "webhook_url",
            "No webhook can be delivered to this URL: no public server has the webhook's host: names below localhost are for other \
             uses; name a public host, or have it allowed in webhooks.allowed_hosts.",
        ),
        invalid(
            "text/plain",
            good().content_type("text/plain"),
            "content_type",
            "The content type is not application/json.",
        ),
        invalid("content encoding gzip", encoded("gzip").raw(&gzip()), "content_encoding", COMPRESSED),
        invalid("plain, said to be gzip", encoded("GZIP"), "content_encoding", COMPRESSED),
        invalid(
            "gzip, said to be nothing",
            good().raw(&gzip()),
            "",
            "The message is not UTF-8. It is compressed with gzip. Publish the JSON uncompressed.",
        ),
        invalid(
            "Latin-1",
            good().raw(b"{\"merchant_payout_id\":\"Z\xfcrich\"}"),
            "",
            "The message is not UTF-8. Byte 24 begins no character. Publish the JSON in UTF-8.",
        ),
        invalid(
            "UTF-16",
            good().raw(b"\xff\xfe{\0}\0"),
            "",
            "The message is not UTF-8 but UTF-16. Publish the JSON in UTF-8, without a byte order mark.",
        ),
        invalid(
            "an identifier of 256 bytes",
            job(&"x".repeat(256)),
            "merchant_payout_id",
            "The identifier has 256 bytes: 255 are the most.",
        ),
        invalid(
            "an empty identifier",
            job(""),
            "merchant_payout_id",
            "The identifier is empty: 1 to 255 bytes are expected.",
        ),
        invalid(
            "a line end in an identifier",
            job("po\n1"),
            "merchant_payout_id",
            "The identifier has a control character, such as a line end: it must have none.",
        ),
        invalid(
            "a list of jobs",
            good().raw(b"[{}]"),
            "",
            "The message is not a JSON object. Publish one job in each message, as one object.",
        ),
        invalid(
            "x-merchant-id 42",
            good().value("x-merchant-id", AMQPValue::LongInt(42)),
            "x-merchant-id",
            "The header must be a string and occur once: a number is not a string.",
        ),
        invalid(
            "feature data as an object",
            good().with("connector_feature_data", json!({ "purpose": "refund" })),
            "connector_feature_data.purpose",
            "The field is unknown: connector_feature_data is a string that holds JSON text, such as \
             \"{\\\"purpose\\\":\\\"…\\\"}\".",
        ),
        invalid(
            "an empty body",
            good().raw(b""),
            "",
            "The message is not JSON. It is empty. One JSON object is expected.",
        ),
        invalid(
            "a byte order mark",
            good().raw(b"\xef\xbb\xbf{}"),
            "",
            "The message is not JSON. It begins with a byte order mark (U+FEFF). Publish it without one.",
        ),
        invalid(
            "single quotes",
            good().raw(b"{'merchant_payout_id':'po_1'}"),
            "",
            "The message is not JSON. Single quotes stand at line 1 column 2. Names and strings have double quotes.",
        ),
        invalid(
            "a comma too many",
            good().raw(b"{\"merchant_payout_id\":\"po_1\",}"),
            "",
            "The message is not JSON. The parser says \"trailing comma\" at line 1 column 30.",
        ),
    ];
    all.push(Mistake {
        name: "x-connector sandbx",
        job: good().connector("sandbx"),
        code: "UNKNOWN_CONNECTOR",
        field: "x-connector",
        message: "No connector of this name is configured. Did you mean \"sandbox\"?",
        guidance: "Name a configured connector in the header x-connector, or have the connector configured, and publish the \
            job again. No payout link was requested.",
    });
    all.push(Mistake {
        name: "x-connector stripe",
        job: good().connector("stripe"),
        code: "UNKNOWN_CONNECTOR",
        field: "x-connector",
        message: "No connector of this name is configured. Configured connectors: asked, mute, sandbox.",
        guidance: "Name a configured connector in the header x-connector, or have the connector configured, and publish the \
            job again. No payout link was requested.",
    });
    all
}

/// Builds a job that looks compressed: the header of RFC 1952, and bytes that no text has.
fn gzip() -> Vec<u8> {
    vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xab, 0xae, 5, 0]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_is_answered_with_what_is_wrong_what_is_expected_and_what_to_do() {
    let env = Setup::default()
        .set("jobs.allow_http_webhooks", false)
        .set("webhooks.allowed_networks", "[]")
        .build()
        .await;
    let _worker = env.start_worker().await;
    let mistakes = mistakes();
    for mistake in &mistakes {
        let job = mistake.job.clone().message_id(mistake.name).correlation_id(mistake.name);
        env.publish(job).await;
    }
    let mut wrong = Vec::new();
    for mistake in &mistakes {
        let result = env.answer_to(mistake.name).await;
        let reply = &result.json()["error"]["unified_details"];
        let mut expected = json!({
            "code": mistake.code,
            "message": mistake.message,
            "user_guidance_message": mistake.guidance,
        });
        if !mistake.field.is_empty() {
            expected["description"] = mistake.field.into();
        }
        if result.kind() != "payout_link.rejected" || *reply != expected {
            wrong.push(format!("{}: {reply:#}\nin place of {expected:#}", mistake.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_an_identifier_and_one_under_a_key_in_use_are_reported_what_to_do() {
    let env = Setup::default().build().await;
    let _worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    env.result_of("po_1").await;
    env.publish(job("po_1").amount(1).message_id("conflict")).await;
    env.publish(job("").with("merchant_payout_id", Value::Null).correlation_id("nameless")).await;
    let reply = async |id: &str| env.answer_to(id).await.json()["error"]["unified_details"].clone();
    assert_eq!(
        reply("conflict").await,
        json!({
            "code": "IDEMPOTENCY_CONFLICT",
            "message": "Another request was accepted under this key; these fields differ: amount.minor_amount.",
            "description": "amount.minor_amount",
            "user_guidance_message": "For another payout use a new merchant_payout_id. For the payout that was accepted publish \
                the first job unchanged: its result is published again.",
        })
    );
    assert_eq!(
        reply("nameless").await,
        json!({
            "code": "MISSING_IDENTIFIER",
            "message": "The job has neither merchant_payout_id nor message_id: a redelivery could not be distinguished from a second \
                payout.",
            "description": "merchant_payout_id",
            "user_guidance_message": "Give each payout a merchant_payout_id of its own and publish the job again. No payout \
                link was requested.",
        })
    );
}

/// Checks every secret field of a job with a secret in the wrong form: no rejection repeats a part of it.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_to_a_mistake_shows_what_a_field_holds() {
    let env = Setup::default().build().await;
    let worker = env.start_worker().await;
    let secret = "canary4929420573595709";
    let jobs = [
        good().with("access_token", json!([secret])),
        good().with("access_token", json!({ "value": { "deeper": secret } })),
        good().with("connector_feature_data", json!({ "value": [secret] })),
        good().with("payout_method_data", json!({ "card": { "card_number": secret } })),
        good().with("payout_method_data", json!({ "card": [secret] })),
        good().with("customer", json!({ "email": [secret] })),
        good().with("customer", json!(secret)),
        good().with("priority", json!(secret)),
        good().with("amount", json!({ "minor_amount": secret, "currency": secret })),
        good().with("webhook_url", json!(format!("https://ada:{secret}@merchant.example.com/"))),
        good().with("webhook_url", json!(secret)),
        good().raw(format!("{{\"access_token\":\"{secret}\" {secret}").as_bytes()),
        good().raw(secret.as_bytes()),
        good().connector(secret),
    ];
    for (number, job) in jobs.iter().enumerate() {
        env.publish(job.clone().message_id(&format!("secret {number}"))).await;
    }
    for number in 0..jobs.len() {
        let result = env.answer_to(&format!("secret {number}")).await;
        assert_eq!(result.kind(), "payout_link.rejected", "{number}");
        let text = String::from_utf8_lossy(&result.body).into_owned();
        assert!(!text.contains("canary") && !text.contains("492942"), "{number}: {text}");
    }
    assert!(!worker.log().contains("4929420573595709"), "{}", worker.log());
}
