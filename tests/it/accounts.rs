//! Tests open records after the configuration names another account, or no longer has their connector.

use provider_simulators::sandbox::{Fault, FaultRule, Idempotency, Sandbox, Settings};
use serde_json::Value;

use crate::support::{Setup, TOKEN, TestEnv, job};

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_may_exist_in_one_account_is_not_created_in_another() {
    for connector in ["sandbox", "asked"] {
        // Given a call that created a link, but whose answer was lost with its worker,
        let mut env = Setup::default().short_leases().build().await;
        let mut first = env.start_worker().await;
        let call = env.provider.hold_next_answer();
        env.publish(job("po_1").connector(connector)).await;
        call.arrived().await;
        first.kill();
        call.release();
        // when the connector's section names another account,
        let another = Sandbox::start(Settings::new(TOKEN)).await.unwrap();
        env.set(&format!("connectors.{connector}.url"), another.url());
        let _second = env.start_worker().await;
        // then nothing is called there, no look-up there counts, and the outcome is unknown.
        let result = env.result_of("po_1").await;
        assert_eq!(result.error_code().as_deref(), Some("OUTCOME_UNKNOWN"), "{connector}");
        assert_eq!(env.provider.ledger().links.len(), 1);
        assert_eq!(another.ledger().calls.len(), 0, "{connector}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_an_earlier_version_are_settled_as_before() {
    let mut env = TestEnv::new().await;
    env.provider.set_idempotency(Idempotency::Off);
    let mut first = env.start_worker().await;
    let call = env.provider.hold_next_answer();
    env.publish(job("po_1").connector("asked")).await;
    call.arrived().await;
    first.kill();
    call.release();
    sqlx::query("UPDATE payout_links SET account = NULL").execute(&env.pool).await.unwrap();
    // This record does not store an account, so the account name in the section changes nothing.
    env.set("connectors.asked.account", "acme");
    let _second = env.start_worker().await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
    assert_eq!(env.provider.ledger().links.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_may_rotate_where_the_account_has_a_name() {
    let mut env = Setup::default().set("connectors.asked.account", "acme").build().await;
    let mut first = env.start_worker().await;
    let call = env.provider.hold_next_answer();
    env.publish(job("po_1").connector("asked")).await;
    call.arrived().await;
    first.kill();
    call.release();
    // The sandbox accepts only one token: the look-up succeeds once that token is back.
    env.set("connectors.asked.token", "another token");
    let second = env.start_worker().await;
    second.says("\"outcome\":\"unanswered\"").await;
    second.stop().await;
    env.set("connectors.asked.token", TOKEN);
    let _third = env.start_worker().await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
}

#[tokio::test(flavor = "multi_thread")]
async fn open_records_that_the_configuration_cannot_resolve_are_reported() {
    // Given open records that were called,
    let mut env = TestEnv::new().await;
    let worker = env.start_worker().await;
    env.provider.inject_fault(FaultRule::new(Fault::status_with_retry_after(429, "600")).times(3));
    for (id, connector) in [("po_1", "sandbox"), ("po_2", "asked"), ("po_3", "asked")] {
        env.publish(job(id).connector(connector)).await;
        let postponed = |shown: &Value| shown["attempts"] == 1 && shown["leased"] == false;
        env.wait_until_shown(id, "it is written down", postponed).await;
    }
    worker.stop().await;
    assert!(env.run(&["check"]).status.success());
    // when one connector's section names another account, and the other section has another name,
    env.set("connectors.asked.account", "another");
    env.set("jobs.default_connector", "mute");
    let renamed = "UPDATE payout_links SET connector = 'renamed' WHERE connector = 'sandbox'";
    sqlx::query(renamed).execute(&env.pool).await.unwrap();
    // then `check` reports it,
    let check = env.run(&["check"]);
    let said = String::from_utf8(check.stdout).unwrap();
    assert!(!check.status.success(), "{said}");
    for problem in [
        "2 open records were called in another account than [connectors.asked] names",
        "1 open records belong to the connector \"renamed\", which is not configured",
    ] {
        assert!(said.contains(problem), "{said}");
    }
    // and a worker reports it at its start, in its metrics and in its readiness.
    let worker = env.start_worker().await;
    worker.says("jobs.default_connector has changed").await;
    worker.measures("payout_links_open_records{account=\"other\"}", 2).await;
    let metrics = worker.metrics().await;
    assert!(metrics.contains("payout_links_open_records{account=\"missing\"} 1"), "{metrics}");
    assert!(metrics.contains("payout_links_clock_offset_seconds{clock=\"database\"} 0"), "{metrics}");
    let (status, ready) = worker.readiness().await;
    assert_eq!(status, 200);
    assert_eq!(ready["open_records"]["other_account"]["asked"], 2);
    assert_eq!(ready["open_records"]["no_connector"]["renamed"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn deployments_with_names_share_no_keys_and_a_name_is_fixed_once_there_are_records() {
    // Given two deployments at one provider account,
    let mut env = Setup::default().set("worker.deployment", "live").build().await;
    let mut other = Setup::default().set("connectors.sandbox.url", env.provider.url()).build().await;
    let worker = env.start_worker().await;
    let _other_worker = other.start_worker().await;
    // when both have a payout of one id, then there are two links.
    for deployment in [&env, &other] {
        deployment.publish(job("po_1")).await;
        assert_eq!(deployment.result_of("po_1").await.kind(), "payout_link.created");
    }
    assert_eq!(env.provider.ledger().links.len(), 2);
    // Another deployment name would change the keys of existing records, so the worker does not start.
    worker.stop().await;
    for (deployment, name) in [(&mut env, ""), (&mut other, "staging")] {
        deployment.set("worker.deployment", name);
        let mut refused = deployment.launch_worker(&[]);
        refused.says("it is part of every idempotency key and cannot change").await;
        assert_eq!(refused.exited().await.code(), Some(1));
    }
    env.set("worker.deployment", "live");
    env.start_worker().await;
}
