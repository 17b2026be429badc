//! Tests the rotation of encryption keys while workers run, and records whose key is missing.

use std::{process::Stdio, sync::Arc};

use provider_simulators::sandbox::Fault;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::task::JoinHandle;

use crate::support::{Setup, TestEnv, eventually, job, until_a_statement_waits};

const FIRST: &str = "k1:c2VhbGluZyBrZXkgb2YgYSB0ZXN0LCAzMiBieXRlcy4=";
const SECOND: &str = "k2:YW5vdGhlciBzZWFsaW5nIGtleSwgYWxzbyAzMiBieXQ=";

fn ring(keys: &[&str]) -> String {
    format!("[{}]", keys.iter().map(|key| format!("{key:?}")).collect::<Vec<_>>().join(", "))
}

fn said(env: &TestEnv, arguments: &[&str]) -> (bool, String) {
    let output = env.run(arguments);
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_while_a_worker_runs_and_the_old_one_can_go() {
    // Given a payout concluded under the first key,
    let mut env = TestEnv::new().await;
    let worker = env.start_worker().await;
    env.publish(job("po_done")).await;
    let first = env.result_of("po_done").await;
    env.wait_until_delivered("po_done").await;
    // one more that is concluded, and one whose call is under way,
    env.publish(job("po_waits").connector("mute")).await;
    env.result_of("po_waits").await;
    let held = env.provider.hold_next_call();
    env.publish(job("po_open")).await;
    held.arrived().await;
    let (well, status) = said(&env, &["keys", "status"]);
    assert!(well && status.contains("request k1 3") && status.contains("result k1 2"), "{status}");
    // when the second key comes first and everything is encrypted again, while the worker still uses the first key,
    env.set("keys.sealing", ring(&[SECOND, FIRST]));
    let (well, rotated) = said(&env, &["keys", "rotate"]);
    assert!(well && rotated.contains("3 records read, 5 values encrypted again with k2"), "{rotated}");
    let (well, status) = said(&env, &["keys", "status"]);
    assert!(well && status.contains("request k2 3") && status.contains("unused: k1"), "{status}");
    // then that worker's result is encrypted with the first,
    held.release();
    env.result_of("po_open").await;
    env.wait_until_delivered("po_open").await;
    worker.stop().await;
    let (_, status) = said(&env, &["keys", "status"]);
    assert!(status.contains("result k1 1") && !status.contains("unused"), "{status}");
    // which another run corrects, without touching anything else;
    let (well, rotated) = said(&env, &["keys", "rotate"]);
    assert!(well && rotated.contains(" 1 values encrypted again"), "{rotated}");
    // and without the first key a duplicate still gets its result.
    env.set("keys.sealing", ring(&[SECOND]));
    let _worker = env.start_worker().await;
    env.publish(job("po_done")).await;
    let replayed = env.wait_for_results("po_done", 2).await.remove(1);
    assert_eq!((replayed.id(), &replayed.body), (first.id(), &first.body));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_key_is_an_error_of_its_records_alone_and_heals_when_it_is_back() {
    // Given a payout that a worker left open, encrypted with the first key,
    let mut env = TestEnv::new().await;
    let mut worker = env.start_worker().await;
    let held = env.provider.hold_next_call();
    env.publish(job("po_1")).await;
    held.arrived().await;
    worker.kill();
    held.release();
    // when workers have only the second key,
    env.set("keys.sealing", ring(&[SECOND]));
    let worker = env.start_worker().await;
    // then the error of that record names the key, and others continue.
    worker.says("which is not in the key ring").await;
    env.publish(job("po_2")).await;
    env.result_of("po_2").await;
    worker.stop().await;
    assert!(env.results_of("po_1").is_empty());
    let (well, status) = said(&env, &["keys", "status"]);
    assert!(!well && status.contains("missing from the ring: k1"), "{status}");
    let (well, rotated) = said(&env, &["keys", "rotate"]);
    assert!(!well && rotated.contains("sealed with key \"k1\", which is not in the key ring"), "{rotated}");
    // When the key is back, everything is encrypted again, while the record is still open,
    env.set("keys.sealing", ring(&[SECOND, FIRST]));
    let (well, rotated) = said(&env, &["keys", "rotate"]);
    assert!(well && rotated.contains(" 1 values encrypted again"), "{rotated}");
    // and once it is due it is finished with only the second key.
    env.set("keys.sealing", ring(&[SECOND]));
    let _worker = env.start_worker().await;
    eventually("the record is due", async || {
        let due =
            sqlx::query("UPDATE payout_links SET due_at = now() WHERE state = 'open' AND holder IS NULL");
        due.execute(&env.pool).await.unwrap();
        (!env.results_of("po_1").is_empty()).then_some(())
    })
    .await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_whose_key_is_missing_is_reported_once_it_is_back() {
    // Given a payout that was concluded under the first key, and a merchant that was away,
    let mut env = Setup::default().set("webhooks.schedule_seconds", "[600]").build().await;
    let worker = env.start_worker().await;
    env.merchant.inject_fault(Fault::status(500));
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    env.result_of("po_1").await;
    let waits = |shown: &serde_json::Value| shown["event"]["webhook_attempts"] == 1;
    env.wait_until_shown("po_1", "a post that failed", waits).await;
    assert!(worker.stop().await.success());
    // when workers have only the second key,
    env.set("keys.sealing", ring(&[SECOND]));
    make_events_due(&env).await;
    let mut worker = env.start_worker().await;
    // then the error of that event names the key, and others are published.
    worker.says("payout_links.result of").await;
    env.publish(job("po_2").with("webhook_url", env.webhook_url())).await;
    env.wait_until_delivered("po_2").await;
    worker.signal("TERM");
    assert!(worker.exited().await.success());
    assert_eq!(worker.log().matches("payout_links.result of").count(), 1, "{}", worker.log());
    // With the first key back it is published as well, once it is due.
    env.set("keys.sealing", ring(&[SECOND, FIRST]));
    let _worker = env.start_worker().await;
    make_events_due(&env).await;
    env.wait_until_delivered("po_1").await;
    let received = env.merchant.received();
    let of_the_first = received.iter().filter(|webhook| webhook.reference.as_deref() == Some("po_1"));
    assert_eq!(of_the_first.filter(|webhook| webhook.status.is_some_and(|status| status < 300)).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_of_a_record_that_cannot_be_decrypted_is_a_dead_letter_even_if_its_queue_was_gone() {
    // Given a payout that was concluded under the first key,
    let mut env = TestEnv::new().await;
    let worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    env.wait_until_delivered("po_1").await;
    assert!(worker.stop().await.success());
    // when its duplicate comes to a worker with the second key only, and the queue of dead letters is gone,
    env.set("keys.sealing", ring(&[SECOND]));
    let worker = env.start_worker().await;
    env.delete_queue(&env.names.dead_queue).await;
    env.publish(job("po_1").message_id("again")).await;
    // then it is a dead letter with the reason, once the worker has declared the queue again, and it is not rejected.
    worker.says("dead letter not published, will retry").await;
    let letter = env.dead_letter().await;
    assert_eq!(letter.header("x-rejected-code").as_deref(), Some("RECORD_UNREADABLE"));
    assert!(letter.header("x-rejected-reason").unwrap().contains("\"k1\""));
    assert_eq!(env.results_of("po_1").len(), 1);
    assert_eq!(env.ready(&env.names.dead_queue).await, 0);
    // A worker with both keys answers it.
    assert!(worker.stop().await.success());
    env.set("keys.sealing", ring(&[SECOND, FIRST]));
    let _worker = env.start_worker().await;
    let (queue, replies) = env.reply_queue().await;
    env.publish(job("po_1").message_id("again").reply_to(&queue)).await;
    let reply = eventually("a reply", async || replies.lock().unwrap().first().cloned()).await;
    assert_eq!(reply.kind(), "payout_link.created");
}

/// Makes all events due.
async fn make_events_due(env: &TestEnv) {
    let due =
        "UPDATE events SET due_at = now(), webhook_due_at = now() WHERE due_at > now() + interval '1 minute'";
    assert_eq!(sqlx::query(due).execute(&env.pool).await.unwrap().rows_affected(), 1);
}

/// Rotation reads a value and writes it encrypted again. A change in between is newer than the value that was read.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_changes_during_a_rotation_stays_changed() {
    // Given a payout that was concluded under the first key, and whose rotation has read it and is held before it
    // writes,
    let (env, rotating, mut gate) = held_rotation("request").await;
    // when its request is deleted meanwhile, and its result replaced,
    let erased = "UPDATE payout_links SET request = NULL, result = '\\x00'";
    sqlx::query(erased).execute(&env.pool).await.unwrap();
    sqlx::query("SELECT pg_advisory_unlock(1)").execute(&mut gate).await.unwrap();
    // then the change stays,
    let (well, rotated) = rotating.await.unwrap();
    let left: (Option<Vec<u8>>, Vec<u8>) =
        sqlx::query_as("SELECT request, result FROM payout_links").fetch_one(&env.pool).await.unwrap();
    assert_eq!(left, (None, vec![0]), "{rotated}");
    // and the value that cannot be decrypted is reported.
    assert!(!well && rotated.contains("1 values could not be decrypted"), "{rotated}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_broke_off_is_taken_up_where_it_was() {
    // Given a rotation that has encrypted a request again, and whose connection ends before it does the result,
    let (env, rotating, mut gate) = held_rotation("result").await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    sqlx::query(end).execute(&env.pool).await.unwrap();
    let (well, rotated) = rotating.await.unwrap();
    assert!(!well, "{rotated}");
    let (_, status) = said(&env, &["keys", "status"]);
    assert!(status.contains("request k2 1") && status.contains("result k1 1"), "{status}");
    // when it is run again,
    sqlx::query("DROP TRIGGER wait ON payout_links").execute(&mut gate).await.unwrap();
    let (well, rotated) = said(&env, &["keys", "rotate"]);
    // then it does the rest, and no more.
    assert!(well && rotated.contains(" 1 values encrypted again"), "{rotated}");
    let (well, status) = said(&env, &["keys", "status"]);
    assert!(well && status.contains("result k2 1") && status.contains("unused: k1"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_rotation_says_how_far_it_came_and_goes_on_when_it_is_repeated() {
    // Given a rotation that waits for a lock,
    let mut env = TestEnv::new().await;
    let worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    env.wait_until_delivered("po_1").await;
    worker.stop().await;
    env.set("keys.sealing", ring(&[SECOND, FIRST]));
    let mut lock = env.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE payout_links IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let rotating =
        env.command(&["keys", "rotate"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until_a_statement_waits(&env.pool, 0.0).await;
    // when it is interrupted,
    let pid = rotating.id().to_string();
    assert!(std::process::Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
    let output = rotating.wait_with_output().unwrap();
    lock.rollback().await.unwrap();
    // then it says so on standard error, and the same command does the rest.
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("interrupted: 0 records read, 0 values encrypted again"), "{text}");
    assert!(output.stdout.is_empty());
    let (well, rotated) = said(&env, &["keys", "rotate"]);
    assert!(well && rotated.contains(" 2 values encrypted again"), "{rotated}");
}

/// Builds a payout that was concluded under the first key, and a rotation to the second. An advisory lock holds the
/// rotation before it writes the column, until the connection releases the lock.
async fn held_rotation(column: &str) -> (Arc<TestEnv>, JoinHandle<(bool, String)>, PgConnection) {
    let mut env = TestEnv::new().await;
    let worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    env.wait_until_delivered("po_1").await;
    worker.stop().await;
    env.set("keys.sealing", ring(&[SECOND, FIRST]));
    let mut gate = PgConnection::connect_with(&env.pool.connect_options()).await.unwrap();
    for statement in [
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$",
        &format!(
            "CREATE TRIGGER wait BEFORE UPDATE OF {column} ON payout_links FOR EACH STATEMENT
             WHEN (current_setting('application_name') = 'payout-link-worker') EXECUTE FUNCTION wait()"
        ),
        "SELECT pg_advisory_lock(1)",
    ] {
        sqlx::query(AssertSqlSafe(statement)).execute(&mut gate).await.unwrap();
    }
    let env = Arc::new(env);
    let rotating = tokio::task::spawn_blocking({
        let env = env.clone();
        move || said(&env, &["keys", "rotate"])
    });
    eventually("the rotation is held", async || {
        let held = "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database
            WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()";
        let held: i64 = sqlx::query_scalar(held).fetch_one(&env.pool).await.unwrap();
        (held > 0).then_some(())
    })
    .await;
    (env, rotating, gate)
}
