//! `erase` removes personal data.

use provider_simulators::sandbox::Fault;
use serde_json::{Value, json};

use super::{reply_of_duplicate, said, unknown};
use crate::support::{TestEnv, eventually, job};

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
    // and of the other one the request, the link and the attempts are gone.
    let left = "SELECT request IS NULL AND NOT EXISTS (SELECT FROM attempts WHERE payout_link_id = p.id)
        AND erased_at IS NOT NULL FROM payout_links p WHERE merchant_payout_id = 'po_1'";
    assert!(sqlx::query_scalar::<_, bool>(left).fetch_one(&env.pool).await.unwrap());
    let shown = env.shown("po_1").unwrap();
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
    assert!(env.run(&["erase", "po_1", "--reason", "again"]).status.success());
    assert_eq!(env.provider.ledger().links.len(), 1);
    assert!(worker.stop().await.success());
}
