//! Tests that a message counts as poison only if its processing began several times and never ended.

use lapin::types::AMQPValue;

use crate::support::{Setup, TestEnv, eventually, job};

/// Restarts and reconnects also redeliver valid jobs.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_keeps_coming_back_is_no_poison() {
    // Given a job that was delivered and returned far more often than a beginning may fail,
    let env = Setup::default().set("worker.max_unfinished_begins", 1).build().await;
    env.start_worker().await.stop().await;
    env.publish(job("po_1")).await;
    for _ in 0..30 {
        env.deliver_and_give_back().await;
    }
    // and one whose publisher sends a high delivery count,
    let count = AMQPValue::LongLongInt(1000);
    env.publish(job("po_2").value("x-delivery-count", count)).await;
    // when a worker receives them, then both are created, and no suspicion is left.
    let _worker = env.start_worker().await;
    for id in ["po_1", "po_2"] {
        assert_eq!(env.result_of(id).await.kind(), "payout_link.created");
    }
    no_suspects(&env).await;
    assert_eq!(env.ready(&env.names.dead_queue).await, 0);
}

/// Starts worker after worker. Each dies while it waits for the table, before it has stored the message.
async fn let_workers_die(env: &TestEnv) {
    let_workers_die_of(env, "payout_links", &env.names.jobs_queue).await;
}

async fn let_workers_die_of(env: &TestEnv, table: &str, queue: &str) {
    let mut lock = env.pool.begin().await.unwrap();
    let statement = format!("LOCK TABLE {table} IN SHARE MODE");
    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut *lock).await.unwrap();
    // (it is delivered like any other message three times)
    for begun in [0, 0, 0, 1, 2] {
        let mut worker = env.start_worker().await;
        eventually("the job is accepted", async || {
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

/// Waits until no suspicion is left: it is deleted after the message is settled.
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
    // Given a message at which each worker dies before it has stored it,
    let env = Setup::default().set("worker.max_unfinished_begins", 2).build().await;
    env.start_worker().await.stop().await;
    env.publish(job("po_1").message_id("msg_1")).await;
    let_workers_die(&env).await;
    // when the next worker receives it, then it is rejected, and other jobs continue.
    let worker = env.start_worker().await;
    let rejected = env.result_of("po_1").await;
    assert_eq!(rejected.kind(), "payout_link.rejected");
    let dead = env.dead_letter().await;
    assert!(dead.header("x-rejected-reason").unwrap().contains("began 2 times and never ended"));
    env.publish(job("po_2")).await;
    assert_eq!(env.result_of("po_2").await.kind(), "payout_link.created");
    assert_eq!(env.provider.ledger().links.len(), 1);
    // When the dead letter is moved back after its cause is gone, with its headers as a shovel does, it is a new message.
    let mut moved = job("po_1").message_id("msg_1").header("x-delivery-count", "7");
    for name in ["x-rejected-code", "x-rejected-reason", "x-rejected-at", "x-rejected-from"] {
        moved = moved.header(name, &dead.header(name).unwrap());
    }
    env.publish(moved).await;
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
    // when the next worker receives it, then it is rejected without its identifier.
    let worker = env.start_worker().await;
    let rejected = env.answer_to("msg_1").await;
    assert_eq!(rejected.kind(), "payout_link.rejected");
    assert!(rejected.json().get("merchant_payout_id").is_none());
    // It is rejected again if it is delivered again, because its acknowledgement was lost.
    env.dead_letter().await;
    no_suspects(&env).await;
    assert!(worker.stop().await.success());
    env.publish(job("po_1").message_id("msg_1")).await;
    env.deliver_and_give_back().await;
    let _worker = env.start_worker().await;
    let answers = || {
        let results = env.results();
        results.iter().filter(|result| result.correlation_id().as_deref() == Some("msg_1")).count()
    };
    eventually("another answer", async || (answers() == 2).then_some(())).await;
    assert!(env.has_no_record("po_1").await);
    assert!(env.provider.ledger().links.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_about_a_link_that_kills_every_worker_is_taken_for_poison() {
    // Given a cancel at which each worker dies before it has stored it,
    let env = Setup::default().set("worker.max_unfinished_begins", 2).build().await;
    let worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    env.result_of("po_1").await;
    worker.stop().await;
    let body = r#"{"merchant_payout_id": "po_1"}"#;
    env.publish_to("cancel", job("-").raw(body.as_bytes()).message_id("c_1")).await;
    let_workers_die_of(&env, "link_requests", &env.names.cancel_queue()).await;
    // when the next worker receives it, then it is rejected, nothing is cancelled, and other cancels are carried out.
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

/// Checks that a job that was accepted is never rejected.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_job_was_accepted_is_not_rejected_as_poison() {
    // Given a created payout, and a duplicate at which each worker dies,
    let env = Setup::default().set("worker.max_unfinished_begins", 2).build().await;
    let worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
    worker.stop().await;
    env.publish(job("po_1").message_id("msg_2")).await;
    let_workers_die(&env).await;
    // when the next worker receives it, then the result is replayed.
    let _worker = env.start_worker().await;
    assert_eq!(env.answer_to("msg_2").await.kind(), "payout_link.created");
    assert_eq!(env.ready(&env.names.dead_queue).await, 0);
    no_suspects(&env).await;
}

/// Suspect messages are processed one by one, and a rejection waits for writes of an ended session.
#[tokio::test(flavor = "multi_thread")]
async fn many_suspects_that_are_rejected_do_not_wait_one_by_one() {
    const JOBS: usize = 90;
    // Given many jobs for an unknown connector, which came back so often that they are suspect,
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
    // when a worker receives them, then each is rejected sooner than in turn.
    let _worker = env.start_worker().await;
    eventually("every dead letter", async || {
        (env.ready(&env.names.dead_queue).await as usize == JOBS).then_some(())
    })
    .await;
    assert!(env.provider.ledger().calls.is_empty());
}
