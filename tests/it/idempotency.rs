//! Tests the idempotency key: an equal request makes no second link, and another request is a conflict.

use serde_json::json;

use crate::support::{Setup, TestEnv, eventually, job};

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_job_that_comes_again_gets_the_stored_result() {
    // Given a finished payout,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    let first = env.result_of("po_1").await;
    env.webhooks(1).await;
    env.wait_until_delivered("po_1").await;
    // when an equal request comes, in another spelling and with another reply queue,
    let (queue, replies) = env.reply_queue().await;
    let body = json!({
        "destinationCurrency": "EUR",
        "amount": { "currency": "EUR", "minorAmount": "1250" },
        "address": {},
        "customer": { "email": { "value": "ada@example.com" }, "name": "Ada Example" },
        "merchantPayoutId": "po_1",
        "webhookUrl": "https://elsewhere.example/",
        "accessToken": "another",
    });
    let again = job("po_1").raw(body.to_string().as_bytes()).reply_to(&queue).correlation_id("again");
    env.publish(again).await;
    // then it gets the same result under the same id, marked as replayed,
    let reply = eventually("the reply", async || replies.lock().unwrap().first().cloned()).await;
    assert_eq!(reply.id(), first.id());
    assert_eq!(reply.body, first.body);
    assert_eq!(reply.header("x-replayed").as_deref(), Some("true"));
    assert_eq!(reply.correlation_id().as_deref(), Some("again"));
    assert_eq!(first.header("x-replayed"), None);
    // and there is no second link and no second webhook.
    assert_eq!(env.provider.ledger().calls.len(), 1);
    assert_eq!(env.merchant.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_in_progress_that_comes_again_answers_its_last_requester() {
    // Given a payout whose call is under way,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    let held = env.provider.hold_next_call();
    env.publish(job("po_1")).await;
    held.arrived().await;
    // when the same request comes with a reply queue,
    let (queue, replies) = env.reply_queue().await;
    env.publish(job("po_1").reply_to(&queue).correlation_id("second")).await;
    eventually("the repeat is accepted", async || {
        (env.ready(&env.names.jobs_queue).await == 0).then_some(())
    })
    .await;
    eventually("the new reply queue is stored", async || {
        let reply_to: Option<String> =
            sqlx::query_scalar("SELECT reply_to FROM payout_links").fetch_one(&env.pool).await.unwrap();
        (reply_to.as_deref() == Some(queue.as_str())).then_some(())
    })
    .await;
    held.release();
    // then the result of the one call goes there.
    let reply = eventually("the reply", async || replies.lock().unwrap().first().cloned()).await;
    assert_eq!(reply.correlation_id().as_deref(), Some("second"));
    assert_eq!(env.provider.ledger().calls.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_request_under_the_same_key_is_a_conflict() {
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    let first = env.result_of("po_1").await;
    // When two fields differ, one of them secret,
    let other = job("po_1")
        .amount(1251)
        .with("customer", json!({ "name": "Ada Example", "email": "canary@example.com" }));
    env.publish(other).await;
    // then both are named, and neither value is shown,
    let conflict = env.wait_for_results("po_1", 2).await.remove(1);
    assert_eq!(conflict.kind(), "payout_link.rejected");
    assert_eq!(conflict.error_code().as_deref(), Some("IDEMPOTENCY_CONFLICT"));
    assert_eq!(conflict.field().as_deref(), Some("amount.minor_amount, customer.email"));
    assert!(!String::from_utf8_lossy(&conflict.body).contains("canary"));
    assert_ne!(conflict.id(), first.id());
    assert_eq!(env.dead_letter().await.header("x-rejected-code").as_deref(), Some("IDEMPOTENCY_CONFLICT"));
    // and the first payout is unchanged: a duplicate still gets its result.
    env.publish(job("po_1")).await;
    let again = env.wait_for_results("po_1", 3).await.remove(2);
    assert_eq!(again.body, first.body);
    assert_eq!(env.provider.ledger().links.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_connector_is_another_request() {
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    env.result_of("po_1").await;
    env.publish(job("po_1").connector("asked")).await;
    let conflict = env.wait_for_results("po_1", 2).await.remove(1);
    assert_eq!(conflict.field().as_deref(), Some("x-connector"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_merchants_may_use_one_identifier() {
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    env.publish(job("po_1").merchant("m_1")).await;
    env.publish(job("po_1").merchant("m_2").amount(99)).await;
    let results = env.wait_for_results("po_1", 2).await;
    assert!(results.iter().all(|result| result.kind() == "payout_link.created"));
    let keys: std::collections::HashSet<_> =
        env.provider.ledger().links.iter().map(|link| link.idempotency_key.clone()).collect();
    assert_eq!(keys.len(), 2);
    assert!(
        keys.iter()
            .all(|key| key.len() == 32 && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn twins_in_one_batch_and_at_two_workers_make_one_link() {
    // Given duplicates and conflicts that wait in the queue before any worker takes them,
    let env = Setup::default().set("broker.prefetch", 5).build().await;
    env.start_worker().await.stop().await;
    for number in 0..30 {
        let id = format!("po_{number}");
        env.publish(job(&id)).await;
        env.publish(job(&id)).await;
        env.publish(job(&id).amount(7777)).await;
    }
    // when two workers take them at once,
    let workers = [env.launch_worker(&[]), env.launch_worker(&[])];
    // then each key has one link, and every message one result.
    for number in 0..30 {
        let id = format!("po_{number}");
        let results = eventually(&format!("answers to {id}"), async || {
            let results = env.results_of(&id);
            let conflicts = results.iter().filter(|result| result.error_code().is_some()).count();
            // Two equal requests make one result and, if the first had finished by then, one replay.
            (conflicts >= 1 && results.len() > conflicts).then_some(results)
        })
        .await;
        assert!(results.iter().filter(|result| result.kind() == "payout_link.created").count() >= 1, "{id}");
    }
    assert_eq!(env.provider.ledger().links.len(), 30);
    eventually("an empty queue", async || (env.ready(&env.names.jobs_queue).await == 0).then_some(())).await;
    for worker in workers {
        assert!(worker.stop().await.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_is_answered_even_if_the_timeline_rejects_it() {
    // Given a finished job, and a database that rejects the timeline's entry for another job with its key,
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    let first = env.result_of("po_1").await;
    let reject = "CREATE FUNCTION reject() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'of the test'; END $$;
        CREATE TRIGGER reject BEFORE INSERT ON attempts FOR EACH ROW EXECUTE FUNCTION reject()";
    sqlx::raw_sql(reject).execute(&env.pool).await.unwrap();
    // when it comes again, then it gets the stored result, and the log says what is missing.
    env.publish(job("po_1")).await;
    assert_eq!(env.wait_for_results("po_1", 2).await[1].id(), first.id());
    assert!(env.results_of("po_1").iter().all(|result| result.kind() == "payout_link.created"));
    eventually("the log", async || worker.log().contains("duplicates are missing").then_some(())).await;
}
