//! Tests the sandbox's own webhooks: the announced changes, their signatures, and each behaviour.

use std::time::Duration;

use aws_lc_rs::hmac;
use provider_simulators::sandbox::{
    Announce, Announced, Behaviour, Fate, Fault, FaultRule, LinkChange, Received, Receiver, Settings,
};
use reqwest::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::client::{DEADLINE, TOKEN, TestEnv, answer, request};

const SECRET: &str = "the secret of the sandbox's webhooks";

/// A sandbox that announces to a recipient.
struct Announcing {
    env: TestEnv,
    recipient: Receiver,
}

impl Announcing {
    async fn new(behaviour: Behaviour) -> Self {
        let recipient = Receiver::start(&[]).await.unwrap();
        let announce = Some(Announce::to(recipient.url(), SECRET).with(behaviour));
        let env = TestEnv::with(Settings { announce, ..Settings::new(TOKEN) }).await;
        Self { env, recipient }
    }

    async fn link(&self, reference: &str) -> String {
        let made = self.env.created(reference, &request(reference, 1250)).await;
        made["id"].as_str().unwrap().to_owned()
    }

    fn change(&self, reference: &str, changes: &[LinkChange]) {
        for &change in changes {
            self.env.sandbox.change(reference, change).unwrap();
        }
    }

    async fn received(&self, count: usize) -> Vec<Received> {
        let received = self.recipient.until(|received| received.len() >= count);
        tokio::time::timeout(DEADLINE, received).await.expect("so many webhooks")
    }

    /// Waits for so many announcements, and returns them.
    async fn announced(&self, count: usize) -> Vec<Announced> {
        let ledger = self.env.until(|ledger| ledger.announcements.len() >= count).await;
        ledger.announcements.into_iter().collect()
    }
}

/// Computes the signature. The code follows the documentation, not the sandbox's own code.
fn signature(webhook: &Received, secret: &str) -> String {
    let signed = format!("{}.{}", webhook.headers["sandbox-timestamp"], webhook.body);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), signed.as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("v1={hex}")
}

fn age(webhook: &Received) -> time::Duration {
    let sent = webhook.headers["sandbox-timestamp"].parse().unwrap();
    OffsetDateTime::now_utc() - OffsetDateTime::from_unix_timestamp(sent).unwrap()
}

fn statuses(received: &[Received]) -> Vec<String> {
    received.iter().map(|webhook| webhook.json()["link"]["status"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn every_change_is_announced_in_order_and_signed() {
    let announcing = Announcing::new(Behaviour::default()).await;
    let id = announcing.link("po_1").await;
    announcing
        .change("po_1", &[LinkChange::Claim, LinkChange::Process, LinkChange::Pay, LinkChange::Reverse]);
    let received = announcing.received(4).await;

    assert_eq!(statuses(&received), ["claimed", "processing", "paid", "reversed"]);
    let mut event_ids = Vec::new();
    for webhook in &received {
        let body = webhook.json();
        assert_eq!(webhook.headers["content-type"], "application/json");
        assert_eq!(webhook.headers["sandbox-signature"], signature(webhook, SECRET));
        assert!(age(webhook) < time::Duration::minutes(1));
        assert_eq!(webhook.headers["sandbox-event-id"], body["id"]);
        assert_eq!(body["type"], "link.status_changed");
        assert_eq!(json!([body["link"]["id"], body["link"]["reference"]]), json!([id, "po_1"]));
        assert!(OffsetDateTime::parse(body["created_at"].as_str().unwrap(), &Rfc3339).is_ok());
        event_ids.push(body["id"].as_str().unwrap().to_owned());
    }
    event_ids.sort_unstable();
    event_ids.dedup();
    assert_eq!(event_ids.len(), 4, "each event has an id of its own");

    let announced = announcing.announced(4).await;
    assert!(announced.iter().all(|sent| sent.status == Some(204) && sent.fate == Fate::Sent));
    let ledger = announcing.env.get("/ledger").await;
    assert_eq!(ledger.json()["announcements"][0]["link_status"], "claimed");
    assert_eq!(ledger.json()["announcements"][0]["event"], "link.status_changed");
    assert!(!ledger.body.contains(SECRET));
}

#[tokio::test]
async fn neither_a_creation_nor_a_rejected_change_is_announced() {
    let announcing = Announcing::new(Behaviour::default()).await;
    announcing.link("po_1").await;
    announcing.env.sandbox.change("po_1", LinkChange::Pay).unwrap_err();
    announcing.change("po_1", &[LinkChange::Cancel]);
    assert_eq!(statuses(&announcing.received(1).await), ["cancelled"]);
}

#[tokio::test]
async fn claims_on_the_page_cancels_by_the_api_and_ends_are_announced() {
    let announcing = Announcing::new(Behaviour::default()).await;
    let env = &announcing.env;
    env.sandbox.set_pay_after(Some(Duration::ZERO));
    let made = env.created("po_1", &request("po_1", 1250)).await;
    let form = "account_holder=Ada&account_number=0532013000";
    let claim = env.client.post(made["url"].as_str().unwrap()).body(form);
    let claim = claim.header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(answer(claim).await.status, 303);
    assert_eq!(statuses(&announcing.received(2).await), ["claimed", "paid"]);

    let id = announcing.link("po_2").await;
    env.post(&format!("/v1/payout-links/{id}/cancel"), &Value::Null).await;
    assert_eq!(statuses(&announcing.received(3).await[2..]), ["cancelled"]);

    // Nobody reads the link, but its expiry is announced, before that of a link that was created earlier.
    let id = announcing.link("po_3").await;
    announcing.link("po_4").await;
    env.sandbox.expire_after("po_4", Duration::from_millis(50)).unwrap();
    env.sandbox.expire_after("po_3", Duration::from_millis(100)).unwrap();
    let received = announcing.received(5).await;
    assert_eq!(statuses(&received[3..]), ["expired", "expired"]);
    assert_eq!(received[4].json()["link"]["id"], json!(id));
}

#[tokio::test]
async fn a_webhook_that_is_not_accepted_is_sent_again_with_a_new_time() {
    let retry_pause = Duration::from_millis(1);
    let announcing = Announcing::new(Behaviour { retries: 2, retry_pause, ..Behaviour::default() }).await;
    announcing.recipient.inject_fault(FaultRule::new(Fault::status(503)).times(2));
    announcing.link("po_1").await;
    announcing.change("po_1", &[LinkChange::Claim]);
    let taken = announcing.announced(3).await;
    let answers: Vec<Option<u16>> = taken.iter().map(|sent| sent.status).collect();
    assert_eq!(answers, [Some(503), Some(503), Some(204)]);
    let received = announcing.received(3).await;
    assert!(received.iter().all(|webhook| webhook.body == received[0].body));

    // The third failure is the last one. The next change is still announced.
    announcing.recipient.inject_fault(FaultRule::new(Fault::Reset));
    announcing.recipient.inject_fault(FaultRule::new(Fault::status(500)).times(2));
    announcing.change("po_1", &[LinkChange::Pay, LinkChange::Reverse]);
    let answers: Vec<Option<u16>> =
        announcing.announced(7).await[3..].iter().map(|sent| sent.status).collect();
    assert_eq!(answers, [None, Some(500), Some(500), Some(204)]);
    assert_eq!(statuses(&announcing.received(7).await[6..]), ["reversed"]);
}

#[tokio::test]
async fn webhooks_are_lost_repeated_and_reordered() {
    let lost = Announcing::new(Behaviour { lose: true, ..Behaviour::default() }).await;
    lost.link("po_1").await;
    lost.change("po_1", &[LinkChange::Claim]);
    let announced = &lost.announced(1).await[0];
    assert_eq!((announced.fate, announced.status), (Fate::Lost, None));
    // The behaviour changes while the sandbox runs.
    lost.env.sandbox.announce(Some(Announce::to(lost.recipient.url(), SECRET)));
    lost.change("po_1", &[LinkChange::Pay]);
    assert_eq!(statuses(&lost.received(1).await), ["paid"]);

    let repeated = Announcing::new(Behaviour { repeat: 2, ..Behaviour::default() }).await;
    repeated.link("po_1").await;
    repeated.change("po_1", &[LinkChange::Claim, LinkChange::Pay]);
    let received = repeated.received(6).await;
    assert_eq!(statuses(&received), ["claimed", "claimed", "claimed", "paid", "paid", "paid"]);
    assert_eq!(received[0].headers["sandbox-event-id"], received[2].headers["sandbox-event-id"]);

    let reordered = Announcing::new(Behaviour { reorder: true, ..Behaviour::default() }).await;
    reordered.link("po_1").await;
    reordered.change("po_1", &[LinkChange::Claim, LinkChange::Process, LinkChange::Pay]);
    assert_eq!(statuses(&reordered.received(2).await), ["processing", "claimed"]);
    let fates: Vec<Fate> = reordered.announced(4).await.iter().map(|sent| sent.fate).collect();
    assert_eq!(fates.iter().filter(|fate| **fate == Fate::HeldBack).count(), 2);
    reordered.env.sandbox.announce(Some(Announce::to(reordered.recipient.url(), SECRET)));
    assert_eq!(statuses(&reordered.received(3).await)[2..], ["paid"], "no longer held back");
}

#[tokio::test]
async fn webhooks_are_old_stale_unsigned_and_signed_by_another() {
    let first = async |behaviour: Behaviour| {
        let announcing = Announcing::new(behaviour).await;
        announcing.link("po_1").await;
        announcing.change("po_1", &[LinkChange::Claim, LinkChange::Pay]);
        announcing.received(2).await.remove(1)
    };
    let old = first(Behaviour { old_timestamp: true, ..Behaviour::default() }).await;
    assert!(age(&old) > time::Duration::minutes(59), "{}", age(&old));
    assert_eq!(old.headers["sandbox-signature"], signature(&old, SECRET));

    let stale = first(Behaviour { old_status: true, ..Behaviour::default() }).await;
    assert_eq!(stale.json()["link"]["status"], "claimed", "the status from before");
    assert_eq!(stale.headers["sandbox-signature"], signature(&stale, SECRET));

    let unsigned = first(Behaviour { unsigned: true, ..Behaviour::default() }).await;
    assert!(!unsigned.headers.contains_key("sandbox-signature"));
    assert!(unsigned.headers.contains_key("sandbox-timestamp"));

    let both = Behaviour { wrong_secret: true, old_status: true, ..Behaviour::default() };
    let forged = first(both).await;
    assert_ne!(forged.headers["sandbox-signature"], signature(&forged, SECRET));
    assert_eq!(forged.json()["link"]["status"], "claimed");
}

#[tokio::test]
async fn the_target_is_set_over_http_as_well() {
    let recipient = Receiver::start(&[]).await.unwrap();
    let env = TestEnv::new().await;
    env.created("key-1", &request("po_1", 1250)).await;
    env.sandbox.change("po_1", LinkChange::Claim).unwrap();
    let put = async |target: Value| {
        answer(env.call(Method::PUT, "/control/announce").body(target.to_string())).await
    };
    let target = json!({ "url": recipient.url(), "secrets": [SECRET], "behaviour": { "repeat": 1, "retry_pause_ms": 1 } });
    assert_eq!(put(target).await.status, 204);
    env.sandbox.change("po_1", LinkChange::Pay).unwrap();
    let received = recipient.until(|received| received.len() == 2);
    let received = tokio::time::timeout(DEADLINE, received).await.unwrap();
    assert_eq!(statuses(&received), ["paid", "paid"], "not what was before");
    let bad = put(json!({ "url": recipient.url(), "secrets": [], "behaviour": { "loose": true } })).await;
    assert!(bad.status == 400 && bad.body.contains("unknown field `loose`"), "{}", bad.body);

    assert_eq!(answer(env.call(Method::DELETE, "/control/announce")).await.status, 204);
    env.sandbox.change("po_1", LinkChange::Reverse).unwrap();
    assert_eq!(env.sandbox.ledger().announcements.len(), 2);
}
