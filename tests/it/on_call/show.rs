//! Tests that `show` has the timeline of a record.

use payout_link_worker::domain::{idempotency_key_of, idempotency_uuid};
use provider_simulators::sandbox::Fault;
use serde_json::Value;
use uuid::Uuid;

use super::{lines, said};
use crate::support::{TestEnv, eventually, job};

#[tokio::test(flavor = "multi_thread")]
async fn show_has_one_timeline_and_finds_a_record_by_its_idempotency_key() {
    // Given a payout whose first call was postponed, an operator's action about it, and a webhook of its provider,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    env.provider.inject_fault(Fault::status_with_retry_after(503, "0"));
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    let record = env.wait_until_delivered("po_1").await;
    let id: Uuid = record["id"].as_str().unwrap().parse().unwrap();
    sqlx::query(
        "INSERT INTO operator_actions (id, actor, reason, command, payout_link_id, details)
         VALUES (gen_random_uuid(), 'ada', E'asked by \x1b[2J merchant', 'retry', $1, '{}')",
    )
    .bind(id)
    .execute(&env.pool)
    .await
    .unwrap();
    sqlx::query("INSERT INTO provider_webhooks (connector, digest, event_type, payout_link_id) VALUES ('sandbox', '\\x01', 'link.claimed', $1)")
        .bind(id)
        .execute(&env.pool)
        .await
        .unwrap();
    // then its timeline has all of them, in order,
    let text = said(&env.run(&["show", "po_1"]));
    let timeline = text.split_once("  timeline\n").unwrap().1;
    let position = |entry: &str| timeline.find(entry).unwrap_or_else(|| panic!("{entry}: {text}"));
    let entries = [
        " accepted",
        " create 1 try_later 503",
        " create 2 created",
        " concluded: created",
        " operator ada: retry, because: asked by \\u{1b}[2J merchant",
        " provider webhook received: link.claimed",
    ];
    assert!(entries.map(position).is_sorted(), "{text}");
    position(" published: payout_link.created ");
    position(" webhook 1 delivered");
    let times: Vec<&str> = timeline.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(times.len() >= 8, "{text}");
    // and the provider's key finds it, in either form.
    let key = idempotency_key_of("", "", "po_1");
    for id in [key.clone(), idempotency_uuid(&key).to_string()] {
        let found = env.run(&["show", "--json", &id]);
        assert_eq!(lines(&found)[0]["merchant_payout_id"], "po_1", "{id}");
    }
    let unknown = idempotency_key_of("", "", "po_2");
    assert_eq!(env.run(&["show", &unknown]).status.code(), Some(4));
    // A search that ends early says so.
    env.publish(job("po_3")).await;
    env.wait_until_delivered("po_3").await;
    let stopped = env.run(&["show", &key, "--scan", "1"]);
    assert_eq!(stopped.status.code(), Some(4));
    assert!(
        said(&stopped).contains("none of the newest 1 has it as its idempotency key"),
        "{}",
        said(&stopped)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn show_has_the_worker_of_each_call_and_the_jobs_that_were_received_again() {
    // Given a payout that was created by its second call,
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    env.provider.inject_fault(Fault::status_with_retry_after(503, "0"));
    let job = || job("po_1").with("webhook_url", env.webhook_url());
    env.publish(job()).await;
    env.wait_until_delivered("po_1").await;
    let shown = || lines(&env.run(&["show", "--json", "po_1"])).remove(0);
    let entries = |shown: &Value, kind: &str| {
        let timeline = shown["timeline"].as_array().unwrap().clone();
        timeline.into_iter().filter(|entry| entry["kind"] == kind).collect::<Vec<_>>()
    };
    // then each call names its worker,
    let record = shown();
    let calls = [entries(&record, "create"), entries(&record, "post")].concat();
    assert_eq!(calls.len(), 3, "{record}");
    let number = calls[0]["worker"].as_str().unwrap();
    assert_eq!(number.len(), 8, "{number}");
    assert!(calls.iter().all(|call| call["worker"] == *number), "{record}");
    assert!(said(&env.run(&["show", "po_1"])).contains(&format!("ms, worker {number}) plink")), "{record}");
    // and one of another worker names that one.
    worker.stop().await;
    let _other = env.start_worker().await;
    env.publish(crate::support::job("po_2")).await;
    env.wait_until_delivered("po_2").await;
    let other = lines(&env.run(&["show", "--json", "po_2"])).remove(0);
    assert_ne!(entries(&other, "create")[0]["worker"], *number, "{other}");
    // Of jobs that are received again there is one entry a minute.
    assert!(entries(&record, "duplicate").is_empty(), "{record}");
    for count in 1..=3 {
        env.publish(job()).await;
        eventually("the result again", async || {
            let received = env.results_of("po_1");
            let again = received.iter().filter(|received| received.header("x-replayed").is_some()).count();
            (again == count).then_some(())
        })
        .await;
    }
    assert_eq!(entries(&shown(), "duplicate").len(), 1, "{}", shown());
    assert!(said(&env.run(&["show", "po_1"])).contains(" another job with this key received\n"));
}
