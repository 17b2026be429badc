//! Tests a worker that dies or is paused past its lease, and the worker that continues its work.

use provider_simulators::sandbox::Idempotency;

use crate::support::{Setup, TestEnv, eventually, job};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_during_the_call_leaves_one_link() {
    // Given a job whose call has reached the provider,
    let env = TestEnv::new().await;
    let mut first = env.start_worker().await;
    let call = env.provider.hold_next_answer();
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    call.arrived().await;
    // when that worker is killed and another one finds the expired lease,
    first.kill();
    call.release();
    let _second = env.start_worker().await;
    // then the call is repeated with the same key, and there is one result and one link.
    assert_eq!(env.result_of("po_1").await.json()["payout_status"], "REQUIRES_FULFILLMENT");
    let ledger = env.provider.ledger();
    assert_eq!(ledger.links.len(), 1);
    assert_eq!(ledger.keys_seen().len(), 2);
    assert_eq!(ledger.keys_seen()[0], ledger.keys_seen()[1]);
    env.webhooks(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_keys_a_look_up_comes_first() {
    let env = TestEnv::new().await;
    env.provider.set_idempotency(Idempotency::Off);
    let mut first = env.start_worker().await;
    let call = env.provider.hold_next_answer();
    env.publish(job("po_1").connector("asked")).await;
    call.arrived().await;
    first.kill();
    call.release();
    let _second = env.start_worker().await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
    let ledger = env.provider.ledger();
    assert_eq!((ledger.links.len(), ledger.keys_seen().len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_look_up_the_outcome_is_unknown() {
    let env = TestEnv::new().await;
    let mut first = env.start_worker().await;
    let call = env.provider.hold_next_answer();
    env.publish(job("po_1").connector("mute")).await;
    call.arrived().await;
    first.kill();
    call.release();
    let _second = env.start_worker().await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.pending");
    assert_eq!(env.provider.ledger().keys_seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_sleeps_past_its_lease_changes_nothing_when_it_wakes() {
    // Given a worker that is paused during a call,
    let env = TestEnv::new().await;
    let sleeper = env.start_worker().await;
    let call = env.provider.hold_next_answer();
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    call.arrived().await;
    sleeper.pause().await;
    call.release();
    // and another one that has concluded the record meanwhile,
    let _other = env.start_worker().await;
    let result = env.result_of("po_1").await;
    env.webhooks(1).await;
    // when the first one continues with its answer,
    sleeper.signal("CONT");
    sleeper.says("lease lost").await;
    // then there is still one event, and the late answer is in the timeline. (RabbitMQ may have given the paused
    // worker's delivery to the other one, which then replayed the result.)
    let results = env.results_of("po_1");
    assert!(results.iter().all(|again| (again.id(), &again.body) == (result.id(), &result.body)));
    assert_eq!(results.iter().filter(|result| result.header("x-replayed").is_none()).count(), 1);
    assert_eq!(env.merchant.received().len(), 1);
    let shown = env.shown("po_1").unwrap();
    assert_eq!(shown["event"]["id"], result.id());
    let events: i64 = sqlx::query_scalar("SELECT count(*) FROM events").fetch_one(&env.pool).await.unwrap();
    assert_eq!(events, 1);
    let late = eventually("the late answer", async || {
        let timeline = env.shown("po_1").unwrap()["timeline"].as_array().unwrap().clone();
        timeline.into_iter().find(|call| call["outcome"].as_str().unwrap().starts_with("late"))
    })
    .await;
    assert_eq!(late["kind"], "create");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_not_published_is_published_by_another() {
    // Given a worker that dies between the conclusion and the webhook,
    let env = Setup::default().set("broker.publish_patience_seconds", 5).build().await;
    let mut first = env.start_worker().await;
    let post = env.merchant.hold_next_answer();
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    post.arrived().await;
    first.kill();
    post.release();
    // then another one publishes again under the same id, because the publish was not recorded.
    let _second = env.start_worker().await;
    env.wait_until_delivered("po_1").await;
    let webhooks = env.merchant.received();
    assert!(webhooks.iter().all(|webhook| webhook.id == webhooks[0].id));
    let results = env.results_of("po_1");
    assert!(results.iter().all(|result| result.id() == results[0].id() && result.body == results[0].body));
    assert_eq!(Some(results[0].id()), webhooks[0].id);
}
