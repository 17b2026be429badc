//! Tests the step that follows each outcome of a connector call.

use std::time::Duration;

use provider_simulators::sandbox::{Fault, FaultRule, Garbage, Idempotency};
use serde_json::{Value, json};

use crate::support::{Setup, TestEnv, eventually, job};

fn outcomes(shown: &Value) -> Vec<String> {
    let calls = shown["timeline"].as_array().unwrap().iter();
    calls
        .map(|call| format!("{} {}", call["kind"].as_str().unwrap(), call["outcome"].as_str().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_final() {
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    for (number, status) in [400, 422].into_iter().enumerate() {
        let id = format!("po_{number}");
        env.provider.inject_fault(Fault::status(status));
        env.publish(job(&id).with("webhook_url", env.webhook_url())).await;
        let result = env.result_of(&id).await;
        assert_eq!(result.kind(), "payout_link.failed");
        assert_eq!(result.error_code().as_deref(), Some("CONNECTOR_REJECTED"));
        assert_eq!(result.json()["status_code"], status);
        assert_eq!(result.json()["payout_status"], "FAILED");
        assert_eq!(result.json()["error"]["connector_details"]["code"], "ordered_fault");
        assert_eq!(result.json()["payout_link"], Value::Null);
    }
    assert_eq!(env.provider.ledger().calls.len(), 2);
    assert_eq!(env.webhooks(2).await[0].event_type.as_deref(), Some("payout_link.failed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_the_provider_asks_to_try_later_is_tried_later() {
    // Given a provider that answers 503 with Retry-After, then 429,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    env.provider.inject_fault(Fault::status_with_retry_after(503, "1"));
    env.provider.inject_fault(Fault::status(429));
    // when a job comes, then the third call creates its link,
    env.publish(job("po_1")).await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
    let shown = env.wait_until_delivered("po_1").await;
    assert_eq!(outcomes(&shown), ["create try_later", "create try_later", "create created"]);
    // all calls have one key, no outcome is unknown, and none comes before Retry-After.
    let ledger = env.provider.ledger();
    assert_eq!(ledger.keys_seen().len(), 3);
    assert!(ledger.keys_seen().windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(shown["in_doubt_since"], Value::Null);
    assert!(ledger.calls[1].at - ledger.calls[0].at >= Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_is_too_long_is_written_down_and_survives_a_restart() {
    let env = Setup::default().set("retry.wait_in_place_ms", 100).build().await;
    let worker = env.start_worker().await;
    env.provider.inject_fault(Fault::status_with_retry_after(429, "2"));
    env.publish(job("po_1")).await;
    let postponed = |shown: &Value| shown["attempts"] == 1 && shown["leased"] == false;
    env.wait_until_shown("po_1", "it is written down", postponed).await;
    // A worker that stops and another one that starts keep the time of the next call.
    worker.stop().await;
    let _next = env.start_worker().await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
    let calls = env.provider.ledger().calls;
    assert!(calls[1].at - calls[0].at >= Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_of_the_deployment_that_is_refused_fails_no_payout() {
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    // A rejected credential, and a 404: a wrong base path, or an account that the credential does not see.
    env.provider.inject_fault(Fault::status(401));
    env.provider.inject_fault(Fault::status(404));
    env.publish(job("po_1")).await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
    let shown = env.wait_until_delivered("po_1").await;
    assert_eq!(outcomes(&shown), ["create try_later", "create try_later", "create created"]);
    assert!(worker.log().contains("provider rejected the configured credential"));
    // A credential of the job concerns only the job.
    env.publish(job("po_2").with("access_token", json!("not the token"))).await;
    let result = env.result_of("po_2").await;
    assert_eq!(result.error_code().as_deref(), Some("CONNECTOR_REJECTED"));
    assert_eq!(result.json()["status_code"], 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_never_sent_is_repeated_until_the_maximum_age() {
    // Given a connector without a server,
    let closed = "http://127.0.0.1:1";
    let env = Setup::default().set("connectors.mute.url", closed).set("retry.max_attempts", 3).build().await;
    let _worker = env.start_worker().await;
    env.publish(job("po_1").connector("mute")).await;
    // then nothing can have happened, whatever the replay rule.
    let result = env.result_of("po_1").await;
    assert_eq!(result.kind(), "payout_link.failed");
    assert_eq!(result.error_code().as_deref(), Some("CONNECTOR_UNAVAILABLE"));
    assert_eq!(result.json()["status_code"], 0);
    let shown = env.shown("po_1").unwrap();
    assert_eq!(outcomes(&shown), ["create not_sent"; 3]);
    assert_eq!(shown["in_doubt_since"], Value::Null);
}

/// Returns the faults after which the call may have been carried out.
fn doubtful() -> Vec<FaultRule> {
    vec![
        FaultRule::new(Fault::status(500)).after_the_work(),
        FaultRule::new(Fault::status(408)),
        FaultRule::new(Fault::status(503)),
        FaultRule::new(Fault::Reset),
        FaultRule::new(Fault::Reset).after_the_work(),
        FaultRule::new(Fault::Close).after_the_work(),
        FaultRule::new(Fault::Truncated).after_the_work(),
        FaultRule::new(Fault::Silence).after_the_work(),
        FaultRule::new(Fault::Garbage(Garbage::Html)).after_the_work(),
        FaultRule::new(Fault::Garbage(Garbage::NotJson)).after_the_work(),
        FaultRule::new(Fault::Garbage(Garbage::MissingFields)).after_the_work(),
        FaultRule::new(Fault::Garbage(Garbage::Huge)).after_the_work(),
        FaultRule::new(Fault::Redirect { location: None }).after_the_work(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_with_the_same_key_is_resolved_by_a_repeat() {
    let env = Setup::default().short_leases().build().await;
    let _worker = env.start_worker().await;
    for (number, fault) in doubtful().into_iter().enumerate() {
        let id = format!("po_{number}");
        let what = format!("{fault:?}");
        env.provider.inject_fault(fault);
        env.publish(job(&id)).await;
        let result = env.result_of(&id).await;
        assert_eq!(result.kind(), "payout_link.created", "{what}");
        let shown = env.wait_until_delivered(&id).await;
        assert_eq!(outcomes(&shown), ["create unknown", "create created"], "{what}");
    }
    let ledger = env.provider.ledger();
    assert_eq!(ledger.links.len(), doubtful().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_is_not_repeated_after_the_window() {
    // Given a connector whose keys have expired before a repeat,
    let env = Setup::default().set("connectors.sandbox.window_seconds", 1).build().await;
    let _worker = env.start_worker().await;
    env.provider.inject_fault(FaultRule::new(Fault::Reset).after_the_work());
    env.publish(job("po_1")).await;
    // then the outcome stays unknown, and the result says so.
    let result = env.result_of("po_1").await;
    assert_eq!(result.kind(), "payout_link.pending");
    assert_eq!(result.error_code().as_deref(), Some("OUTCOME_UNKNOWN"));
    assert_eq!(env.provider.ledger().calls.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_is_resolved_by_a_look_up_without_keys() {
    let env = Setup::default().short_leases().build().await;
    env.provider.set_idempotency(Idempotency::Off);
    let _worker = env.start_worker().await;
    for (number, fault) in doubtful().into_iter().enumerate() {
        let id = format!("po_{number}");
        let what = format!("{fault:?}");
        env.provider.inject_fault(fault);
        env.publish(job(&id).connector("asked")).await;
        let result = env.result_of(&id).await;
        assert_eq!(result.kind(), "payout_link.created", "{what}");
    }
    // A link whose call was lost before the work was not found and then created. No key has two links.
    let links = env.provider.ledger().links;
    let keys: std::collections::HashSet<_> = links.iter().map(|link| &link.request.reference).collect();
    assert_eq!((links.len(), keys.len()), (doubtful().len(), doubtful().len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_is_trusted_only_after_the_settle_time() {
    // Given a provider that still works on a call whose connection was lost,
    let env = Setup::default().short_leases().build().await;
    env.provider.set_idempotency(Idempotency::Off);
    let _worker = env.start_worker().await;
    env.provider.inject_fault(FaultRule::new(Fault::Reset));
    env.publish(job("po_1").connector("asked")).await;
    // then an early look-up does not find it, and no call is repeated before the settle time (9 s).
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
    let calls = env.provider.ledger().calls;
    let creates: Vec<_> = calls.iter().filter(|call| call.idempotency_key.is_some()).collect();
    assert_eq!(creates.len(), 2);
    assert!(creates[1].at - creates[0].at >= Duration::from_secs(8));
    assert!(calls.len() > 3, "an early look-up and one after the settle time");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_without_a_look_up_is_published() {
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    env.provider.inject_fault(FaultRule::new(Fault::Reset).after_the_work());
    env.publish(job("po_1").connector("mute").with("webhook_url", env.webhook_url())).await;
    let result = env.result_of("po_1").await;
    assert_eq!(result.kind(), "payout_link.pending");
    assert_eq!(result.json()["payout_status"], "PENDING");
    assert_eq!(result.error_code().as_deref(), Some("OUTCOME_UNKNOWN"));
    assert_eq!(env.webhooks(1).await[0].event_type.as_deref(), Some("payout_link.pending"));
    assert_eq!(env.provider.ledger().calls.len(), 1);
    assert_eq!(env.shown("po_1").unwrap()["state"], "unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_is_not_resolved_by_a_later_decline() {
    // Given an unknown outcome, and a decline of its repeat,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    env.provider.inject_fault(FaultRule::new(Fault::Reset).after_the_work());
    env.provider.inject_fault(Fault::status(422));
    env.publish(job("po_1")).await;
    // then the decline resolves nothing: the first call may have been carried out (and was).
    let result = env.result_of("po_1").await;
    assert_eq!(result.kind(), "payout_link.pending");
    assert_eq!(env.provider.ledger().links.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_use_is_unknown_and_not_declined() {
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    env.provider.inject_fault(Fault::status(409));
    env.publish(job("po_1")).await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
    assert_eq!(outcomes(&env.wait_until_delivered("po_1").await), ["create unknown", "create created"]);
}

/// Checks a healthy queue, which gets a result again with each attempt for the full queue beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_one_full_queue_refuses_reaches_the_others_with_growing_pauses() {
    // Given a full queue beside a healthy one, and a merchant whose webhook comes due every second,
    let env = Setup::default().set("webhooks.schedule_seconds", "[1,1,1,1,1,1,1,1,1,1,1,1]").build().await;
    let _worker = env.start_worker().await;
    let full = env.full_queue().await;
    env.bind_to_results(&full).await;
    env.merchant.inject_fault(FaultRule::new(Fault::status(500)).always());
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    // when eight seconds and more have passed,
    env.webhooks(9).await;
    // then it was published after 0, 1, 3 and 7 seconds, with pauses up to half shorter or longer.
    let received = env.results_of("po_1");
    assert!((2..=5).contains(&received.len()), "{}", received.len());
    assert!(received.iter().all(|result| result.id() == received[0].id()));
    // When the queue is gone the result counts as published.
    env.delete_queue(&full).await;
    let published = |shown: &Value| shown["event"]["published_at"].is_string();
    env.wait_until_shown("po_1", "published", published).await;
}

/// Checks the same for a rejection, which no event stores.
#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_that_one_full_queue_refuses_reaches_the_others_a_few_times() {
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    let full = env.full_queue().await;
    env.bind_to_results(&full).await;
    env.publish(job("po_1").amount(0)).await;
    let unrouted =
        eventually("the rejection in the unrouted queue", async || env.take(&env.names.unrouted_queue).await)
            .await;
    assert_eq!(unrouted.kind(), "payout_link.rejected");
    let received = env.results_of("po_1").len();
    assert!((2..=5).contains(&received), "{received}");
    env.dead_letter().await;
}
