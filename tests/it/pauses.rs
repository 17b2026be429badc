//! Tests that operators pause consumption, an account or a merchant. All workers see it, and stay ready.

use std::process::Output;

use provider_simulators::sandbox::{Fault, LinkChange};
use serde_json::Value;

use crate::support::{Setup, TestEnv, Worker, eventually, job};

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn act(env: &TestEnv, command: &[&str]) {
    let output = env.run(&[command, &["--reason", "maintenance"]].concat());
    assert!(output.status.success(), "{}", said(&output));
}

/// Waits until a worker sees these pauses, and returns its readiness.
async fn ready_with(worker: &Worker, paused: &[&str]) -> (u16, Value) {
    eventually("the worker sees the pauses", async || {
        let (status, state) = worker.readiness().await;
        (state["paused"] == serde_json::json!(paused)).then_some((status, state))
    })
    .await
}

fn json_of(env: &TestEnv, arguments: &[&str]) -> Value {
    let output = env.run(&[&["--output", "json"], arguments].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_account_makes_no_calls() {
    // Given an account with a followed link, an unknown record, and another account,
    let env = Setup::default()
        .set("connectors.sandbox.follow.min_interval_seconds", 1)
        .set("connectors.sandbox.follow.max_interval_seconds", 1)
        .set("connectors.mute.follow.min_interval_seconds", 1)
        .set("connectors.mute.follow.max_interval_seconds", 1)
        .build()
        .await;
    let worker = env.start_worker().await;
    env.publish(job("followed")).await;
    env.result_of("followed").await;
    let link = env.provider.ledger().links[0].id.clone();
    // when the account is paused,
    act(&env, &["pause", "account", "sandbox"]);
    let (status, _) = ready_with(&worker, &["account sandbox"]).await;
    assert_eq!(status, 200);
    // then its jobs are accepted and wait, unclaimed, and the worker does not ask about its links,
    env.publish(job("po_1")).await;
    let waits = env.wait_until_shown("po_1", "the job is accepted", |shown| shown["state"] == "open").await;
    env.provider.change(&link, LinkChange::Claim).unwrap();
    // while it asks about those of the other account, again and again.
    env.publish(job("other").connector("mute")).await;
    let other = env.result_of("other").await.json()["connector_payout_id"].as_str().unwrap().to_owned();
    for (number, change) in [(2, LinkChange::Claim), (3, LinkChange::Process), (4, LinkChange::Pay)] {
        env.provider.change(&other, change).unwrap();
        env.wait_for_results("other", number).await;
    }
    let shown = env.shown("po_1").unwrap();
    assert_eq!((&shown["attempts"], &shown["due_at"]), (&0.into(), &waits["due_at"]));
    assert_eq!(env.results_of("followed").len(), 1);
    assert_eq!(env.provider.ledger().links.len(), 2);
    // A second pause names the operator of the first. After the end of the pause both continue.
    let again = env.run(&["pause", "account", "sandbox", "--reason", "again"]);
    assert_eq!(again.status.code(), Some(5), "{}", said(&again));
    assert!(said(&again).contains("maintenance"), "{}", said(&again));
    let resumed = json_of(&env, &["resume", "account", "sandbox", "--reason", "done"]);
    assert_eq!((&resumed["target"], &resumed["outcome"]), (&"account sandbox".into(), &"resumed".into()));
    let checked = json_of(&env, &["check"]);
    let is_well = |tested: &Value| tested["outcome"] == "ok" && tested["what"] == "database";
    assert!(checked.as_array().unwrap().iter().any(is_well), "{checked}");
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
    assert_eq!(env.wait_for_results("followed", 2).await[1].kind(), "payout_link.claimed");
    let nothing = env.run(&["resume", "account", "sandbox", "--reason", "again"]);
    assert_eq!(nothing.status.code(), Some(4), "{}", said(&nothing));
    let acts = "SELECT string_agg(command, ' ' ORDER BY id) FROM operator_actions WHERE details->>'name' = 'sandbox'";
    let acts: String = sqlx::query_scalar(acts).fetch_one(&env.pool).await.unwrap();
    assert_eq!(acts, "pause resume");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_paused_merchant_wait_and_those_of_others_do_not() {
    // Given a paused merchant, at an account whose first call is to be repeated,
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    act(&env, &["pause", "merchant", "m1"]);
    ready_with(&worker, &["merchant m1"]).await;
    env.provider.inject_fault(Fault::status(429));
    // when it and another merchant send jobs,
    env.publish(job("po_1").merchant("m1")).await;
    let waits = env.wait_until_shown("po_1", "the job is accepted", |shown| shown["state"] == "open").await;
    for number in 0..5 {
        let id = format!("other_{number}");
        env.publish(job(&id).merchant("m2")).await;
        assert_eq!(env.result_of(&id).await.kind(), "payout_link.created");
    }
    // then its job waits, unclaimed, until the end of the pause. `show` has the pause.
    let shown = env.shown("po_1").unwrap();
    assert_eq!((&shown["attempts"], &shown["due_at"]), (&0.into(), &waits["due_at"]));
    let status = env.run(&["status", "--output", "json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    let findings = status["findings"].as_array().unwrap();
    assert!(findings.iter().any(|finding| finding["name"] == "paused"), "{status}");
    act(&env, &["resume", "merchant", "m1"]);
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_consumption_is_paused_jobs_stay_in_the_queue() {
    // Given a pause that is older than the worker,
    let env = TestEnv::new().await;
    assert!(env.run(&["migrate"]).status.success());
    act(&env, &["pause", "consumption"]);
    let worker = env.launch_worker(&[]);
    // then the worker consumes nothing, and is ready.
    let (status, state) = ready_with(&worker, &["consumption"]).await;
    assert_eq!((status, &state["consuming"]), (200, &false.into()), "{state}");
    env.publish(job("po_1")).await;
    eventually("the job is in the queue", async || {
        (env.ready(&env.names.jobs_queue).await == 1).then_some(())
    })
    .await;
    assert!(env.has_no_record("po_1").await);
    // When consumption is resumed and paused again, then jobs are taken only in between.
    act(&env, &["resume", "consumption"]);
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
    act(&env, &["pause", "consumption"]);
    worker.measures("payout_links_consuming", 0).await;
    env.publish(job("po_2")).await;
    eventually("the job is in the queue", async || {
        (env.ready(&env.names.jobs_queue).await == 1).then_some(())
    })
    .await;
    assert!(env.has_no_record("po_2").await);
}

/// The number of due records of the paused merchant.
const PAUSED: i64 = 5_000;

#[tokio::test(flavor = "multi_thread")]
async fn the_records_of_a_paused_merchant_cost_others_nothing() {
    // Given a paused merchant with many records that are due, at an account with one permit,
    let env = Setup::default()
        .set("connectors.sandbox.calls.concurrency", 1)
        .only_connector("sandbox")
        .build()
        .await;
    assert!(env.run(&["migrate"]).status.success());
    act(&env, &["pause", "merchant", "m1"]);
    sqlx::query(
        "INSERT INTO payout_links (id, merchant_id, merchant_payout_id, request_fingerprint, connector, amount_minor,
             currency, destination_currency, request, state, due_at, service_rank)
         SELECT gen_random_uuid(), 'm1', 'paused-' || n, '\\x00', 'sandbox', 1, 'EUR', 'EUR', '\\x00', 'open',
             now() - interval '1 hour', 8
         FROM generate_series(1, $1) n",
    )
    .bind(PAUSED)
    .execute(&env.pool)
    .await
    .unwrap();
    let worker = env.start_worker().await;
    ready_with(&worker, &["merchant m1"]).await;
    // when another merchant sends jobs,
    for number in 0..10 {
        let id = format!("other_{number}");
        env.publish(job(&id).merchant("m2")).await;
        assert_eq!(env.result_of(&id).await.kind(), "payout_link.created");
    }
    // then none of the paused records counts as overdue, and none was read to find the others.
    let metrics = worker.metrics().await;
    assert!(metrics.contains("payout_links_oldest_due_record_seconds 0\n"), "{metrics}");
    sqlx::query("SELECT pg_stat_force_next_flush()").execute(&env.pool).await.unwrap();
    assert!(worker.stop().await.success());
    let read = "SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes WHERE relname = 'payout_links'
        AND indexrelname NOT IN ('payout_links_pkey', 'payout_links_key')";
    let read: i64 = sqlx::query_scalar(read).fetch_one(&env.pool).await.unwrap();
    // The worker counts open records once a minute.
    assert!(read < 2 * PAUSED, "{read} entries read");
}
