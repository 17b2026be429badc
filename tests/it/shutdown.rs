//! Tests a signal to stop: the worker leaves nothing unfinished.

use provider_simulators::sandbox::Fault;

use crate::support::{DEADLINE, Setup, TestEnv, eventually, job};

#[tokio::test(flavor = "multi_thread")]
async fn calls_under_way_are_finished() {
    // Given a worker during a call,
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    let call = env.provider.hold_next_call();
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    call.arrived().await;
    // when it is stopped, and a job comes after that,
    worker.signal("TERM");
    worker.says("stopping").await;
    env.publish(job("po_2")).await;
    call.release();
    // then the call's result and webhook are still delivered, its exit status is 0,
    let mut worker = worker;
    assert!(worker.exited().await.success());
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
    assert_eq!(env.merchant.received().len(), 1);
    // and the late job is left to other workers, without a record and a lease.
    assert!(env.has_no_record("po_2").await);
    eventually("it is in the queue", async || (env.ready(&env.names.jobs_queue).await == 1).then_some(()))
        .await;
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM payout_links WHERE holder IS NOT NULL")
        .fetch_one(&env.pool)
        .await
        .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_wait_for_a_retry_are_returned_at_once() {
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    env.provider.inject_fault(Fault::status_with_retry_after(429, "1"));
    env.publish(job("po_1")).await;
    let called = env.provider.until(|ledger| !ledger.calls.is_empty());
    tokio::time::timeout(DEADLINE, called).await.unwrap();
    assert!(worker.stop().await.success());
    let shown = env.wait_until_shown("po_1", "given back", |shown| shown["leased"] == false).await;
    assert_eq!(shown["state"], "open");
    let _next = env.start_worker().await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_being_written_is_given_back_uncalled() {
    // Given a job whose row waits for a lock, for a connector without keys and look-ups,
    let env = TestEnv::new().await;
    let mut worker = env.start_worker().await;
    let mut lock = env.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE payout_links IN SHARE MODE").execute(&mut *lock).await.unwrap();
    env.publish(job("po_1").connector("mute")).await;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event_type = 'Lock' AND query LIKE '%INSERT INTO payout_links %'";
    eventually("a row that waits", async || {
        let waiting: i64 = sqlx::query_scalar(waits).fetch_one(&env.pool).await.unwrap();
        (waiting > 0).then_some(())
    })
    .await;
    // when the worker is stopped before the row is written,
    worker.signal("TERM");
    worker.says("stopping").await;
    lock.commit().await.unwrap();
    assert!(worker.exited().await.success());
    // then no worker holds the row, no call is counted, and the outcome is not unknown.
    let shown = env.shown("po_1").unwrap();
    assert_eq!((&shown["leased"], &shown["attempts"]), (&false.into(), &0.into()));
    let _next = env.start_worker().await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_grace_period_has_an_end() {
    let env = Setup::default().set("worker.grace_period_seconds", 1).build().await;
    let mut worker = env.start_worker().await;
    let _call = env.provider.hold_next_call();
    env.publish(job("po_1")).await;
    eventually("a lease", async || env.shown("po_1").filter(|shown| shown["leased"] == true)).await;
    worker.signal("TERM");
    worker.says("grace period over").await;
    assert!(worker.exited().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_leaves_at_once() {
    let env = TestEnv::new().await;
    let mut worker = env.start_worker().await;
    let _call = env.provider.hold_next_call();
    env.publish(job("po_1")).await;
    eventually("a lease", async || env.shown("po_1").filter(|shown| shown["leased"] == true)).await;
    worker.signal("INT");
    worker.says("stopping").await;
    worker.signal("INT");
    worker.says("a second signal").await;
    assert!(worker.exited().await.success());
    // Its connections are not waited for.
    assert!(!worker.log().contains("\"stopped\""), "{}", worker.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_are_replaced_under_load_lose_nothing() {
    let env = TestEnv::new().await;
    let mut worker = env.start_worker().await;
    for round in 0..3 {
        for number in 0..40 {
            env.publish(job(&format!("po_{round}_{number}")).with("webhook_url", env.webhook_url())).await;
        }
        let next = env.start_worker().await;
        let mut last = std::mem::replace(&mut worker, next);
        last.signal("TERM");
        assert!(last.exited().await.success());
        let log = last.log();
        assert!(!log.contains("\"ERROR\"") && !log.contains("grace period over"), "{log}");
    }
    for round in 0..3 {
        for number in 0..40 {
            assert_eq!(env.result_of(&format!("po_{round}_{number}")).await.kind(), "payout_link.created");
        }
    }
    env.webhooks(120).await;
    assert_eq!(env.provider.ledger().links.len(), 120);
    // Nothing was taken over from a lease that had to expire first: no outcome was unknown, and no call was repeated.
    let doubtful: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM payout_links WHERE in_doubt_since IS NOT NULL OR attempts <> 1 OR holder IS NOT NULL",
    )
    .fetch_one(&env.pool)
    .await
    .unwrap();
    assert_eq!(doubtful, 0);
}
