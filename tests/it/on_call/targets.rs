//! Tests that commands name what they are about: database, broker, hosts, and where a payout without a record is.

use serde_json::Value;

use super::{lines, said};
use crate::support::{TestEnv, eventually, job};

#[tokio::test(flavor = "multi_thread")]
async fn check_and_status_name_the_database_and_the_broker() {
    // Given a deployment,
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    let connected = env.pool.connect_options();
    let (host, port) = (connected.get_host(), connected.get_port());
    let database = format!("{host}:{port}/{}", connected.get_database().unwrap());
    // then both commands name its database and its broker, and no password.
    for command in ["check", "status"] {
        let output = said(&env.run(&[command]));
        assert!(output.contains(&database) && output.contains(", vhost "), "{output}");
        assert!(!output.contains("://") || command == "check", "{output}");
        assert!(!output.contains("replaces the URL of the file"), "{output}");
    }
    // When the environment names another database than the file, then they say so.
    assert!(worker.stop().await.success());
    let other = std::env::var("DATABASE_URL").unwrap();
    let mut check = env.command(&["check", "--output", "jsonl"]);
    let checked = lines(&check.env("DATABASE_URL", &other).output().unwrap());
    let tested = checked.iter().find(|tested| tested["what"] == "database").unwrap();
    let target = tested["target"].as_str().unwrap();
    assert!(target.ends_with("(from the environment, which replaces the URL of the file)"), "{target}");
    assert!(!target.starts_with(&database), "{target}");
    // One without the tables is recognized as such.
    let mut status = env.command(&["status", "--without-broker"]);
    let status = status.env("DATABASE_URL", &other).output().unwrap();
    assert_eq!(status.status.code(), Some(1));
    assert!(said(&status).contains("or this is another database than the workers use"), "{}", said(&status));
    assert!(said(&status).contains(target.split(' ').next().unwrap()), "{}", said(&status));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_has_one_form_in_all_commands() {
    // Given a webhook that fails, at a host with a port,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    env.publish(job("po_1").with("webhook_url", "http://127.0.0.1:1/hook".into())).await;
    let text = eventually("a failing host", async || {
        let status = lines(&env.run(&["status", "--output", "jsonl", "--without-broker"])).remove(0);
        let findings = status["findings"].as_array().unwrap().clone();
        let failing = findings.into_iter().find(|finding: &Value| finding["name"] == "failing_host")?;
        Some(failing["text"].as_str().unwrap().to_owned())
    })
    .await;
    // then `status` has the form that `webhooks` takes,
    assert!(text.starts_with("webhooks to 127.0.0.1 fail"), "{text}");
    let shown = env.run(&["webhooks", "show", "127.0.0.1"]);
    assert!(shown.status.success() && said(&shown).contains("po_1"), "{}", said(&shown));
    // and one with a port is answered with that form.
    let redeliver = ["webhooks", "redeliver", "--host", "127.0.0.1:1", "--reason", "fixed"];
    for (arguments, status) in [(&["webhooks", "show", "127.0.0.1:1"][..], 4), (&redeliver, 2)] {
        let output = env.run(arguments);
        assert_eq!(output.status.code(), Some(status), "{}", said(&output));
        let hint = "a host has no port here: ";
        let (_, hinted) = said(&output).split_once(hint).map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        assert!(hinted.contains("127.0.0.1") && !hinted.contains("127.0.0.1:1"), "{hinted}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_payout_is_pointed_at() {
    // Given a rejected job,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    env.publish(job("po_1").amount(0)).await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.rejected");
    // when commands about records do not find it, then they name the command that does.
    for command in [&["show", "po_1"][..], &["erase", "po_1", "--reason", "request"]] {
        let output = env.run(command);
        assert_eq!(output.status.code(), Some(4));
        let hint = "`dead-letters list --where payout=po_1` finds it";
        assert!(said(&output).contains(hint), "{}", said(&output));
    }
    let found = env.run(&["dead-letters", "list", "--where", "payout=po_1"]);
    assert!(found.status.success(), "{}", said(&found));
    // An id that would need quotes is not repeated in a command.
    let output = said(&env.run(&["show", "po 1; rm"]));
    assert!(output.contains("`dead-letters list` finds it"), "{output}");
}
