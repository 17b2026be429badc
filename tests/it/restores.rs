//! Tests a database that was restored from a backup, and changed keys: no payout is made again.

use provider_simulators::sandbox::Idempotency;
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use crate::support::{Job, TestEnv, job};

const FIRST: &str = "ZmluZ2VycHJpbnQga2V5IG9mIGEgdGVzdCwgMzIgYi4=";
const SECOND: &str = "YW5vdGhlciBmaW5nZXJwcmludCBrZXksIDMyIGJ5dC4=";

fn published_at(job: Job, at: OffsetDateTime) -> Job {
    let seconds = u64::try_from(at.unix_timestamp()).unwrap();
    job.properties(|properties| properties.with_timestamp(seconds))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_from_before_a_restore_is_asked_about_before_it_is_called() {
    // Given a link whose record was lost in a restore,
    let mut env = TestEnv::new().await;
    env.provider.set_idempotency(Idempotency::Off);
    let worker = env.start_worker().await;
    env.publish(job("po_1").connector("asked")).await;
    env.result_of("po_1").await;
    env.wait_until_delivered("po_1").await;
    worker.stop().await;
    sqlx::query("DELETE FROM payout_links").execute(&env.pool).await.unwrap();
    // when its job is published again, with its time of publication and without,
    let restored_at = OffsetDateTime::now_utc() - Duration::MINUTE;
    env.set("jobs.ask_before_calling_since", restored_at.format(&Rfc3339).unwrap());
    let worker = env.start_worker().await;
    let old = restored_at - Duration::HOUR;
    env.publish(published_at(job("po_1").connector("asked"), old)).await;
    // then the link is found.
    let results = env.wait_for_results("po_1", 2).await;
    assert_eq!(results[0].json()["connector_payout_id"], results[1].json()["connector_payout_id"]);
    assert_eq!(env.provider.ledger().links.len(), 1);
    sqlx::query("DELETE FROM payout_links").execute(&env.pool).await.unwrap();
    env.publish(job("po_1").connector("asked")).await;
    env.wait_for_results("po_1", 3).await;
    assert_eq!(env.provider.ledger().links.len(), 1);
    // A job that was never called is called after a settle time. A job without a look-up is unknown.
    env.publish(published_at(job("po_2").connector("asked"), old)).await;
    assert_eq!(env.result_of("po_2").await.kind(), "payout_link.created");
    env.publish(published_at(job("po_3").connector("mute"), old)).await;
    assert_eq!(env.result_of("po_3").await.error_code().as_deref(), Some("OUTCOME_UNKNOWN"));
    // A job from after the restore is called at once.
    env.publish(published_at(job("po_4").connector("mute"), OffsetDateTime::now_utc())).await;
    assert_eq!(env.result_of("po_4").await.kind(), "payout_link.created");
    // The same key is used again within its window.
    env.publish(published_at(job("po_5").connector("sandbox"), old)).await;
    assert_eq!(env.result_of("po_5").await.kind(), "payout_link.created");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_from_before_a_restore_is_asked_about_before_it_is_called() {
    // Given a record that was restored to its state before its first call,
    let mut env = TestEnv::new().await;
    env.provider.set_idempotency(Idempotency::Off);
    let worker = env.start_worker().await;
    env.publish(job("po_1").connector("asked")).await;
    env.result_of("po_1").await;
    env.wait_until_delivered("po_1").await;
    worker.stop().await;
    let restored = "UPDATE payout_links SET state = 'open', attempts = 0, first_called_at = NULL, last_called_at = NULL,
        due_at = now(), connector_payout_id = NULL, result = NULL, event_id = NULL, concluded_at = NULL, account = NULL, follow_due_at = NULL";
    sqlx::query(restored).execute(&env.pool).await.unwrap();
    env.set("jobs.ask_before_calling_since", OffsetDateTime::now_utc().format(&Rfc3339).unwrap());
    let _worker = env.start_worker().await;
    env.wait_for_results("po_1", 2).await;
    assert_eq!(env.provider.ledger().links.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fingerprint_key_that_was_changed_makes_no_conflicts() {
    let mut env = TestEnv::new().await;
    let worker = env.start_worker().await;
    for id in ["po_1", "po_2"] {
        env.publish(job(id)).await;
        env.result_of(id).await;
        env.wait_until_delivered(id).await;
    }
    worker.stop().await;
    // With only a new key the stored request is compared, while it exists.
    env.set("keys.fingerprint", SECOND);
    let worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    assert_eq!(env.wait_for_results("po_1", 2).await[1].kind(), "payout_link.created");
    env.publish(job("po_1").amount(77)).await;
    let conflict = &env.wait_for_results("po_1", 3).await[2];
    assert_eq!(conflict.error_code().as_deref(), Some("IDEMPOTENCY_CONFLICT"));
    assert_eq!(conflict.field().as_deref(), Some("amount.minor_amount"));
    // Once it is deleted, the requests cannot be compared, and the rejection says so.
    sqlx::query("UPDATE payout_links SET request = NULL").execute(&env.pool).await.unwrap();
    env.publish(job("po_2")).await;
    let untold = &env.wait_for_results("po_2", 2).await[1];
    assert_eq!(untold.error_code().as_deref(), Some("IDEMPOTENCY_CONFLICT"));
    let text = untold.json().to_string();
    assert!(text.contains("or the same one under a fingerprint key that is no longer configured"), "{text}");
    worker.stop().await;
    // With the former key in the ring it is a duplicate, deleted or not. A record of the new key is too.
    env.set("keys.fingerprint", format!("[{SECOND:?}, {FIRST:?}]"));
    let _worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    assert_eq!(env.wait_for_results("po_1", 4).await[3].kind(), "payout_link.created");
}
