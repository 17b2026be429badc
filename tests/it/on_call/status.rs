//! Tests that `status` reports what needs an operator.

use provider_simulators::sandbox::{Fault, FaultRule};
use serde_json::{Value, json};

use super::{RECORDS, make_records, said};
use crate::support::{Setup, TestEnv, eventually, job};

#[tokio::test(flavor = "multi_thread")]
async fn an_open_circuit_breaker_and_a_refused_credential_are_reported() {
    let env = Setup::default()
        .set("connectors.sandbox.calls.breaker_failures", 1)
        .set("connectors.sandbox.calls.breaker_pause_seconds", 1)
        .build()
        .await;
    let _worker = env.start_worker().await;
    let findings = || {
        let output = env.run(&["status", "--output", "json", "--without-broker"]);
        let status: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
        status["findings"].as_array().unwrap().clone()
    };
    let find = |name: &str| findings().into_iter().find(|finding| finding["name"] == name);
    // When a provider fails, then its breaker is reported,
    env.provider.inject_fault(FaultRule::new(Fault::status(503)).always());
    env.publish(job("po_1")).await;
    let breaker = eventually("an open breaker", async || find("open_breaker")).await;
    assert_eq!(breaker["next"], "list --state open --connector sandbox");
    // and no more once the provider works.
    env.provider.clear_faults();
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
    eventually("no open breaker", async || find("open_breaker").is_none().then_some(())).await;
    // When it refuses the credential, then a person has to act.
    env.provider.inject_fault(FaultRule::new(Fault::status(401)).always());
    env.publish(job("po_2")).await;
    let refused = eventually("a refused credential", async || find("refused_credential")).await;
    assert_eq!((&refused["severity"], &refused["next"]), (&json!("act"), &json!("check")));
}

#[tokio::test(flavor = "multi_thread")]
async fn status_says_what_needs_a_person_and_its_exit_status_too() {
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    env.wait_until_delivered("po_1").await;
    let status = || {
        let output = env.run(&["status", "--output", "json"]);
        let status: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
        (output.status.code().unwrap(), status)
    };
    let names = |status: &Value| -> Vec<String> {
        let findings = status["findings"].as_array().unwrap();
        findings.iter().map(|finding| finding["name"].as_str().unwrap().to_owned()).collect()
    };
    // Given a working deployment, with its worker and its version,
    let (code, read) = eventually("a worker", async || {
        let (code, read) = status();
        (read["database"]["workers"].as_array().is_some_and(|seen| !seen.is_empty())).then_some((code, read))
    })
    .await;
    assert_eq!((code, &read["healthy"]), (0, &Value::Bool(true)), "{read}");
    assert_eq!(read["database"]["workers"][0]["version"], env!("CARGO_PKG_VERSION"), "{read}");
    assert_eq!(read["database"]["sealing_keys"][0], "k1", "{read}");
    assert!(names(&read).is_empty(), "{read}");
    // when payouts are unknown, records are overdue, and a job is rejected,
    make_records(&env, RECORDS).await;
    env.publish(job("po_bad").amount(-1)).await;
    eventually("the dead letter", async || {
        let (_, read) = status();
        names(&read).contains(&"dead_letters".to_owned()).then_some(())
    })
    .await;
    // then each is reported, the worst first,
    let (code, read) = status();
    assert_eq!(code, 1);
    let all = names(&read);
    assert_eq!(all[0], "unknown_payouts", "{all:?}");
    assert_eq!(read["findings"][0]["count"], RECORDS / 1000, "{read}");
    for name in ["unresolved_calls", "overdue_records", "missing_account", "dead_letters"] {
        assert!(all.iter().any(|found| found == name), "{name}: {all:?}");
    }
    // and the text is readable.
    let text = said(&env.run(&["status"]));
    assert!(text.contains("list --state unknown --oldest-first"), "{text}");
    // A webhook that was abandoned after days is found, although its event is old.
    env.merchant.inject_fault(Fault::status(410));
    env.publish(job("po_gone").with("webhook_url", env.webhook_url())).await;
    env.wait_until_shown("po_gone", "abandoned", |shown| shown["event"]["webhook_state"] == "abandoned")
        .await;
    let age = "WITH aged AS (
            UPDATE events SET id = '01900000-0000-7000-8000-000000000001' WHERE webhook_state = 'abandoned'
            RETURNING id, payout_link_id
        ) UPDATE payout_links p SET event_id = aged.id, newest_event_id = aged.id FROM aged WHERE p.id = payout_link_id";
    sqlx::query(age).execute(&env.pool).await.unwrap();
    assert!(names(&status().1).contains(&"abandoned_webhooks".to_owned()));
    let hosts = env.run(&["webhooks", "list", "--output", "json"]);
    let hosts: Value = serde_json::from_slice(&hosts.stdout).unwrap_or_else(|_| panic!("{}", said(&hosts)));
    let host = hosts.as_array().unwrap().iter().find(|host| host["abandoned"] == 1);
    assert_eq!(host.map(|host| &host["failing_merchants"]), Some(&json!([""])), "{hosts}");
    // Without a worker it says so.
    assert!(worker.stop().await.success());
    eventually("no worker", async || names(&status().1).contains(&"no_workers".to_owned()).then_some(()))
        .await;
}
