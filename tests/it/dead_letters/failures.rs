//! Tests kills, interrupts and second operators: no letter is lost, and none is published for ever.

use std::{net::SocketAddr, process::Stdio};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{actions, bad, rejected, rows, rows_or_none, status, text};
use crate::support::{TestEnv, eventually, until_a_statement_waits};

/// Starts a proxy for RabbitMQ that drops everything after the first `basic.ack`.
async fn without_acknowledgements(target: SocketAddr) -> (SocketAddr, watch::Receiver<bool>) {
    // A method frame of 13 bytes: class 60, method 80.
    const ACK: [u8; 8] = [0, 0, 0, 13, 0, 60, 0, 80];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (swallowed, seen) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(target).await.unwrap();
            let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                (client.into_split(), server.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            let swallowed = swallowed.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
                    if buffer[..length].windows(ACK.len()).any(|bytes| bytes == ACK) {
                        swallowed.send_replace(true);
                        std::future::pending::<()>().await;
                    }
                    to_server.write_all(&buffer[..length]).await.unwrap();
                }
            });
        }
    });
    (address, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_publication_and_removal_makes_a_duplicate_and_no_loss() {
    // Given a dead letter, and an operator's program that is killed after RabbitMQ confirmed the message,
    let env = TestEnv::new().await;
    let patch = env.folder.join("patch.json");
    std::fs::write(&patch, r#"{"amount": {"minor_amount": 990}, "webhook_url": null}"#).unwrap();
    rejected(&env, [bad("po_1")]).await;
    let url: url::Url = std::env::var("AMQP_URL").unwrap().parse().unwrap();
    let target = (url.host_str().unwrap(), url.port().unwrap());
    let target = tokio::net::lookup_host(target).await.unwrap().next().unwrap();
    let (address, mut seen) = without_acknowledgements(target).await;
    let mut through = url.clone();
    through.set_port(Some(address.port())).unwrap();
    through.set_host(Some("127.0.0.1")).unwrap();
    let requeue =
        ["dead-letters", "requeue", "po_1", "--yes", "--reason", "fixed", "--patch", patch.to_str().unwrap()];
    let mut killed = env
        .command(&requeue)
        .env("PAYOUT_LINK__BROKER__URL", through.as_str())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    tokio::time::timeout(crate::support::DEADLINE, seen.wait_for(|seen| *seen)).await.unwrap().unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    // then the dead letter is still there, and the job in its queue;
    let _worker = env.start_worker().await;
    let created = env.wait_for_results("po_1", 2).await.remove(1);
    assert_eq!(created.kind(), "payout_link.created");
    eventually("the letter", async || (env.ready(&env.names.dead_queue).await == 1).then_some(())).await;
    // and when it is published again, the worker answers it as a duplicate: there is one link.
    assert_eq!(env.run(&requeue).status.code(), Some(0));
    let replayed = env.wait_for_results("po_1", 3).await.remove(2);
    assert_eq!((replayed.kind().as_str(), replayed.id()), ("payout_link.created", created.id()));
    assert_eq!(replayed.header("x-replayed").as_deref(), Some("true"));
    assert_eq!(env.provider.ledger().links.len(), 1);
    assert!(rows_or_none(&env).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_operator_is_rejected_and_sees_the_first() {
    let env = TestEnv::new().await;
    rejected(&env, [bad("po_1"), bad("po_2")]).await;
    // Given an operator whose command is acting on dead letters,
    let mut first = env.pool.acquire().await.unwrap();
    let lock = "SELECT pg_try_advisory_lock(hashtextextended('operator acts: letters', 0))";
    assert!(sqlx::query_scalar::<_, bool>(lock).fetch_one(&mut *first).await.unwrap());
    let delete = |id, actor| {
        env.run(&["dead-letters", "delete", id, "--yes", "--reason", "made by mistake", "--actor", actor])
    };
    // then a second operator's command is rejected, and changes nothing.
    let refused = delete("po_1", "grace");
    assert_eq!(refused.status.code(), Some(5), "{}", text(&refused));
    assert_eq!(rows(&env, &["list"]).len(), 2);
    // When the first command has finished, the second one succeeds.
    drop(first.detach());
    eventually("the lock", async || delete("po_1", "ada").status.success().then_some(())).await;
    let second = delete("po_2", "grace");
    assert!(second.status.success());
    assert!(text(&second).contains("ada ran dead-letters delete: made by mistake"), "{}", text(&second));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_deletion_ends_between_two_letters_and_says_what_is_left() {
    let env = TestEnv::new().await;
    rejected(&env, [bad("po_1"), bad("po_2"), bad("po_3")]).await;
    // Given a deletion that has a second for each letter,
    let delete = ["dead-letters", "delete", "--all", "--yes", "--reason", "ticket 9"];
    let mut command = env.command(&delete);
    let process =
        command.args(["--rate", "1"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the first act", async || (!actions(&env).await.is_empty()).then_some(())).await;
    // when it is interrupted after the first,
    let pid = process.id().to_string();
    assert!(std::process::Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
    // then it says what it did and what is left, and the others are in their queue.
    let output = process.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let left = rows(&env, &["list"]).len();
    let wanted = format!("interrupted: {} deleted, 0 refused, and {left} not touched", 3 - left);
    assert!(left > 0 && text(&output).contains(&wanted), "{wanted}: {}", text(&output));
    // The same command goes on.
    assert!(env.run(&delete).status.success());
    assert!(rows_or_none(&env).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_export_says_so_and_every_letter_is_still_in_its_queue() {
    let env = TestEnv::new().await;
    rejected(&env, [bad("po_1"), bad("po_2")]).await;
    // Given an export whose act cannot be stored yet,
    let mut lock = env.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE operator_actions IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let file = env.folder.join("letters.jsonl");
    let export = ["dead-letters", "export", "--to", file.to_str().unwrap(), "--reason", "ticket 7"];
    let process = env.command(&export).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until_a_statement_waits(&env.pool, 0.0).await;
    // when it is interrupted,
    let pid = process.id().to_string();
    assert!(std::process::Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
    lock.rollback().await.unwrap();
    let output = process.wait_with_output().unwrap();
    // then it says what it did, there is no empty file, and no letter is lost.
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains("interrupted: 0 exported, and 2 not touched"), "{}", text(&output));
    assert!(!file.exists());
    assert_eq!(rows(&env, &["list"]).len(), 2);
    assert!(env.run(&export).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_is_rejected_again_is_not_published_for_ever() {
    // Given a worker that rejects a dead letter again at once,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    env.publish(bad("po_1")).await;
    env.result_of("po_1").await;
    // when it is published again slowly enough for that,
    let requeue = ["requeue", "--all", "--yes", "--force", "--rate", "1", "--reason", "test"];
    assert_eq!(status(&env, &requeue), 0);
    // then that happens once, and its count shows it.
    env.wait_for_results("po_1", 2).await;
    let listed = eventually("the letter", async || {
        let output = env.run(&["--output", "json", "dead-letters", "list"]);
        serde_json::from_slice::<Vec<Value>>(&output.stdout).ok().filter(|rows| !rows.is_empty())
    })
    .await;
    assert_eq!((listed.len(), &listed[0]["requeued_count"]), (1, &json!(1)));
    assert_eq!(env.results_of("po_1").len(), 2);
}
