//! `erase` removes personal data.

use std::process::Stdio;

use provider_simulators::sandbox::Fault;
use serde_json::{Value, json};

use super::{reply_of_duplicate, said, unknown};
use crate::support::{Setup, TestEnv, eventually, job, store};

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_payout_has_no_personal_data_and_its_books_stay() {
    // Given a payout that was resolved, with its results in two events, and another of the same person that is open,
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    let link = unknown(&env, "po_1").await;
    env.wait_until_delivered("po_1").await;
    assert!(env.run(&["resolve", "po_1", "--created", &link, "--reason", "seen"]).status.success());
    let created = env.wait_for_results("po_1", 2).await.remove(1);
    env.webhooks(2).await;
    env.provider.inject_fault(Fault::status_with_retry_after(503, "600"));
    env.publish(job("po_2")).await;
    env.wait_until_shown("po_2", "a call is postponed", |shown| shown["attempts"] == 1).await;
    let due = "SELECT count(*) FROM events WHERE due_at IS NOT NULL";
    eventually("everything is delivered", async || {
        (sqlx::query_scalar::<_, i64>(due).fetch_one(&env.pool).await.unwrap() == 0).then_some(())
    })
    .await;
    // when both are erased, then the open one is refused,
    let output =
        env.run(&["erase", "po_1", "po_2", "--reason", "request of 29 November", "--output", "jsonl"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let reports: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!([&reports[0]["outcome"], &reports[1]["outcome"]], ["done", "refused"]);
    // The person can still claim the link, and the operator reads that.
    assert_eq!(
        reports[0]["message"],
        format!("erased; its link {link} is unclaimed and can still be claimed")
    );
    // and of the other one the request, the link and the attempts are gone.
    let left = "SELECT request IS NULL AND NOT EXISTS (SELECT FROM attempts WHERE payout_link_id = p.id)
        AND erased_at IS NOT NULL FROM payout_links p WHERE merchant_payout_id = 'po_1'";
    assert!(sqlx::query_scalar::<_, bool>(left).fetch_one(&env.pool).await.unwrap());
    let shown = env.shown("po_1").unwrap();
    assert!(shown["erased_at"].is_string(), "{shown}");
    assert_eq!(
        (&shown["state"], &shown["amount_minor"], &shown["connector_payout_id"]),
        (&"created".into(), &1250.into(), &json!(link))
    );
    let events: Vec<&Value> =
        std::iter::once(&shown["event"]).chain(shown["later_events"].as_array().unwrap()).collect();
    assert_eq!(
        events.iter().map(|event| event["type"].as_str().unwrap()).collect::<Vec<_>>(),
        ["payout_link.pending", "payout_link.created"]
    );
    // A duplicate gets the newest result without the link, and no second payout. A second erasure changes nothing.
    let reply = reply_of_duplicate(&env, job("po_1").connector("mute")).await;
    assert_eq!(
        (reply.kind(), reply.id(), &reply.json()["payout_link"]),
        (created.kind(), created.id(), &Value::Null)
    );
    let again = env.run(&["erase", "po_1", "--reason", "again"]);
    assert!(again.status.success() && said(&again).contains("erased again, for the first time at 20"));
    assert!(said(&again).contains(": request of 29 November"), "{}", said(&again));
    assert_eq!(env.provider.ledger().links.len(), 1);
    assert!(worker.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_deletes_the_payouts_dead_letters_and_unrouted_results() {
    // Given a payout with a dead letter (a conflict) and an unrouted result, and dead letters of two others,
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    for id in ["po_1", "po_2"] {
        env.publish(job(id)).await;
        env.wait_until_delivered(id).await;
        env.publish(job(id).amount(99).message_id(&format!("conflict_{id}"))).await;
        env.wait_for_results(id, 2).await;
    }
    env.publish(job("po_1").merchant("other").amount(-1)).await;
    eventually("three dead letters", async || (env.ready(&env.names.dead_queue).await == 3).then_some(()))
        .await;
    assert!(worker.stop().await.success());
    // when one is erased while another operator acts on letters, then that is said, and its letters stay.
    let other = store(env.pool.clone()).lock_acts("letters").await.unwrap().unwrap();
    let output = env.run(&["erase", "po_1", "--reason", "request of 29 November"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert_eq!(env.ready(&env.names.dead_queue).await, 3);
    other.end().await.unwrap();
    // When the command is repeated, then its letter is gone, the others are left, and the act is recorded.
    let output = env.run(&["erase", "po_1", "--merchant", "", "--reason", "request of 29 November"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("unrouted results of erased payouts: 1\n"), "{}", said(&output));
    let left = env.run(&["dead-letters", "list", "--output", "jsonl"]);
    let left = String::from_utf8(left.stdout).unwrap();
    let left: Vec<(String, String)> = left
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            (text("merchant_id"), text("merchant_payout_id"))
        })
        .collect();
    assert_eq!(left, [(String::new(), "po_2".to_owned()), ("other".to_owned(), "po_1".to_owned())]);
    let recorded =
        "SELECT count(*) FROM operator_actions WHERE command = 'erase' AND details->>'queue' = 'jobs'";
    assert_eq!(sqlx::query_scalar::<_, i64>(recorded).fetch_one(&env.pool).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_deletes_results_that_no_queue_received() {
    // Given the unrouted results of two payouts,
    let env = Setup::default().without_listener().build().await;
    let worker = env.start_worker().await;
    for id in ["po_1", "po_2"] {
        env.publish(job(id)).await;
        env.wait_until_delivered(id).await;
    }
    let unrouted = async |count| {
        let is_so = async || (env.ready(&env.names.unrouted_queue).await == count).then_some(());
        eventually(&format!("{count} unrouted results"), is_so).await;
    };
    unrouted(2).await;
    assert!(worker.stop().await.success());
    // when one payout is erased, then only its result is deleted.
    let output = env.run(&["erase", "po_1", "--reason", "request of 29 November"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("unrouted results of erased payouts: 1\n"), "{}", said(&output));
    unrouted(1).await;
    let left = env.run(&["dead-letters", "list", "--queue", "results", "--where", "payout=po_2"]);
    assert!(left.status.success(), "{}", said(&left));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_deletion_of_letters_says_so_and_the_same_command_goes_on() {
    // Given a payout with three dead letters, and a database in which the record of each deletion has to wait,
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    env.wait_until_delivered("po_1").await;
    for number in 1..=3 {
        env.publish(job("po_1").amount(number).message_id(&format!("conflict_{number}"))).await;
    }
    eventually("three dead letters", async || (env.ready(&env.names.dead_queue).await == 3).then_some(()))
        .await;
    assert!(worker.stop().await.success());
    let wait = "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN new; END';
        CREATE TRIGGER wait BEFORE INSERT ON operator_actions FOR EACH ROW
            WHEN (new.details->>'queue' IS NOT NULL) EXECUTE FUNCTION wait()";
    sqlx::raw_sql(wait).execute(&env.pool).await.unwrap();
    let mut holder = env.pool.acquire().await.unwrap();
    sqlx::raw_sql("SELECT pg_advisory_lock(1)").execute(&mut *holder).await.unwrap();
    let erase = ["erase", "po_1", "--reason", "request of 29 November"];
    let process = env.command(&erase).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))";
    eventually("the first deletion waits", async || {
        sqlx::query_scalar::<_, bool>(waits).fetch_one(&env.pool).await.unwrap().then_some(())
    })
    .await;
    // when the command is interrupted at the first letter, then it ends behind it and reports that letters are left.
    let pid = process.id().to_string();
    assert!(std::process::Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
    sqlx::raw_sql("SELECT pg_advisory_unlock(1)").execute(&mut *holder).await.unwrap();
    let output = process.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("interrupted: 1 letters were deleted"), "{}", said(&output));
    eventually("two letters are left", async || (env.ready(&env.names.dead_queue).await == 2).then_some(()))
        .await;
    // The same command deletes the others.
    let output = env.run(&erase);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("unrouted results of erased payouts: 2\n"), "{}", said(&output));
    assert_eq!(env.ready(&env.names.dead_queue).await, 0);
}
