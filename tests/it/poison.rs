//! A message is poison on evidence: processing it began again and again, and never ended.

use lapin::types::AMQPValue;

use crate::support::{Setup, TestEnv, eventually, job};

/// Restarts and reconnects do the same to good jobs.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_keeps_coming_back_is_no_poison() {
    // Given a job that was delivered and given back far more often than a begin may fail,
    let env = Setup::default().set("worker.max_unfinished_begins", 1).build().await;
    env.start_worker().await.stop().await;
    env.publish(job("po_1")).await;
    for _ in 0..30 {
        env.deliver_and_give_back().await;
    }
    // and one whose publisher says so,
    let count = AMQPValue::LongLongInt(1000);
    env.publish(job("po_2").value("x-delivery-count", count)).await;
    // when a worker finds them, then both are created, and nothing is left of the suspicion.
    let _worker = env.start_worker().await;
    for id in ["po_1", "po_2"] {
        assert_eq!(env.result_of(id).await.kind(), "payout_link.created");
    }
    no_suspects(&env).await;
    assert_eq!(env.ready(&env.names.dead_queue).await, 0);
}

/// Starts worker after worker. Each dies while it waits for the table, with the message begun and not written down.
async fn let_workers_die(env: &TestEnv) {
    let_workers_die_of(env, "payout_links", &env.names.jobs_queue).await;
}

async fn let_workers_die_of(env: &TestEnv, table: &str, queue: &str) {
    let mut lock = env.pool.begin().await.unwrap();
    let statement = format!("LOCK TABLE {table} IN SHARE MODE");
    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut *lock).await.unwrap();
    // (three times it is delivered like any other)
    for begun in [0, 0, 0, 1, 2] {
        let mut worker = env.start_worker().await;
        eventually("the job is taken", async || {
            let of = "SELECT coalesce(sum(begun), 0)::bigint FROM suspect_messages";
            let begins: i64 = sqlx::query_scalar(of).fetch_one(&env.pool).await.unwrap();
            (env.ready(queue).await == 0 && begins == begun).then_some(())
        })
        .await;
        worker.kill();
        eventually("the job is back", async || (env.ready(queue).await == 1).then_some(())).await;
    }
    lock.commit().await.unwrap();
}

/// Waits until nothing is left of the suspicion: that is deleted after the message is settled.
async fn no_suspects(env: &TestEnv) {
    eventually("no suspect messages", async || {
        let count: i64 =
            sqlx::query_scalar("SELECT count(*) FROM suspect_messages").fetch_one(&env.pool).await.unwrap();
        (count == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_kills_every_worker_is_taken_for_poison() {
    // Given a message at which worker after worker dies before it has written it down,
    let env = Setup::default().set("worker.max_unfinished_begins", 2).build().await;
    env.start_worker().await.stop().await;
    env.publish(job("po_1").message_id("msg_1")).await;
    let_workers_die(&env).await;
    // when the next worker finds it, then it is rejected, and other jobs go on.
    let worker = env.start_worker().await;
    let rejected = env.result_of("po_1").await;
    assert_eq!(rejected.kind(), "payout_link.rejected");
    let dead = env.dead_letter().await;
    assert!(dead.header("x-rejected-reason").unwrap().contains("began 2 times and never ended"));
    env.publish(job("po_2")).await;
    assert_eq!(env.result_of("po_2").await.kind(), "payout_link.created");
    assert_eq!(env.provider.ledger().links.len(), 1);
    // Moved back once its cause is gone it is a new try.
    env.publish(job("po_1").message_id("msg_1")).await;
    env.wait_until_shown("po_1", "created", |shown| shown["state"] == "created").await;
    no_suspects(&env).await;
    assert!(worker.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_read_without_a_death_is_rejected_unread() {
    // Given a message at which workers died, the last of them while it read it only to find its record,
    let env = Setup::default().set("worker.max_unfinished_begins", 2).build().await;
    env.start_worker().await.stop().await;
    env.publish(job("po_1").message_id("msg_1")).await;
    let_workers_die(&env).await;
    sqlx::query("UPDATE suspect_messages SET begun = 3").execute(&env.pool).await.unwrap();
    // when the next worker finds it, then it is rejected without its identifier.
    let _worker = env.start_worker().await;
    let rejected = env.answer_to("msg_1").await;
    assert_eq!(rejected.kind(), "payout_link.rejected");
    assert!(rejected.json().get("merchant_payout_id").is_none());
    assert!(env.provider.ledger().links.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_about_a_link_that_kills_every_worker_is_taken_for_poison() {
    // Given a cancel at which worker after worker dies before it has written it down,
    let env = Setup::default().set("worker.max_unfinished_begins", 2).build().await;
    let worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    env.result_of("po_1").await;
    worker.stop().await;
    let body = r#"{"merchant_payout_id": "po_1"}"#;
    env.publish_to("cancel", job("-").raw(body.as_bytes()).message_id("c_1")).await;
    let_workers_die_of(&env, "link_requests", &env.names.cancel_queue()).await;
    // when the next worker finds it, then it is rejected, nothing is cancelled, and others are carried out.
    let _worker = env.start_worker().await;
    let dead = env.dead_letter().await;
    assert!(dead.header("x-rejected-reason").unwrap().contains("began 2 times and never ended"));
    let requested = "SELECT count(*) FROM payout_links WHERE cancel_requested_at IS NOT NULL";
    let requested: i64 = sqlx::query_scalar(requested).fetch_one(&env.pool).await.unwrap();
    assert_eq!(requested, 0);
    env.publish_to("cancel", job("-").raw(body.as_bytes()).message_id("c_2")).await;
    env.wait_for_results("po_1", 2).await;
    no_suspects(&env).await;
}

/// A job that was accepted is never rejected.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_job_was_accepted_is_not_rejected_as_poison() {
    // Given a payout that was created, and the same job again, at which worker after worker dies,
    let env = Setup::default().set("worker.max_unfinished_begins", 2).build().await;
    let worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
    worker.stop().await;
    env.publish(job("po_1").message_id("msg_2")).await;
    let_workers_die(&env).await;
    // when the next worker finds it, then it gets the result again.
    let _worker = env.start_worker().await;
    assert_eq!(env.answer_to("msg_2").await.kind(), "payout_link.created");
    assert_eq!(env.ready(&env.names.dead_queue).await, 0);
    no_suspects(&env).await;
}

/// Suspect messages are processed one by one. A rejection waits for what an ended session may still write.
#[tokio::test(flavor = "multi_thread")]
async fn many_suspects_that_are_rejected_do_not_wait_one_by_one() {
    const JOBS: usize = 90;
    // Given many jobs for a connector that is not configured, which came back so often that they are suspect,
    let env = TestEnv::new().await;
    env.start_worker().await.stop().await;
    for number in 0..JOBS {
        env.publish(job(&format!("po_{number}")).connector("nobody")).await;
    }
    eventually("all in the queue", async || {
        (env.ready(&env.names.jobs_queue).await as usize == JOBS).then_some(())
    })
    .await;
    for _ in 0..4 {
        env.deliver_and_give_all_back(JOBS).await;
    }
    // when a worker finds them, then each is rejected before the first would have waited for the last.
    let _worker = env.start_worker().await;
    eventually("every dead letter", async || {
        (env.ready(&env.names.dead_queue).await as usize == JOBS).then_some(())
    })
    .await;
    assert!(env.provider.ledger().calls.is_empty());
}
