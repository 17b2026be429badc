//! Tests that the acting commands work beside a running worker and ten thousand records, and touch what they select alone.

use std::{
    fmt::Write as _,
    process::Output,
    time::{Duration, Instant},
};

use provider_simulators::sandbox::{Fault, LinkChange};
use serde_json::Value;

use super::{RECORDS, count_where, said, with_records};
use crate::support::{TestEnv, eventually, job};

/// Limit of one command, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Returns the number of all other records and events, and a digest of their rows and of the versions of these.
async fn others(env: &TestEnv) -> (i64, String) {
    let digest = "
        SELECT count(*), md5(string_agg(row, '' ORDER BY row)) FROM (
            SELECT p.xmin || p::text AS row FROM payout_links p WHERE merchant_id <> 'live'
            UNION ALL
            SELECT e.xmin || e::text FROM events e JOIN payout_links p ON p.id = payout_link_id WHERE merchant_id <> 'live'
        ) AS rows";
    sqlx::query_as(digest).fetch_one(&env.pool).await.unwrap()
}

/// Runs a command, which must be done in reasonable time, and returns its output.
fn run(env: &TestEnv, command: &str) -> Output {
    let arguments: Vec<&str> = command.split(' ').collect();
    let started = Instant::now();
    let output = env.run(&arguments);
    assert!(started.elapsed() < PATIENCE, "{command}: {:?}", started.elapsed());
    output
}

/// Runs a command that succeeds, and returns its JSON document.
fn done(env: &TestEnv, command: &str) -> Value {
    let output = run(env, &format!("{command} --output json"));
    assert!(output.status.success(), "{command}: {}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{command}: {}", said(&output)))
}

/// Returns the payouts of the reports, which are all done.
fn payouts(reports: &Value) -> Vec<&str> {
    let reports = reports.as_array().unwrap().iter();
    reports
        .inspect(|report| assert_eq!(report["outcome"], "done", "{report}"))
        .map(|report| report["merchant_payout_id"].as_str().unwrap())
        .collect()
}

async fn until_delivered(env: &TestEnv) {
    let due = "SELECT count(*) FROM events WHERE due_at IS NOT NULL";
    eventually("everything is delivered", async || {
        (sqlx::query_scalar::<_, i64>(due).fetch_one(&env.pool).await.unwrap() == 0).then_some(())
    })
    .await;
}

/// Makes payouts of the merchant `live`: two declined ones, two unknown ones, and three with a link.
async fn make_live(env: &TestEnv) {
    for (id, connector, fault) in [
        ("declined_1", "sandbox", Some(Fault::status(422))),
        ("declined_2", "sandbox", Some(Fault::status(422))),
        ("unknown_1", "mute", Some(Fault::Reset)),
        ("unknown_2", "mute", Some(Fault::Reset)),
        ("link_1", "sandbox", None),
        ("link_2", "sandbox", None),
        ("link_3", "sandbox", None),
    ] {
        if let Some(fault) = fault {
            env.provider.inject_fault(fault);
        }
        let job = job(id).merchant("live").connector(connector).with("webhook_url", env.webhook_url());
        env.publish(job).await;
        env.wait_until_delivered(id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_act_is_done_in_time_and_changes_what_it_selects_alone() {
    // Given ten thousand records beside a worker, and a few of one merchant,
    let (env, worker) = with_records().await;
    make_live(&env).await;
    until_delivered(&env).await;
    let before = others(&env).await;
    assert!(before.0 > RECORDS, "{before:?}");
    // when failed records are tried again, then that merchant's are, and no other;
    let retried = done(&env, "retry --where merchant=live --yes --reason test");
    assert_eq!(payouts(&retried), ["declined_1", "declined_2"]);
    // when unknown ones are resolved, then that merchant's are;
    let resolved = done(&env, "resolve --not-created --force --where merchant=live --yes --reason test");
    assert_eq!(payouts(&resolved), ["unknown_1", "unknown_2"]);
    for (id, kind) in [
        ("declined_1", "payout_link.created"),
        ("declined_2", "payout_link.created"),
        ("unknown_1", "payout_link.failed"),
        ("unknown_2", "payout_link.failed"),
    ] {
        assert_eq!(env.wait_for_results(id, 2).await[1].kind(), kind);
    }
    // when a claimed link is looked up, then its change is found at once;
    let link = env.result_of("link_1").await.json()["connector_payout_id"].as_str().unwrap().to_owned();
    env.provider.change(&link, LinkChange::Claim).unwrap();
    let looked_up = done(&env, "look-up link_1 --reason test");
    assert!(looked_up[0]["message"].as_str().unwrap().contains("the link is claimed"), "{looked_up}");
    // when the merchant is paused, then its job waits until it is resumed;
    done(&env, "pause merchant live --reason test");
    eventually("the worker sees the pause", async || {
        let (_, state) = worker.readiness().await;
        (state["paused"] == serde_json::json!(["merchant live"])).then_some(())
    })
    .await;
    env.publish(job("paused").merchant("live")).await;
    let waits = env.wait_until_shown("paused", "the job is accepted", |shown| shown["state"] == "open").await;
    assert_eq!(waits["attempts"], 0);
    done(&env, "resume merchant live --reason test");
    assert_eq!(env.result_of("paused").await.kind(), "payout_link.created");
    until_delivered(&env).await;
    // when its webhooks and results come again, then each comes once more;
    let sent = env.merchant.received().len();
    let again = done(&env, "webhooks redeliver --merchant live --only delivered --yes --reason test");
    assert_eq!(again.as_array().unwrap().len(), sent);
    env.webhooks(2 * sent).await;
    until_delivered(&env).await;
    let results = env.results().len();
    let republish = "results republish --from 1d --to 2100-01-01 --merchant live --yes --reason test";
    let again = done(&env, republish);
    assert_eq!((&again["published"], &again["unreadable"]), (&results.into(), &0.into()));
    eventually("the results", async || (env.results().len() == 2 * results).then_some(())).await;
    // when its unclaimed links are cancelled, then those of others stay;
    let cancelled = done(&env, "cancel --where merchant=live --yes --reason test");
    assert_eq!(payouts(&cancelled), ["declined_1", "declined_2", "link_2", "link_3", "paused"]);
    until_delivered(&env).await;
    // when a statement of all links but one has an unknown line, then these two are the differences;
    let rows = "SELECT connector_payout_id, amount_minor, currency FROM payout_links
        WHERE connector = 'sandbox' AND state = 'created' AND merchant_payout_id <> 'link_3'";
    let rows: Vec<(String, i64, String)> = sqlx::query_as(rows).fetch_all(&env.pool).await.unwrap();
    let mut statement = "id,amount,currency\nnobody,1,EUR\n".to_owned();
    for (id, amount, currency) in &rows {
        writeln!(statement, "{id},{amount},{currency}").unwrap();
    }
    let file = env.folder.join("statement.csv");
    std::fs::write(&file, statement).unwrap();
    let reconcile = format!(
        "reconcile --account sandbox --from {} --since 1d --until 2100-01-01 --settled-after-minutes 0 --output json",
        file.display()
    );
    let compared = run(&env, &reconcile);
    assert_eq!(compared.status.code(), Some(3), "{}", said(&compared));
    let compared: Value = serde_json::from_slice(&compared.stdout).unwrap();
    let counts = &compared["counts"];
    assert_eq!(
        (&counts["matched"], &counts["missing_here"], &counts["missing_there"]),
        (&rows.len().into(), &1.into(), &1.into()),
        "{counts}"
    );
    assert!(rows.len() > 9_000, "{}", rows.len());
    // when all of the merchant is erased, then the others still have their data.
    let erased = done(&env, "erase --where merchant=live --yes --reason test");
    assert_eq!(payouts(&erased).len(), 8);
    assert_eq!(count_where(&env, "erased_at IS NOT NULL").await, 8);
    // No other record was changed by any of it.
    assert_eq!(others(&env).await, before);
    assert!(worker.stop().await.success());
}
