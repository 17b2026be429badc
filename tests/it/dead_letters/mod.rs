//! Tests `dead-letters`: operators read rejected messages and publish them again, and no message is lost.

mod failures;

use std::{os::unix::fs::PermissionsExt, process::Output};

use serde_json::{Value, json};

use crate::support::{Job, ReceivedMessage, Setup, TestEnv, eventually, job};

const CANARIES: [&str; 3] = ["canary-name", "canary@example.com", "canary-url"];

/// Builds a job with secrets that is rejected for its amount.
fn bad(id: &str) -> Job {
    job(id)
        .amount(0)
        .message_id(&format!("message-{id}"))
        .merchant("m_1")
        .header("x-private", "canary-name")
        .with("customer", json!({ "name": "canary-name", "email": "canary@example.com" }))
        .with("webhook_url", json!("https://merchant.example/canary-url"))
}

/// Lets a worker reject these jobs, and stops it.
async fn rejected(env: &TestEnv, jobs: impl IntoIterator<Item = Job>) {
    let worker = env.start_worker().await;
    for job in jobs {
        let id = job.id().to_owned();
        env.publish(job).await;
        env.result_of(&id).await;
    }
    assert!(worker.stop().await.success());
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs `dead-letters`, and returns its rows.
fn rows(env: &TestEnv, arguments: &[&str]) -> Vec<Value> {
    let mut all = vec!["--output", "json", "dead-letters"];
    all.extend(arguments);
    let output = env.run(&all);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)))
}

/// Runs `dead-letters list`, which finds none, and returns its rows.
fn rows_or_none(env: &TestEnv) -> Vec<Value> {
    let output = env.run(&["--output", "json", "dead-letters", "list"]);
    assert_eq!(output.status.code(), Some(4));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn payouts(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["merchant_payout_id"].as_str().unwrap()).collect()
}

fn status(env: &TestEnv, arguments: &[&str]) -> i32 {
    let mut all = vec!["dead-letters"];
    all.extend(arguments);
    env.run(&all).status.code().unwrap()
}

async fn actions(env: &TestEnv) -> Vec<(String, String, String)> {
    sqlx::query_as("SELECT command, actor, reason FROM operator_actions ORDER BY id")
        .fetch_all(&env.pool)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_that_return_keep_their_order_however_many_they_are() {
    // Given more letters than an Erlang map keeps in order,
    let env = TestEnv::new().await;
    let ids: Vec<String> = (0..100).map(|number| format!("po_{number}")).collect();
    rejected(&env, ids.iter().map(|id| bad(id))).await;
    // when an operator looks at them, then each look finds them in the order of their rejections.
    for _ in 0..3 {
        assert_eq!(payouts(&rows(&env, &["list"])), ids);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_at_letters_loses_none_and_shows_no_secret() {
    // Given rejected jobs with secrets,
    let env = TestEnv::new().await;
    rejected(&env, (0..5).map(|number| bad(&format!("po_{number}")))).await;
    let all = ["po_0", "po_1", "po_2", "po_3", "po_4"];
    // when an operator reads them more often than RabbitMQ 4 returns a message by default,
    for _ in 0..3 {
        assert_eq!(payouts(&rows(&env, &["list"])), all);
    }
    assert_eq!(payouts(&rows(&env, &["list", "--limit", "2"])), all[..2]);
    let listed = rows(&env, &["list", "--where", "code=INVALID_JOB", "--where", "merchant=m_1", "po_3"]);
    assert_eq!(payouts(&listed), ["po_3"]);
    assert_eq!(
        (&listed[0]["kind"], &listed[0]["code"], &listed[0]["currency"]),
        (&json!("create"), &json!("INVALID_JOB"), &json!("EUR"))
    );
    assert_eq!(listed[0]["reason"].as_str().unwrap().split(':').next(), Some("amount.minor_amount"));
    assert_eq!(status(&env, &["list", "--where", "code=NOT_FOUND"]), 4);
    let id = listed[0]["id"].as_str().unwrap();
    let shown = rows(&env, &["show", id]);
    assert_eq!(shown[0]["body"]["merchant_payout_id"], "po_3");
    assert_eq!(shown[0]["body"]["amount"]["minor_amount"], 0);
    assert_eq!(shown[0]["body"]["customer"]["name"], "[REDACTED]");
    assert_eq!(shown[0]["headers"]["x-private"], "[REDACTED]");
    assert_ne!(shown[0]["headers"]["x-delivery-count"], "[REDACTED]");
    // then no secret is printed in any form,
    for form in ["text", "json", "jsonl"] {
        for command in ["list", "show"] {
            let printed = text(&env.run(&["--output", form, "dead-letters", command]));
            assert!(printed.contains("po_4"), "{printed}");
            for canary in CANARIES {
                assert!(!printed.contains(canary), "{printed}");
            }
        }
    }
    // and all dead letters are still in the queue, in their order.
    for id in all {
        assert_eq!(env.dead_letter().await.json()["merchant_payout_id"], id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_corrected_and_published_again() {
    // Given fifty rejected jobs, and one for another reason,
    let env = TestEnv::new().await;
    rejected(
        &env,
        (0..50)
            .map(|number| bad(&format!("po_{number}")))
            .chain([bad("po_50").with("description", json!(1))]),
    )
    .await;
    let patch = env.folder.join("patch.json");
    std::fs::write(&patch, r#"{"amount": {"minor_amount": 990}, "webhook_url": null}"#).unwrap();
    let patch = patch.to_str().unwrap();
    let requeue = |more: &[&str]| {
        let arguments =
            ["--output", "json", "dead-letters", "requeue", "--reason", "amount was 0", "--actor", "ada"];
        env.run(&[&arguments[..], &["--where", "code=INVALID_JOB"], more].concat())
    };
    // then nothing happens without a correction, or without a confirmation,
    assert_eq!(requeue(&["--yes"]).status.code(), Some(5));
    let asked = requeue(&["--patch", patch]);
    assert_eq!(asked.status.code(), Some(5));
    assert!(
        text(&asked).contains("50 of 51 letters would be requeued; 1 would be refused and stay"),
        "{}",
        text(&asked)
    );
    assert_eq!(rows(&env, &["list"]).len(), 51);
    assert!(actions(&env).await.is_empty());
    // but with both,
    let worker = env.start_worker().await;
    let output = requeue(&["--patch", patch, "--yes"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let reports: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(reports.iter().filter(|report| report["outcome"] == "requeued").count(), 50);
    let refused = reports.iter().find(|report| report["outcome"] == "refused").unwrap();
    assert!(refused["reason"].as_str().unwrap().contains("description"), "{refused}");
    for number in 0..50 {
        let results = env.wait_for_results(&format!("po_{number}"), 2).await;
        assert_eq!(results[1].kind(), "payout_link.created");
    }
    let shown = env.wait_until_delivered("po_7").await;
    assert_eq!(shown["amount_minor"], 990);
    // and the timeline of the record has the requeue of its letter,
    let requeues = shown["operator_actions"].as_array().unwrap();
    assert_eq!((requeues.len(), &requeues[0]["command"]), (1, &json!("dead-letters requeue")), "{shown}");
    // and the one that no patch corrects is left, and each action is recorded with its reason.
    assert_eq!(payouts(&rows(&env, &["list"])), ["po_50"]);
    let actions = actions(&env).await;
    assert_eq!(actions.len(), 50);
    assert_eq!(actions[0], ("dead-letters requeue".into(), "ada".into(), "amount was 0".into()));
    assert!(worker.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_returns_to_the_queue_of_its_kind_and_says_who_did_it() {
    // Given a dead letter of each kind, of which two messages about a link are equal,
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    env.publish(bad("po_1")).await;
    env.result_of("po_1").await;
    for kind in ["cancel", "status"] {
        let message = job("po_2").raw(br#"{"merchant_payout_id": "po_2"}"#).message_id(kind);
        env.publish_to(kind, message).await;
        env.answer_to(kind).await;
    }
    assert!(worker.stop().await.success());
    let kinds: Vec<Value> = rows(&env, &["list"]).iter().map(|row| row["kind"].clone()).collect();
    assert_eq!(kinds, ["create", "cancel", "status"]);
    // when all are published again,
    let requeue = ["requeue", "--all", "--yes", "--force", "--reason", "test", "--actor", "ada"];
    assert_eq!(status(&env, &requeue), 0);
    // then each is in its own queue, unchanged, with the operator's name.
    let names = &env.names;
    for (queue, message_id) in [
        (names.jobs_queue.as_str(), "message-po_1"),
        (&*names.cancel_queue(), "cancel"),
        (&*names.status_queue(), "status"),
    ] {
        let again = env.take(queue).await.unwrap();
        assert_eq!(again.id(), message_id);
        assert_eq!(again.header("x-requeued-by").as_deref(), Some("ada"));
        assert_eq!(again.header("x-requeued-count").as_deref(), Some("1"));
        assert!(again.header("x-requeued-at").is_some() && again.header("x-rejected-at").is_some());
        assert!(again.header("x-rejected-code").is_none());
        if message_id == "message-po_1" {
            assert_eq!(again.body, bad("po_1").body);
            assert_eq!(again.header("x-private").as_deref(), Some("canary-name"));
        }
    }
    assert!(rows_or_none(&env).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn originals_are_exported_to_a_file_of_the_owner_alone_and_deleted() {
    let env = TestEnv::new().await;
    rejected(&env, [bad("po_1"), bad("po_2")]).await;
    let file = env.folder.join("letters.jsonl");
    let to = file.to_str().unwrap();
    let export = ["dead-letters", "export", "--to", to, "--reason", "ticket 7"];
    // When letters are exported,
    let output = env.run(&export);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("with their secrets"), "{}", text(&output));
    // then the file has the unchanged messages, only its owner may read it, and another export does not replace it.
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let lines = std::fs::read_to_string(&file).unwrap();
    let exported: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(exported.len(), 2);
    assert_eq!(exported[0]["body"].as_str().unwrap().as_bytes(), bad("po_1").body);
    assert_eq!(exported[0]["headers"]["x-private"], "canary-name");
    assert_eq!(env.run(&export).status.code(), Some(1));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), lines);
    // When one is deleted,
    assert_eq!(status(&env, &["delete", "po_1", "--reason", "test"]), 5);
    assert_eq!(status(&env, &["delete", "--yes", "--reason", "test"]), 2);
    assert_eq!(status(&env, &["delete", "po_1", "--yes", "--reason", "ticket 8"]), 0);
    assert_eq!(status(&env, &["delete", "po_1", "--yes", "--reason", "ticket 8"]), 4);
    // then the other one is left, and the database has the action and the operator.
    assert_eq!(payouts(&rows(&env, &["list"])), ["po_2"]);
    let actions = actions(&env).await;
    let acts: Vec<(&str, &str)> =
        actions.iter().map(|(command, _, reason)| (command.as_str(), reason.as_str())).collect();
    assert!(acts.contains(&("dead-letters export", "ticket 7")), "{acts:?}");
    assert_eq!(acts.last(), Some(&("dead-letters delete", "ticket 8")));
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_nobody_received_are_published_once_a_queue_is_bound() {
    // Given results for which no queue was bound,
    let env = Setup::default().without_listener().build().await;
    let worker = env.start_worker().await;
    for id in ["po_1", "po_2"] {
        env.publish(job(id)).await;
        env.wait_until_delivered(id).await;
    }
    assert!(worker.stop().await.success());
    let listed = rows(&env, &["list", "--queue", "results"]);
    assert_eq!(payouts(&listed), ["po_1", "po_2"]);
    assert_eq!(listed[0]["kind"], "payout_link.created");
    let shown = text(&env.run(&["dead-letters", "show", "--queue", "results"]));
    assert!(shown.contains("[REDACTED]") && !shown.contains("http"), "{shown}");
    // then they stay while no queue is bound,
    let requeue = ["requeue", "--queue", "results", "--all", "--yes", "--reason", "queue bound"];
    assert_eq!(status(&env, &requeue), 5);
    assert_eq!(rows(&env, &["list", "--queue", "results"]).len(), 2);
    // and are published with their ids once a queue is bound.
    let (queue, received) = env.reply_queue().await;
    env.bind_to_results(&queue).await;
    assert_eq!(status(&env, &requeue), 0);
    let received: Vec<ReceivedMessage> = eventually("the results", async || {
        let received = received.lock().unwrap().clone();
        (received.len() == 2).then_some(received)
    })
    .await;
    let ids: Vec<String> = received.iter().map(ReceivedMessage::id).collect();
    assert_eq!(ids, [listed[0]["message_id"].as_str().unwrap(), listed[1]["message_id"].as_str().unwrap()]);
    assert_eq!(status(&env, &["list", "--queue", "results"]), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_whose_letters_could_be_deleted_by_looking_is_not_looked_at() {
    let mut env = TestEnv::new().await;
    env.set("broker.letter_delivery_limit", 0);
    rejected(&env, [bad("po_1")]).await;
    let refused = env.run(&["dead-letters", "list"]);
    assert_eq!(refused.status.code(), Some(5));
    assert!(text(&refused).contains("--delivery-limit-is-set"), "{}", text(&refused));
    assert_eq!(payouts(&rows(&env, &["list", "--delivery-limit-is-set"])), ["po_1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_is_previewed_on_a_letter_with_its_secrets_masked() {
    // Given a rejected job with secrets,
    let env = TestEnv::new().await;
    rejected(&env, [bad("po_1")]).await;
    let patch = env.folder.join("patch.json");
    let correction = r#"{"amount": {"minor_amount": 990}, "customer": {"name": "canary-name"}}"#;
    std::fs::write(&patch, correction).unwrap();
    // when it would be corrected, then the preview has it before and after, without a secret,
    let requeue = ["dead-letters", "requeue", "po_1", "--reason", "amount was 0", "--patch"];
    let asked = env.run(&[&requeue[..], &[patch.to_str().unwrap()]].concat());
    assert_eq!(asked.status.code(), Some(5), "{}", text(&asked));
    let said = text(&asked);
    let (before, after) = said.split_once("after the correction").unwrap();
    assert!(before.contains(r#""minor_amount": 0"#) && !before.contains("990"), "{said}");
    assert!(after.contains(r#""minor_amount": 990"#) && after.contains("[REDACTED]"), "{said}");
    for canary in CANARIES {
        assert!(!said.contains(canary), "{said}");
    }
    assert!(said.contains("1 letter would be requeued"), "{said}");
    // It is counted by its code.
    let counts = rows(&env, &["list", "--count"]);
    assert_eq!(counts, [json!({ "code": "INVALID_JOB", "count": 1 })]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_that_makes_one_payout_of_two_is_refused() {
    // Given two rejected jobs and a record,
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    env.publish(job("po_3").merchant("m_1")).await;
    env.wait_until_delivered("po_3").await;
    assert!(worker.stop().await.success());
    rejected(&env, [bad("po_1"), bad("po_2")]).await;
    let patched = |id: &str| {
        let patch = env.folder.join(format!("{id}.json"));
        let correction =
            json!({ "amount": { "minor_amount": 990 }, "merchantPayoutId": null, "merchant_payout_id": id });
        std::fs::write(&patch, correction.to_string()).unwrap();
        patch.to_str().unwrap().to_owned()
    };
    let requeue =
        |more: &[&str]| env.run(&[&["dead-letters", "requeue", "--reason", "wrong"][..], more].concat());
    // when a patch gives both the same identifier, or one that of the record, then nothing is published, with or without
    // a preview,
    let same = patched("po_9");
    for confirmation in [&["--yes"][..], &[]] {
        let refused = requeue(&[&["--all", "--patch", &same], confirmation].concat());
        assert_eq!(refused.status.code(), Some(5), "{}", text(&refused));
        assert!(text(&refused).contains("would make one payout of them"), "{}", text(&refused));
    }
    let refused = requeue(&["po_1", "--patch", &patched("po_3"), "--yes"]);
    assert_eq!(refused.status.code(), Some(5), "{}", text(&refused));
    assert!(text(&refused).contains("a record has them already"), "{}", text(&refused));
    assert_eq!(payouts(&rows(&env, &["list"])), ["po_1", "po_2"]);
    assert!(actions(&env).await.is_empty());
    // but one letter gets a new identifier.
    let requeued = requeue(&["po_1", "--patch", &same, "--yes"]);
    assert_eq!(requeued.status.code(), Some(0), "{}", text(&requeued));
    let _worker = env.start_worker().await;
    assert_eq!(env.result_of("po_9").await.kind(), "payout_link.created");
}
