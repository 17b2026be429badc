//! Tests a worker while everything is full: it continues, no job starves, and no result is wrong.

use std::net::SocketAddr;

use provider_simulators::sandbox::{Fault, FaultRule, Receiver};
use serde_json::json;

use crate::{
    proxy::{Kind, Proxy},
    support::{DEADLINE, Setup, TestEnv, claim, eventually, job, pool_of_one, store, submit_parked},
};

/// Starts a proxy between a test environment's workers and its broker.
async fn in_front_of_the_broker(env: &mut TestEnv) -> Proxy {
    let mut url: url::Url = std::env::var("AMQP_URL").unwrap().parse().unwrap();
    let target: Vec<SocketAddr> = url.socket_addrs(|| Some(5672)).unwrap();
    let proxy = Proxy::start(Kind::to(target)).await;
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(proxy.port())).unwrap();
    env.set("broker.url", url);
    proxy
}

#[tokio::test(flavor = "multi_thread")]
async fn consumption_goes_on_after_breaks_in_a_backlog() {
    const JOBS: usize = 64;
    // Given a worker whose permits are all used by a backlog of a connector that is slower than a reconnect,
    let mut env = Setup::default()
        .set("broker.prefetch", 16)
        .set("worker.jobs_in_flight", 16)
        .set("connectors.sandbox.calls.concurrency", 16)
        .only_connector("sandbox")
        .build()
        .await;
    let proxy = in_front_of_the_broker(&mut env).await;
    env.provider.inject_fault(FaultRule::new(Fault::Slow { milliseconds: 4000 }).always());
    let worker = env.start_worker().await;
    for number in 0..JOBS {
        env.publish(job(&format!("po_{number}"))).await;
    }
    eventually("every permit is taken", async || (env.provider.ledger().calls.len() == 16).then_some(()))
        .await;
    // when its connections break again and again before it has worked that off,
    for breaks in 1..=4 {
        proxy.cut();
        eventually("consuming again", async || {
            (worker.log().matches("connected to RabbitMQ, consuming").count() > breaks).then_some(())
        })
        .await;
    }
    // then every job is created, and none is rejected.
    for number in 0..JOBS {
        let results = env.wait_for_results(&format!("po_{number}"), 1).await;
        assert!(results.iter().all(|result| result.kind() == "payout_link.created"));
    }
    assert_eq!(env.provider.ledger().links.len(), JOBS);
    assert_eq!(env.ready(&env.names.dead_queue).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_makes_no_outcome_unknown() {
    const JOBS: usize = 30;
    // Given a connector without keys and look-ups, whose rate limit lets through fewer calls in a lease than there
    // are jobs,
    let env = Setup::default()
        .short_leases()
        .set("connectors.mute.calls.requests_per_minute", 90)
        .only_connector("mute")
        .set("jobs.default_connector", "mute")
        .build()
        .await;
    let _worker = env.start_worker().await;
    // when the jobs come together, then each is created.
    for number in 0..JOBS {
        env.publish(job(&format!("po_{number}"))).await;
    }
    for number in 0..JOBS {
        assert_eq!(env.result_of(&format!("po_{number}")).await.kind(), "payout_link.created");
    }
    assert_eq!(env.provider.ledger().calls.len(), JOBS);
}

#[tokio::test(flavor = "multi_thread")]
async fn due_work_is_claimed_in_the_order_of_service() {
    let env = TestEnv::new().await;
    let pool = pool_of_one(&env).await;
    let store = store(pool.clone());
    // Given parked records, retries and unknown outcomes: the unknown one is due last, but has to be served first,
    for id in ["new", "new_instant", "retry", "retry_fast", "unknown"] {
        submit_parked(&store, id).await;
    }
    let rank = "UPDATE payout_links SET service_rank = $2 WHERE merchant_payout_id = $1";
    for (id, rank_of_it) in
        [("new", 8_i16), ("new_instant", 6), ("retry", 5), ("retry_fast", 4), ("unknown", 2)]
    {
        sqlx::query(rank).bind(id).bind(rank_of_it).execute(&pool).await.unwrap();
    }
    // when they are claimed one by one, then in that order.
    for id in ["unknown", "new_instant", "retry_fast", "retry", "new"] {
        let link = claim(&store, 1).await.remove(0).unwrap();
        assert_eq!(link.job.merchant_payout_id.as_str(), id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_does_not_wait_behind_a_backlog() {
    const JOBS: usize = 60;
    // Given a connector that accepts one call at a time, and a job that it asks to retry later,
    let env = Setup::default()
        .set("connectors.sandbox.calls.concurrency", 1)
        .set("retry.wait_in_place_ms", 100)
        .only_connector("sandbox")
        .build()
        .await;
    env.provider.inject_fault(Fault::status_with_retry_after(503, "1"));
    env.provider.inject_fault(FaultRule::new(Fault::Slow { milliseconds: 100 }).always());
    let _worker = env.start_worker().await;
    env.publish(job("retried")).await;
    eventually("the first call", async || (!env.provider.ledger().calls.is_empty()).then_some(())).await;
    // when a backlog comes after it that occupies the connector for long,
    for number in 0..JOBS {
        env.publish(job(&format!("po_{number}"))).await;
    }
    // then it is created while most of that waits.
    assert_eq!(env.result_of("retried").await.kind(), "payout_link.created");
    let made = env.provider.ledger().links.len();
    assert!(made < JOBS * 2 / 3, "{made} before it");
    for number in 0..JOBS {
        assert_eq!(env.result_of(&format!("po_{number}")).await.kind(), "payout_link.created");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_reply_queue_delays_no_other_job() {
    // Given more rejected jobs than the worker takes at once, whose reply queue is full,
    let env = Setup::default().set("broker.prefetch", 8).set("worker.jobs_in_flight", 8).build().await;
    env.start_worker().await.stop().await;
    let full = env.full_queue().await;
    for number in 0..24 {
        env.publish(job(&format!("bad_{number}")).amount(0).reply_to(&full)).await;
    }
    // when a valid job comes after them,
    let _worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    // then it is created, every rejection is published once, and every rejected job is a dead letter.
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
    for number in 0..24 {
        assert_eq!(env.wait_for_results(&format!("bad_{number}"), 1).await.len(), 1);
    }
    eventually("the dead letters", async || (env.ready(&env.names.dead_queue).await == 24).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn merchants_that_hang_delay_no_results() {
    // Given a worker with one permit for results, and merchants that never answer,
    let env =
        Setup::default().set("worker.events_in_flight", 2).set("webhooks.timeout_seconds", 20).build().await;
    let _worker = env.start_worker().await;
    let hanging = Receiver::start(&[]).await.unwrap();
    hanging.inject_fault(FaultRule::new(Fault::Silence).always());
    for number in 0..6 {
        env.publish(job(&format!("hangs_{number}")).with("webhook_url", json!(hanging.url()))).await;
    }
    let posted = hanging.until(|received| !received.is_empty());
    tokio::time::timeout(DEADLINE, posted).await.expect("a post that hangs");
    // when jobs of other merchants come, then all results are published, also those of the hanging merchants.
    env.publish(job("po_1")).await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
    for number in 0..6 {
        let id = format!("hangs_{number}");
        env.result_of(&id).await;
        let published = |shown: &serde_json::Value| shown["event"]["published_at"].is_string();
        env.wait_until_shown(&id, "published", published).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_access_token_and_webhook_url_are_used_from_then_on() {
    // Given a job that waits for its next call,
    let env = Setup::default().set("connectors.sandbox.calls.requests_per_minute", 6).build().await;
    let _worker = env.start_worker().await;
    env.publish(job("first")).await;
    env.result_of("first").await;
    let stale = Receiver::start(&[]).await.unwrap();
    let first = job("po_1").with("access_token", json!("stale")).with("webhook_url", json!(stale.url()));
    env.publish(first).await;
    env.wait_until_shown("po_1", "parked", |shown| shown["attempts"] == 0).await;
    // when the same job comes again with another token and URL,
    let again =
        job("po_1").with("access_token", json!(crate::support::TOKEN)).with("webhook_url", env.webhook_url());
    env.publish(again).await;
    // then the call uses the new token (the connector accepts no other), and the webhook goes to the new URL.
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
    env.webhooks(1).await;
    assert!(stale.received().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_job_is_not_rejected_when_its_connector_is_renamed() {
    // Given a job that was created without naming its connector, and one that named it,
    let mut env = TestEnv::new().await;
    let worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    env.publish(job("po_2").connector("sandbox")).await;
    let first = [env.result_of("po_1").await, env.result_of("po_2").await];
    worker.stop().await;
    // when the default is another connector, and that section is gone,
    let config = std::fs::read_to_string(env.folder.join("worker.toml")).unwrap();
    let renamed = config.replace("[connectors.sandbox]", "[connectors.renamed]");
    std::fs::write(env.folder.join("worker.toml"), renamed).unwrap();
    env.set("jobs.default_connector", "asked");
    let _worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    env.publish(job("po_2").connector("sandbox")).await;
    // then both get their result, and a new job for it is rejected.
    for (id, first) in ["po_1", "po_2"].into_iter().zip(first) {
        let again = env.wait_for_results(id, 2).await.remove(1);
        assert_eq!((again.id(), again.kind()), (first.id(), first.kind()));
        assert_eq!(again.header("x-connector").as_deref(), Some("sandbox"));
    }
    env.publish(job("po_3").connector("sandbox")).await;
    assert_eq!(env.result_of("po_3").await.error_code().as_deref(), Some("UNKNOWN_CONNECTOR"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_whose_queue_is_gone_is_not_lost() {
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    // Given a worker whose dead-letter queue was deleted,
    env.delete_queue(&env.names.dead_queue).await;
    // when a job is rejected, then it still becomes a dead letter.
    env.publish(job("po_1").amount(0)).await;
    assert_eq!(env.dead_letter().await.json()["merchant_payout_id"], "po_1");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_messages_of_many_megabytes_are_not_held_in_memory() {
    const MESSAGES: usize = 24;
    // Given messages that together are far larger than a worker may hold, each delivered before,
    let env = Setup::default()
        // A waiting statement does not mean that the database is away.
        .set("database.max_connections", MESSAGES + 16)
        .set("database.timeout_seconds", 60)
        .build()
        .await;
    env.start_worker().await.stop().await;
    let large = vec![b' '; 8 << 20];
    for number in 0..MESSAGES {
        env.publish(job("large").raw(&large).message_id(&format!("large_{number}"))).await;
    }
    env.deliver_and_give_all_back(MESSAGES).await;
    // when a worker has all of them and cannot settle any, because the table of earlier rejections is locked,
    let mut locked = env.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE rejected_messages").execute(&mut *locked).await.unwrap();
    let worker = env.start_worker().await;
    let before = worker.peak_memory();
    worker.measures("payout_links_jobs_in_flight", MESSAGES).await;
    // then it holds a part of them, not 192 MiB,
    let more = (worker.peak_memory() - before) >> 20;
    assert!(more < 110, "{more} MiB more");
    // and finally each is a dead letter.
    locked.rollback().await.unwrap();
    let dead =
        async || (env.ready(&env.names.dead_queue).await == u32::try_from(MESSAGES).unwrap()).then_some(());
    eventually("the dead letters", dead).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_names_each_part() {
    // Given a worker without errors,
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    let (status, said) = worker.readiness().await;
    assert_eq!(status, 200);
    for part in ["consuming", "publishing", "database", "reading", "sweeping", "tasks"] {
        assert_eq!(said[part], true, "{part}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_message_is_rejected_by_the_worker_that_gets_it_again() {
    // Given a job that a worker rejects since its configuration has no such connector,
    let env = TestEnv::new().await;
    env.start_worker().await.stop().await;
    env.publish(job("po_1").connector("added_later").message_id("msg_1")).await;
    let first = env.start_worker().await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.rejected");
    env.dead_letter().await;
    first.stop().await;
    // when the same message is delivered again to a worker that has that connector,
    let noted = "SELECT count(*) FROM rejected_messages";
    let noted: i64 = sqlx::query_scalar(noted).fetch_one(&env.pool).await.unwrap();
    assert_eq!(noted, 1);
    let config = std::fs::read_to_string(env.folder.join("worker.toml")).unwrap();
    let added = config.replace("[connectors.mute]", "[connectors.added_later]");
    std::fs::write(env.folder.join("worker.toml"), added).unwrap();
    let again = job("po_1").connector("added_later").message_id("msg_1");
    env.publish(&again).await;
    env.deliver_and_give_back().await;
    let _second = env.start_worker().await;
    // then it is rejected again, with the same text under the same id, and nothing is created.
    let results = env.wait_for_results("po_1", 2).await;
    assert_eq!(results[0].id(), results[1].id());
    assert_eq!(results[0].body, results[1].body);
    assert!(env.has_no_record("po_1").await);
}
