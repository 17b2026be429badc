//! Tests messages that cancel a link or ask for its status.

use std::sync::{Arc, Mutex};

use provider_simulators::sandbox::{Fault, FaultRule, LinkChange, LinkStatus, Operation, When};
use serde_json::{Value, json};

use crate::support::{Job, ReceivedMessage, Setup, TestEnv, eventually, job};

/// A requester with a reply queue of its own.
struct Requester<'a> {
    env: &'a TestEnv,
    queue: String,
    replies: Arc<Mutex<Vec<ReceivedMessage>>>,
}

impl<'a> Requester<'a> {
    async fn new(env: &'a TestEnv) -> Self {
        let (queue, replies) = env.reply_queue().await;
        Self { env, queue, replies }
    }

    async fn send(&self, kind: &str, message_id: &str, body: &Value) {
        let message = message(body).message_id(message_id).reply_to(&self.queue);
        self.env.publish_to(kind, message).await;
    }

    async fn answer_to(&self, message_id: &str) -> ReceivedMessage {
        eventually(&format!("the answer to {message_id}"), async || {
            let replies = self.replies.lock().unwrap();
            replies.iter().find(|reply| reply.correlation_id().as_deref() == Some(message_id)).cloned()
        })
        .await
    }

    async fn ask(&self, kind: &str, message_id: &str, body: Value) -> ReceivedMessage {
        self.send(kind, message_id, &body).await;
        self.answer_to(message_id).await
    }
}

fn message(body: &Value) -> Job {
    job("-").raw(body.to_string().as_bytes())
}

fn id(payout: &str) -> Value {
    json!({ "merchant_payout_id": payout })
}

fn text(answer: &ReceivedMessage) -> String {
    answer.json()["error"]["unified_details"]["message"].as_str().unwrap_or_default().to_owned()
}

async fn waiting(env: &TestEnv) -> i64 {
    let waiting = "SELECT (SELECT count(*) FROM link_requests)
        + (SELECT count(*) FROM payout_links WHERE cancel_requested_at IS NOT NULL)";
    sqlx::query_scalar(waiting).fetch_one(&env.pool).await.unwrap()
}

async fn until_none_waits(env: &TestEnv) {
    eventually("no request waits", async || (waiting(env).await == 0).then_some(())).await;
}

async fn created(env: &TestEnv, payout: &str) -> String {
    env.publish(job(payout).with("webhook_url", env.webhook_url())).await;
    env.result_of(payout).await.json()["connector_payout_id"].as_str().unwrap().to_owned()
}

fn was_cancelled(env: &TestEnv, link: &str) -> bool {
    env.provider.history(link).iter().any(|change| change.status == LinkStatus::Cancelled)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_cancels_a_link_and_its_merchant_gets_a_webhook() {
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    let link = created(&env, "po_1").await;
    let requester = Requester::new(&env).await;
    // When it is cancelled by message, then the reply and the merchant's webhook say so.
    let answer = requester
        .ask("cancel", "c_1", json!({ "merchant_payout_id": "po_1", "reason": "wrong amount" }))
        .await;
    assert_eq!(answer.kind(), "payout_link.cancelled");
    assert_eq!(answer.json()["payout_status"], "CANCELLED");
    assert!(was_cancelled(&env, &link));
    let webhooks = env.webhooks(2).await;
    assert_eq!(webhooks[1].event_type.as_deref(), Some("payout_link.cancelled"));
    // A repeated cancel gets the same answer.
    let again = requester.ask("cancel", "c_2", id("po_1")).await;
    assert_eq!((again.kind(), again.json()), (answer.kind(), answer.json()));
    until_none_waits(&env).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_meets_a_claim_is_answered_with_the_truth() {
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    let link = created(&env, "po_1").await;
    env.provider.change(&link, LinkChange::Claim).unwrap();
    let requester = Requester::new(&env).await;
    let answer = requester.ask("cancel", "c_1", id("po_1")).await;
    assert_eq!(answer.kind(), "payout_link.rejected");
    assert_eq!(answer.error_code().as_deref(), Some("NOT_CANCELLABLE"));
    assert!(text(&answer).contains("claimed"), "{}", text(&answer));
    assert!(!was_cancelled(&env, &link));
    // The claim is announced. Only the requester gets the rejection: its payout has a link.
    let results = env.wait_for_results("po_1", 2).await;
    assert_eq!(results[1].kind(), "payout_link.claimed");
    assert!(env.results_of("po_1").iter().all(|result| result.kind() != "payout_link.rejected"));
    assert_eq!(env.ready(&env.names.dead_queue).await, 0);
    until_none_waits(&env).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_of_an_unknown_record_is_carried_out_once_an_operator_has_resolved_it() {
    // Given two records whose outcome is unknown,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    let requester = Requester::new(&env).await;
    let mut links = Vec::new();
    for payout in ["po_1", "po_2"] {
        env.provider.inject_fault(FaultRule::new(Fault::Reset).after_the_work());
        env.publish(job(payout).connector("mute")).await;
        assert_eq!(env.result_of(payout).await.kind(), "payout_link.pending");
        links.push(env.provider.ledger().links.last().unwrap().id.clone());
    }
    // when one is cancelled by message and the other one by command, then both cancels wait,
    requester.send("cancel", "c_1", &id("po_1")).await;
    let waits = env.run(&["cancel", "po_2", "--timeout-seconds", "0", "--reason", "asked by the merchant"]);
    assert_eq!(waits.status.code(), Some(1));
    let said = String::from_utf8(waits.stderr).unwrap();
    assert!(said.contains("the record is unknown. The cancel is requested"), "{said}");
    eventually("two requests wait", async || (waiting(&env).await == 2).then_some(())).await;
    // until an operator resolves the records. Then the links are cancelled.
    for (payout, link) in ["po_1", "po_2"].into_iter().zip(&links) {
        let resolved = env.run(&["resolve", payout, "--created", link, "--reason", "seen"]);
        assert!(resolved.status.success());
    }
    assert_eq!(requester.answer_to("c_1").await.kind(), "payout_link.cancelled");
    let results = env.wait_for_results("po_2", 3).await;
    assert_eq!(results[2].kind(), "payout_link.cancelled");
    assert!(links.iter().all(|link| was_cancelled(&env, link)));
    until_none_waits(&env).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_cancels_a_record_that_was_never_called_without_a_call() {
    // Given a record whose connector has no permit for it,
    let env = Setup::default().set("connectors.sandbox.calls.concurrency", 1).build().await;
    env.provider.inject_fault(Fault::Slow { milliseconds: 6_000 });
    let _worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    eventually("a call", async || (!env.provider.ledger().calls.is_empty()).then_some(())).await;
    env.publish(job("po_2")).await;
    env.wait_until_shown("po_2", "parked", |shown| shown["attempts"] == 0).await;
    // when an operator cancels it, then it ends without a call, and the act is in its timeline.
    let cancelled = env.run(&["cancel", "po_2", "--reason", "asked by the merchant"]);
    let said = String::from_utf8_lossy(&cancelled.stderr).into_owned();
    assert!(cancelled.status.success(), "{said}");
    assert_eq!(env.result_of("po_2").await.kind(), "payout_link.cancelled");
    assert_eq!(env.provider.ledger().links.len(), 1);
    assert_eq!(env.shown("po_2").unwrap()["operator_actions"][0]["command"], "cancel");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_message_is_dead_lettered_with_its_field() {
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    created(&env, "po_1").await;
    let requester = Requester::new(&env).await;
    let with_name = json!({ "merchant_payout_id": "po_1", "reasons": "typing" });
    for (kind, body, code, field) in [
        ("cancel", id("po_9"), "NOT_FOUND", "merchant_payout_id"),
        ("status", id("po_9"), "NOT_FOUND", "merchant_payout_id"),
        ("cancel", json!({}), "INVALID_JOB", "merchant_payout_id"),
        ("cancel", with_name, "INVALID_JOB", "reasons"),
        ("status", json!({ "merchant_payout_id": "po_1", "refresh": 1 }), "INVALID_JOB", "refresh"),
    ] {
        let message_id = format!("{kind} {body}");
        let answer = requester.ask(kind, &message_id, body).await;
        assert_eq!(answer.kind(), "payout_link.rejected");
        assert_eq!((answer.error_code().as_deref(), answer.field().as_deref()), (Some(code), Some(field)));
        let letter = env.dead_letter().await;
        assert_eq!(letter.header("x-rejected-code").as_deref(), Some(code));
        assert!(letter.header("x-rejected-reason").unwrap().starts_with(field));
    }
    // A record of another merchant is not found either.
    let other = message(&id("po_1")).merchant("other").message_id("other").reply_to(&requester.queue);
    env.publish_to("cancel", other).await;
    assert_eq!(requester.answer_to("other").await.error_code().as_deref(), Some("NOT_FOUND"));
    assert_eq!(waiting(&env).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_the_newest_event_and_a_refresh_asks_the_provider() {
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    let link = created(&env, "po_1").await;
    let requester = Requester::new(&env).await;
    env.provider.change(&link, LinkChange::Claim).unwrap();
    // The worker does not know of the claim before it asks.
    let known = requester.ask("status", "s_1", id("po_1")).await;
    assert_eq!(known.kind(), "payout_link.created");
    let refresh = json!({ "merchant_payout_id": "po_1", "refresh": true });
    let refreshed = requester.ask("status", "s_2", refresh).await;
    assert_eq!(
        (refreshed.kind().as_str(), &refreshed.json()["sequence"]),
        ("payout_link.claimed", &json!(2))
    );
    // A payout without a link has a newest event too.
    env.provider.inject_fault(Fault::status(422));
    env.publish(job("declined")).await;
    env.result_of("declined").await;
    let refresh = json!({ "merchant_payout_id": "declined", "refresh": true });
    assert_eq!(requester.ask("status", "s_3", refresh).await.kind(), "payout_link.failed");
    let answer = requester.ask("cancel", "c_1", id("declined")).await;
    assert_eq!(answer.error_code().as_deref(), Some("NOT_CANCELLABLE"));
    until_none_waits(&env).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_comes_before_the_link_takes_effect_once_it_is_there() {
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    let requester = Requester::new(&env).await;
    // Given a creation that is under way,
    let held = env.provider.hold_next_call();
    env.publish(job("po_1")).await;
    held.arrived().await;
    // when a cancel and a status request come meanwhile, then both wait,
    requester.send("cancel", "c_1", &id("po_1")).await;
    requester.send("status", "s_1", &id("po_1")).await;
    eventually("the requests are stored", async || (waiting(&env).await == 2).then_some(())).await;
    assert!(requester.replies.lock().unwrap().is_empty());
    held.release();
    // and both are answered once the link exists.
    assert_eq!(requester.answer_to("c_1").await.kind(), "payout_link.cancelled");
    assert!(
        ["payout_link.created", "payout_link.cancelled"].contains(&&*requester.answer_to("s_1").await.kind())
    );
    let results = env.wait_for_results("po_1", 2).await;
    assert_eq!([results[0].kind(), results[1].kind()], ["payout_link.created", "payout_link.cancelled"]);
    until_none_waits(&env).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_of_a_record_that_was_never_called_ends_it_without_a_call() {
    // Given a record that waits for the account's only permit,
    let env = Setup::default().set("connectors.sandbox.calls.concurrency", 1).build().await;
    let _worker = env.start_worker().await;
    let held = env.provider.hold_next_call();
    env.publish(job("po_1")).await;
    held.arrived().await;
    env.publish(job("po_2").with("webhook_url", env.webhook_url())).await;
    env.wait_until_shown("po_2", "parked", |shown| shown["attempts"] == 0).await;
    // when it is cancelled, twice,
    let requester = Requester::new(&env).await;
    requester.send("cancel", "c_1", &id("po_2")).await;
    let is_requested =
        "SELECT count(*) FROM payout_links WHERE cancel_requested_at IS NOT NULL AND state = 'open'";
    eventually("the cancel is requested", async || {
        let count: i64 = sqlx::query_scalar(is_requested).fetch_one(&env.pool).await.unwrap();
        (count == 1).then_some(())
    })
    .await;
    held.release();
    // then it is concluded without a call, and both the requester and the merchant are informed.
    let answer = requester.answer_to("c_1").await;
    assert_eq!((answer.kind().as_str(), &answer.json()["status_code"]), ("payout_link.cancelled", &json!(0)));
    assert_eq!(answer.json()["payout_status"], "CANCELLED");
    assert_eq!(env.provider.ledger().links.len(), 1);
    assert_eq!(env.result_of("po_2").await.json(), answer.json());
    assert_eq!(env.webhooks(1).await[0].event_type.as_deref(), Some("payout_link.cancelled"));
    // A repeated cancel and a duplicate of the job get the same answer.
    assert_eq!(requester.ask("cancel", "c_2", id("po_2")).await.kind(), "payout_link.cancelled");
    env.publish(job("po_2").with("webhook_url", env.webhook_url()).message_id("again")).await;
    let again = eventually("the duplicate's result", async || {
        let results = env.results_of("po_2");
        results.into_iter().find(|result| result.header("x-replayed").is_some())
    })
    .await;
    assert_eq!((again.kind(), again.json()), (answer.kind(), answer.json()));
    until_none_waits(&env).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_nobody_carries_out_is_answered_too() {
    // Given an account whose links are not followed,
    let env = Setup::default().set("connectors.sandbox.follow.enabled", false).build().await;
    let _worker = env.start_worker().await;
    let link = created(&env, "po_1").await;
    let requester = Requester::new(&env).await;
    let answer = requester.ask("cancel", "c_1", id("po_1")).await;
    assert_eq!(answer.error_code().as_deref(), Some("CONNECTOR_UNAVAILABLE"));
    assert!(!was_cancelled(&env, &link));
    let refresh = json!({ "merchant_payout_id": "po_1", "refresh": true });
    let answer = requester.ask("status", "s_1", refresh).await;
    assert_eq!(answer.error_code().as_deref(), Some("CONNECTOR_UNAVAILABLE"));
    assert_eq!(requester.ask("status", "s_2", id("po_1")).await.kind(), "payout_link.created");
    until_none_waits(&env).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_during_a_cancel_loses_neither_it_nor_its_answer() {
    // Given a cancel that the provider has carried out, and whose worker dies before its answer,
    let env = Setup::default().short_leases().build().await;
    let mut first = env.start_worker().await;
    let link = created(&env, "po_1").await;
    env.wait_until_delivered("po_1").await;
    let requester = Requester::new(&env).await;
    let cancelling = env.provider.hold_next(Operation::Cancel, When::After);
    requester.send("cancel", "c_1", &id("po_1")).await;
    cancelling.arrived().await;
    first.kill();
    drop(cancelling);
    assert!(was_cancelled(&env, &link));
    // when another worker runs,
    let _second = env.start_worker().await;
    // then the requester has its reply, and the merchant its webhook, once.
    assert_eq!(requester.answer_to("c_1").await.kind(), "payout_link.cancelled");
    let webhooks = env.webhooks(2).await;
    assert_eq!(webhooks[1].event_type.as_deref(), Some("payout_link.cancelled"));
    until_none_waits(&env).await;
    assert_eq!(
        env.results_of("po_1").iter().filter(|result| result.kind() == "payout_link.cancelled").count(),
        1
    );
}
