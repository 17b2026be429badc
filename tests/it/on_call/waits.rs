//! Tests that commands say why a payout waits.

use provider_simulators::sandbox::{Fault, FaultRule};
use serde_json::Value;

use super::{lines, said};
use crate::support::{Setup, TestEnv, eventually, job};

fn pause(env: &TestEnv, target: &[&str]) -> String {
    let paused = env.run(&[&["pause"], target, &["--reason", "wrong amounts", "--actor", "ada"]].concat());
    assert!(paused.status.success(), "{}", said(&paused));
    said(&paused)
}

fn resume(env: &TestEnv, target: &[&str]) {
    assert!(env.run(&[&["resume"], target, &["--reason", "done"]].concat()).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_account_and_a_paused_merchant_are_why_a_record_waits() {
    // Given a created link, and a pause of its account and of a merchant, of which the second has no record yet,
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    env.wait_until_delivered("po_1").await;
    assert!(!pause(&env, &["account", "sandbox"]).contains("No record"));
    let unheard = pause(&env, &["merchant", "m_7"]);
    assert!(unheard.contains("No record has this x-merchant-id yet"), "{unheard}");
    eventually("the worker sees the pauses", async || {
        let paused = worker.readiness().await.1["paused"].as_array()?.len();
        (paused == 2).then_some(())
    })
    .await;
    // when a job of the merchant is accepted,
    env.publish(job("po_2").merchant("m_7")).await;
    env.wait_until_shown("po_2", "it is accepted", |shown| shown["state"] == "open").await;
    // then the record, the list and a cancel of the link say what they wait for.
    let account = "account sandbox is paused by ada: wrong amounts";
    let merchant = "merchant m_7 is paused by ada: wrong amounts";
    let shown = said(&env.run(&["show", "po_2"]));
    for obstacle in [account, merchant] {
        assert!(shown.contains(&format!("  waits for            {obstacle}\n")), "{shown}");
    }
    for command in [&["show", "po_2"][..], &["list", "--state", "open"]] {
        let row = lines(&env.run(&[command, &["--output", "jsonl"]].concat())).remove(0);
        assert_eq!(row["waits_for"], serde_json::json!([account, merchant]), "{command:?}");
    }
    let listed = said(&env.run(&["list", "--state", "open"]));
    assert!(listed.contains(account), "{listed}");
    let cancel = ["cancel", "po_1", "--timeout-seconds", "0", "--reason", "wrong amount"];
    let cancelled = env.run(&cancel);
    assert_eq!(cancelled.status.code(), Some(1));
    assert!(said(&cancelled).contains(&format!("It waits, because {account}")), "{}", said(&cancelled));
    assert!(!said(&cancelled).contains("Check that a worker runs"), "{}", said(&cancelled));
    // Without the pauses nothing is said.
    resume(&env, &["account", "sandbox"]);
    resume(&env, &["merchant", "m_7"]);
    assert!(!pause(&env, &["merchant", "m_7"]).contains("No record"));
    resume(&env, &["merchant", "m_7"]);
    assert!(!said(&env.run(&["show", "po_1"])).contains("waits for"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_breaker_is_why_a_record_waits_and_its_end_is_printed() {
    // Given a provider that fails, so that the breaker of its account is open, and a record with an unknown outcome,
    let env = Setup::default()
        .set("connectors.sandbox.calls.breaker_failures", 1)
        .set("connectors.sandbox.calls.breaker_pause_seconds", 3600)
        .build()
        .await;
    let _worker = env.start_worker().await;
    env.provider.inject_fault(FaultRule::new(Fault::status(500)).always());
    env.publish(job("po_1")).await;
    eventually("an open breaker", async || {
        let status = lines(&env.run(&["status", "--output", "jsonl", "--without-broker"])).remove(0);
        let findings = status["findings"].as_array().unwrap().clone();
        findings.into_iter().find(|finding: &Value| finding["name"] == "open_breaker")
    })
    .await;
    env.wait_until_shown("po_1", "it waits", |shown| shown["state"] == "open" && shown["leased"] == false)
        .await;
    // then the record says so, and until when the call is repeated.
    let breaker = "the circuit breaker of sandbox is open";
    let shown = env.run(&["show", "po_1"]);
    assert!(said(&shown).contains(&format!("  waits for            {breaker}\n")), "{}", said(&shown));
    let resolved = "by the same call under the same key; then it ends as unknown";
    assert!(said(&shown).contains(resolved), "{}", said(&shown));
    let row = lines(&env.run(&["show", "po_1", "--output", "jsonl"])).remove(0);
    assert!(row["resolved_until"].as_str() > row["first_called_at"].as_str(), "{row}");
    // A look-up does not say that the provider was asked.
    let looked_up = env.run(&["look-up", "po_1", "--timeout-seconds", "1", "--reason", "the merchant asks"]);
    assert_eq!(looked_up.status.code(), Some(1), "{}", said(&looked_up));
    let missed = format!("no worker has taken the next step of the replay rule yet, because {breaker}");
    assert!(said(&looked_up).contains(&missed), "{}", said(&looked_up));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_of_an_open_record_waits_for_the_call() {
    // Given a record with an unknown outcome, whose next attempt is due in an hour,
    let env = Setup::default()
        .set("connectors.sandbox.calls.breaker_failures", 100)
        .set("retry.initial_ms", 3_600_000)
        .set("retry.max_interval_seconds", 3600)
        .build()
        .await;
    let _worker = env.start_worker().await;
    env.provider.inject_fault(FaultRule::new(Fault::status(500)).always());
    env.publish(job("po_1")).await;
    let is_put_off = |shown: &Value| shown["in_doubt_since"].is_string() && shown["leased"] == false;
    env.wait_until_shown("po_1", "it is put off", is_put_off).await;
    assert_eq!(env.provider.ledger().calls.len(), 1);
    // when an operator looks it up, then the command ends after the worker's next call, and says what that was.
    let looked_up = env.run(&["look-up", "po_1", "--reason", "the merchant asks"]);
    assert!(looked_up.status.success(), "{}", said(&looked_up));
    assert_eq!(env.provider.ledger().calls.len(), 2);
    assert!(said(&looked_up).contains("next step of the replay rule"), "{}", said(&looked_up));
}
