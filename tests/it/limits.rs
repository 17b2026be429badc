//! Tests limits of concurrency, and that jobs do not wait for others without need.

use payout_link_worker::postgres::migrate;
use provider_simulators::sandbox::{Fault, FaultRule, Receiver, Sandbox, Settings};
use serde_json::json;

use crate::support::{DEADLINE, Setup, TOKEN, eventually, job};

/// The circuit breaker of `Setup::broken_account`, and its values.
const BREAKER: &str = r#"payout_links_connector_breaker_state{connector="broken"}"#;
const CLOSED: u8 = 0;
const OPEN: u8 = 2;

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_that_is_out_of_order_is_left_alone_and_holds_up_no_other() {
    // Given two accounts, one of them at a provider that fails,
    let broken = Sandbox::start(Settings::new(TOKEN)).await.unwrap();
    let settings = "calls = { timeout_seconds = 2, breaker_failures = 3, breaker_pause_seconds = 1 }";
    let env = Setup::default().broken_account(&broken, settings).build().await;
    broken.inject_fault(FaultRule::new(Fault::status(500)).always());
    let worker = env.start_worker().await;
    for number in 0..20 {
        env.publish(job(&format!("broken_{number}")).connector("broken")).await;
    }
    // then the breaker opens after its failures, and the other account is not delayed,
    worker.measures(BREAKER, OPEN).await;
    env.publish(job("other").connector("asked")).await;
    assert_eq!(env.result_of("other").await.kind(), "payout_link.created");
    // one call at a time tests the provider (for too short a time for the metric),
    worker.says("circuit breaker half-open").await;
    // and when it works again everything that waited is done, once each.
    broken.clear_faults();
    for number in 0..20 {
        assert_eq!(env.result_of(&format!("broken_{number}")).await.kind(), "payout_link.created");
    }
    worker.measures(BREAKER, CLOSED).await;
    assert_eq!(broken.ledger().links.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn due_work_of_a_connector_with_an_open_breaker_is_not_claimed() {
    // Given an account whose breaker is open for long, and due jobs for it,
    let broken = Sandbox::start(Settings::new(TOKEN)).await.unwrap();
    let settings = r#"
        replay = "never"
        calls = { timeout_seconds = 2, breaker_failures = 1, breaker_pause_seconds = 600 }
    "#;
    let env = Setup::default().broken_account(&broken, settings).build().await;
    broken.inject_fault(Fault::status(500));
    let worker = env.start_worker().await;
    env.publish(job("fails").connector("broken")).await;
    worker.measures(BREAKER, OPEN).await;
    for number in 0..5 {
        env.publish(job(&format!("waits_{number}")).connector("broken")).await;
    }
    let waiting = async || {
        let waiting = "SELECT count(*) FROM payout_links
            WHERE connector = 'broken' AND state = 'open' AND holder IS NULL AND attempts = 0 AND due_at <= now()";
        sqlx::query_scalar::<_, i64>(waiting).fetch_one(&env.pool).await.unwrap()
    };
    eventually("five that are due", async || (waiting().await == 5).then_some(())).await;
    // when the worker sweeps (as it must for a job of another account, whose name comes later),
    env.provider.inject_fault(Fault::status_with_retry_after(429, "2"));
    env.publish(job("swept")).await;
    assert_eq!(env.result_of("swept").await.kind(), "payout_link.created");
    // then the due jobs were not touched: a worker that finds the connector working claims them at once.
    assert_eq!(waiting().await, 5);
    assert_eq!(broken.ledger().calls.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_keep_to_the_connectors_pace_and_hold_up_no_other() {
    // Given an account whose provider accepts one call a minute,
    let env = Setup::default().set("connectors.sandbox.calls.requests_per_minute", 1).build().await;
    let _worker = env.start_worker().await;
    for number in 0..5 {
        env.publish(job(&format!("paced_{number}"))).await;
    }
    // then one call is made, and the others wait as parked records without attempts,
    eventually("four that wait", async || {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM payout_links WHERE state = 'open' AND holder IS NULL AND attempts = 0",
        )
        .fetch_one(&env.pool)
        .await
        .unwrap();
        (waiting == 4).then_some(())
    })
    .await;
    let made = || env.provider.ledger().links.len();
    eventually("one link", async || (made() == 1).then_some(())).await;
    // and another connector is not delayed.
    env.publish(job("other").connector("asked")).await;
    assert_eq!(env.result_of("other").await.kind(), "payout_link.created");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_that_is_full_holds_up_no_other() {
    // Given a connector that accepts one call at a time, and is busy,
    let env = Setup::default().set("connectors.sandbox.calls.concurrency", 1).build().await;
    let _worker = env.start_worker().await;
    let held = env.provider.hold_next_call();
    env.publish(job("busy")).await;
    held.arrived().await;
    // when more jobs come for it, and one for another,
    for number in 0..5 {
        env.publish(job(&format!("waits_{number}"))).await;
    }
    env.publish(job("other").connector("asked")).await;
    // then the other one is done meanwhile, and the waiting ones are parked without a lease,
    assert_eq!(env.result_of("other").await.kind(), "payout_link.created");
    eventually("five that wait", async || {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM payout_links WHERE state = 'open' AND holder IS NULL AND attempts = 0",
        )
        .fetch_one(&env.pool)
        .await
        .unwrap();
        (waiting == 5).then_some(())
    })
    .await;
    assert_eq!(env.provider.ledger().links.len(), 1);
    // and are done when the connector is free again.
    held.release();
    for number in 0..5 {
        assert_eq!(env.result_of(&format!("waits_{number}")).await.kind(), "payout_link.created");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_waits_for_no_other_jobs_conclusion() {
    // Given a connector that accepts one call at a time, a job that was called while its record is locked, and leases
    // and statement timeouts that outlast the test,
    let long = ["worker.lease_seconds", "connectors.sandbox.settle_seconds", "database.timeout_seconds"];
    let env = long
        .iter()
        .fold(Setup::default(), |settings, setting| settings.set(setting, 60))
        .set("connectors.sandbox.calls.concurrency", 1)
        .only_connector("sandbox")
        .build()
        .await;
    let _worker = env.start_worker().await;
    let held = env.provider.hold_next_call();
    env.publish(job("po_1")).await;
    held.arrived().await;
    let mut lock = env.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM payout_links FOR UPDATE").execute(&mut *lock).await.unwrap();
    held.release();
    let waits = async || {
        let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'
            AND datname = current_database() AND application_name = 'payout-link-worker')";
        sqlx::query_scalar::<_, bool>(waits).fetch_one(&env.pool).await.unwrap()
    };
    eventually("a conclusion that waits", async || waits().await.then_some(())).await;
    // when another comes,
    env.publish(job("po_2")).await;
    // then it is called and concluded, and the first still waits.
    assert_eq!(env.result_of("po_2").await.kind(), "payout_link.created");
    assert!(waits().await);
    lock.rollback().await.unwrap();
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
}

/// Checks that a job which comes during a sweep, when the sweeper has every free permit, does not wait for the next
/// sweep.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_comes_while_the_sweeper_looks_waits_a_moment_and_no_more() {
    const JOBS: i64 = 100;
    // Given one of several connectors, with one permit, that the sweeper looks at all the time,
    let env = Setup::default()
        .set("connectors.sandbox.calls.concurrency", 1)
        .set("worker.sweep_interval_ms", 1)
        .build()
        .await;
    migrate(&env.pool).await.unwrap();
    // and each sweep is slow, because it skips many locked records,
    sqlx::query(
        "INSERT INTO payout_links (id, merchant_id, merchant_payout_id, request_fingerprint, connector, amount_minor,
             currency, destination_currency, state, due_at)
         SELECT gen_random_uuid(), 'others', number::text, '', 'sandbox', 1, 'EUR', 'EUR', 'open', now()
         FROM generate_series(1, 8000) AS numbers (number)",
    )
    .execute(&env.pool)
    .await
    .unwrap();
    let mut others = env.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM payout_links FOR UPDATE").execute(&mut *others).await.unwrap();
    let _worker = env.start_worker().await;
    // when jobs come one after another,
    for number in 0..JOBS {
        let id = format!("po_{number}");
        env.publish(job(&id)).await;
        env.result_of(&id).await;
    }
    // then they are accepted with the lease of their call, and not parked. (On a busy machine a few may be parked.)
    let parked: i64 =
        sqlx::query_scalar("SELECT count(*) FROM payout_links WHERE first_called_at <> created_at")
            .fetch_one(&env.pool)
            .await
            .unwrap();
    assert!(parked < JOBS / 4, "{parked} of {JOBS}");
    others.rollback().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_wait_in_the_queue_while_the_only_connector_is_full() {
    // Given a worker with one connector, one call at a time, and a prefetch of one,
    let env = Setup::default()
        .set("connectors.sandbox.calls.concurrency", 1)
        .set("broker.prefetch", 1)
        .only_connector("sandbox")
        .build()
        .await;
    let _worker = env.start_worker().await;
    let held = env.provider.hold_next_call();
    env.publish(job("busy")).await;
    held.arrived().await;
    for number in 0..5 {
        env.publish(job(&format!("waits_{number}"))).await;
    }
    // then the worker holds one of them without a record, and four are still in RabbitMQ's queue.
    eventually("four in the queue", async || (env.ready(&env.names.jobs_queue).await == 4).then_some(()))
        .await;
    assert!(env.has_no_record("waits_0").await);
    held.release();
    for number in 0..5 {
        assert_eq!(env.result_of(&format!("waits_{number}")).await.kind(), "payout_link.created");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn first_webhooks_do_not_wait_behind_retries() {
    // Given a worker with two permits for events, and a merchant whose retry hangs with one of them,
    let env =
        Setup::default().set("worker.events_in_flight", 2).set("webhooks.timeout_seconds", 20).build().await;
    let _worker = env.start_worker().await;
    let hanging = Receiver::listen("127.0.0.2:0".parse().unwrap(), &[]).await.unwrap();
    hanging.inject_fault(Fault::status(500));
    hanging.inject_fault(FaultRule::new(Fault::Silence).always());
    env.publish(job("slow").with("webhook_url", json!(hanging.url()))).await;
    let retried = hanging.until(|received| received.len() == 2);
    tokio::time::timeout(DEADLINE, retried).await.expect("a retry that hangs");
    // then a new webhook is still delivered.
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    env.webhooks(1).await;
}

/// Checks that a webhook waits while its merchant answers others in turn, because a postponement costs three writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_waits_for_its_turn_at_a_merchant_that_answers() {
    // Given a worker that sweeps every ten minutes, and a merchant that answers one webhook at a time,
    let env = Setup::default()
        .set("worker.sweep_interval_ms", 600_000)
        .set("webhooks.host_concurrency", 1)
        .set("webhooks.host_patience_ms", 500)
        .build()
        .await;
    let _worker = env.start_worker().await;
    env.merchant.inject_fault(FaultRule::new(Fault::Slow { milliseconds: 300 }).always());
    // when five webhooks are due at once, then none of them waits for the next sweep.
    for number in 0..5 {
        env.publish(job(&format!("po_{number}")).with("webhook_url", env.webhook_url())).await;
    }
    env.webhooks(5).await;
}

/// Checks the trace headers with a receiver in place of the provider, because a receiver stores headers.
#[tokio::test(flavor = "multi_thread")]
async fn the_trace_goes_on_to_the_connector_and_the_merchant() {
    let provider = Receiver::start(&[]).await.unwrap();
    let env = Setup::default().set("connectors.mute.url", provider.url()).build().await;
    let _worker = env.start_worker().await;
    let traced = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let job = job("po_1").connector("mute").with("webhook_url", env.webhook_url());
    env.publish(job.header("traceparent", traced).header("tracestate", "a=1")).await;
    // The receiver's answer is no payout link, so the outcome is unknown. Only the received headers matter here.
    assert_eq!(env.result_of("po_1").await.header("traceparent").as_deref(), Some(traced));
    let call = provider.received().remove(0);
    assert_eq!((call.headers["traceparent"].as_str(), call.headers["tracestate"].as_str()), (traced, "a=1"));
    assert_eq!(call.headers["idempotency-key"].len(), 32);
    assert_eq!(env.webhooks(1).await[0].headers["traceparent"], traced);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_takes_no_more_jobs_than_it_may_have_in_flight() {
    // Given a worker that may accept two jobs at once, and a table that another session has locked,
    let env = Setup::default().set("worker.jobs_in_flight", 2).set("broker.prefetch", 10).build().await;
    let worker = env.start_worker().await;
    let mut other = env.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE payout_links IN ACCESS EXCLUSIVE MODE").execute(&mut *other).await.unwrap();
    // when ten jobs come, then two are being accepted and eight wait.
    for number in 0..10 {
        env.publish(job(&format!("po_{number}"))).await;
    }
    worker.measures("payout_links_deliveries_unread", 8).await;
    other.rollback().await.unwrap();
    for number in 0..10 {
        env.result_of(&format!("po_{number}")).await;
    }
}
