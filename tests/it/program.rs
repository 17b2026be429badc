//! Tests the command line and the configuration, and their errors.

use std::os::unix::fs::MetadataExt;

use std::process::Output;

use crate::support::{Setup, TOKEN, TestEnv, WEBHOOK_SECRET, eventually, job};
use provider_simulators::sandbox::{Fault, FaultRule, LinkChange, LinkStatus as Status};

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn check_reports_which_services_can_be_reached() {
    let env = TestEnv::new().await;
    let output = env.run(&["check"]);
    assert!(output.status.success(), "{}", said(&output));
    for what in ["configuration", "broker", "database", "connector sandbox"] {
        assert!(said(&output).contains(&format!("ok      {what}")), "{what}: {}", said(&output));
    }
    let env = Setup::default().set("connectors.mute.url", "http://127.0.0.1:1").build().await;
    let output = env.run(&["check"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("failed  connector mute"), "{}", said(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_stops_the_start_and_is_reported_without_being_shown() {
    let mut env = TestEnv::new().await;
    let url = std::env::var("AMQP_URL").unwrap().replace("guest:guest", "guest:canary-password");
    env.set("broker.url", &url);
    let mut worker = env.launch_worker(&[]);
    assert_eq!(worker.exited().await.code(), Some(1));
    assert!(worker.log().contains("ACCESS_REFUSED"), "{}", worker.log());
    assert!(!worker.log().contains("canary"), "{}", worker.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_there_stops_the_start_and_one_that_is_away_does_not() {
    let mut env = TestEnv::new().await;
    let url = std::env::var("DATABASE_URL").unwrap();
    let (server, _) = url.rsplit_once('/').unwrap();
    let missing = [("PAYOUT_LINK__DATABASE__URL", format!("{server}/there_is_no_such_database"))];
    let mut worker = env.launch_worker(&missing);
    assert_eq!(worker.exited().await.code(), Some(1));
    assert!(worker.log().contains("there_is_no_such_database"), "{}", worker.log());

    env.set("database.url", "postgres://worker:canary@127.0.0.1:1/payout_links");
    let worker = env.launch_worker(&[]);
    worker.says("database unavailable at start, will retry").await;
    assert!(!worker.log().contains("canary"), "{}", worker.log());
    assert!(worker.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_names_every_setting_that_is_wrong() {
    let mut env = TestEnv::new().await;
    env.set("broker.prefetsh", 5);
    env.set("worker.lease_seconds", "soon");
    env.set("retry.max_attempts", "many");
    let output = env.run(&["check"]);
    assert_eq!(output.status.code(), Some(2));
    for setting in ["prefetsh", "worker", "retry"] {
        assert!(said(&output).contains(setting), "{setting}: {}", said(&output));
    }
    assert!(!said(&output).contains(TOKEN));
}

/// Every value is a canary: neither a section nor an error about it may show a value.
#[tokio::test(flavor = "multi_thread")]
async fn config_lists_the_given_settings_without_their_values() {
    let mut env = TestEnv::new().await;
    let secret = env.folder.join("secret");
    std::fs::write(&secret, "postgres://canary:canary@127.0.0.1/canary").unwrap();
    env.set("database.url_file", secret.display());
    env.set("broker.url", "amqps://canary:canary@canary/");
    env.set("webhooks.merchant_secrets.m_1", "[\"whsec_canary\"]");
    let output = env.run(&["config"]);
    // One setting is wrong and is reported. The given settings are reported too, because that may explain the error.
    assert_eq!(output.status.code(), Some(2));
    let said = said(&output);
    let place = |setting: &str| {
        let line = said.lines().find(|line| line.starts_with(setting));
        line.unwrap_or_else(|| panic!("{setting}: {said}")).split_once(' ').unwrap().1.trim().to_owned()
    };
    assert_eq!(place("database.url"), "a file named in the environment");
    assert_eq!(place("broker.url"), "the environment");
    assert_eq!(place("connectors.sandbox.token"), "the file");
    assert_eq!(place("webhooks.merchant_secrets.m_1"), "the environment");
    assert!(said.contains("webhooks.merchant_secrets.\"m_1\"[0]"), "{said}");
    assert!(!said.contains("canary") && !said.contains(WEBHOOK_SECRET), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_with_other_arguments_is_named_and_left_alone() {
    let env = TestEnv::new().await;
    env.start_worker().await.stop().await;
    env.publish(job("po_1")).await;
    // Both limits are arguments of their queues.
    for (setting, queue) in [
        ("PAYOUT_LINK__BROKER__DELIVERY_LIMIT", &env.names.jobs_queue),
        ("PAYOUT_LINK__BROKER__LETTER_DELIVERY_LIMIT", &env.names.dead_queue),
    ] {
        let mut worker = env.launch_worker(&[(setting, "19".into())]);
        assert_eq!(worker.exited().await.code(), Some(1));
        assert!(worker.log().contains(queue.as_str()), "{}", worker.log());
        assert!(worker.log().contains("x-delivery-limit"), "{}", worker.log());
    }
    eventually("the job is still there", async || {
        (env.ready(&env.names.jobs_queue).await == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn submit_publishes_jobs_and_prints_their_results() {
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    let file = env.folder.join("jobs.jsonl");
    let jobs = [job("po_1"), job("po_2")].map(|job| String::from_utf8(job.body).unwrap()).join("\n");
    std::fs::write(&file, jobs).unwrap();
    let output = env.run(&["submit", "--wait", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
    for id in ["po_1", "po_2"] {
        assert!(said(&output).contains(id), "{}", said(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn show_has_no_secret() {
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    env.wait_until_delivered("po_1").await;
    let url = env.provider.ledger().links[0].url.clone();
    // Each of its ids finds it.
    let json = env.run(&["show", "--json", "po_1"]);
    let record: serde_json::Value = serde_json::from_str(said(&json).trim()).unwrap();
    for id in [&record["id"], &record["event"]["id"], &record["connector_payout_id"]] {
        let output = env.run(&["show", id.as_str().unwrap()]);
        assert!(output.status.success() && said(&output).contains("po_1"), "{id}: {}", said(&output));
    }
    for arguments in [&["show", "po_1"][..], &["show", "--json", "po_1"]] {
        let output = env.run(arguments);
        assert!(output.status.success());
        assert!(said(&output).contains("po_1"));
        assert!(
            !said(&output).contains(&url) && !said(&output).contains("ada@example.com"),
            "{}",
            said(&output)
        );
    }
    assert_eq!(env.run(&["show", "po_9"]).status.code(), Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_cancels_a_link_and_its_merchant_gets_a_webhook() {
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    env.result_of("po_1").await;
    // Without a worker to carry it out, the command says so, and the request stays.
    assert!(worker.stop().await.success());
    let output = env.run(&["cancel", "--reason", "wrong amount", "--timeout-seconds", "0", "po_1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("no worker has carried it out yet"), "{}", said(&output));
    assert!(!said(&output).contains("The last act on it"), "{}", said(&output));
    // The report to a second operator names the first act, and no second request is stored.
    let second = ["cancel", "--actor", "ben", "--reason", "twice", "--timeout-seconds", "0", "po_1"];
    let output = env.run(&second);
    let first = "The last act on it was `cancel` by ";
    assert!(said(&output).contains(first) && said(&output).contains(": wrong amount"), "{}", said(&output));
    let acts = "SELECT count(*) FROM operator_actions WHERE command = 'cancel'";
    assert_eq!(sqlx::query_scalar::<_, i64>(acts).fetch_one(&env.pool).await.unwrap(), 1);
    // When a worker runs again, then the link is cancelled, and the result and the webhook say so.
    let _worker = env.start_worker().await;
    let output = env.run(&["cancel", "--reason", "wrong amount", "po_1"]);
    assert!(
        output.status.success() && said(&output).contains("is cancelled at sandbox"),
        "{}",
        said(&output)
    );
    let results = env.wait_for_results("po_1", 2).await;
    assert_eq!(results[1].kind(), "payout_link.cancelled");
    assert_eq!(results[1].json()["payout_status"], "CANCELLED");
    let webhooks = env.webhooks(2).await;
    assert_eq!(webhooks[1].event_type.as_deref(), Some("payout_link.cancelled"));
    let link = &env.provider.ledger().links[0].id;
    assert_eq!(env.provider.history(link).last().map(|change| change.status), Some(Status::Cancelled));
    // A second request finds it done, and no request is left in the record.
    assert!(env.run(&["cancel", "--reason", "wrong amount", "po_1"]).status.success());
    let left = "SELECT count(*) FROM payout_links WHERE cancel_requested_at IS NOT NULL";
    assert_eq!(sqlx::query_scalar::<_, i64>(left).fetch_one(&env.pool).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_says_why_a_link_cannot_be_cancelled() {
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    // Given a link that was claimed, and a payout without a link,
    env.publish(job("po_1")).await;
    let id = env.result_of("po_1").await.json()["connector_payout_id"].as_str().unwrap().to_owned();
    env.provider.change(&id, LinkChange::Claim).unwrap();
    env.provider.inject_fault(Fault::status(422));
    env.publish(job("refused")).await;
    env.result_of("refused").await;
    // then neither is cancelled, each for its own reason.
    for (payout, reason) in [
        ("po_1", "the link is claimed: it cannot be cancelled"),
        ("refused", "the record is failed: it has no link to cancel"),
    ] {
        let output = env.run(&["cancel", "--reason", "wrong amount", payout]);
        assert_eq!(output.status.code(), Some(5));
        assert!(said(&output).contains(reason), "{}", said(&output));
    }
    let history: Vec<Status> = env.provider.history(&id).iter().map(|change| change.status).collect();
    assert!(!history.contains(&Status::Cancelled), "{history:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_asks_the_provider_itself_where_no_worker_follows_links() {
    let env = Setup::default().set("connectors.sandbox.follow.enabled", false).build().await;
    let _worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    let id = env.result_of("po_1").await.json()["connector_payout_id"].as_str().unwrap().to_owned();
    let output = env.run(&["cancel", "--reason", "wrong amount", "po_1"]);
    assert!(
        output.status.success() && said(&output).contains("no result or webhook is sent"),
        "{}",
        said(&output)
    );
    assert_eq!(env.provider.history(&id).last().map(|change| change.status), Some(Status::Cancelled));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_workers_may_start_on_an_empty_database() {
    let env = TestEnv::new().await;
    let workers = [env.launch_worker(&[]), env.launch_worker(&[]), env.launch_worker(&[])];
    for worker in &workers {
        worker.says("connected to RabbitMQ, consuming").await;
    }
    assert!(env.run(&["migrate"]).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_follows_what_the_worker_needs() {
    let env = TestEnv::new().await;
    let worker = env.launch_worker(&[]);
    eventually("ready", async || (worker.readiness().await.0 == 200).then_some(())).await;
}

/// Checks that no secret is in the clear in the database, the logs or the metrics.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_nowhere_in_the_clear() {
    use serde_json::json;
    let env = TestEnv::new().await;
    let worker = env.launch_worker(&[("PAYOUT_LINK__LOG__FILTER", "trace".into())]);
    worker.says("connected to RabbitMQ, consuming").await;
    let health = worker.health_url().await;
    let secret = |id: &str| {
        job(id)
            .with("webhook_url", env.webhook_url())
            .with("customer", json!({ "name": "Ada", "email": "canary-email@example.com", "phone_number": "canary-phone" }))
            .with("payout_method_data", json!({ "card": {
                "card_number": "canary-4242", "card_exp_month": "canary-12", "card_exp_year": "canary-2030" } }))
            .with("connector_feature_data", json!("{\"canary-key\":\"canary-value\"}"))
            .with("address", json!({ "billing_address": { "line1": "canary-line1", "first_name": "canary-first" } }))
    };
    // Created, declined with the secret repeated by the provider, unknown, retried, and a conflict.
    env.publish(secret("created")).await;
    env.result_of("created").await;
    let body = r#"{"error":{"code":"bad","message":"no such mailbox canary-email@example.com"}}"#;
    let refusal = Fault::Status { code: 422.try_into().unwrap(), retry_after: None, body: Some(body.into()) };
    env.provider.inject_fault(refusal);
    env.publish(secret("refused")).await;
    let refused = env.result_of("refused").await;
    assert!(!String::from_utf8_lossy(&refused.body).contains("canary"), "{}", refused.json());
    env.provider.inject_fault(FaultRule::new(Fault::Reset).after_the_work());
    env.publish(secret("doubtful")).await;
    env.publish(secret("unauthorised").with("access_token", json!("canary-token"))).await;
    env.publish(secret("created").amount(1)).await;
    // Rejected by validation, and a merchant that repeats the webhook's body.
    env.publish(secret("invalid").amount(0)).await;
    env.result_of("invalid").await;
    // (each of the others has had its attempt when that merchant's turn comes)
    for id in ["created", "refused", "doubtful", "unauthorised"] {
        env.wait_until_delivered(id).await;
    }
    let body = "canary-4242 canary-email@example.com".into();
    env.merchant.inject_fault(Fault::Status {
        code: 500.try_into().unwrap(),
        retry_after: None,
        body: Some(body),
    });
    env.publish(secret("unheard")).await;
    env.wait_until_delivered("unheard").await;
    env.wait_for_results("created", 2).await;
    env.webhooks(6).await;

    let links: Vec<String> = env.provider.ledger().links.iter().map(|link| link.url.clone()).collect();
    let (dump, pg_dump, log) = (env.dump().await, env.pg_dump(), worker.log());
    let shown: String = ["created", "refused", "doubtful", "unauthorised", "unheard"]
        .iter()
        .map(|id| String::from_utf8(env.run(&["show", id]).stdout).unwrap())
        .collect();
    let fetch = async |path| reqwest::get(format!("{health}/{path}")).await.unwrap().text().await.unwrap();
    let (ready, metrics) = (fetch("health/ready").await, fetch("metrics").await);
    assert!(log.contains("created") && dump.contains("payout_links") && shown.contains("created"));
    assert!(metrics.contains(r#"rejected_total{code="INVALID_JOB"} 1"#), "{metrics}");
    for text in [&dump, &pg_dump, &log, &shown, &ready, &metrics] {
        let line =
            text.lines().find(|line| line.contains("canary") || links.iter().any(|url| line.contains(url)));
        assert_eq!(line, None);
    }
    // Metrics have nothing of a single payout, or of a webhook's URL.
    let made = env.provider.ledger().links.into_iter().map(|link| link.id);
    let ids = ["doubtful", "unauthorised", "invalid", "unheard"].map(str::to_owned).into_iter().chain(made);
    for word in ids.chain(["m_1", "127.0.0.1", "http", "EUR", "@"].map(str::to_owned)) {
        assert!(!metrics.contains(&word), "{word}: {metrics}");
    }
}

/// Runs the worker as a container would: another user, a read-only file system, no capabilities.
#[tokio::test(flavor = "multi_thread")]
async fn it_runs_as_another_user_on_a_read_only_file_system() {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    let made = std::process::Command::new("unshare").args(["--mount", "true"]).output();
    if !is_root || !made.is_ok_and(|made| made.status.success()) {
        eprintln!("not tested: only root can mount a read-only file system here");
        return;
    }
    let env = TestEnv::new().await;
    // If another user cannot read the folders above the program, it is copied to a folder that it can.
    let program = env.folder.join("payout-link-worker");
    std::fs::copy(env!("CARGO_BIN_EXE_payout-link-worker"), &program).unwrap();
    let confined = "mount --make-rprivate / && for at in $(findmnt --real --noheadings --list --output TARGET); do \
        mount -o remount,bind,ro \"$at\" || exit 9; done; \
        exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs --bounding-set=-all \
        sh -c '! touch \"$(dirname \"$0\")/written\" 2>/dev/null || exit 8; exec \"$0\" \"$@\"' \"$0\" \"$@\"";
    let worker = env.launch_from(&["unshare", "--mount", "sh"], confined, &program);
    worker.says("connected to RabbitMQ, consuming").await;
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    env.webhooks(1).await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
    assert!(worker.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_has_as_many_open_files_as_it_may_and_says_where_that_is_little() {
    // Given a shell that limits open files, but allows more,
    let env = TestEnv::new().await;
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_payout-link-worker"));
    let limited = "ulimit -n 500 && ulimit -Sn 100 && exec \"$0\" \"$@\"";
    // when a worker starts there whose calls could need a thousand,
    let worker = env.launch_from(&["sh"], limited, program);
    worker.says("connected to RabbitMQ, consuming").await;
    // then it raises its limit as far as allowed, and warns that this is not enough.
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", worker.id())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["500", "500"]);
    assert!(worker.log().contains("may want more open files"), "{}", worker.log());
    assert!(worker.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_cancel_does_not_name_itself() {
    // Given a link that is claimed, and whose claim the worker has not seen,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    env.result_of("po_1").await;
    let link = env.provider.ledger().links[0].id.clone();
    env.provider.change(&link, LinkChange::Claim).unwrap();
    // when an operator cancels it, then it is refused, and the text has no act of that operator;
    let refused = env.run(&["cancel", "--reason", "wrong amount", "po_1"]);
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    assert!(said(&refused).contains("it cannot be cancelled"), "{}", said(&refused));
    assert!(!said(&refused).contains("The last act on it"), "{}", said(&refused));
}
