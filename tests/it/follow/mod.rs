//! Tests that a created link is followed until it is paid or over. Each change is an event of the same record.

mod ends;

use std::time::{Duration, Instant};

use provider_simulators::sandbox::{Fault, FaultRule, LinkChange, Operation, Received, Receiver};
use serde_json::Value;

use crate::support::{ReceivedMessage, Setup, TestEnv, eventually, job};

/// Builds an environment that asks about links every second.
fn dense() -> Setup {
    Setup::default()
        .set("connectors.sandbox.follow.min_interval_seconds", 1)
        .set("connectors.sandbox.follow.max_interval_seconds", 1)
}

fn kind(webhook: &Received) -> String {
    body(webhook)["type"].as_str().unwrap().trim_start_matches("payout_link.").to_owned()
}

fn body(webhook: &Received) -> Value {
    serde_json::from_str(&webhook.body).unwrap()
}

fn link_of(env: &TestEnv, reference: usize) -> String {
    env.provider.ledger().links[reference].id.clone()
}

async fn changes(env: &TestEnv, link: &str, changes: &[LinkChange], types: &[&str]) -> Vec<Received> {
    let mut seen = env.merchant.received().len();
    for change in changes {
        env.provider.change(link, *change).unwrap();
        seen = eventually("the change is announced", async || {
            let count = env.merchant.received().len();
            (count > seen).then_some(count)
        })
        .await;
    }
    let webhooks = env.webhooks(types.len()).await;
    assert_eq!(webhooks.iter().map(kind).collect::<Vec<_>>(), types);
    webhooks
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_announced_once_and_in_order() {
    // Given a created link,
    let env = dense().build().await;
    let _worker = env.start_worker().await;
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    let created = env.result_of("po_1").await.json();
    env.wait_until_delivered("po_1").await;
    let link = link_of(&env, 0);
    // when it is claimed, processed, paid and reversed,
    let webhooks = changes(
        &env,
        &link,
        &[LinkChange::Claim, LinkChange::Process, LinkChange::Pay],
        &["created", "claimed", "processing", "succeeded"],
    )
    .await;
    // then each webhook is verified and numbered, and has its status.
    for (place, (webhook, status)) in
        webhooks.iter().zip(["REQUIRES_FULFILLMENT", "PENDING", "PENDING", "SUCCESS"]).enumerate()
    {
        let data = &body(webhook)["data"];
        assert!(webhook.verified);
        assert_eq!((&data["sequence"], &data["payout_status"]), (&(place + 1).into(), &status.into()));
        assert_eq!(data["payout_link"], created["payout_link"]);
        assert!(data["occurred_at"].is_string());
    }
    // The results are the same, each under the webhook's id.
    let results = env.wait_for_results("po_1", 4).await;
    for webhook in &webhooks {
        let result = results.iter().find(|result| Some(result.id()) == webhook.id).unwrap();
        assert_eq!(result.json(), body(webhook)["data"]);
        assert_eq!(result.kind(), body(webhook)["type"]);
    }
    // A duplicate of the job is answered with the newest event.
    let (queue, replies) = env.reply_queue().await;
    env.publish(job("po_1").with("webhook_url", env.webhook_url()).reply_to(&queue)).await;
    let reply = eventually("a reply", async || replies.lock().unwrap().first().cloned()).await;
    assert_eq!((reply.kind(), reply.id()), ("payout_link.succeeded".into(), results[3].id()));
    assert_eq!(reply.header("x-replayed").as_deref(), Some("true"));
    assert_eq!(reply.json(), results[3].json());
    assert_eq!(env.merchant.received().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_nobody_saw_is_announced_before_the_payment() {
    let env = dense().build().await;
    let _worker = env.start_worker().await;
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    env.result_of("po_1").await;
    let link = link_of(&env, 0);
    // Both changes happen between two questions.
    env.provider.inject_fault(FaultRule::new(Fault::status(503)).on(Operation::Get).times(1));
    env.provider.change(&link, LinkChange::Claim).unwrap();
    env.provider.change(&link, LinkChange::Pay).unwrap();
    let webhooks = env.webhooks(3).await;
    assert_eq!(kind(&webhooks[2]), "succeeded");
    assert_eq!(
        webhooks.iter().map(|webhook| body(webhook)["data"]["sequence"].clone()).collect::<Vec<_>>(),
        [1, 2, 3]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn results_of_one_record_are_published_in_order() {
    const LINKS: usize = 40;
    // Given many links that were claimed and paid before the worker asks,
    let env = dense().build().await;
    let worker = env.start_worker().await;
    for number in 0..LINKS {
        env.publish(job(&format!("po_{number}"))).await;
    }
    eventually("the links", async || (env.provider.ledger().links.len() == LINKS).then_some(())).await;
    for number in 0..LINKS {
        env.result_of(&format!("po_{number}")).await;
    }
    worker.stop().await;
    for number in 0..LINKS {
        env.provider.change(&link_of(&env, number), LinkChange::Claim).unwrap();
        env.provider.change(&link_of(&env, number), LinkChange::Pay).unwrap();
    }
    // when two workers announce the changes, then each record's results arrive in order.
    let _workers = [env.start_worker().await, env.start_worker().await];
    for number in 0..LINKS {
        let id = format!("po_{number}");
        let kinds: Vec<String> =
            env.wait_for_results(&id, 3).await.iter().map(ReceivedMessage::kind).collect();
        assert_eq!(kinds, ["payout_link.created", "payout_link.claimed", "payout_link.succeeded"], "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_webhook_of_a_link_does_not_wait_for_a_sweep() {
    // Given a worker that looks for due work every ten minutes,
    let env = dense().set("worker.sweep_interval_ms", 600_000).build().await;
    let _worker = env.start_worker().await;
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    env.result_of("po_1").await;
    let link = link_of(&env, 0);
    // when a link is claimed and paid between two questions,
    env.provider.inject_fault(FaultRule::new(Fault::status(503)).on(Operation::Get).times(1));
    env.provider.change(&link, LinkChange::Claim).unwrap();
    env.provider.change(&link, LinkChange::Pay).unwrap();
    // then the webhook of the payment follows that of the claim at once.
    let webhooks = env.webhooks(3).await;
    assert_eq!(webhooks.iter().map(kind).collect::<Vec<_>>(), ["created", "claimed", "succeeded"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_waits_for_the_one_before_it_and_brings_its_retry_forward() {
    // Given a merchant that fails, and whose next attempt is an hour away,
    let env = dense().set("webhooks.schedule_seconds", "[3600]").build().await;
    let _worker = env.start_worker().await;
    env.merchant.inject_fault(FaultRule::new(Fault::status(500)).times(1));
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    env.wait_until_shown("po_1", "a failed webhook", |shown| shown["event"]["webhook_attempts"] == 1).await;
    // when the link is claimed,
    env.provider.change(&link_of(&env, 0), LinkChange::Claim).unwrap();
    // then the first webhook is delivered at once, and the second after it.
    let webhooks = env.webhooks(3).await;
    assert_eq!(webhooks.iter().map(kind).collect::<Vec<_>>(), ["created", "created", "claimed"]);
    assert_eq!(webhooks[0].id, webhooks[1].id);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_webhook_is_followed_by_the_next_one() {
    let env = dense().build().await;
    let _worker = env.start_worker().await;
    env.merchant.inject_fault(FaultRule::new(Fault::status(410)).times(1));
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    env.wait_until_delivered("po_1").await;
    env.provider.change(&link_of(&env, 0), LinkChange::Claim).unwrap();
    let webhooks = env.webhooks(2).await;
    assert_eq!(webhooks.iter().map(kind).collect::<Vec<_>>(), ["created", "claimed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_whose_schedule_has_ended_is_followed_by_the_next_one() {
    let env = dense().set("webhooks.schedule_seconds", "[1]").build().await;
    let _worker = env.start_worker().await;
    env.merchant.inject_fault(FaultRule::new(Fault::status(500)).times(2));
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    env.wait_until_shown("po_1", "abandoned", |shown| shown["event"]["webhook_state"] == "abandoned").await;
    env.provider.change(&link_of(&env, 0), LinkChange::Claim).unwrap();
    let webhooks = env.webhooks(3).await;
    assert_eq!(webhooks.iter().map(kind).collect::<Vec<_>>(), ["created", "created", "claimed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_link_is_announced_before_it_comes_if_that_is_wanted() {
    for (expiring_seconds, types) in
        [(0, &["created", "claimed"][..]), (3600, &["created", "expiring", "claimed"])]
    {
        let env = dense().set("connectors.sandbox.follow.expiring_seconds", expiring_seconds).build().await;
        let _worker = env.start_worker().await;
        env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
        env.result_of("po_1").await;
        // When the end of an unclaimed link is near, then it is announced once, and the payout's status is the same.
        let link = link_of(&env, 0);
        env.provider.expire_after(&link, Duration::from_mins(30)).unwrap();
        let asked = "SELECT count(*) FROM payout_links WHERE expires_at < now() + interval '1 hour' AND follow_due_at IS NOT NULL";
        eventually("the worker knows the new end", async || {
            let asked: i64 = sqlx::query_scalar(asked).fetch_one(&env.pool).await.unwrap();
            (asked == 1).then_some(())
        })
        .await;
        env.webhooks(types.len() - 1).await;
        env.provider.change(&link, LinkChange::Claim).unwrap();
        let webhooks = env.webhooks(types.len()).await;
        assert_eq!(webhooks.iter().map(kind).collect::<Vec<_>>(), types);
        if expiring_seconds > 0 {
            assert_eq!(body(&webhooks[1])["data"]["payout_status"], "REQUIRES_FULFILLMENT");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_keep_to_the_accounts_rate_limit() {
    const LINKS: usize = 12;
    // Given links that are all due,
    let env = dense().build().await;
    let worker = env.start_worker().await;
    for number in 0..LINKS {
        env.publish(job(&format!("po_{number}"))).await;
        env.result_of(&format!("po_{number}")).await;
    }
    assert!(worker.stop().await.success());
    let due = "UPDATE payout_links SET follow_due_at = now()";
    sqlx::query(due).execute(&env.pool).await.unwrap();
    let asked = || env.provider.ledger().calls.iter().filter(|call| call.operation == Operation::Get).count();
    let before = asked();
    // when an account that may make 60 calls in a minute, six of them at once, asks about them,
    let limit = ("PAYOUT_LINK__CONNECTORS__SANDBOX__CALLS__REQUESTS_PER_MINUTE", "60".to_owned());
    let _worker = env.launch_worker(&[limit]);
    eventually("the first question", async || (asked() > before).then_some(())).await;
    let began = Instant::now();
    eventually("a question about each link", async || (asked() >= before + LINKS).then_some(())).await;
    // then the others take their time.
    assert!(began.elapsed() > Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_of_a_link_go_one_at_a_time() {
    // Given a merchant that is slow to answer the first webhook,
    let env = dense().build().await;
    let _worker = env.start_worker().await;
    env.merchant.inject_fault(FaultRule::new(Fault::Slow { milliseconds: 4000 }).times(1));
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    env.result_of("po_1").await;
    // when the link is claimed and paid meanwhile,
    let link = link_of(&env, 0);
    env.provider.change(&link, LinkChange::Claim).unwrap();
    env.provider.change(&link, LinkChange::Pay).unwrap();
    env.wait_for_results("po_1", 3).await;
    // then its webhooks wait for each other.
    let webhooks = env.webhooks(3).await;
    assert_eq!(webhooks.iter().map(kind).collect::<Vec<_>>(), ["created", "claimed", "succeeded"]);
    assert!(webhooks[1].at - webhooks[0].at >= Duration::from_secs(3), "after the answer to the first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_links_of_one_account_do_not_delay_another() {
    // Given an account whose provider never answers, with a hundred thousand links that are due,
    let silent = Receiver::start(&[]).await.unwrap();
    silent.inject_fault(FaultRule::new(Fault::Silence).always());
    let env = dense().set("connectors.mute.url", silent.url()).build().await;
    let worker = env.start_worker().await;
    env.publish(job("po_0")).await;
    env.result_of("po_0").await;
    worker.stop().await;
    sqlx::query(
        "INSERT INTO payout_links (
            id, merchant_id, merchant_payout_id, request_fingerprint, connector, amount_minor, currency,
            destination_currency, state, created_at, concluded_at, payout_status, connector_payout_id, result,
            event_id, link_status, follow_due_at
        )
        SELECT
            gen_random_uuid(), '', 'crowd-' || number, request_fingerprint, 'mute', 1000, 'EUR', 'EUR', 'created', now(), now(),
            'REQUIRES_FULFILLMENT', 'crowd-' || number, result, gen_random_uuid(), 'unclaimed', now()
        FROM payout_links, generate_series(1, 100000) number",
    )
    .execute(&env.pool)
    .await
    .unwrap();
    // when a link of another account changes,
    let _worker = env.start_worker().await;
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    env.wait_until_delivered("po_1").await;
    eventually("the crowd is asked about", async || {
        let asked =
            "SELECT count(*) FROM payout_links WHERE connector = 'mute' AND follow_holder IS NOT NULL";
        let asked: i64 = sqlx::query_scalar(asked).fetch_one(&env.pool).await.unwrap();
        (asked > 0).then_some(())
    })
    .await;
    let changed = Instant::now();
    env.provider.change(&link_of(&env, 1), LinkChange::Claim).unwrap();
    // then the worker asks about it in time, and about the others too.
    let webhooks = env.webhooks(2).await;
    assert_eq!(webhooks.iter().map(kind).collect::<Vec<_>>(), ["created", "claimed"]);
    assert!(changed.elapsed() < Duration::from_secs(8), "{:?}", changed.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_loses_no_change_and_announces_none_twice() {
    // Given a worker that is killed while it asks,
    let env = dense().short_leases().build().await;
    let mut first = env.start_worker().await;
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    env.result_of("po_1").await;
    env.wait_until_delivered("po_1").await;
    let asking = env.provider.hold_next(Operation::Get, provider_simulators::sandbox::When::After);
    env.provider.change(&link_of(&env, 0), LinkChange::Claim).unwrap();
    asking.arrived().await;
    first.kill();
    drop(asking);
    // when another one runs,
    let _second = env.start_worker().await;
    // then the change is announced, once.
    let webhooks = env.webhooks(2).await;
    assert_eq!(webhooks.iter().map(kind).collect::<Vec<_>>(), ["created", "claimed"]);
    env.provider.change(&link_of(&env, 0), LinkChange::Pay).unwrap();
    let webhooks = env.webhooks(3).await;
    assert_eq!(webhooks.iter().map(kind).collect::<Vec<_>>(), ["created", "claimed", "succeeded"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_follows_no_links_asks_nothing() {
    let env = dense().set("connectors.sandbox.follow.enabled", false).build().await;
    let _worker = env.start_worker().await;
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    env.wait_until_delivered("po_1").await;
    let due = "SELECT count(*) FROM payout_links WHERE follow_due_at IS NOT NULL";
    let due: i64 = sqlx::query_scalar(due).fetch_one(&env.pool).await.unwrap();
    assert_eq!(due, 0);
}
