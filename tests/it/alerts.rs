//! Tests that every alert of `docs/alerts.yaml` fires under its fault, and is silent before. A unit test
//! (`metrics::tests`) tests the alert for panics, because nothing from outside makes the worker panic.

use provider_simulators::sandbox::{Fault, FaultRule};
use serde_json::json;

use crate::clocks::{step, with_a_clock};
use crate::support::{Service, Setup, TestEnv, Worker, alerts::rules, eventually, job};

/// A worker whose metrics were scraped at its start.
struct Observed {
    worker: Worker,
    first: String,
}

impl Observed {
    async fn start(env: &TestEnv) -> Self {
        let worker = env.launch_worker(&[]);
        worker.says("connected to RabbitMQ, consuming").await;
        // No alert fires at first.
        let first = eventually("no alert fires at first", async || {
            let scrape = worker.metrics().await;
            rules().iter().all(|rule| !rule.fires(&scrape, &scrape)).then_some(scrape)
        })
        .await;
        Self { worker, first }
    }

    /// Waits until an alert fires.
    async fn fires(&self, name: &str) {
        let rules = rules();
        let rule = rules.iter().find(|rule| rule.name == name).unwrap_or_else(|| panic!("no alert {name}"));
        eventually(&format!("the alert {name} fires"), async || {
            rule.fires(&self.first, &self.worker.metrics().await).then_some(())
        })
        .await;
    }

    async fn is_silent(&self, name: &str) {
        let now = self.worker.metrics().await;
        assert!(
            !rules().iter().any(|rule| rule.name == name && rule.fires(&self.first, &now)),
            "{name}: {now}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_about_payouts_and_merchants_fire() {
    let env = TestEnv::new().await;
    let observed = Observed::start(&env).await;
    // A connector without a look-up and without keys loses its answer,
    observed.is_silent("PayoutOutcomeUnknown").await;
    env.provider.inject_fault(FaultRule::new(Fault::Reset).after_the_work());
    env.publish(job("unknown").connector("mute")).await;
    observed.fires("PayoutOutcomeUnknown").await;
    // another one asks to wait,
    observed.is_silent("ConnectorAsksToWait").await;
    env.provider.inject_fault(Fault::status_with_retry_after(429, "1"));
    env.publish(job("later")).await;
    observed.fires("ConnectorAsksToWait").await;
    // a merchant rejects webhooks,
    observed.is_silent("WebhookAbandoned").await;
    env.merchant.inject_fault(Fault::status(410));
    env.publish(job("gone").with("webhook_url", env.webhook_url())).await;
    observed.fires("WebhookAbandoned").await;
    // a job is rejected, and its reply queue is full,
    for alert in ["JobsRejected", "RepliesDropped", "RecordUnreadable"] {
        observed.is_silent(alert).await;
    }
    let full = env.full_queue().await;
    env.publish(job("invalid").amount(0).reply_to(&full)).await;
    observed.fires("JobsRejected").await;
    observed.fires("RepliesDropped").await;
    // and a stored result can no longer be read.
    env.wait_until_delivered("gone").await;
    for statement in [
        "UPDATE payout_links SET result = '\\x00' WHERE merchant_payout_id = 'gone'",
        "UPDATE events SET published_at = NULL, due_at = now()
         WHERE payout_link_id = (SELECT id FROM payout_links WHERE merchant_payout_id = 'gone')",
    ] {
        sqlx::query(statement).execute(&env.pool).await.unwrap();
    }
    observed.fires("RecordUnreadable").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alert_about_results_that_no_queue_is_bound_for_fires() {
    let env = Setup::default().without_listener().build().await;
    let observed = Observed::start(&env).await;
    env.publish(job("po_1")).await;
    observed.fires("ResultsUnrouted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_about_a_connector_that_is_away_fire() {
    let account = r#"
        [connectors.away]
        kind = "sandbox"
        url = "http://127.0.0.1:1"
        token = "t"
        calls = { timeout_seconds = 2, breaker_failures = 2, breaker_pause_seconds = 600 }
    "#;
    let env = Setup::default().connector(account).build().await;
    let observed = Observed::start(&env).await;
    for number in 0..3 {
        env.publish(job(&format!("po_{number}")).connector("away")).await;
    }
    observed.fires("ConnectorOutOfOrder").await;
    // The record waits longer than any record should:
    observed.is_silent("RecordsWait").await;
    let aged = "UPDATE payout_links SET due_at = now() - interval '400 seconds' WHERE state = 'open' AND holder IS NULL";
    eventually("a record that waits", async || {
        let aged = sqlx::query(aged).execute(&env.pool).await.unwrap();
        (aged.rows_affected() > 0).then_some(())
    })
    .await;
    observed.fires("RecordsWait").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alert_about_deliveries_that_are_not_taken_fires() {
    // Given a worker that takes two deliveries at once, and a database that delays them,
    let env = Setup::default().set("worker.jobs_in_flight", 2).build().await;
    let observed = Observed::start(&env).await;
    let mut locked = env.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE payout_links").execute(&mut *locked).await.unwrap();
    for number in 0..20 {
        env.publish(job(&format!("po_{number}"))).await;
    }
    // then the alert shows that the other deliveries wait.
    observed.fires("DeliveriesUnread").await;
}

/// Checks that an outage is one line at its beginning, with its cause, and one line at its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_outage_is_logged_at_its_beginning_and_end_and_its_alerts_fire() {
    let database = Service::start("postgres").await;
    let env = Setup::default().database(&database.url).build().await;
    let observed = Observed::start(&env).await;
    database.kill();
    observed.fires("DatabaseAway").await;
    observed.fires("NotConsumingOrNotPublishing").await;
    observed.worker.says("database unavailable").await;
    database.restart();
    observed.worker.says("database available again").await;
    eventually("the alert is over", async || {
        let now = observed.worker.metrics().await;
        (!rules().iter().any(|rule| rule.name == "DatabaseAway" && rule.fires(&observed.first, &now)))
            .then_some(())
    })
    .await;
    let log = observed.worker.log();
    let lines =
        |text: &str| log.lines().filter(|line| line.contains(text)).map(str::to_owned).collect::<Vec<_>>();
    let (began, ended) = (lines("database unavailable"), lines("database available again"));
    assert_eq!((began.len(), ended.len()), (1, 1), "{began:?} {ended:?}");
    let began: serde_json::Value = serde_json::from_str(&began[0]).unwrap();
    let reason = began["reason"].as_str().unwrap();
    // The line names the host, the port and the first cause.
    let url: url::Url = database.url.parse().unwrap();
    let place = format!("127.0.0.1:{}", url.port().unwrap());
    assert!(reason.starts_with(&place) && !reason.contains("pool timed out"), "{reason}");
    assert!(reason.contains("Connection refused") || reason.contains("Connection reset"), "{reason}");
    let ended: serde_json::Value = serde_json::from_str(&ended[0]).unwrap();
    assert!(ended["outage_seconds"].is_u64(), "{ended}");
    env.publish(job("po_1")).await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_about_a_broker_that_is_away_fire() {
    let broker = Service::start("rabbitmq").await;
    let mut env = Setup::default().broker(&broker.url).without_listener().build().await;
    env.start_worker().await.stop().await;
    broker.settle();
    env.reconnect().await;
    let observed = Observed::start(&env).await;
    let call = env.provider.hold_next_call();
    env.publish(job("po_0")).await;
    call.arrived().await;
    broker.kill();
    observed.fires("NotConsumingOrNotPublishing").await;
    // The result waits longer than any result should.
    call.release();
    env.wait_until_shown("po_0", "concluded", |shown| shown["event"].is_object()).await;
    observed.is_silent("EventsWait").await;
    let aged = "UPDATE events SET due_at = now() - interval '400 seconds' WHERE published_at IS NULL AND holder IS NULL";
    eventually("a result that waits", async || {
        let aged = sqlx::query(aged).execute(&env.pool).await.unwrap();
        (aged.rows_affected() > 0).then_some(())
    })
    .await;
    observed.fires("EventsWait").await;
    assert_eq!(env.shown("po_0").unwrap()["event"]["published_at"], json!(null));
    broker.restart();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alert_about_neglected_due_work_fires() {
    // Given a worker without errors,
    let env = Setup::default().set("database.timeout_seconds", 2).build().await;
    let observed = Observed::start(&env).await;
    // when a statement of its sweeper hangs while the rest of the database answers,
    let mut locked = env.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE events").execute(&mut *locked).await.unwrap();
    // then the metric and readiness report it, although the database is up.
    observed.fires("DueWorkNeglected").await;
    let worker = &observed.worker;
    eventually("readiness reports that no sweep runs", async || {
        let (_, said) = worker.readiness().await;
        (said["sweeping"] == false && said["database"] == true).then_some(())
    })
    .await;
    locked.rollback().await.unwrap();
    eventually("readiness is back", async || (worker.readiness().await.0 == 200).then_some(())).await;
    observed.is_silent("DueWorkNeglected").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_about_what_a_restart_finds_fire() {
    let mut env = TestEnv::new().await;
    let observed = Observed::start(&env).await;
    // A provider uses a status that this version does not know.
    observed.is_silent("StatusUnknown").await;
    let body =
        json!({ "id": "plink_1", "status": "on hold", "url": "https://pay.example/l/1", "expires_at": null });
    let (code, body) = (201.try_into().unwrap(), Some(body.to_string()));
    env.provider.inject_fault(Fault::Status { code, retry_after: None, body });
    env.publish(job("po_1")).await;
    observed.fires("StatusUnknown").await;
    // A record is open whose account the section no longer names, and the key has encrypted many values.
    env.provider.inject_fault(Fault::status_with_retry_after(429, "600"));
    env.publish(job("po_2").connector("asked")).await;
    env.wait_until_shown("po_2", "postponed", |shown| shown["attempts"] == 1 && shown["leased"] == false)
        .await;
    for alert in ["OpenRecordsWithoutTheirAccount", "SealingKeyNearItsLimit"] {
        observed.is_silent(alert).await;
    }
    let Observed { worker, first } = observed;
    worker.stop().await;
    env.set("connectors.asked.account", "another");
    let many = "UPDATE sealing_keys SET seals = 1 << 30";
    sqlx::query(many).execute(&env.pool).await.unwrap();
    let worker = env.launch_worker(&[]);
    let observed = Observed { worker, first };
    observed.fires("OpenRecordsWithoutTheirAccount").await;
    observed.fires("SealingKeyNearItsLimit").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_about_clocks_fire() {
    let env = TestEnv::new().await;
    with_a_clock(&env).await;
    let observed = Observed::start(&env).await;
    step(&env, "-1 hour").await;
    for alert in ["DatabaseClockStepped", "ClocksDiffer"] {
        observed.fires(alert).await;
    }
    // A clock ahead counts as much as a clock behind.
    step(&env, "0").await;
    eventually("the clocks agree again", async || {
        let now = observed.worker.metrics().await;
        (!rules().iter().any(|rule| rule.name == "ClocksDiffer" && rule.fires(&now, &now))).then_some(())
    })
    .await;
    step(&env, "1 hour").await;
    observed.fires("ClocksDiffer").await;
}

/// Checks that one page describes the purpose of each alert, and another one the way from it to its end.
#[test]
fn every_alert_is_described_to_operators() {
    let page = include_str!("../../docs/how-to/monitor.md");
    let described: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | alert |").map(|(name, _)| name))
        .collect();
    let names: Vec<&str> = rules().iter().map(|rule| rule.name).collect();
    assert_eq!(described, names);
    let on_call = include_str!("../../docs/how-to/on-call.md");
    for name in names {
        assert!(on_call.contains(&format!("`{name}`")), "{name} is not in on-call.md");
    }
}
