//! Runs the examples of the documentation unchanged: jobs are published with pika and amqplib, and webhooks verified
//! with the Standard Webhooks libraries and cryptography. Validates what is sent with the published schemas, by ajv and the
//! parser of AsyncAPI. `scripts/example-clients` installs them.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use provider_simulators::sandbox::Received;
use serde_json::json;

use crate::support::{TestEnv, WEBHOOK_SECRET, job};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples").join(name)
}

/// Returns the interpreter of an example.
fn interpreter(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable}: eval \"$(scripts/example-clients)\""))
}

/// Runs an example that publishes a job, and returns its output. Only the name of the exchange is changed.
fn published_by(env: &TestEnv, variable: &str, name: &str) -> String {
    let text = std::fs::read_to_string(example(name)).unwrap();
    assert_eq!(text.matches("\"payout_links\"").count(), 1, "{name}: the exchange");
    let own = env.folder.join(name);
    std::fs::write(&own, text.replace("payout_links\"", &format!("{}\"", env.names.jobs_exchange))).unwrap();
    // The example in JavaScript waits for its result.
    let mut command = Command::new("timeout");
    let output =
        command.args(["60", &interpreter(variable)]).arg(own).arg(std::env::var("AMQP_URL").unwrap());
    let output = output.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Verifies a webhook with an example, unchanged and with another body. Returns `verified` if only the first one is
/// accepted.
fn verified_by(env: &TestEnv, variable: &str, name: &str, script: &str, webhook: &Received) {
    let headers = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    let headers: serde_json::Map<_, _> =
        headers.map(|name| (name.to_owned(), webhook.headers[name].as_str().into())).into_iter().collect();
    let given = env.folder.join("given.json");
    std::fs::write(&given, json!({ "body": webhook.body, "headers": headers }).to_string()).unwrap();
    let mut command = Command::new(interpreter(variable));
    let option = if variable == "EXAMPLE_NODE" { "-e" } else { "-c" };
    let folder = example("");
    let output = command.args([option, script]).env("PYTHONPATH", &folder).env("EXAMPLE", example(name));
    let output = output.stdin(File::open(given).unwrap()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "verified\n", "{name}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_published_with_pika_gets_its_result() {
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    assert_eq!(published_by(&env, "WEBHOOK_PYTHON", "publish.py"), "published po_1001\n");
    let result = env.result_of("po_1001").await;
    assert_eq!(result.kind(), "payout_link.created");
    assert_eq!(result.header("x-merchant-id").as_deref(), Some("m_1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_published_with_amqplib_gets_its_reply() {
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    let printed = published_by(&env, "EXAMPLE_NODE", "publish.js");
    let (kind, reply) = printed.split_once(' ').unwrap();
    assert_eq!(kind, "payout_link.created", "{printed}");
    let reply: serde_json::Value = serde_json::from_str(reply).unwrap();
    assert_eq!(reply["merchant_payout_id"], "po_1002");
    assert_eq!(env.result_of("po_1002").await.json(), reply);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schemas_allow_what_is_sent_by_ajv_and_the_asyncapi_parser_reads_them() {
    // Given a job, its result and its webhook, and each of them without a field that it must have,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    let result = env.result_of("po_1").await.json();
    let webhook = env.webhooks(1).await.remove(0).json();
    let job = json!({
        "merchant_payout_id": "po_1",
        "address": {},
        "amount": { "minor_amount": 1250, "currency": "EUR" },
        "destination_currency": "EUR"
    });
    let mut messages = Vec::new();
    for (schema, message, field) in
        [("job", job, "amount"), ("result", result, "status_code"), ("webhook", webhook, "data")]
    {
        let mut without = message.clone();
        without.as_object_mut().unwrap().remove(field).unwrap();
        messages.push(json!({ "schema": schema, "message": message }));
        messages.push(json!({ "schema": schema, "message": without }));
    }
    let given = env.folder.join("messages.json");
    std::fs::write(&given, json!(messages).to_string()).unwrap();
    // when they are validated with the published schemas,
    let output = Command::new(interpreter("EXAMPLE_NODE"))
        .args(["-e", include_str!("validate_schemas.js")])
        .env("SCHEMAS", Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema"))
        .stdin(File::open(given).unwrap())
        .output()
        .unwrap();
    // then those that were sent are allowed and the others are not, and the AsyncAPI document has no error.
    let said = String::from_utf8_lossy(&output.stderr);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect(&said);
    let expected =
        json!({ "allowed": [true, false, true, false, true, false], "isRead": true, "errors": [] });
    assert_eq!(found, expected, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_signature_verifies_with_another_languages_library() {
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    env.publish(job("po_1").with("webhook_url", env.webhook_url()).with("description", json!("für Ada")))
        .await;
    let webhook = env.webhooks(1).await.remove(0);
    let python = r#"
import json, sys
from verify_webhook import handle
given = json.load(sys.stdin)
event = handle(given["body"].encode(), given["headers"])
assert event["data"]["merchant_payout_id"] == "po_1"
try:
    handle(given["body"].encode() + b" ", given["headers"])
except Exception:
    print("verified")
"#;
    verified_by(&env, "WEBHOOK_PYTHON", "verify_webhook.py", python, &webhook);
    let node = r#"
const { handle } = require(process.env.EXAMPLE);
const given = JSON.parse(require("fs").readFileSync(0));
const event = handle(given.body, given.headers);
if (event.data.merchant_payout_id !== "po_1") throw new Error(JSON.stringify(event));
try {
  handle(given.body + " ", given.headers);
} catch {
  console.log("verified");
}
"#;
    verified_by(&env, "EXAMPLE_NODE", "verify_webhook.js", node, &webhook);
}

/// Checks the asymmetric signature, beside the symmetric one, with the public key alone.
#[tokio::test(flavor = "multi_thread")]
async fn an_asymmetric_signature_verifies_with_the_public_key_alone() {
    let env = TestEnv::new().await;
    // Given a merchant with a secret and a pair of keys (RFC 8032, section 7.1, test 1),
    let pair = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
    let secrets = format!("[\"{WEBHOOK_SECRET}\", \"{pair}\"]");
    let worker = env.launch_worker(&[("PAYOUT_LINK__WEBHOOKS__MERCHANT_SECRETS__M_1", secrets)]);
    worker.says("connected to RabbitMQ, consuming").await;
    env.publish(job("po_1").merchant("m_1").with("webhook_url", env.webhook_url())).await;
    let webhook = env.webhooks(1).await.remove(0);
    // then the secret's signature still verifies,
    assert!(webhook.verified);
    // and the key pair's verifies with the public key, unless a byte is changed.
    let python = r#"
import json, sys
from verify_ed25519 import verify
given = json.load(sys.stdin)
verify(given["body"].encode(), given["headers"])
try:
    verify(given["body"].encode() + b" ", given["headers"])
except ValueError:
    print("verified")
"#;
    verified_by(&env, "WEBHOOK_PYTHON", "verify_ed25519.py", python, &webhook);
}
