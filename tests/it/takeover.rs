//! Tests a worker or a database that dies around a call: no outcome is unknown without a call, no answer is lost, and
//! other workers take over within seconds.

use std::time::{Duration, Instant};

use payout_link_worker::postgres::migrate;
use provider_simulators::sandbox::{Fault, FaultRule, Idempotency};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::support::{Service, Setup, TestEnv, claim, eventually, job, store, submit_parked};

#[tokio::test(flavor = "multi_thread")]
async fn a_death_before_the_first_call_makes_no_outcome_unknown() {
    // Given a connector without keys and look-ups, and a job whose call is about to be recorded,
    let env = Setup::default()
        .set("worker.lease_seconds", 600)
        .set("connectors.mute.settle_seconds", 700)
        .set("jobs.default_connector", "mute")
        .only_connector("mute")
        .build()
        .await;
    let mut first = env.start_worker().await;
    let mut gate = PgConnection::connect_with(&env.pool.connect_options()).await.unwrap();
    for statement in [
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$",
        "CREATE TRIGGER wait BEFORE UPDATE ON payout_links FOR EACH STATEMENT EXECUTE FUNCTION wait()",
        "SELECT pg_advisory_lock(1)",
    ] {
        sqlx::query(statement).execute(&mut gate).await.unwrap();
    }
    env.publish(job("po_1").connector("mute")).await;
    let waiting = "FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objsubid = 1
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    eventually("the write before the call waits", async || {
        let count = sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) {waiting}")));
        let count: i64 = count.fetch_one(&env.pool).await.unwrap();
        (count > 0).then_some(())
    })
    .await;
    // when its worker dies, and that write with it,
    first.kill();
    let end = AssertSqlSafe(format!("SELECT pg_terminate_backend(pid) {waiting}"));
    sqlx::query(end).execute(&env.pool).await.unwrap();
    sqlx::query("DROP TRIGGER wait ON payout_links").execute(&mut gate).await.unwrap();
    assert!(env.provider.ledger().calls.is_empty());
    // then another worker calls, long before the lease ends.
    let _second = env.start_worker().await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_began_no_call_leaves_no_unknown_outcome() {
    let env = TestEnv::new().await;
    migrate(&env.pool).await.unwrap();
    let store = store(env.pool.clone());
    let expire = "UPDATE payout_links SET due_at = now() - interval '1 second'";
    // Given a parked record whose worker died between its claim and its call,
    submit_parked(&store, "po_1").await;
    assert_eq!(claim(&store, 10).await.len(), 1);
    sqlx::query(expire).execute(&env.pool).await.unwrap();
    // when another worker claims it, then its outcome is not unknown.
    let mut link = claim(&store, 10).await.remove(0).unwrap();
    assert_eq!((link.progress.in_doubt_since, link.progress.attempts), (None, 0));
    // The same holds if an earlier call has ended, and the next one did not begin;
    store.renew_for_call(&mut link).await.unwrap();
    store.postpone(link, Duration::ZERO).await.unwrap();
    drop(claim(&store, 10).await);
    sqlx::query(expire).execute(&env.pool).await.unwrap();
    let mut link = claim(&store, 10).await.remove(0).unwrap();
    assert_eq!((link.progress.in_doubt_since, link.progress.attempts), (None, 1));
    // but not if a call began.
    store.renew_for_call(&mut link).await.unwrap();
    sqlx::query(expire).execute(&env.pool).await.unwrap();
    let link = claim(&store, 10).await.remove(0).unwrap();
    assert!(link.progress.in_doubt_since.is_some());
    // It does not hold for a claim of an earlier version, which does not record it.
    store.postpone(link, Duration::ZERO).await.unwrap();
    let earlier = "UPDATE payout_links SET holder = gen_random_uuid(), in_doubt_since = NULL, due_at = now()";
    sqlx::query(earlier).execute(&env.pool).await.unwrap();
    let link = claim(&store, 10).await.remove(0).unwrap();
    assert!(link.progress.in_doubt_since.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_in_hand_outlasts_the_lease() {
    // Given a call to a connector without keys and look-ups,
    let database = Service::start("postgres").await;
    let env = Setup::default().short_leases().database(&database.url).build().await;
    let worker = env.start_worker().await;
    let call = env.provider.hold_next_answer();
    env.publish(job("po_1").connector("mute")).await;
    call.arrived().await;
    // when the database is away until long after the lease, and the answer comes meanwhile,
    database.kill();
    call.release();
    worker.says("database unavailable, consumption paused").await;
    // (this wait is the length of the outage)
    tokio::time::sleep(Duration::from_secs(12)).await;
    database.restart();
    // then the link is not lost.
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
    assert_eq!(env.provider.ledger().calls.len(), 1);
    assert!(worker.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_in_hand_is_not_given_up_before_the_grace_period_has_ended() {
    // Given a worker that is stopped with an unrecorded answer while the database is away,
    let database = Service::start("postgres").await;
    let env = Setup::default()
        .set("worker.grace_period_seconds", 60)
        .set("jobs.default_connector", "mute")
        .only_connector("mute")
        .database(&database.url)
        .build()
        .await;
    let worker = env.start_worker().await;
    let call = env.provider.hold_next_answer();
    env.publish(job("po_1")).await;
    call.arrived().await;
    database.kill();
    call.release();
    worker.says("database unavailable, consumption paused").await;
    worker.signal("TERM");
    worker.says("stopping").await;
    // when the database is back later than other writes are waited for, (this wait is the length of the outage)
    tokio::time::sleep(Duration::from_secs(7)).await;
    database.restart();
    // then the link is not lost.
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_given_up_is_logged() {
    // Given a worker that is stopped with an unrecorded answer, and a database that does not come back,
    let database = Service::start("postgres").await;
    let env = Setup::default().set("worker.grace_period_seconds", 3).database(&database.url).build().await;
    let mut worker = env.start_worker().await;
    let call = env.provider.hold_next_answer();
    env.publish(job("po_1")).await;
    call.arrived().await;
    database.kill();
    call.release();
    worker.says("database unavailable, consumption paused").await;
    // when the grace period ends,
    worker.signal("TERM");
    worker.exited().await;
    // then the log has the data to find the link at the provider.
    let log = worker.log();
    let line = log.lines().find(|line| line.contains("conclusion abandoned")).expect("the line");
    let made = &env.provider.ledger().links[0];
    assert!(line.contains(&made.id), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_work_of_a_worker_that_is_gone_is_taken_over_before_its_lease_ends() {
    // Given a worker that dies during calls, whose leases far outlast this test,
    let env = Setup::default()
        .set("worker.lease_seconds", 600)
        .set("connectors.sandbox.settle_seconds", 700)
        .only_connector("sandbox")
        .build()
        .await;
    let mut first = env.start_worker().await;
    let mut held = Vec::new();
    for number in 0..5 {
        let call = env.provider.hold_next_answer();
        env.publish(job(&format!("po_{number}"))).await;
        call.arrived().await;
        held.push(call);
    }
    first.kill();
    drop(held);
    // when another one starts, then it calls again under the same keys.
    let _second = env.start_worker().await;
    for number in 0..5 {
        assert_eq!(env.result_of(&format!("po_{number}")).await.kind(), "payout_link.created");
    }
    assert_eq!(env.provider.ledger().links.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_lives_keeps_its_leases() {
    // Given a worker during a call, and another one beside it,
    let env = Setup::default()
        .set("worker.lease_seconds", 600)
        .set("connectors.sandbox.settle_seconds", 700)
        .only_connector("sandbox")
        .build()
        .await;
    let _first = env.start_worker().await;
    let call = env.provider.hold_next_answer();
    env.publish(job("po_1")).await;
    call.arrived().await;
    let second = env.start_worker().await;
    // when the second one has checked for missing workers often enough,
    env.publish(job("po_2").reply_to("gone")).await;
    env.provider.inject_fault(Fault::status_with_retry_after(503, "2"));
    env.publish(job("po_3")).await;
    for id in ["po_2", "po_3"] {
        assert_eq!(env.result_of(id).await.kind(), "payout_link.created");
    }
    // then the call was not repeated.
    call.release();
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
    let ledger = env.provider.ledger();
    assert!(!second.log().contains("taken over") && ledger.links.len() == 3, "{}", second.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn called_records_are_concluded_within_seconds_of_a_restart_after_a_sigkill() {
    const RECORDS: usize = 20;
    const LONG: u64 = 600;
    const SETTLE: Duration = Duration::from_secs(10);
    // A link that exists is found at once, also by a look-up. "Not found" counts only after the settle time.
    for (connector, lease, settle, is_created) in [
        ("sandbox", LONG, Duration::ZERO, true),
        ("asked", LONG, Duration::ZERO, true),
        ("asked", SETTLE.as_secs(), SETTLE, false),
    ] {
        // Given a worker that dies during its calls,
        let env = Setup::default()
            .set("worker.lease_seconds", lease)
            .set(&format!("connectors.{connector}.calls.timeout_seconds"), 4)
            .set(&format!("connectors.{connector}.settle_seconds"), lease)
            .set("jobs.default_connector", connector)
            .only_connector(connector)
            .build()
            .await;
        let mut first = env.start_worker().await;
        let fault = FaultRule::new(Fault::Silence);
        let fault = if is_created { fault.after_the_work() } else { fault };
        if !is_created {
            // With keys, the provider would answer that the first call is still being carried out.
            env.provider.set_idempotency(Idempotency::Off);
        }
        env.provider.inject_fault(fault.times(u32::try_from(RECORDS).unwrap()));
        for number in 0..RECORDS {
            env.publish(job(&format!("po_{number}"))).await;
        }
        eventually("all calls", async || (env.provider.ledger().calls.len() == RECORDS).then_some(())).await;
        let called = Instant::now();
        first.kill();
        // when it is started again,
        let restarted = Instant::now();
        let _second = env.start_worker().await;
        let ready = restarted.elapsed();
        let open = "SELECT count(*) FROM payout_links WHERE state = 'open'";
        eventually("no record is open", async || {
            let open: i64 = sqlx::query_scalar(open).fetch_one(&env.pool).await.unwrap();
            (open == 0).then_some(())
        })
        .await;
        // then all are concluded within three seconds (ten on a busy machine), or so long after the settle time.
        let took = restarted.elapsed();
        println!("{connector}: consuming after {ready:.1?}, {RECORDS} records concluded after {took:.1?}");
        assert!(took < settle + Duration::from_secs(10), "{connector}: {took:?}");
        // The calls came within the second before.
        assert!(called.elapsed() + Duration::from_secs(1) >= settle, "{connector}: {took:?}");
        assert_eq!(env.provider.ledger().links.len(), RECORDS);
    }
}
