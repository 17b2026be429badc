//! Tests `trigger` and `listen`, for merchants' developers: they need no database, broker or configuration.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
};

use provider_simulators::sandbox::Receiver;
use serde_json::Value;

use crate::support::WEBHOOK_SECRET;

const PROGRAM: &str = env!("CARGO_BIN_EXE_payout-link-worker");

/// A `listen` that is killed with the test.
struct Listener {
    process: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Listener {
    /// Starts it, and returns its URL.
    fn start(arguments: &[&str]) -> (Self, String) {
        let mut process = Command::new(PROGRAM)
            .args(["listen", "--port", "0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut listener = Self { process, lines };
        let first = listener.line();
        let url = first.split_whitespace().last().unwrap().to_owned();
        (listener, url)
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("it goes on").unwrap()
    }
}

fn trigger(arguments: &[&str]) -> (Option<i32>, Value) {
    let output =
        Command::new(PROGRAM).args(["--output", "json", "trigger"]).args(arguments).output().unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_triggered_webhook_is_verified_printed_and_forwarded() {
    // Given a merchant's server that verifies webhooks, and a listener in front of it,
    let merchant = Receiver::start(&[WEBHOOK_SECRET.to_owned()]).await.unwrap();
    let (merchants, secret) = (merchant.url().to_string(), ["--secret", WEBHOOK_SECRET]);
    let (mut listener, url) = Listener::start(&[&secret[..], &["--forward-to", merchants.as_str()]].concat());
    // when an event is triggered with the developer's own data,
    let own = ["succeeded", "--override", "merchant_payout_id=po_7", "--forward-to", &url];
    let (status, sent) = trigger(&[&own[..], &secret].concat());
    // then the merchant receives it, signed, with that data; the listener has verified and printed it.
    assert_eq!((status, &sent["status_code"]), (Some(0), &204.into()), "{sent}");
    merchant.until(|received| received.len() == 1).await;
    let received = merchant.received().remove(0);
    assert!(received.verified, "{received:?}");
    let line = listener.line();
    for part in ["payout_link.succeeded", "po_7", "signature verified", "answered 204"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    // A wrong secret is reported, and the merchant's answer is passed on.
    let (status, _) = trigger(&["created", "--forward-to", &url]);
    assert_eq!(status, Some(1));
    assert!(listener.line().contains("WRONG SIGNATURE"));
}

#[test]
fn an_event_is_printed_without_a_server() {
    let (status, sent) = trigger(&["created"]);
    assert_eq!((status, sent["body"]["type"].as_str()), (Some(0), Some("payout_link.created")), "{sent}");
    assert_eq!(trigger(&["rejected"]).0, Some(2));
    assert_eq!(trigger(&["created", "--forward-to", "http://127.0.0.1:9/"]).0, Some(1));
}
