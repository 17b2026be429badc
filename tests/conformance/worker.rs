//! Tests each connector through the real worker.

use std::time::Duration;

use payout_link_worker::domain::idempotency_key;
use provider_simulators::providers::{Announce, Fault, FaultRule, LinkChange, ProviderSimulator};
use serde_json::{Value, json};

use crate::{
    description::{Became, Description, Repeat},
    support::{Job, Setup, TestEnv, eventually, job},
};

const SECRET: &str = "webhook-secret-canary";

/// Builds a test environment whose worker has the connector as `tested`, and returns its simulator.
async fn env(description: &Description) -> (TestEnv, ProviderSimulator) {
    let simulator = description.simulator().await;
    (
        Setup::default().short_leases().connector(&description.section(simulator.url())).build().await,
        simulator,
    )
}

fn for_connector(description: &Description, id: &str) -> Job {
    job(id).connector("tested").raw(description.json(id).to_string().as_bytes())
}

fn outcomes(shown: &Value) -> Vec<&str> {
    shown["timeline"].as_array().unwrap().iter().map(|call| call["outcome"].as_str().unwrap()).collect()
}

pub async fn lost_answers_end_as_the_rule_says(description: &Description) {
    let (env, simulator) = env(description).await;
    let _worker = env.start_worker().await;
    // The answer is lost after the work: the link exists, but no client knows it.
    for (number, fault) in [Fault::Reset, Fault::status(500), Fault::Truncated].into_iter().enumerate() {
        let id = format!("after_{number}");
        simulator.inject_fault(FaultRule::new(fault.clone()).after_the_work());
        env.publish(for_connector(description, &id)).await;
        let result = env.result_of(&id).await;
        match description.repeat {
            Repeat::Unknown => {
                assert_eq!(result.kind(), "payout_link.pending", "{fault:?}");
                assert_eq!(result.error_code().as_deref(), Some("OUTCOME_UNKNOWN"));
            }
            Repeat::AskedFor | Repeat::SecondLink => {
                assert_eq!(result.kind(), "payout_link.created", "{fault:?}");
                let id = result.json()["connector_payout_id"].as_str().unwrap().to_owned();
                assert!(simulator.ledger().links.iter().any(|link| link.id == id));
            }
        }
    }
    // The call is lost before the work: a later call creates the link, whatever the replay rule.
    simulator.inject_fault(Fault::Reset);
    env.publish(for_connector(description, "before")).await;
    assert_eq!(env.result_of("before").await.kind(), "payout_link.created");
    assert_eq!(simulator.ledger().links.len(), 4, "one for each");
}

pub async fn a_refusal_is_reported_with_the_providers_words(description: &Description) {
    let (env, simulator) = env(description).await;
    let _worker = env.start_worker().await;
    simulator.inject_fault(Fault::status(422));
    env.publish(for_connector(description, "po_1")).await;
    let result = env.result_of("po_1").await;
    assert_eq!(result.error_code().as_deref(), Some("CONNECTOR_REJECTED"));
    let details = &result.json()["error"]["connector_details"];
    assert!(details["code"].is_string() && details["message"].is_string(), "{details}");
    assert_eq!(result.json()["status_code"], 422);
    // An unsupported job is rejected before it is stored.
    let mut other = description.json("po_2");
    other["destination_currency"] = "CHF".into();
    env.publish(for_connector(description, "po_2").raw(other.to_string().as_bytes())).await;
    let result = env.result_of("po_2").await;
    assert_eq!(result.error_code().as_deref(), Some("UNSUPPORTED_BY_CONNECTOR"));
    assert_eq!(result.field().as_deref(), Some("destination_currency"));
    assert!(env.has_no_record("po_2").await);
}

pub async fn a_limit_is_waited_for(description: &Description) {
    let (env, simulator) = env(description).await;
    let _worker = env.start_worker().await;
    simulator.inject_fault(Fault::status_with_retry_after(429, "2"));
    env.publish(for_connector(description, "po_1")).await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
    let ledger = simulator.ledger();
    let creates: Vec<_> = ledger.creates().collect();
    assert!(creates[1].at - creates[0].at >= Duration::from_secs(2));
    assert_eq!(env.shown("po_1").unwrap()["in_doubt_since"], Value::Null);
}

pub async fn repeated_jobs_make_one_link(description: &Description) {
    let (env, simulator) = env(description).await;
    let _worker = env.start_worker().await;
    for _ in 0..3 {
        env.publish(for_connector(description, "po_1")).await;
    }
    env.result_of("po_1").await;
    env.publish(for_connector(description, "po_1").correlation_id("again")).await;
    let replayed = eventually("the last one's answer", async || {
        let results = env.results_of("po_1");
        results.iter().any(|result| result.correlation_id().as_deref() == Some("again")).then_some(results)
    })
    .await;
    assert!(replayed.iter().all(|result| result.id() == replayed[0].id()));
    assert_eq!(simulator.ledger().links.len(), 1);
    // The job alone determines the key.
    let shown = env.shown("po_1").unwrap();
    assert_eq!(shown["merchant_payout_id"], "po_1");
    assert_eq!(idempotency_key("", "po_1").len(), 32);
}

pub async fn a_link_that_takes_its_time_takes_no_permit(description: &Description) {
    let underway = description.statuses.iter().find(|(_, became)| *became == Became::Underway);
    let Some((underway, _)) = underway else { return };
    let ready = description.statuses[0].0;
    // Given two permits, waits that would last longer than the test, and two links that are not ready until the
    // provider says so,
    let (mut env, simulator) = env(description).await;
    env.set("retry.wait_in_place_ms", 60_000);
    let _worker = env.start_worker().await;
    simulator.set_stages(&[underway]);
    for id in ["slow_1", "slow_2"] {
        env.publish(for_connector(description, id)).await;
    }
    // then their ids are stored and their permits are free,
    for id in ["slow_1", "slow_2"] {
        let waits = |shown: &Value| {
            shown["state"] == "open" && shown["connector_payout_id"].is_string() && shown["leased"] == false
        };
        env.wait_until_shown(id, "it waits", waits).await;
    }
    let slow = simulator.ledger().links;
    simulator.set_stages(&[ready]);
    env.publish(for_connector(description, "quick")).await;
    assert_eq!(env.result_of("quick").await.kind(), "payout_link.created");
    // and both are concluded, with one link each.
    for link in &slow {
        simulator.set_status(&link.id, ready);
    }
    for id in ["slow_1", "slow_2"] {
        assert_eq!(env.result_of(id).await.kind(), "payout_link.created");
        assert_eq!(outcomes(&env.wait_until_delivered(id).await)[0], "underway");
    }
    assert_eq!(simulator.ledger().creates().count(), 3);
}

pub async fn secrets_are_nowhere(description: &Description) {
    let (env, simulator) = env(description).await;
    let worker = env.start_worker().await;
    // Given a call that is created, one that is declined, one with an unknown outcome, and one with a credential of
    // its own,
    let fates = [None, Some(Fault::status(422)), Some(Fault::status(500)), None];
    for (number, fate) in fates.into_iter().enumerate() {
        let id = format!("po_{number}");
        if let Some(fault) = fate {
            simulator.inject_fault(fault);
        }
        let mut job = description.json(&id);
        if number == 3 {
            job["access_token"] = description.access_token.into();
        }
        env.publish(for_connector(description, &id).raw(job.to_string().as_bytes())).await;
        env.result_of(&id).await;
        env.wait_until_delivered(&id).await;
    }
    // then neither the log nor the database has a credential or a link in the clear.
    let (log, dump) = (worker.log(), env.dump().await);
    let links = simulator.ledger().links;
    assert!(links.len() >= 2);
    for (place, text) in [("log", &log), ("database", &dump)] {
        assert!(!text.contains("canary"), "a credential in the {place}");
        for link in &links {
            assert!(!link.url.is_empty() && !text.contains(&link.url), "a link in the {place}");
        }
    }
}

/// Builds a test environment whose worker asks about links every second.
async fn following(description: &Description) -> (TestEnv, ProviderSimulator) {
    let simulator = description.simulator().await;
    let env = Setup::default()
        .short_leases()
        .connector(&description.section(simulator.url()))
        .set("connectors.tested.follow.min_interval_seconds", 1)
        .set("connectors.tested.follow.max_interval_seconds", 1)
        .set("connectors.tested.follow.confirm_cancel_seconds", 2)
        .build()
        .await;
    (env, simulator)
}

async fn types(env: &TestEnv, id: &str, last: &str) -> Vec<String> {
    let results = eventually(last, async || {
        let results = env.results_of(id);
        results.iter().any(|result| result.kind() == last).then_some(results)
    })
    .await;
    let mut numbered: Vec<(u64, String)> =
        results.iter().map(|result| (result.json()["sequence"].as_u64().unwrap(), result.kind())).collect();
    numbered.sort();
    assert!(numbered.iter().map(|(number, _)| *number).eq(1..=numbered.len() as u64), "{numbered:?}");
    numbered.into_iter().map(|(_, kind)| kind.trim_start_matches("payout_link.").to_owned()).collect()
}

pub async fn a_claimed_link_is_followed_until_its_money_comes_back(description: &Description) {
    let (env, simulator) = following(description).await;
    let _worker = env.start_worker().await;
    env.publish(for_connector(description, "po_1")).await;
    let link = env.result_of("po_1").await.json()["connector_payout_id"].as_str().unwrap().to_owned();
    simulator.change(&link, LinkChange::Claim).unwrap();
    types(&env, "po_1", "payout_link.claimed").await;
    simulator.change(&link, LinkChange::Pay).unwrap();
    let paid = types(&env, "po_1", "payout_link.succeeded").await;
    assert_eq!((paid[0].as_str(), paid[1].as_str()), ("created", "claimed"));
    assert_eq!(paid.iter().filter(|kind| *kind == "claimed").count(), 1, "{paid:?}");
    // The provider's own status is stored, and its id of the payout, where it has one, finds the record.
    let shown = env.shown("po_1").unwrap();
    assert!(shown["link"]["provider_status"].is_string(), "{shown}");
    if let Some(payout) = shown["link"]["provider_payout_id"].as_str() {
        assert_eq!(env.shown(payout).unwrap()["id"], shown["id"]);
    }
    let has_payout_ids = matches!(description.account.kind, "razorpayx" | "revolut");
    assert_eq!(shown["link"]["provider_payout_id"].is_string(), has_payout_ids, "{shown}");
    // Later the money comes back: at these two providers, only that payout says so. The next question is an hour away.
    simulator.change(&link, LinkChange::Reverse).unwrap();
    let due = "UPDATE payout_links SET follow_due_at = now() WHERE merchant_payout_id = 'po_1'";
    assert_eq!(sqlx::query(due).execute(&env.pool).await.unwrap().rows_affected(), 1);
    let reversed = types(&env, "po_1", "payout_link.reversed").await;
    assert_eq!(reversed.last().unwrap(), "reversed");
}

pub async fn a_change_that_the_provider_announces_is_found_at_once(description: &Description) {
    // Given a worker that asks about links once an hour, and accepts the webhooks of its provider,
    let simulator = description.simulator().await;
    let env = Setup::default()
        .short_leases()
        .connector(&description.section(simulator.url()))
        .set("connectors.tested.follow.min_interval_seconds", 3600)
        .set("connectors.tested.follow.max_interval_seconds", 3600)
        .set("connectors.tested.follow.webhook_secrets", json!([SECRET]))
        .set("worker.provider_webhooks_listen", "127.0.0.1:0")
        .build()
        .await;
    let worker = env.start_worker().await;
    let url = format!("{}/connectors/tested/webhooks", worker.provider_webhooks_url().await);
    env.publish(for_connector(description, "po_1")).await;
    let link = env.result_of("po_1").await.json()["connector_payout_id"].as_str().unwrap().to_owned();
    // when the link is claimed and paid, then the payment is announced.
    simulator.announce(Some(Announce::to(url, SECRET)));
    simulator.change(&link, LinkChange::Claim).unwrap();
    simulator.change(&link, LinkChange::Pay).unwrap();
    types(&env, "po_1", "payout_link.succeeded").await;
}

/// Checks Hyperswitch, which never ends a link: the worker cancels it after its end, and accepts a claim that was
/// under way.
pub async fn a_link_past_its_end_is_cancelled_and_confirmed() {
    let description = &crate::hyperswitch::HYPERSWITCH;
    let (env, simulator) = following(description).await;
    let _worker = env.start_worker().await;
    let ends_soon = |id: &str| {
        let mut job = description.json(id);
        job["connector_feature_data"] = r#"{"session_expiry": 2}"#.into();
        for_connector(description, id).raw(job.to_string().as_bytes())
    };
    env.publish(ends_soon("po_1")).await;
    assert_eq!(types(&env, "po_1", "payout_link.expired").await, ["created", "expired"]);
    // A page that was opened in time is submitted after the cancel.
    env.publish(ends_soon("po_2")).await;
    let link = env.result_of("po_2").await.json()["connector_payout_id"].as_str().unwrap().to_owned();
    eventually("the late submission", async || simulator.late_submit(&link).ok()).await;
    types(&env, "po_2", "payout_link.processing").await;
    simulator.change(&link, LinkChange::Pay).unwrap();
    let types = types(&env, "po_2", "payout_link.succeeded").await;
    assert_eq!(types, ["created", "claimed", "processing", "succeeded"]);
}
