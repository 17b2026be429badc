//! Tests that finished data is deleted after its retention, and that duplicates still get a reply.

use provider_simulators::sandbox::{Fault, LinkChange};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::support::{Setup, TestEnv, eventually, job, store};

async fn count(env: &TestEnv, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(&env.pool).await.unwrap()
}

async fn until_none(env: &TestEnv, what: &str, query: &'static str) {
    eventually(what, async || (count(env, query).await == 0).then_some(())).await;
}

const REQUESTS: &str = "SELECT count(*) FROM payout_links WHERE request IS NOT NULL";
const OLD_ATTEMPTS: &str = "SELECT count(*) FROM attempts WHERE started_at < now() - interval '90 days'";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_stored_for_no_time_is_erased_and_repeats_and_conflicts_are_still_answered() {
    // Given a retention of zero, a payout that is concluded and one whose call is under way,
    let env = Setup::default().set("retention.requests_days", 0).build().await;
    let _worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    let first = env.result_of("po_1").await;
    let held = env.provider.hold_next_call();
    env.publish(job("po_2")).await;
    held.arrived().await;
    // when the concluded one's request is deleted,
    until_none(
        &env,
        "the request is erased",
        "SELECT count(*) FROM payout_links WHERE merchant_payout_id = 'po_1' AND request IS NOT NULL",
    )
    .await;
    // then the open one still has its own,
    assert_eq!(count(&env, REQUESTS).await, 1);
    held.release();
    env.result_of("po_2").await;
    // an equal request gets the stored result,
    env.publish(job("po_1")).await;
    let replayed = env.wait_for_results("po_1", 2).await.remove(1);
    assert_eq!((replayed.id(), &replayed.body), (first.id(), &first.body));
    // another one is a conflict, recognized by the unencrypted columns,
    env.publish(job("po_1").amount(999)).await;
    let letter = env.dead_letter().await;
    let reason = letter.header("x-rejected-reason").unwrap_or_default();
    assert!(reason.contains("amount"), "{reason}");
    // and nothing was paid twice.
    assert_eq!(env.provider.ledger().calls.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_within_its_retention_stays_and_older_data_is_deleted() {
    // Given three published payouts of two attempts each: one concluded before every retention, one within, and one
    // long ago whose event is due,
    let env = TestEnv::new().await;
    for id in ["po_old", "po_new", "po_due"] {
        let worker = env.start_worker().await;
        env.provider.inject_fault(Fault::status(429));
        env.publish(job(id)).await;
        env.wait_until_delivered(id).await;
        worker.stop().await;
    }
    age(&env, "po_old", 91).await;
    age(&env, "po_new", 6).await;
    age(&env, "po_due", 91).await;
    sqlx::query(
        "UPDATE events SET published_at = NULL, due_at = now() + interval '1 day'
         WHERE payout_link_id = (SELECT id FROM payout_links WHERE merchant_payout_id = 'po_due')",
    )
    .execute(&env.pool)
    .await
    .unwrap();
    assert_eq!(count(&env, OLD_ATTEMPTS).await, 4);
    // The links are over. A link that is still asked about keeps its newest event.
    sqlx::query("UPDATE payout_links SET follow_due_at = NULL").execute(&env.pool).await.unwrap();
    // when a worker runs and has deleted the old attempts, which it does last,
    let _worker = env.start_worker().await;
    until_none(&env, "the old attempts are erased", OLD_ATTEMPTS).await;
    // then old requests and published events are gone too,
    let published = "SELECT count(*) FROM events WHERE due_at IS NULL";
    assert_eq!((count(&env, REQUESTS).await, count(&env, published).await), (1, 1));
    // the new payout has all of its data,
    let young = env.shown("po_new").unwrap();
    assert_eq!(young["timeline"].as_array().map(Vec::len), Some(2));
    assert!(young["event"].is_object());
    // unpublished events stay, however old,
    assert_eq!(count(&env, "SELECT count(*) FROM events WHERE due_at IS NOT NULL").await, 1);
    // and records are never deleted.
    assert_eq!(count(&env, "SELECT count(*) FROM payout_links WHERE result IS NOT NULL").await, 3);
    assert_eq!(env.shown("po_old").unwrap()["event"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_of_providers_are_deleted_after_a_week() {
    let env = Setup::default().set("worker.sweep_interval_ms", 20).build().await;
    let worker = env.start_worker().await;
    sqlx::query(
        "INSERT INTO provider_webhooks (connector, digest, event_type, received_at)
         SELECT 'sandbox', int4send(number), 'event', now() - number * interval '1 minute'
         FROM generate_series(1, 7 * 1440 + 1200) number",
    )
    .execute(&env.pool)
    .await
    .unwrap();
    // More than two batches are past their retention.
    let old = "SELECT count(*) FROM provider_webhooks WHERE received_at < now() - interval '7 days'";
    until_none(&env, "the old webhooks are deleted", old).await;
    let left = count(&env, "SELECT count(*) FROM provider_webhooks").await;
    assert!((10_000..=10_080).contains(&left), "{left}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_asked_about_keeps_the_event_that_the_next_one_follows() {
    // Given links that were created and claimed, whose events are past their retention,
    let env = Setup::default()
        .set("connectors.sandbox.follow.min_interval_seconds", 1)
        .set("connectors.sandbox.follow.max_interval_seconds", 1)
        .build()
        .await;
    let _worker = env.start_worker().await;
    let store = store(env.pool.clone());
    let prune = async || {
        let tomorrow = OffsetDateTime::now_utc() + time::Duration::DAY;
        eventually("all is delivered", async || {
            let due = count(&env, "SELECT count(*) FROM events WHERE due_at IS NOT NULL").await;
            (due == 0).then_some(())
        })
        .await;
        store.delete_events(tomorrow, None, 1000).await.unwrap().rows
    };
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    env.wait_until_delivered("po_1").await;
    let link = env.provider.ledger().links[0].id.clone();
    assert_eq!(prune().await, 0);
    env.provider.change(&link, LinkChange::Claim).unwrap();
    env.webhooks(2).await;
    // when they are deleted, then the newest event stays,
    assert_eq!(prune().await, 1);
    // and the next one follows it, with its number and its webhook.
    env.provider.change(&link, LinkChange::Fail).unwrap();
    let sequences: Vec<Value> = env.webhooks(3).await.iter().map(|webhook| sequence(&webhook.body)).collect();
    assert_eq!(sequences, [1, 2, 3]);
    // A link that is over is not asked about, and keeps none.
    assert_eq!(prune().await, 2);
    assert_eq!(count(&env, "SELECT count(*) FROM events").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_deleted_after_their_retention() {
    // Given letters past a retention of thirty days, behind a younger one, and one without a time,
    let setup = Setup::default().set("retention.dead_letters_days", 30);
    let env = setup.build().await;
    env.start_worker().await.stop().await;
    let letter = |id: &str, days: i64| {
        let rejected_at = OffsetDateTime::now_utc() - time::Duration::days(days);
        job(id).message_id(id).header("x-rejected-at", &rejected_at.format(&Rfc3339).unwrap())
    };
    for (id, days) in [("young_1", 29), ("old_1", 31), ("young_2", 0), ("old_2", 400)] {
        env.publish_dead_letter(letter(id, days)).await;
    }
    env.publish_dead_letter(job("no_time").message_id("no_time")).await;
    // when a worker runs while an operator acts on letters, then they stay;
    let store = store(env.pool.clone());
    let operator = store.lock_acts("letters").await.unwrap().unwrap();
    let worker = env.start_worker().await;
    let deleted = async || {
        let metrics = worker.metrics().await;
        let name = "payout_links_dead_letters_deleted_total ";
        metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse::<u32>().unwrap()
    };
    env.publish(job("po_1")).await;
    env.wait_until_delivered("po_1").await;
    assert_eq!(deleted().await, 0);
    // when the operator has ended, then the old ones are deleted, and the others are in their queue.
    operator.end().await.unwrap();
    eventually("two letters are deleted", async || (deleted().await == 2).then_some(())).await;
    let left = eventually("three letters are left", async || {
        (env.ready(&env.names.dead_queue).await == 3).then_some(3)
    })
    .await;
    let mut ids = Vec::new();
    for _ in 0..left {
        let letter = env.take(&env.names.dead_queue).await.unwrap();
        ids.push(letter.properties.message_id().as_ref().unwrap().to_string());
    }
    ids.sort();
    assert_eq!(ids, ["no_time", "young_1", "young_2"]);
    assert!(worker.stop().await.success());
}

fn sequence(body: &str) -> Value {
    serde_json::from_str::<Value>(body).unwrap()["data"]["sequence"].clone()
}

/// Makes a payout so many days older: its times, and its ids, which contain times.
async fn age(env: &TestEnv, id: &str, days: i32) {
    let aged = |column: &str| {
        format!(
            "encode(substring(int8send((extract(epoch FROM now() - $2 * interval '1 day') * 1000)::bigint) FROM 3), 'hex')
             || substring(replace({column}::text, '-', '') FROM 13)"
        )
    };
    let of_it = "payout_link_id = (SELECT id FROM payout_links WHERE merchant_payout_id = $1)";
    let link = aged("payout_link_id");
    // In one transaction `now()` is the same in all three statements, so equal ids stay equal.
    let mut aging = env.pool.begin().await.unwrap();
    for statement in [
        format!("UPDATE attempts SET started_at = started_at - $2 * interval '1 day', payout_link_id = ({link})::uuid WHERE {of_it}"),
        format!("UPDATE events SET id = ({})::uuid, payout_link_id = ({link})::uuid WHERE {of_it}", aged("id")),
        format!(
            "UPDATE payout_links SET concluded_at = concluded_at - $2 * interval '1 day', id = ({})::uuid, event_id = ({})::uuid
             WHERE merchant_payout_id = $1",
            aged("id"),
            aged("event_id")
        ),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(statement)).bind(id).bind(days).execute(&mut *aging).await.unwrap();
    }
    aging.commit().await.unwrap();
}
