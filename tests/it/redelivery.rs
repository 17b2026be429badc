//! Tests `webhooks`: operators deliver webhooks again, and pause hosts, beside running workers.

use std::process::{Output, Stdio};

use provider_simulators::sandbox::{Fault, FaultRule, LinkChange};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::support::{Setup, TestEnv, Worker, eventually, job};

const HOST: &str = "127.0.0.1";

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs `webhooks`, and returns its rows.
fn rows(env: &TestEnv, arguments: &[&str]) -> Vec<Value> {
    let output = env.run(&[&["--output", "json", "webhooks"], arguments].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)))
}

fn redeliver(env: &TestEnv, arguments: &[&str]) -> Output {
    let all = ["webhooks", "redeliver", "--yes", "--reason", "endpoint fixed", "--actor", "ada"];
    env.run(&[&all, arguments].concat())
}

async fn with_webhook(env: &TestEnv, id: &str) {
    env.publish(job(id).merchant("m_1").with("webhook_url", env.webhook_url())).await;
}

async fn wait_for_webhook(env: &TestEnv, id: &str, state: &str, attempts: u32) {
    env.wait_until_shown(id, &format!("{id}: {state} after {attempts}"), |shown| {
        shown["event"]["webhook_state"] == state && shown["event"]["webhook_attempts"] == attempts
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_that_were_skipped_while_a_host_was_gone_are_delivered_again_under_the_same_id() {
    // Given a merchant whose endpoint was gone for two payouts, and works for a third one,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    env.merchant.inject_fault(FaultRule::new(Fault::status(410)).times(2));
    for id in ["po_1", "po_2"] {
        with_webhook(&env, id).await;
        wait_for_webhook(&env, id, "abandoned", 1).await;
    }
    with_webhook(&env, "po_3").await;
    wait_for_webhook(&env, "po_3", "delivered", 1).await;
    let published = "SELECT published_at FROM events WHERE webhook_state = 'abandoned' ORDER BY id";
    let before: Vec<OffsetDateTime> = sqlx::query_scalar(published).fetch_all(&env.pool).await.unwrap();
    let host = &rows(&env, &["list"])[0];
    assert_eq!((&host["host"], &host["abandoned"], &host["delivered"]), (&json!(HOST), &json!(2), &json!(1)));
    assert_eq!((&host["attempts"], &host["last_error"]), (&json!(3), &json!("gone")));
    assert_eq!(rows(&env, &["show", HOST]).len(), 2);
    // when the command runs without a confirmation, then nothing happens;
    let asked = env.run(&["webhooks", "redeliver", "--host", HOST, "--reason", "endpoint fixed"]);
    assert_eq!(asked.status.code(), Some(5));
    assert!(text(&asked).contains("2 webhooks would be delivered again"), "{}", text(&asked));
    assert_eq!(redeliver(&env, &[]).status.code(), Some(2));
    assert_eq!(redeliver(&env, &["--host", "another.example"]).status.code(), Some(4));
    assert_eq!(env.merchant.received().len(), 3);
    // and when it is confirmed,
    let output = redeliver(&env, &["--host", HOST, "--only", "gone", "--from", "1h"]);
    assert!(output.status.success(), "{}", text(&output));
    // then the two webhooks are delivered under their ids, and results and records are unchanged.
    let posts = env.webhooks(5).await;
    for first in &posts[..2] {
        let again = posts[3..].iter().find(|post| post.id == first.id).unwrap();
        assert!(again.verified && again.body == first.body);
    }
    for id in ["po_1", "po_2"] {
        wait_for_webhook(&env, id, "delivered", 2).await;
        assert_eq!(env.results_of(id).len(), 1);
        assert_eq!(env.shown(id).unwrap()["state"], "created");
    }
    let published = "SELECT published_at FROM events WHERE webhook_attempts = 2 ORDER BY id";
    let after: Vec<OffsetDateTime> = sqlx::query_scalar(published).fetch_all(&env.pool).await.unwrap();
    assert_eq!(after, before);
    let acts = "SELECT count(*) FROM operator_actions a JOIN payout_links p ON p.id = a.payout_link_id
        WHERE a.command = 'webhooks redeliver' AND a.actor = 'ada' AND a.reason = 'endpoint fixed'";
    assert_eq!(sqlx::query_scalar::<_, i64>(acts).fetch_one(&env.pool).await.unwrap(), 2);
    assert_eq!(redeliver(&env, &["--host", HOST]).status.code(), Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redelivery_has_a_whole_schedule() {
    // Given a webhook that was abandoned after its schedule of two attempts,
    let env = Setup::default().set("webhooks.schedule_seconds", "[1]").build().await;
    let _worker = env.start_worker().await;
    env.merchant.inject_fault(FaultRule::new(Fault::status(500)).times(3));
    with_webhook(&env, "po_1").await;
    wait_for_webhook(&env, "po_1", "abandoned", 2).await;
    // when it is delivered again, and fails once more,
    assert!(redeliver(&env, &["po_1"]).status.success());
    // then another attempt follows, and the timeline has each under its own number.
    wait_for_webhook(&env, "po_1", "delivered", 4).await;
    let shown = env.shown("po_1").unwrap();
    let posts = shown["timeline"].as_array().unwrap().iter().filter(|call| call["kind"] == "post");
    let numbers: Vec<u64> = posts.map(|post| post["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    // A delivered webhook can be delivered again as well.
    assert!(redeliver(&env, &["po_1"]).status.success());
    wait_for_webhook(&env, "po_1", "delivered", 5).await;
    assert!(env.merchant.received().iter().all(|post| post.id == env.merchant.received()[0].id));
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_of_one_link_are_delivered_again_in_their_order() {
    // Given a link with two events whose webhooks were abandoned,
    let env = Setup::default()
        .set("connectors.sandbox.follow.min_interval_seconds", 1)
        .set("connectors.sandbox.follow.max_interval_seconds", 1)
        .set("webhooks.schedule_seconds", "[1, 1, 1]")
        .build()
        .await;
    let _worker = env.start_worker().await;
    env.merchant.inject_fault(FaultRule::new(Fault::status(410)).times(2));
    with_webhook(&env, "po_1").await;
    wait_for_webhook(&env, "po_1", "abandoned", 1).await;
    let link = env.result_of("po_1").await.json()["connector_payout_id"].as_str().unwrap().to_owned();
    env.provider.change(&link, LinkChange::Claim).unwrap();
    env.wait_until_shown("po_1", "a second event, abandoned", |shown| {
        shown["later_events"][0]["webhook_state"] == "abandoned"
    })
    .await;
    // when both are delivered again, and the first one fails at first,
    env.merchant.inject_fault(FaultRule::new(Fault::status(500)).times(1));
    assert!(redeliver(&env, &["po_1"]).status.success());
    // then the second one waits for the first one.
    let posts = env.webhooks(5).await;
    let ids: Vec<&str> = posts.iter().map(|post| post.id.as_deref().unwrap()).collect();
    assert_eq!(ids, [ids[0], ids[1], ids[0], ids[0], ids[1]]);
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_webhooks_of_the_range_are_delivered_again_and_in_their_order() {
    // Given delivered webhooks of three payouts, and of the second one two,
    let env = Setup::default()
        .set("connectors.sandbox.follow.min_interval_seconds", 1)
        .set("connectors.sandbox.follow.max_interval_seconds", 1)
        .build()
        .await;
    let _worker = env.start_worker().await;
    let mut times = Vec::new();
    for id in ["po_1", "po_2", "po_3"] {
        with_webhook(&env, id).await;
        wait_for_webhook(&env, id, "delivered", 1).await;
        if id == "po_2" {
            let link = env.result_of(id).await.json()["connector_payout_id"].as_str().unwrap().to_owned();
            env.provider.change(&link, LinkChange::Claim).unwrap();
            env.wait_until_shown(id, "a second webhook, delivered", |shown| {
                shown["later_events"][0]["webhook_state"] == "delivered"
            })
            .await;
        }
        times.push(env.time_of_event(id));
    }
    let first: Vec<_> = env.merchant.received().into_iter().map(|post| post.id.unwrap()).collect();
    assert_eq!(first.len(), 4);
    // when those since the first of the second payout and before the third one's are delivered again, and the first one fails at
    // first,
    env.merchant.inject_fault(FaultRule::new(Fault::status(500)).times(1));
    let range = ["--from", &*times[1], "--to", &*times[2]];
    let output = redeliver(&env, &[&range[..], &["--only", "delivered", "--output", "json"]].concat());
    assert!(output.status.success(), "{}", text(&output));
    let reports: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        reports.iter().map(|report| report["event_id"].as_str().unwrap()).collect::<Vec<_>>(),
        first[1..3]
    );
    // then these two are delivered under their ids, in their order, and no other is.
    let posts = env.webhooks(7).await;
    let again: Vec<_> = posts[4..].iter().map(|post| post.id.as_deref().unwrap()).collect();
    assert_eq!(again, [&*first[1], &first[1], &first[2]]);
    env.wait_until_shown("po_2", "both are delivered", |shown| {
        shown["event"]["webhook_attempts"] == 3 && shown["later_events"][0]["webhook_attempts"] == 2
    })
    .await;
    for id in ["po_1", "po_3"] {
        assert_eq!(env.shown(id).unwrap()["event"]["webhook_attempts"], 1, "{id}");
    }
    // A second operator learns of the first one. The end of a range alone selects nothing.
    let nothing = redeliver(&env, &[&range[..], &["--only", "gone"]].concat());
    assert_eq!(nothing.status.code(), Some(4), "{}", text(&nothing));
    assert!(text(&nothing).contains("ada ran webhooks redeliver: endpoint fixed"), "{}", text(&nothing));
    assert_eq!(redeliver(&env, &["--to", &times[2]]).status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_a_worker_holds_is_left_to_it() {
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    env.merchant.inject_fault(Fault::status(410));
    with_webhook(&env, "po_1").await;
    wait_for_webhook(&env, "po_1", "abandoned", 1).await;
    assert!(worker.stop().await.success());
    // Given an event that a worker has claimed to publish its reply,
    let hold =
        "UPDATE events SET holder = gen_random_uuid(), due_at = now() + interval '1 hour', reply_due = true";
    sqlx::query(hold).execute(&env.pool).await.unwrap();
    // then a redelivery does not claim it.
    let refused = redeliver(&env, &["po_1"]);
    assert_eq!(refused.status.code(), Some(5), "{}", text(&refused));
    let state = "SELECT webhook_state FROM events WHERE holder IS NOT NULL";
    let state: String = sqlx::query_scalar(state).fetch_one(&env.pool).await.unwrap();
    assert_eq!(state, "abandoned");
}

/// Makes payouts until a worker postpones a webhook because it knows of the pause. Returns that payout.
async fn until_one_waits(env: &TestEnv) -> String {
    let waits = "SELECT webhook_attempts = 0 AND webhook_due_at > now() + interval '20 seconds' FROM events e
        JOIN payout_links p ON p.id = e.payout_link_id WHERE merchant_payout_id = $1 AND e.holder IS NULL";
    for number in 1..100 {
        let id = format!("po_{number}");
        with_webhook(env, &id).await;
        env.result_of(&id).await;
        let waits = eventually("the webhook", async || {
            let waits = sqlx::query_scalar::<_, Option<bool>>(waits).bind(&id);
            waits.fetch_optional(&env.pool).await.unwrap()
        });
        if waits.await.unwrap_or_default() {
            return id;
        }
    }
    panic!("no worker knows of the pause");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_host_gets_nothing_and_what_waits_costs_no_attempt() {
    // Given two workers, and a host that an operator pauses,
    let env = TestEnv::new().await;
    let workers: [Worker; 2] = [env.start_worker().await, env.start_worker().await];
    with_webhook(&env, "po_0").await;
    wait_for_webhook(&env, "po_0", "delivered", 1).await;
    let act = |command, reason| env.run(&["webhooks", command, HOST, "--reason", reason, "--actor", "ada"]);
    assert!(act("pause-host", "merchant deploys").status.success());
    let again = act("pause-host", "me too");
    assert_eq!(again.status.code(), Some(5));
    assert!(text(&again).contains("by ada: merchant deploys"), "{}", text(&again));
    // then the workers know it within seconds: no attempt is made, and results are published;
    let waiting = until_one_waits(&env).await;
    assert_eq!(env.shown(&waiting).unwrap()["event"]["webhook_attempts"], 0);
    let host = &rows(&env, &["list"])[0];
    assert!(host["waiting"].as_i64().unwrap() > 0, "{host}");
    assert_eq!((&host["paused_by"], &host["paused_because"]), (&json!("ada"), &json!("merchant deploys")));
    // a worker that starts now knows it before its first webhook,
    for worker in workers {
        assert!(worker.stop().await.success());
    }
    let sent = env.merchant.received().len();
    let _worker = env.start_worker().await;
    with_webhook(&env, "po_new").await;
    env.wait_until_shown("po_new", "its webhook waits", |shown| {
        shown["event"]["webhook_state"] == "pending" && shown["event"]["published_at"].is_string()
    })
    .await;
    assert_eq!(env.merchant.received().len(), sent);
    // and after the pause everything is delivered with its first attempt.
    assert!(act("resume-host", "deployed").status.success());
    assert_eq!(act("resume-host", "deployed").status.code(), Some(4));
    wait_for_webhook(&env, &waiting, "delivered", 1).await;
    wait_for_webhook(&env, "po_new", "delivered", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_redelivery_says_what_is_left_and_goes_on_when_it_is_repeated() {
    // Given three abandoned webhooks, and a redelivery that has a second for each,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    env.merchant.inject_fault(FaultRule::new(Fault::status(410)).times(3));
    for id in ["po_1", "po_2", "po_3"] {
        with_webhook(&env, id).await;
        wait_for_webhook(&env, id, "abandoned", 1).await;
    }
    let redeliver = ["webhooks", "redeliver", "--host", HOST, "--yes", "--reason", "endpoint fixed"];
    let mut command = env.command(&redeliver);
    let process =
        command.args(["--rate", "1"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    env.webhooks(4).await;
    // when it is interrupted after the first,
    let pid = process.id().to_string();
    assert!(std::process::Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
    // then it says what it did and what is left,
    let output = process.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let is_said = |due: usize| {
        text(&output)
            .contains(&format!("interrupted: {due} due again, 0 refused, and {} not touched", 3 - due))
    };
    assert!(is_said(1) || is_said(2), "{}", text(&output));
    // and the same command goes on.
    assert!(env.run(&redeliver).status.success());
    for id in ["po_1", "po_2", "po_3"] {
        wait_for_webhook(&env, id, "delivered", 2).await;
    }
}
