//! Tests the webhook receiver: what it stores, what it verifies, and its faults.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use provider_simulators::sandbox::{Fault, FaultRule, Receiver, Settings};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::client::{DEADLINE, TOKEN, TestEnv, answer, client};

const KEY: &[u8] = b"a secret of twenty-four.";

fn secret() -> String {
    format!("whsec_{}", BASE64_STANDARD.encode(KEY))
}

fn event(reference: &str) -> String {
    json!({ "type": "payout_link.created", "data": { "merchant_payout_id": reference } }).to_string()
}

/// Builds a webhook that is signed with the key, as a worker would send it now.
fn webhook(url: &str, key: &[u8], body: &str) -> RequestBuilder {
    let timestamp = OffsetDateTime::now_utc().unix_timestamp().to_string();
    let signed = format!("evt_1.{timestamp}.{body}");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), signed.as_bytes());
    client()
        .post(url)
        .header("content-type", "application/json")
        .header("webhook-id", "evt_1")
        .header("webhook-timestamp", timestamp)
        .header("webhook-signature", format!("v1,{}", BASE64_STANDARD.encode(tag)))
        .body(body.to_owned())
}

#[tokio::test]
async fn a_signed_webhook_is_stored_and_verified() {
    let receiver = Receiver::start(&[secret()]).await.unwrap();
    let body = event("po_1");
    let taken = answer(webhook(&format!("{}/merchant-7", receiver.url()), KEY, &body)).await;
    assert_eq!((taken.status, taken.body.as_str()), (204, ""));

    let received = &receiver.received()[0];
    assert!(received.verified, "{:?}", received.problem);
    assert_eq!((received.number, received.path.as_str()), (1, "/webhooks/merchant-7"));
    assert_eq!((received.id.as_deref(), received.reference.as_deref()), (Some("evt_1"), Some("po_1")));
    assert_eq!(received.event_type.as_deref(), Some("payout_link.created"));
    assert_eq!((received.body.as_str(), received.status), (body.as_str(), Some(204)));
    assert_eq!(received.headers["content-type"], "application/json");
}

#[tokio::test]
async fn a_webhook_signed_by_another_is_stored_and_rejected() {
    let receiver = Receiver::start(&[secret()]).await.unwrap();
    let forged = answer(webhook(receiver.url(), b"another secret, of another", "{}")).await;
    assert_eq!((forged.status, forged.error_code().as_str()), (401, "not_verified"));
    let received = &receiver.received()[0];
    assert_eq!((received.verified, received.problem), (false, Some("no signature is by a known secret")));
}

#[tokio::test]
async fn while_secrets_change_each_of_them_verifies() {
    let next = b"the next secret, as long";
    let secrets = [secret(), format!("whsec_{}", BASE64_STANDARD.encode(next))];
    let receiver = Receiver::start(&secrets).await.unwrap();
    for key in [KEY, next] {
        assert_eq!(answer(webhook(receiver.url(), key, "{}")).await.status, 204);
    }
}

#[tokio::test]
async fn without_secrets_everything_is_accepted() {
    let receiver = Receiver::start(&[]).await.unwrap();
    assert_eq!(answer(client().post(receiver.url()).body("not JSON")).await.status, 204);
    let received = &receiver.received()[0];
    assert_eq!((received.verified, received.problem), (false, Some("webhook-id is missing")));
    assert_eq!((received.body.as_str(), received.json()), ("not JSON", Value::Null));
}

#[tokio::test]
async fn an_invalid_secret_is_rejected_at_the_start() {
    assert!(Receiver::start(&["secret".to_owned()]).await.is_err());
}

#[tokio::test]
async fn it_fails_by_its_fault_rules() {
    let receiver = Receiver::start(&[secret()]).await.unwrap();
    receiver.inject_fault(FaultRule::new(Fault::status(500)).times(2));
    receiver.inject_fault(Fault::status_with_retry_after(503, "120"));
    receiver.inject_fault(FaultRule::new(Fault::status(410)).for_reference("po_2"));
    let redirect = Fault::Redirect { location: Some("https://elsewhere.example/".parse().unwrap()) };
    receiver.inject_fault(redirect);
    receiver.inject_fault(Fault::Reset);

    let post = async |reference| webhook(receiver.url(), KEY, &event(reference)).send().await;
    assert_eq!(post("po_1").await.unwrap().status(), 500);
    assert_eq!(post("po_1").await.unwrap().status(), 500);
    assert_eq!(post("po_1").await.unwrap().headers()["retry-after"], "120");
    assert_eq!(post("po_1").await.unwrap().headers()["location"], "https://elsewhere.example/");
    assert!(post("po_1").await.is_err());
    assert_eq!(post("po_2").await.unwrap().status(), 410);
    assert_eq!(post("po_2").await.unwrap().status(), 204);

    let reply: Vec<_> = receiver.received().iter().map(|webhook| (webhook.status, webhook.fault)).collect();
    assert_eq!(reply[0], (Some(500), Some("status")));
    assert_eq!(reply[4], (None, Some("reset")));
    assert_eq!(reply[6], (Some(204), None));
}

#[tokio::test]
async fn a_hanging_receiver_ends_when_it_stops() {
    let receiver = Receiver::start(&[]).await.unwrap();
    receiver.inject_fault(FaultRule::new(Fault::Silence).always());
    let call = tokio::spawn(client().post(receiver.url()).body("{}").send());
    let arrived = tokio::time::timeout(DEADLINE, receiver.until(|received| received.len() == 1)).await;
    assert_eq!(arrived.unwrap()[0].status, None);
    tokio::time::timeout(Duration::from_secs(4), receiver.stop())
        .await
        .expect("before the grace period ends");
    assert!(call.await.unwrap().is_err());
}

#[tokio::test]
async fn the_sandbox_has_one_where_it_has_secrets() {
    let none = TestEnv::new().await;
    assert_eq!(none.get("/webhooks").await.status, 404);

    let env = TestEnv::with(Settings { webhook_secrets: vec![secret()], ..Settings::new(TOKEN) }).await;
    env.inject_fault(json!({ "on": "webhook", "fault": { "status": { "code": 500 } } })).await;
    let url = format!("{}/webhooks", env.sandbox.url());
    assert_eq!(answer(webhook(&url, KEY, &event("po_1"))).await.status, 500);
    assert_eq!(answer(webhook(&url, KEY, &event("po_2"))).await.status, 204);

    let listed = env.get("/webhooks").await.json();
    let verified: Vec<&Value> =
        listed["data"].as_array().unwrap().iter().map(|webhook| &webhook["verified"]).collect();
    assert_eq!(verified, [true, true]);
    let listed = env.get("/webhooks?reference=po_2").await.json();
    assert_eq!((listed["data"].as_array().unwrap().len(), &listed["data"][0]["status"]), (1, &json!(204)));
}
