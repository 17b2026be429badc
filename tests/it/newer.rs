//! Tests fields of jobs and statuses of providers that are newer than this version.

use provider_simulators::sandbox::Fault;
use serde_json::json;

use crate::support::{TestEnv, eventually, job};

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_field_is_rejected_or_ignored_and_counted() {
    let mut env = TestEnv::new().await;
    let newer = || job("po_1").with("payout_purpose", json!({ "canary": "x" }));
    // By default the job is rejected,
    let worker = env.start_worker().await;
    env.publish(newer()).await;
    let rejected = env.dead_letter().await;
    assert!(rejected.header("x-rejected-reason").unwrap().contains("unknown"));
    worker.stop().await;
    // and if unknown fields are ignored, it is processed as if the field were absent.
    env.set("jobs.unknown_fields", "ignore");
    let worker = env.start_worker().await;
    env.publish(newer()).await;
    let created = eventually("the link", async || {
        env.results_of("po_1").into_iter().find(|received| received.kind() == "payout_link.created")
    })
    .await;
    env.publish(job("po_1")).await;
    let replayed = eventually("the same result again", async || {
        env.results_of("po_1").into_iter().find(|received| received.header("x-replayed").is_some())
    })
    .await;
    assert_eq!(replayed.id(), created.id());
    let text = worker.metrics().await;
    assert!(text.contains("payout_links_ignored_fields_total{field=\"payout_purpose\"} 1"), "{text}");
    assert_eq!(worker.log().matches("unknown job field ignored").count(), 1);
    assert!(!worker.log().contains("canary\""), "{}", worker.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_nobody_knows_is_stored_as_text_and_fails_nothing() {
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    let body = json!({
        "id": "plink_1", "status": "on\u{1b}hold", "url": "https://pay.example/l/1", "expires_at": null,
    });
    let code = 201.try_into().unwrap();
    env.provider.inject_fault(Fault::Status { code, retry_after: None, body: Some(body.to_string()) });
    env.publish(job("po_1")).await;
    let result = env.result_of("po_1").await.json();
    assert_eq!(result["payout_status"], "REQUIRES_FULFILLMENT");
    assert_eq!(result["payout_link"]["url"], "https://pay.example/l/1");
    env.wait_until_delivered("po_1").await;
    let shown = String::from_utf8(env.run(&["show", "po_1"]).stdout).unwrap();
    assert!(shown.contains("its status \"on hold\" is not known"), "{shown}");
    let text = worker.metrics().await;
    let counted = "payout_links_connector_unknown_statuses_total{connector=\"sandbox\"} 1";
    assert!(text.contains(counted), "{text}");
}
