//! Tests `verify-history` with the history of a real run: unchanged it has no violation, and every change is found.

use std::path::PathBuf;

use payout_link_worker::cli::read_actions;
use serde_json::{Value, json};

use crate::support::{ReceivedMessage, TestEnv, job, store};

/// The history of a test environment, a file each, in the formats of docs/reference/history-checker.md.
struct Files {
    env: TestEnv,
    published: Vec<Value>,
    results: Vec<Value>,
    dead_letters: Vec<Value>,
    webhooks: Vec<Value>,
    ledger: Vec<Value>,
    secrets: &'static str,
}

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.env.folder.join(name)
    }

    /// Returns its exit status and its output.
    fn verify(&self) -> (Option<i32>, String) {
        let files = [
            ("published", &self.published),
            ("results", &self.results),
            ("dead-letters", &self.dead_letters),
            ("webhooks", &self.webhooks),
            ("ledger", &self.ledger),
        ];
        let mut arguments = vec!["verify-history".to_owned()];
        for (name, lines) in files {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            std::fs::write(self.path(name), text).unwrap();
            arguments.extend([format!("--{name}"), self.path(name).display().to_string()]);
        }
        std::fs::write(self.path("secrets"), self.secrets).unwrap();
        arguments.extend(["--secrets".into(), self.path("secrets").display().to_string()]);
        arguments.extend(["--log".into(), self.path("worker-1.log").display().to_string()]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = self.env.run(&arguments);
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    }

    fn assert_caught(&self, rule: &str) {
        let (status, said) = self.verify();
        assert_eq!(status, Some(1), "{said}");
        assert!(said.lines().any(|line| line.starts_with(&format!("{rule}: "))), "{rule}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_is_verified() {
    // Given a run with a link, a decline by the connector, a conflict and an invalid job,
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    let webhook = |id: &str| job(id).with("webhook_url", env.webhook_url()).message_id(id);
    env.publish(webhook("po_1")).await;
    env.wait_until_delivered("po_1").await;
    env.provider.inject_fault(provider_simulators::sandbox::Fault::status(422));
    env.publish(webhook("po_2")).await;
    env.wait_until_delivered("po_2").await;
    env.publish(webhook("po_1").amount(99).message_id("conflict")).await;
    env.publish(job("po_3").amount(0).message_id("invalid")).await;
    let dead: Vec<ReceivedMessage> = [env.dead_letter().await, env.dead_letter().await].into();
    env.wait_for_results("po_1", 2).await;
    // The link is cancelled, so its record has a later event.
    assert!(env.run(&["cancel", "po_1", "--reason", "test"]).status.success());
    env.wait_for_results("po_1", 3).await;
    env.webhooks(3).await;
    env.result_of("po_3").await;
    assert!(worker.stop().await.success());

    let published = |message_id: &str, id: &str, amount: i64| {
        json!({ "message_id": message_id, "merchant_payout_id": id, "webhook": message_id == id,
            "amount": { "minor_amount": amount, "currency": "EUR" }, "valid": message_id != "invalid",
            "late": message_id == "conflict" })
    };
    let lines = |received: Vec<ReceivedMessage>| {
        let line = |received: &ReceivedMessage| {
            json!({ "message_id": received.id(), "type": received.kind(), "correlation_id": received.correlation_id(),
                "body": String::from_utf8(received.body.clone()).unwrap(), "queue": "results",
                "replayed": received.header("x-replayed").is_some(),
                "timestamp": received.properties.timestamp() })
        };
        received.iter().map(line).collect::<Vec<Value>>()
    };
    let ledger = reqwest::get(format!("{}/ledger", env.provider.url())).await.unwrap().bytes().await.unwrap();
    let ledger: Value = serde_json::from_slice(&ledger).unwrap();
    let mut files = Files {
        published: vec![
            published("po_1", "po_1", 1250),
            published("po_2", "po_2", 1250),
            published("conflict", "po_1", 99),
            published("invalid", "po_3", 0),
        ],
        results: lines(env.results()),
        dead_letters: dead
            .iter()
            .map(|dead| {
                json!({ "message_id": dead.id(), "code": dead.header("x-rejected-code"),
                    "reason": dead.header("x-rejected-reason") })
            })
            .collect(),
        webhooks: env.merchant.received().iter().map(|one| serde_json::to_value(one).unwrap()).collect(),
        ledger: ledger["links"].as_array().unwrap().clone(),
        secrets: "canary-provider-token\nada@example.com\n",
        env,
    };
    // when the unchanged history is checked, then there is no violation;
    let (status, said) = files.verify();
    assert_eq!((status, said.contains("0 violations")), (Some(0), true), "{said}");
    assert!(said.contains("4 jobs, 2 records") && !said.contains("not checked"), "{said}");
    // when a job has no result, a link exists twice or has another id, or a result or a webhook is missing,
    let job = published("po_4", "po_4", 1250);
    files.published.push(job);
    files.assert_caught("R1");
    files.published.pop();
    let link = files.ledger[0].clone();
    files.ledger.push(link.clone());
    files.ledger[1]["id"] = "another".into();
    files.assert_caught("R2");
    files.ledger.pop();
    files.ledger[0]["id"] = "another".into();
    files.assert_caught("R3");
    files.ledger[0] = link;
    let result = files.results.remove(0);
    files.assert_caught("R6");
    files.results.insert(0, result);
    let webhook = files.webhooks.remove(0);
    files.assert_caught("R7");
    files.webhooks.insert(0, webhook);
    // or results arrived in another order,
    files.results.reverse();
    files.assert_caught("R25");
    files.results.reverse();
    // or those of a later event are missing, or its provider never had the status,
    let is_later = |line: &Value| line.to_string().contains("payout_link.cancelled");
    let place = files.results.iter().position(is_later).unwrap();
    let result = files.results.remove(place);
    files.assert_caught("R6");
    files.results.insert(place, result);
    let place = files.webhooks.iter().position(is_later).unwrap();
    let webhook = files.webhooks.remove(place);
    files.assert_caught("R7");
    files.webhooks.insert(place, webhook);
    let link = files.ledger[0].clone();
    files.ledger[0]["history"].as_array_mut().unwrap().pop();
    files.assert_caught("R21");
    files.ledger[0] = link;
    // or a dead letter is missing that is not past its retention,
    let letter = files.dead_letters.pop().unwrap();
    files.assert_caught("R1");
    let rejection = |line: &&mut Value| line["correlation_id"] == letter["message_id"];
    files.results.iter_mut().find(rejection).unwrap()["timestamp"] = 1.into();
    files.assert_caught("R1");
    let config = files.env.folder.join("worker.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let retention = "[retention]\ndead_letters_days = 30\n[jobs]";
    std::fs::write(&config, text.replace("[jobs]", retention)).unwrap();
    let (status, said) = files.verify();
    assert_eq!(status, Some(0), "{said}");
    std::fs::write(&config, text).unwrap();
    files.dead_letters.push(letter);
    // or a log contains a secret, then the violation is reported, without the secret.
    files.secrets = "connected to RabbitMQ, consuming\n";
    files.assert_caught("R11");
    assert!(!files.verify().1.contains("consuming"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requeued_letter_concludes_no_record_again() {
    // Given a record, and a dead letter of another request under its key,
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    env.wait_until_delivered("po_1").await;
    env.publish(job("po_1").amount(99).message_id("conflict")).await;
    env.wait_for_results("po_1", 2).await;
    assert!(worker.stop().await.success());
    // when an operator requeues the letter,
    let requeued = env.run(&["dead-letters", "requeue", "conflict", "--yes", "--reason", "audit"]);
    assert!(requeued.status.success(), "{}", String::from_utf8_lossy(&requeued.stderr));
    let recorded: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM operator_actions WHERE payout_link_id IS NOT NULL AND details->>'to' IS NOT NULL",
    )
    .fetch_one(&env.pool)
    .await
    .unwrap();
    assert_eq!(recorded, 1);
    // then the act is none after which the record is concluded again.
    let (actions, earlier) = read_actions(&store(env.pool.clone()), None).await.unwrap();
    assert!(actions.is_empty() && earlier.is_empty(), "{actions:?}, {earlier:?}");
}
