//! Tests that a log line about a payout has the ids by which the payout, its event and its attempt are found.

use std::collections::BTreeSet;

use provider_simulators::sandbox::{Fault, FaultRule, LinkChange, Operation};
use serde_json::{Value, json};

use crate::support::{Setup, eventually, job};

/// Messages that the test provokes, and the ids that each has beside those of its payout.
const MESSAGES: &[(&str, &[&str])] = &[
    ("connector called", &["attempt.number"]),
    ("payout link created", &["attempt.number", "event.id"]),
    ("payout link not created", &["attempt.number", "event.id"]),
    ("webhook delivery failed, will retry", &["attempt.number", "event.id"]),
    ("webhook abandoned: the merchant answered 410 Gone", &["attempt.number", "event.id"]),
    ("reply queue is gone, reply dropped", &["event.id"]),
    ("link status changed", &[]),
    ("payout link cancelled", &[]),
    ("link status not answered, will ask again", &[]),
];

/// Lines that are written before there is a record.
const WITHOUT_RECORD: &[&str] = &["job rejected"];

#[tokio::test(flavor = "multi_thread")]
async fn every_line_about_a_payout_has_its_ids() {
    // Given payouts that are created, declined, tried again by the sweeper, followed and cancelled, webhooks that fail and
    // are abandoned, and a reply queue that is gone,
    let env = Setup::default()
        .set("connectors.sandbox.follow.min_interval_seconds", 1)
        .set("connectors.sandbox.follow.max_interval_seconds", 1)
        .set("webhooks.schedule_seconds", "[1]")
        .build()
        .await;
    let worker = env.start_worker().await;
    env.merchant.inject_fault(FaultRule::new(Fault::status(500)).times(1));
    env.publish(job("po_created").with("webhook_url", env.webhook_url()).reply_to("gone")).await;
    env.wait_until_delivered("po_created").await;
    env.merchant.inject_fault(FaultRule::new(Fault::status(410)).times(1));
    env.publish(job("po_abandoned").with("webhook_url", env.webhook_url())).await;
    env.wait_until_shown("po_abandoned", "abandoned", |shown| shown["event"]["webhook_state"] == "abandoned")
        .await;
    env.provider.inject_fault(FaultRule::new(Fault::status(422)).on(Operation::Create).times(1));
    env.publish(job("po_declined")).await;
    env.result_of("po_declined").await;
    env.provider.inject_fault(FaultRule::new(Fault::status(503)).on(Operation::Create).times(1));
    env.publish(job("po_again")).await;
    env.result_of("po_again").await;
    env.publish(job("po_wrong").with("amount", json!({ "minor_amount": -1, "currency": "EUR" }))).await;
    env.result_of("po_wrong").await;
    env.provider.inject_fault(FaultRule::new(Fault::status(503)).on(Operation::Get).times(1));
    env.provider.change(&env.provider.ledger().links[0].id, LinkChange::Claim).unwrap();
    env.wait_for_results("po_created", 2).await;
    let cancelled = env.run(&["cancel", "--reason", "a test", "po_again"]);
    assert!(cancelled.status.success(), "{cancelled:?}");
    env.wait_for_results("po_again", 2).await;
    // when all of that is in the log,
    let missing = || {
        let log = worker.log();
        let wanted = MESSAGES.iter().map(|(message, _)| *message).chain(WITHOUT_RECORD.iter().copied());
        wanted.filter(|message| !log.contains(message)).collect::<Vec<_>>()
    };
    eventually("every message", async || missing().is_empty().then_some(())).await;
    // then each line about a payout has all ids.
    let mut seen = BTreeSet::new();
    for line in worker.log().lines().filter(|line| line.contains("po_")) {
        let line: Value = serde_json::from_str(line).unwrap();
        let message = line["message"].as_str().unwrap();
        let of_message = MESSAGES.iter().find(|(known, _)| *known == message).map_or(&[][..], |(_, ids)| ids);
        let of_record: &[&str] =
            if WITHOUT_RECORD.contains(&message) { &[] } else { &["payout_link.id", "connector.name"] };
        for id in ["merchant.id", "merchant_payout_id"].iter().chain(of_record).chain(of_message) {
            let is_there = [&line[*id], &line["span"][*id]].iter().any(|value| !value.is_null());
            assert!(is_there, "{id} is missing: {line}");
        }
        seen.insert(message.to_owned());
    }
    for (message, _) in MESSAGES {
        assert!(seen.contains(*message), "{message:?} has no line with its payout's ids: {seen:?}");
    }
}
