//! Tests the path of a job from the queue to the record, the result and the webhook, and the rejections on it.

use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::support::{Setup, TestEnv, eventually, job};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_becomes_one_link_one_result_and_one_webhook() {
    // Given a worker,
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    // when a job comes,
    let traced = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let job = job("po_1").with("webhook_url", env.webhook_url()).merchant("m_1").message_id("msg_1");
    env.publish(job.header("traceparent", traced)).await;
    // then its result has the link that the provider created,
    let result = env.result_of("po_1").await;
    let ledger = env.provider.ledger();
    assert_eq!(ledger.links.len(), 1);
    assert_eq!(
        result.json(),
        json!({
            "merchant_payout_id": "po_1",
            "payout_status": "REQUIRES_FULFILLMENT",
            "connector_payout_id": ledger.links[0].id,
            "payout_link": {
                "url": ledger.links[0].url,
                "expires_at": result.json()["payout_link"]["expires_at"],
            },
            "error": null,
            "status_code": 201,
            "sequence": 1,
            "occurred_at": result.json()["occurred_at"],
        })
    );
    let occurred_at = result.json()["occurred_at"].as_str().unwrap().to_owned();
    OffsetDateTime::parse(&occurred_at, &Rfc3339).expect("a time of RFC 3339");
    assert_eq!(result.kind(), "payout_link.created");
    assert_eq!(result.correlation_id().as_deref(), Some("msg_1"));
    assert_eq!(result.properties.content_type().as_ref().unwrap().as_str(), "application/json");
    assert_eq!(*result.properties.delivery_mode(), Some(2));
    assert!(result.properties.timestamp().is_some());
    assert_eq!(result.header("x-merchant-id").as_deref(), Some("m_1"));
    assert_eq!(result.header("x-connector").as_deref(), Some("sandbox"));
    assert_eq!(result.header("traceparent").as_deref(), Some(traced));
    // its webhook has the same result, signed, under the same id,
    let webhooks = env.webhooks(1).await;
    assert!(webhooks[0].verified);
    assert_eq!(webhooks[0].id, Some(result.id()));
    assert_eq!(webhooks[0].json()["type"], "payout_link.created");
    assert_eq!(webhooks[0].json()["data"], result.json());
    // and the record is finished, with nothing left in the queue.
    let shown = env.wait_until_delivered("po_1").await;
    assert_eq!(shown["state"], "created");
    assert_eq!(shown["attempts"], 1);
    assert!(worker.stop().await.success());
    assert_eq!(env.ready(&env.names.jobs_queue).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_job_names_its_field_and_stays_among_the_dead_letters() {
    // Given a worker and a requester that waits for a reply,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    let (queue, replies) = env.reply_queue().await;
    // when a job has an unknown currency, and another job waits behind it,
    let broken = job("po_1").with("amount", json!({ "minor_amount": 5, "currency": "EURO" }));
    let broken =
        broken.reply_to(&queue).correlation_id("asked").message_id("m1").header("x-mine", "unchanged");
    env.publish(&broken).await;
    env.publish(job("po_2")).await;
    // then the rejection is published, and replied,
    let result = env.result_of("po_1").await;
    assert_eq!(result.kind(), "payout_link.rejected");
    assert_eq!(result.error_code().as_deref(), Some("INVALID_JOB"));
    assert_eq!(result.field().as_deref(), Some("amount.currency"));
    assert_eq!(result.json()["status_code"], 0);
    assert_eq!(result.correlation_id().as_deref(), Some("asked"));
    eventually("the reply", async || replies.lock().unwrap().first().cloned()).await;
    // the job is a dead letter with its original body and the reason,
    let dead = env.dead_letter().await;
    assert_eq!(dead.body, broken.body);
    assert_eq!(dead.header("x-rejected-code").as_deref(), Some("INVALID_JOB"));
    assert!(dead.header("x-rejected-reason").unwrap().contains("amount.currency"));
    assert_eq!(dead.header("x-mine").as_deref(), Some("unchanged"));
    assert_eq!(dead.correlation_id().as_deref(), Some("asked"));
    // the job behind it was processed, and the provider received no call for the first.
    env.result_of("po_2").await;
    assert_eq!(env.provider.ledger().links.len(), 1);
    assert!(env.has_no_record("po_1").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_refusal_is_answered() {
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    let refusals = [
        ("not json", job("a").raw(b"{"), "INVALID_JOB", None),
        ("a list", job("b").raw(b"[]"), "INVALID_JOB", None),
        ("no connector of that name", job("c").connector("nobody"), "UNKNOWN_CONNECTOR", Some("x-connector")),
        ("unknown field", job("d").with("surprise", json!(1)), "INVALID_JOB", Some("surprise")),
        (
            "webhook inside",
            job("e").with("webhook_url", json!("https://10.0.0.1/")),
            "INVALID_JOB",
            Some("webhook_url"),
        ),
        (
            "webhook with a user",
            job("f").with("webhook_url", json!("https://u@m.example/")),
            "INVALID_JOB",
            Some("webhook_url"),
        ),
        ("no amount", job("g").with("amount", json!(null)), "INVALID_JOB", Some("amount")),
        ("too large", job("h").raw(&vec![b' '; 300 * 1024]), "INVALID_JOB", None),
        ("own queue", job("i").reply_to(&env.names.jobs_queue), "INVALID_JOB", Some("reply_to")),
        ("NUL in a queue", job("k").reply_to("a\0b"), "INVALID_JOB", Some("reply_to")),
        ("NUL in a merchant", job("l").merchant("a\0b"), "INVALID_JOB", Some("x-merchant-id")),
        ("another content type", job("m").content_type("text/xml"), "INVALID_JOB", Some("content_type")),
    ];
    for (what, job, code, field) in &refusals {
        env.publish(job.clone().correlation_id(what)).await;
        let result = eventually(what, async || {
            env.results().into_iter().find(|received| received.correlation_id().as_deref() == Some(what))
        })
        .await;
        assert_eq!(result.kind(), "payout_link.rejected", "{what}");
        assert_eq!(result.error_code().as_deref(), Some(*code), "{what}");
        assert_eq!(result.field().as_deref(), *field, "{what}");
        let dead = env.dead_letter().await;
        assert_eq!(dead.correlation_id().as_deref(), Some(*what));
        assert_eq!(dead.body, job.body, "{what}");
    }
    // Without an identifier and a message id, a redelivery could not be distinguished from a second payout.
    env.publish(job("x").with("merchant_payout_id", json!(null)).correlation_id("nameless")).await;
    let dead = env.dead_letter().await;
    assert_eq!(dead.header("x-rejected-code").as_deref(), Some("MISSING_IDENTIFIER"));
    assert_eq!(env.provider.ledger().calls.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_does_not_expire_with_its_job() {
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    let mut job = job("po_1").raw(b"broken");
    job.expiration = Some("60000".into());
    env.publish(&job).await;
    let dead = env.dead_letter().await;
    assert_eq!(*dead.properties.expiration(), None);
    assert!(dead.header("x-original-expiration").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_message_id_replaces_a_missing_identifier() {
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    env.publish(job("-").with("merchant_payout_id", json!(null)).message_id("msg_7")).await;
    assert_eq!(env.result_of("msg_7").await.kind(), "payout_link.created");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requester_gets_its_reply() {
    // Given a requester with a reply queue,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    let (queue, replies) = env.reply_queue().await;
    // when its job names that queue,
    env.publish(job("po_1").reply_to(&queue).correlation_id("call 1")).await;
    // then the result goes there and to the exchange, under one id.
    let reply = eventually("the reply", async || replies.lock().unwrap().first().cloned()).await;
    assert_eq!(reply.kind(), "payout_link.created");
    assert_eq!(reply.correlation_id().as_deref(), Some("call 1"));
    assert_eq!(reply.id(), env.result_of("po_1").await.id());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requester_that_has_gone_is_not_waited_for() {
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    env.publish(job("po_1").reply_to("gone").correlation_id("call 1")).await;
    env.result_of("po_1").await;
    let shown = env.wait_until_delivered("po_1").await;
    assert_eq!(shown["state"], "created");
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_messages_are_distinguished_from_accepted_ones() {
    // Given forty jobs, every other one with a full reply queue,
    let env = TestEnv::new().await;
    env.start_worker().await.stop().await;
    let full = env.full_queue().await;
    let (refused, taken): (Vec<_>, Vec<_>) = (0..40).partition(|number| number % 2 == 0);
    for number in 0..40 {
        let job = job(&format!("po_{number}"));
        env.publish(if refused.contains(&number) { job.reply_to(&full) } else { job }).await;
    }
    // when all results are published together,
    let _worker = env.start_worker().await;
    // then every result is on the exchange once, the jobs of one half are finished,
    for number in taken {
        env.wait_until_delivered(&format!("po_{number}")).await;
    }
    // and those of the other half wait only for their reply.
    eventually("replies that are due", async || {
        let due =
            "SELECT count(*) FROM events WHERE reply_due AND published_at IS NOT NULL AND due_at IS NOT NULL
            AND publish_attempts >= 2";
        let due: i64 = sqlx::query_scalar(due).fetch_one(&env.pool).await.unwrap();
        (usize::try_from(due).unwrap() == refused.len()).then_some(())
    })
    .await;
    for number in 0..40 {
        assert_eq!(env.results_of(&format!("po_{number}")).len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_no_queue_is_bound_for_is_unrouted() {
    // Given a results exchange without a queue,
    let env = Setup::default().without_listener().build().await;
    let _worker = env.start_worker().await;
    // when a job is done,
    env.publish(job("po_1")).await;
    // then its result waits in the unrouted queue.
    let unrouted =
        eventually("the unrouted result", async || env.take(&env.names.unrouted_queue).await).await;
    assert_eq!(unrouted.json()["merchant_payout_id"], "po_1");
    assert_eq!(unrouted.kind(), "payout_link.created");
    env.wait_until_delivered("po_1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_many_results_that_no_queue_is_bound_for_is_unrouted() {
    const JOBS: usize = 400;
    // Given many jobs with reply queues, and a results exchange without a queue,
    let env = Setup::default().without_listener().build().await;
    env.start_worker().await.stop().await;
    let (queue, replies) = env.reply_queue().await;
    for number in 0..JOBS {
        env.publish(job(&format!("po_{number}")).reply_to(&queue)).await;
    }
    // when all results are published together,
    let worker = env.start_worker().await;
    eventually("every reply", async || (replies.lock().unwrap().len() >= JOBS).then_some(())).await;
    assert!(worker.stop().await.success());
    // then returned messages are distinguished from routed ones: every result waits in the unrouted queue.
    assert_eq!(env.ready(&env.names.unrouted_queue).await as usize, JOBS);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_share_a_queue() {
    let env = TestEnv::new().await;
    let (_first, _second) = (env.start_worker().await, env.start_worker().await);
    for number in 0..60 {
        env.publish(job(&format!("po_{number}")).with("webhook_url", env.webhook_url())).await;
    }
    for number in 0..60 {
        let id = format!("po_{number}");
        assert_eq!(env.result_of(&id).await.kind(), "payout_link.created");
    }
    env.webhooks(60).await;
    assert_eq!(env.provider.ledger().links.len(), 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_database_refuses_fails_alone_and_is_reported() {
    // Given a database that rejects one row of a batch,
    let env = TestEnv::new().await;
    env.start_worker().await.stop().await;
    sqlx::query("ALTER TABLE payout_links ADD CONSTRAINT refused CHECK (merchant_payout_id <> 'po_3')")
        .execute(&env.pool)
        .await
        .unwrap();
    for number in 0..6 {
        env.publish(job(&format!("po_{number}"))).await;
    }
    // when a worker takes the batch,
    let _worker = env.start_worker().await;
    // then the others are created, and that one is rejected at once,
    for number in [0, 1, 2, 4, 5] {
        assert_eq!(env.result_of(&format!("po_{number}")).await.kind(), "payout_link.created");
    }
    let rejected = env.result_of("po_3").await;
    assert_eq!(rejected.kind(), "payout_link.rejected");
    assert!(env.dead_letter().await.header("x-rejected-reason").unwrap().contains("cannot store this job"));
    assert_eq!(env.provider.ledger().links.len(), 5);
    // and it is accepted as a new job once the cause is gone.
    sqlx::query("ALTER TABLE payout_links DROP CONSTRAINT refused").execute(&env.pool).await.unwrap();
    env.publish(job("po_3")).await;
    assert_eq!(env.wait_for_results("po_3", 2).await[1].kind(), "payout_link.created");
}

/// Checks that an expired job becomes a dead letter, so that its requester can notice it.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_expires_in_the_queue_is_a_dead_letter() {
    // Given queues without a worker,
    let env = TestEnv::new().await;
    env.start_worker().await.stop().await;
    // when jobs come that expire at once or soon, among others,
    let mut soon = job("po_soon");
    soon.expiration = Some("100".into());
    let mut at_once = job("po_at_once");
    at_once.expiration = Some("0".into());
    let mut in_time = job("po_in_time");
    in_time.expiration = Some("3600000".into());
    for job in [&at_once, &soon, &in_time, &job("po_1")] {
        env.publish(job).await;
    }
    // then those are dead letters with their original bodies and the broker's reason;
    let mut dead = [env.dead_letter().await, env.dead_letter().await];
    dead.sort_by_key(|letter| letter.json()["merchant_payout_id"].to_string());
    for (letter, job) in dead.iter().zip([&at_once, &soon]) {
        assert_eq!(letter.header("x-first-death-reason").as_deref(), Some("expired"));
        assert_eq!(letter.body, job.body);
    }
    // and a worker takes the others.
    let _worker = env.start_worker().await;
    for id in ["po_in_time", "po_1"] {
        assert_eq!(env.result_of(id).await.kind(), "payout_link.created");
    }
    assert!(env.has_no_record("po_at_once").await && env.has_no_record("po_soon").await);
}

/// Checks that the `message_id` names no payout, because it may be another payout's (contract, section 6).
#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_names_no_payout_but_the_bodys_own() {
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    // Given messages under another payout's identifier: one that is no JSON, one whose own identifier is no string,
    let id = json!(12345);
    env.publish(job("-").raw(b"{\"merchant_payout_id\":\"po_B\"").message_id("po_A").correlation_id("cut"))
        .await;
    let number = job("-").with("merchant_payout_id", id).message_id("po_A").correlation_id("number");
    env.publish(number).await;
    // and one whose own identifier is valid,
    env.publish(job("po_B").amount(0).message_id("po_A").correlation_id("own")).await;
    // then no rejection names the other payout.
    for (correlation_id, named) in [("cut", None), ("number", None), ("own", Some("po_B"))] {
        let rejected = env.answer_to(correlation_id).await;
        assert_eq!(rejected.kind(), "payout_link.rejected");
        assert_eq!(
            rejected.json().get("merchant_payout_id").and_then(|id| id.as_str()),
            named,
            "{correlation_id}"
        );
    }
}
