//! Tests the program `sandbox-connector`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use provider_simulators::sandbox::Receiver;
use uuid::Uuid;

use crate::client::{DEADLINE, TOKEN, answer, client, request};

/// A running program that ends with its test.
struct Program(Child);

impl Program {
    fn start(arguments: &[&str]) -> Self {
        let mut command = command(arguments);
        Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Reads the address that it prints once it listens.
    fn address(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Asks it to end. Returns whether it ended successfully, and its log.
    fn terminate(mut self) -> (bool, String) {
        let reply = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().unwrap();
        assert!(reply.success());
        let mut log = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (self.0.wait().unwrap().success(), log)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // An error is ignored, because it may have ended already.
        let _ = self.0.kill();
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandbox-connector"));
    command.args(arguments);
    command
}

/// A file with the token, which is deleted with the test.
struct TokenFile(PathBuf);

impl TokenFile {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("sandbox-token-{}", Uuid::new_v4()));
        writeln!(File::create_new(&path).unwrap(), "{TOKEN}").unwrap();
        Self(path)
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn it_prints_its_address_serves_logs_no_secret_and_ends_on_sigterm() {
    let token_file = TokenFile::new();
    let mut program =
        Program::start(&["--listen", "127.0.0.1:0", "--token-file", token_file.0.to_str().unwrap()]);
    let url = program.address();

    let create = client().post(format!("{url}/v1/payout-links")).bearer_auth(TOKEN);
    let create = create.header("idempotency-key", "key-1").header("content-type", "application/json");
    let link = answer(create.body(request("po_1", 1250).to_string())).await.json();
    assert_eq!(answer(client().get(link["url"].as_str().unwrap())).await.status, 200);
    assert_eq!(answer(client().get(format!("{url}/healthz"))).await.body, "ok");

    let (ended_well, log) = program.terminate();
    assert!(ended_well, "{log}");
    assert!(log.contains("po_1") && log.contains("/l/…"), "{log}");
    let page = link["url"].as_str().unwrap().rsplit('/').next().unwrap();
    for secret in [TOKEN, page, "Ada", "ada@example.com"] {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
}

#[test]
fn it_needs_a_token_and_valid_secrets() {
    for arguments in [
        &[][..],
        &["--token", ""],
        &["--token", "x", "--token-file", "y"],
        &["--token-file", "/nonexistent"],
        &["--token", "x", "--listen", "127.0.0.1:0", "--webhook-secret", "no-secret"],
        &["--token", "x", "--listen", "127.0.0.1:0", "--announce-url", "http://127.0.0.1:1"],
        &["--token", "x", "--announce-secret", "y"],
        &[
            "--token",
            "x",
            "--announce-url",
            "http://a",
            "--announce-secret",
            "y",
            "--announce-behaviour",
            "z",
        ],
        &["--token", "x", "--hold-payouts", "--pay-after-ms", "1"],
    ] {
        let output = command(arguments).output().unwrap();
        assert!(!output.status.success() && !output.stderr.is_empty(), "{arguments:?}");
    }
}

#[tokio::test]
async fn it_announces_the_changes_of_a_claimed_link() {
    let recipient = Receiver::start(&[]).await.unwrap();
    let mut program = Program::start(&[
        "--listen",
        "127.0.0.1:0",
        "--token",
        TOKEN,
        "--pay-after-ms",
        "1",
        "--announce-url",
        recipient.url(),
        "--announce-secret",
        "secret-1",
        "--announce-behaviour",
        r#"{"repeat": 1}"#,
    ]);
    let url = program.address();
    let create = client().post(format!("{url}/v1/payout-links")).bearer_auth(TOKEN);
    let create = create.header("idempotency-key", "key-1").header("content-type", "application/json");
    let link = answer(create.body(request("po_1", 1250).to_string())).await.json();
    let claim = client().post(link["url"].as_str().unwrap());
    let claim = claim.header("content-type", "application/x-www-form-urlencoded");
    let claim = claim.body("account_holder=Ada&account_number=0532013000");
    assert_eq!(answer(claim).await.status, 303);

    let received = recipient.until(|received| received.len() == 4);
    let received = tokio::time::timeout(DEADLINE, received).await.expect("four webhooks");
    let statuses: Vec<_> = received.iter().map(|webhook| webhook.json()["link"]["status"].clone()).collect();
    assert_eq!(statuses, ["claimed", "claimed", "paid", "paid"]);
    let (ended_well, log) = program.terminate();
    assert!(ended_well && !log.contains("secret-1"), "{log}");
}
