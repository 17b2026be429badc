//! Tests the webhooks of the providers: the announced changes, their form, and their signatures, which match signed
//! examples.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_lc_rs::hmac;
use provider_simulators::providers::{
    Announce, Behaviour, Fate, HyperswitchSettings, LinkChange, Provider, RazorpayXSettings, XenditSettings,
};
use provider_simulators::sandbox::{Received, Receiver};
use reqwest::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::client::{TestEnv, answer, changed};
use crate::{hyperswitch, razorpayx, revolut, xendit};

const DEADLINE: Duration = Duration::from_secs(10);

/// The signed examples: the secret, and for each event its headers and its body.
const EXAMPLES: [(&str, &str); 4] = [
    ("hyperswitch", include_str!("../fixtures/deliveries/hyperswitch.json")),
    ("razorpayx", include_str!("../fixtures/deliveries/razorpayx.json")),
    ("revolut", include_str!("../fixtures/deliveries/revolut.json")),
    ("xendit", include_str!("../fixtures/deliveries/xendit.json")),
];

fn examples(provider: &str) -> Value {
    let (_, text) = EXAMPLES.iter().find(|(name, _)| *name == provider).unwrap();
    serde_json::from_str(text).unwrap()
}

fn secret(provider: &str) -> String {
    examples(provider)["secret"].as_str().unwrap().to_owned()
}

/// Returns the body of an example.
fn example(provider: &str, event: &str) -> Value {
    let examples = examples(provider);
    let deliveries = examples["deliveries"].as_array().unwrap().iter();
    let found = deliveries.clone().find(|delivery| delivery["event"] == event).unwrap();
    serde_json::from_str(found["body"].as_str().unwrap()).unwrap()
}

fn hex_hmac(algorithm: hmac::Algorithm, secret: &str, signed: &str) -> String {
    let tag = hmac::sign(&hmac::Key::new(algorithm, secret.as_bytes()), signed.as_bytes());
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the header of the proof and its value. The code follows the documentation, not the simulators' code.
fn proof(provider: &str, secret: &str, timestamp: &str, body: &str) -> (&'static str, String) {
    match provider {
        "hyperswitch" => ("x-webhook-signature-512", hex_hmac(hmac::HMAC_SHA512, secret, body)),
        "razorpayx" => ("x-razorpay-signature", hex_hmac(hmac::HMAC_SHA256, secret, body)),
        "revolut" => {
            let signed = format!("v1.{timestamp}.{body}");
            ("revolut-signature", format!("v1={}", hex_hmac(hmac::HMAC_SHA256, secret, &signed)))
        }
        "xendit" => ("x-callback-token", secret.to_owned()),
        other => panic!("{other}"),
    }
}

fn timestamp(webhook: &Received) -> &str {
    webhook.headers.get("revolut-request-timestamp").map(String::as_str).unwrap_or_default()
}

fn is_signed(provider: &str, webhook: &Received) -> bool {
    let (header, value) = proof(provider, &secret(provider), timestamp(webhook), &webhook.body);
    webhook.headers.get(header) == Some(&value)
}

/// Checks that this file signs as the examples are signed, so that its judgement of the simulators counts.
#[test]
fn the_examples_are_signed_as_this_file_signs() {
    for (provider, _) in EXAMPLES {
        let examples = examples(provider);
        for delivery in examples["deliveries"].as_array().unwrap() {
            let timestamp = delivery["headers"]["revolut-request-timestamp"].as_str().unwrap_or_default();
            let body = delivery["body"].as_str().unwrap();
            let (header, value) = proof(provider, &secret(provider), timestamp, body);
            assert_eq!(delivery["headers"][header], value, "{provider} {}", delivery["event"]);
        }
    }
    let official = examples("revolut")["official"].clone();
    let text = |name: &str| official[name].as_str().unwrap();
    let (_, signature) = proof("revolut", text("secret"), text("timestamp"), text("body"));
    assert_eq!(signature, text("signature"));
}

/// A simulator with one link that announces to a recipient.
struct Announcing {
    provider: &'static str,
    env: TestEnv,
    recipient: Receiver,
    reference: &'static str,
}

impl Announcing {
    async fn new(provider: &'static str, behaviour: Behaviour) -> Self {
        let recipient = Receiver::start(&[]).await.unwrap();
        let (env, path, body, reference) = match provider {
            "hyperswitch" => {
                let settings = Provider::Hyperswitch(HyperswitchSettings::new(hyperswitch::KEY));
                let env = TestEnv::new(settings, ("api-key", hyperswitch::KEY.into())).await;
                (env, "/payouts/create", hyperswitch::link(), hyperswitch::ID)
            }
            "revolut" => (revolut::env().await, revolut::LINKS, revolut::link(), "pl-1"),
            "razorpayx" => {
                let settings = Provider::RazorpayX(RazorpayXSettings::new("id", "secret"));
                let env = TestEnv::new(settings, ("authorization", razorpayx::basic("id", "secret"))).await;
                (env, razorpayx::LINKS, razorpayx::link(), "po_1001")
            }
            _ => {
                let settings = Provider::Xendit(XenditSettings::new(xendit::KEY));
                let credential = ("authorization", xendit::basic(xendit::KEY, ""));
                (TestEnv::new(settings, credential).await, "/payouts", xendit::payout(), "po_1001")
            }
        };
        let target = Announce::to(recipient.url(), secret(provider)).with(behaviour);
        env.simulator.announce(Some(target));
        let made = env.post(path, &body).await;
        assert!(made.status < 300, "{}", made.body);
        Self { provider, env, recipient, reference }
    }

    fn change(&self, changes: &[LinkChange]) {
        for &change in changes {
            self.env.simulator.change(self.reference, change).unwrap();
        }
    }

    async fn received(&self, count: usize) -> Vec<Received> {
        let received = self.recipient.until(|received| received.len() >= count);
        tokio::time::timeout(DEADLINE, received).await.expect("so many webhooks")
    }

    /// Waits for so many events, and returns each with the status of its body. It checks every signature.
    async fn events(&self, count: usize) -> Vec<(String, String)> {
        let announcements = self.env.simulator.until(|ledger| ledger.announcements.len() >= count);
        let ledger = tokio::time::timeout(DEADLINE, announcements).await.expect("so many announcements");
        let received = self.received(count).await;
        assert!(received.iter().all(|webhook| is_signed(self.provider, webhook)), "{received:#?}");
        let sent = ledger.announcements.iter().zip(&received);
        sent.map(|(sent, webhook)| {
            assert_eq!((sent.status, sent.fate), (Some(204), Fate::Sent));
            (sent.event.clone(), shown(&webhook.json()))
        })
        .collect()
    }
}

/// Returns the status in a body.
fn shown(body: &Value) -> String {
    let places = [
        "/content/object/status",
        "/data/new_state",
        "/data/state",
        "/payload/payout_link/entity/status",
        "/payload/payout/entity/status",
        "/status",
    ];
    let mut statuses = places.iter().filter_map(|place| body.pointer(place)?.as_str());
    statuses.next().unwrap_or_else(|| panic!("{body}")).to_owned()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(event, status)| ((*event).to_owned(), (*status).to_owned())).collect()
}

/// Collects the names of a value's fields, at any depth, except those that the client wrote.
fn names(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        found.insert(format!("{path}{name}"));
        if name != "notes" {
            names(value, &format!("{path}{name}."), found);
        }
    }
}

fn has_form_of(body: &Value, example: &Value) {
    let (mut ours, mut theirs) = (BTreeSet::new(), BTreeSet::new());
    names(body, "", &mut ours);
    names(example, "", &mut theirs);
    assert_eq!(ours, theirs);
}

#[tokio::test]
async fn hyperswitch_announces_nothing_of_a_claim_and_nothing_of_an_end() {
    let announcing = Announcing::new("hyperswitch", Behaviour::default()).await;
    use LinkChange::{Claim, Pay, Process, Reverse};
    announcing.change(&[Claim, Process, Process, Pay, Reverse]);
    let events = announcing.events(3).await;
    let expected =
        [("payout_initiated", "initiated"), ("payout_success", "success"), ("payout_reversed", "reversed")];
    assert_eq!(events, pairs(&expected));

    let body = announcing.received(3).await[0].json();
    let example = example("hyperswitch", "payout_initiated");
    let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(fields(&body), fields(&example));
    assert_eq!(body["content"]["type"], example["content"]["type"]);
    let object = fields(&body["content"]["object"]);
    let unknown: Vec<&String> =
        object.iter().filter(|name| example["content"]["object"].get(name.as_str()).is_none()).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    assert_eq!(body["content"]["object"]["payout_id"], hyperswitch::ID);

    let cancelled = Announcing::new("hyperswitch", Behaviour::default()).await;
    cancelled.change(&[LinkChange::Expire, LinkChange::Cancel]);
    cancelled.env.simulator.late_submit(hyperswitch::ID).unwrap();
    let expected = [("payout_cancelled", "cancelled"), ("payout_initiated", "initiated")];
    assert_eq!(cancelled.events(2).await, pairs(&expected));
}

#[tokio::test]
async fn revolut_announces_every_change_of_link_and_transaction() {
    let announcing = Announcing::new("revolut", Behaviour::default()).await;
    let id = announcing.env.simulator.ledger().links[0].id.clone();
    announcing.env.get(&format!("{}/{id}", revolut::LINKS)).await.with(200);
    announcing.change(&[LinkChange::Claim, LinkChange::Pay, LinkChange::Reverse]);
    let expected = [
        ("PayoutLinkCreated", "created"),
        ("PayoutLinkStateChanged", "active"),
        ("PayoutLinkStateChanged", "processing"),
        ("PayoutLinkStateChanged", "processed"),
        ("TransactionStateChanged", "completed"),
        ("TransactionStateChanged", "reverted"),
    ];
    assert_eq!(announcing.events(6).await, pairs(&expected));
    let received = announcing.received(6).await;
    for webhook in &received {
        let body = webhook.json();
        has_form_of(&body, &example("revolut", body["event"].as_str().unwrap()));
        let age =
            OffsetDateTime::now_utc().unix_timestamp() * 1000 - timestamp(webhook).parse::<i64>().unwrap();
        assert!(age.abs() < 60_000, "milliseconds: {age}");
    }
    let changed = received[3].json()["data"].clone();
    assert_eq!(
        json!([changed["id"], changed["request_id"], changed["old_state"]]),
        json!([id, "pl-1", "processing"])
    );
    let transaction = received[5].json()["data"].clone();
    let link = announcing.env.get(&format!("{}/{id}", revolut::LINKS)).await.with(200);
    assert_eq!(transaction["id"], link["transaction_id"]);
    assert_ne!(transaction["request_id"], "pl-1");
}

#[tokio::test]
async fn razorpayx_announces_attempts_ends_and_reversals_in_its_own_way() {
    let announcing = Announcing::new("razorpayx", Behaviour::default()).await;
    use LinkChange::{Claim, Pay, Reopen, Reverse};
    announcing.change(&[Claim, Reopen, Claim, Pay, Reverse]);
    let expected = [
        ("payout_link.issued", "issued"),
        ("payout_link.processing", "processing"),
        ("payout_link.attempted", "issued"),
        ("payout_link.processing", "processing"),
        ("payout_link.processed", "processed"),
        ("payout.reversed", "reversed"),
    ];
    assert_eq!(announcing.events(6).await, pairs(&expected));
    let received = announcing.received(6).await;
    let of = |place: usize| received[place].json();
    has_form_of(&of(0), &example("razorpayx", "payout_link.issued"));
    has_form_of(&of(2), &example("razorpayx", "payout_link.attempted"));
    has_form_of(&of(5), &example("razorpayx", "payout.reversed"));
    assert_eq!(of(2)["payload"]["payout_link"]["entity"]["attempt_count"], 1);
    let link = &announcing.env.simulator.ledger().links[0];
    assert_eq!(of(5)["payload"]["payout"]["entity"]["id"], link.payouts[1].id);
    assert!(!of(5).to_string().contains(&link.id), "it does not name the link");
    let ids: BTreeSet<&String> =
        received.iter().map(|webhook| &webhook.headers["x-razorpay-event-id"]).collect();
    assert_eq!(ids.len(), 6);

    let expired = Announcing::new("razorpayx", Behaviour::default()).await;
    expired.change(&[LinkChange::Expire]);
    let expected = [("payout_link.issued", "issued"), ("payout_link.expired", "cancelled")];
    assert_eq!(expired.events(2).await, pairs(&expected));
    let body = expired.received(2).await[1].json();
    has_form_of(&body, &example("razorpayx", "payout_link.expired"));
    let entity = &body["payload"]["payout_link"]["entity"];
    assert!(entity["cancelled_at"].is_null() && entity["expired_at"].is_i64(), "{entity}");
}

#[tokio::test]
async fn xendit_announces_how_a_disbursement_ended_and_nothing_else() {
    let announcing = Announcing::new("xendit", Behaviour::default()).await;
    announcing.change(&[LinkChange::Claim, LinkChange::Pay]);
    assert_eq!(announcing.events(1).await, pairs(&[("disbursement.completed", "COMPLETED")]));
    has_form_of(&announcing.received(1).await[0].json(), &example("xendit", "disbursement.completed"));
    announcing.change(&[LinkChange::Reverse]);

    let failed = Announcing::new("xendit", Behaviour::default()).await;
    failed.change(&[LinkChange::Claim, LinkChange::Fail]);
    assert_eq!(failed.events(1).await, pairs(&[("disbursement.failed", "FAILED")]));
    has_form_of(&failed.received(1).await[0].json(), &example("xendit", "disbursement.failed"));
    assert!(failed.received(1).await[0].headers.contains_key("webhook-id"));

    for change in [LinkChange::Expire, LinkChange::Cancel, LinkChange::Fail] {
        let silent = Announcing::new("xendit", Behaviour::default()).await;
        silent.change(&[change]);
        assert!(silent.env.simulator.ledger().announcements.is_empty());
        assert!(silent.recipient.received().is_empty(), "{change}");
    }
}

#[tokio::test]
async fn changes_by_the_api_and_at_a_look_are_announced_too() {
    let announcing = Announcing::new("razorpayx", Behaviour::default()).await;
    let id = announcing.env.simulator.ledger().links[0].id.clone();
    let path = format!("{}/{id}/cancel", razorpayx::LINKS);
    announcing.env.post(&path, &json!({})).await.with(200);
    assert_eq!(announcing.events(2).await[1].0, "payout_link.cancelled");

    announcing.env.simulator.set_stages(&["pending", "issued"]);
    let body = changed(&razorpayx::link(), "receipt", "po_2".into());
    announcing.env.post(razorpayx::LINKS, &body).await.with(200);
    announcing.env.get(&format!("{}?receipt=po_2", razorpayx::LINKS)).await.with(200);
    let events = announcing.events(4).await;
    assert_eq!((events[2].0.as_str(), events[3].0.as_str()), ("payout_link.pending", "payout_link.issued"));
}

#[tokio::test]
async fn every_provider_announces_by_the_behaviour() {
    use LinkChange::{Claim, Pay, Process};
    for (provider, changes, event, before) in [
        ("hyperswitch", &[Claim, Process, Pay][..], "payout_success", "initiated"),
        ("revolut", &[Pay][..], "PayoutLinkStateChanged", "active"),
        ("razorpayx", &[Claim, Pay][..], "payout_link.processed", "processing"),
        ("xendit", &[Claim, Pay][..], "disbursement.completed", "CLAIMED"),
    ] {
        let last = async |behaviour: Behaviour| {
            let announcing = Announcing::new(provider, behaviour).await;
            if provider == "revolut" {
                announcing.env.simulator.set_status(announcing.reference, "active");
            }
            announcing.change(changes);
            let is_it = |webhook: &Received| {
                let body = webhook.json();
                let named = [&body["event_type"], &body["event"]].iter().any(|name| **name == event);
                (named || provider == "xendit")
                    && (provider != "revolut" || body["data"]["old_state"] == "active")
            };
            let received = announcing.recipient.until(|received| received.iter().any(is_it));
            let received = tokio::time::timeout(DEADLINE, received).await.expect(event);
            received.into_iter().find(is_it).unwrap()
        };
        let stale = last(Behaviour { old_status: true, ..Behaviour::default() }).await;
        assert_eq!(shown(&stale.json()), before, "{provider}");
        assert!(is_signed(provider, &stale), "{provider}");

        let (header, _) = proof(provider, "", "", "");
        let unsigned = last(Behaviour { unsigned: true, ..Behaviour::default() }).await;
        assert!(!unsigned.headers.contains_key(header), "{provider}");
        let forged = last(Behaviour { wrong_secret: true, ..Behaviour::default() }).await;
        assert!(forged.headers.contains_key(header) && !is_signed(provider, &forged), "{provider}");
        let old = last(Behaviour { old_timestamp: true, ..Behaviour::default() }).await;
        assert!(is_signed(provider, &old), "{provider}");
        if provider == "revolut" {
            let age =
                OffsetDateTime::now_utc().unix_timestamp() - timestamp(&old).parse::<i64>().unwrap() / 1000;
            assert!(age > 59 * 60, "{age}");
        }
    }
}

#[tokio::test]
async fn revolut_signs_with_each_secret_while_they_rotate() {
    let announcing = Announcing::new("revolut", Behaviour::default()).await;
    let secrets = vec!["wsk_new".to_owned(), secret("revolut")];
    let target = Announce { secrets, ..Announce::to(announcing.recipient.url(), "") };
    announcing.env.simulator.announce(Some(target));
    announcing.env.simulator.set_status("pl-1", "active");
    let webhook = announcing.received(2).await.remove(1);
    let both = ["wsk_new".to_owned(), secret("revolut")]
        .map(|secret| proof("revolut", &secret, timestamp(&webhook), &webhook.body).1);
    assert_eq!(webhook.headers["revolut-signature"], both.join(","));
}

#[tokio::test]
async fn the_target_is_set_over_http_as_well() {
    let announcing = Announcing::new("xendit", Behaviour::default()).await;
    let elsewhere = Receiver::start(&[]).await.unwrap();
    let target = json!({ "url": elsewhere.url(), "secrets": ["another"], "behaviour": { "repeat": 1 } });
    let put = announcing.env.bare(Method::PUT, "/control/announce").body(target.to_string());
    assert_eq!(answer(put).await.status, 204);
    announcing.change(&[LinkChange::Claim, LinkChange::Pay]);
    let received = elsewhere.until(|received| received.len() == 2);
    let received = tokio::time::timeout(DEADLINE, received).await.unwrap();
    assert_eq!(received[1].headers["x-callback-token"], "another");
    assert!(announcing.recipient.received().is_empty());
    assert_eq!(answer(announcing.env.bare(Method::DELETE, "/control/announce")).await.status, 204);
    announcing.change(&[LinkChange::Reverse]);
    let ledger = answer(announcing.env.bare(Method::GET, "/ledger")).await.with(200);
    assert_eq!(ledger["announcements"][0]["event"], "disbursement.completed");
    assert_eq!(ledger["announcements"][0]["link_status"], "COMPLETED");
}
