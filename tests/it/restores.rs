//! A database that was restored from a backup, and keys that were changed: what was done before is not done again.

use provider_simulators::sandbox::Idempotency;
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use crate::support::{Job, World, job};

const FIRST: &str = "ZmluZ2VycHJpbnQga2V5IG9mIGEgdGVzdCwgMzIgYi4=";
const SECOND: &str = "YW5vdGhlciBmaW5nZXJwcmludCBrZXksIDMyIGJ5dC4=";

fn published_at(job: Job, at: OffsetDateTime) -> Job {
    let seconds = u64::try_from(at.unix_timestamp()).unwrap();
    job.properties(|properties| properties.with_timestamp(seconds))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_from_before_a_restore_is_asked_about_before_it_is_called() {
    // Given a link whose record was lost with a restore,
    let mut world = World::new().await;
    world.provider.set_idempotency(Idempotency::Off);
    let worker = world.start_worker().await;
    world.publish(job("po_1").connector("asked")).await;
    world.result_of("po_1").await;
    world.wait_until_told("po_1").await;
    worker.stop().await;
    sqlx::query("DELETE FROM payout_links").execute(&world.pool).await.unwrap();
    // when its job is published again, with its time of publication and without,
    let restored_at = OffsetDateTime::now_utc() - Duration::MINUTE;
    world.set("jobs.ask_before_calling_since", restored_at.format(&Rfc3339).unwrap());
    let worker = world.start_worker().await;
    let old = restored_at - Duration::HOUR;
    world.publish(published_at(job("po_1").connector("asked"), old)).await;
    // then the link is found.
    let results = world.wait_for_results("po_1", 2).await;
    assert_eq!(results[0].json()["connector_payout_id"], results[1].json()["connector_payout_id"]);
    assert_eq!(world.provider.ledger().links.len(), 1);
    sqlx::query("DELETE FROM payout_links").execute(&world.pool).await.unwrap();
    world.publish(job("po_1").connector("asked")).await;
    world.wait_for_results("po_1", 3).await;
    assert_eq!(world.provider.ledger().links.len(), 1);
    // One that was never called is called after a settle time; one that cannot be asked about is unknown.
    world.publish(published_at(job("po_2").connector("asked"), old)).await;
    assert_eq!(world.result_of("po_2").await.kind(), "payout_link.created");
    world.publish(published_at(job("po_3").connector("mute"), old)).await;
    assert_eq!(world.result_of("po_3").await.error_code().as_deref(), Some("OUTCOME_UNKNOWN"));
    // A job from after the restore is called at once.
    world.publish(published_at(job("po_4").connector("mute"), OffsetDateTime::now_utc())).await;
    assert_eq!(world.result_of("po_4").await.kind(), "payout_link.created");
    // The same key again within its window.
    world.publish(published_at(job("po_5").connector("sandbox"), old)).await;
    assert_eq!(world.result_of("po_5").await.kind(), "payout_link.created");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_from_before_a_restore_is_asked_about_before_it_is_called() {
    // Given a record that was restored as it was before its first call,
    let mut world = World::new().await;
    world.provider.set_idempotency(Idempotency::Off);
    let worker = world.start_worker().await;
    world.publish(job("po_1").connector("asked")).await;
    world.result_of("po_1").await;
    world.wait_until_told("po_1").await;
    worker.stop().await;
    let restored = "UPDATE payout_links SET state = 'open', attempts = 0, first_called_at = NULL, last_called_at = NULL,
        due_at = now(), connector_payout_id = NULL, result = NULL, event_id = NULL, concluded_at = NULL, account = NULL";
    sqlx::query(restored).execute(&world.pool).await.unwrap();
    world.set("jobs.ask_before_calling_since", OffsetDateTime::now_utc().format(&Rfc3339).unwrap());
    let _worker = world.start_worker().await;
    world.wait_for_results("po_1", 2).await;
    assert_eq!(world.provider.ledger().links.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fingerprint_key_that_was_changed_makes_no_conflicts() {
    let mut world = World::new().await;
    let worker = world.start_worker().await;
    for id in ["po_1", "po_2"] {
        world.publish(job(id)).await;
        world.result_of(id).await;
        world.wait_until_told(id).await;
    }
    worker.stop().await;
    // With a new key alone the stored request is compared, while it is there.
    world.set("keys.fingerprint", SECOND);
    let worker = world.start_worker().await;
    world.publish(job("po_1")).await;
    assert_eq!(world.wait_for_results("po_1", 2).await[1].kind(), "payout_link.created");
    world.publish(job("po_1").amount(77)).await;
    let conflict = &world.wait_for_results("po_1", 3).await[2];
    assert_eq!(conflict.error_code().as_deref(), Some("IDEMPOTENCY_CONFLICT"));
    assert_eq!(conflict.field().as_deref(), Some("amount.minor_amount"));
    // Once it is erased, nobody can tell, and the rejection says so.
    sqlx::query("UPDATE payout_links SET request = NULL").execute(&world.pool).await.unwrap();
    world.publish(job("po_2")).await;
    let untold = &world.wait_for_results("po_2", 2).await[1];
    assert_eq!(untold.error_code().as_deref(), Some("IDEMPOTENCY_CONFLICT"));
    let text = untold.json().to_string();
    assert!(text.contains("or the same one under a fingerprint key that is no longer configured"), "{text}");
    worker.stop().await;
    // With the former key in the ring it is a duplicate, erased or not; a record of the new key too.
    world.set("keys.fingerprint", format!("[{SECOND:?}, {FIRST:?}]"));
    let _worker = world.start_worker().await;
    world.publish(job("po_1")).await;
    assert_eq!(world.wait_for_results("po_1", 4).await[3].kind(), "payout_link.created");
}
