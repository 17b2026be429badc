//! Tests the changes of links that each provider can make, and those that it rejects.

use provider_simulators::providers::LinkChange::{
    self, Cancel, Claim, Expire, Fail, Pay, Process, Reopen, Reverse,
};
use provider_simulators::providers::{HyperswitchSettings, Provider, RazorpayXSettings, XenditSettings};
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{TestEnv, answer, changed};
use crate::{hyperswitch, razorpayx, revolut, xendit};

const ALL: [LinkChange; 8] = [Claim, Process, Pay, Fail, Reopen, Expire, Cancel, Reverse];

/// The possible changes from each status, and the statuses that follow.
type Table = &'static [(&'static str, &'static [(LinkChange, &'static str)])];

const HYPERSWITCH: Table = &[
    (
        "requires_payout_method_data",
        &[(Claim, "requires_creation"), (Expire, "requires_payout_method_data"), (Cancel, "cancelled")],
    ),
    (
        "requires_creation",
        &[(Process, "initiated"), (Pay, "success"), (Fail, "failed"), (Cancel, "cancelled")],
    ),
    (
        "requires_fulfillment",
        &[(Process, "initiated"), (Pay, "success"), (Fail, "failed"), (Cancel, "cancelled")],
    ),
    (
        "initiated",
        &[
            (Process, "pending"),
            (Pay, "success"),
            (Fail, "failed"),
            (Expire, "expired"),
            (Cancel, "failed"),
            (Reverse, "reversed"),
        ],
    ),
    (
        "pending",
        &[(Pay, "success"), (Fail, "failed"), (Expire, "expired"), (Cancel, "failed"), (Reverse, "reversed")],
    ),
    ("success", &[(Reverse, "reversed")]),
    ("failed", &[]),
    ("ineligible", &[]),
    ("cancelled", &[]),
    ("expired", &[]),
    ("reversed", &[]),
];

const UNCLAIMED: &[(LinkChange, &str)] = &[(Fail, "failed"), (Expire, "expired"), (Cancel, "cancelled")];

const REVOLUT: Table = &[
    ("created", UNCLAIMED),
    ("awaiting", UNCLAIMED),
    (
        "active",
        &[
            (Claim, "processing"),
            (Pay, "processed"),
            (Fail, "failed"),
            (Expire, "expired"),
            (Cancel, "cancelled"),
        ],
    ),
    ("processing", &[(Pay, "processed"), (Fail, "failed")]),
    ("processed", &[(Reverse, "processed")]),
    ("failed", &[]),
    ("expired", &[]),
    ("cancelled", &[]),
];

const RAZORPAYX: Table = &[
    ("pending", &[(Fail, "rejected")]),
    ("issued", &[(Claim, "processing"), (Expire, "expired"), (Cancel, "cancelled")]),
    ("processing", &[(Pay, "processed"), (Reopen, "issued")]),
    ("queued", &[(Pay, "processed"), (Reopen, "issued")]),
    ("processed", &[(Reverse, "processed")]),
    ("cancelled", &[]),
    ("expired", &[]),
    ("rejected", &[]),
];

const XENDIT: Table = &[
    ("PENDING", &[(Claim, "CLAIMED"), (Fail, "FAILED"), (Expire, "VOIDED"), (Cancel, "VOIDED")]),
    ("CLAIMED", &[(Pay, "COMPLETED"), (Fail, "FAILED")]),
    ("DISBURSING", &[(Pay, "COMPLETED"), (Fail, "FAILED")]),
    ("COMPLETED", &[(Reverse, "REVERSED")]),
    ("FAILED", &[]),
    ("VOIDED", &[]),
    ("REVERSED", &[]),
];

async fn changes_as(table: Table, env: &TestEnv, path: &str, body: &Value, reference_field: &str) {
    for (status, possible) in table {
        for change in ALL {
            let reference = format!("{status}-{change}");
            let body = changed(body, reference_field, reference.clone().into());
            let made = env.post(path, &body).await;
            assert!(made.status < 300, "{}", made.body);
            env.simulator.set_status(&reference, status);
            let entered = env.simulator.history(&reference).len();
            let outcome = env.simulator.change(&reference, change);
            let expected = possible.iter().find(|(known, _)| *known == change).map(|(_, next)| *next);
            let history = env.simulator.history(&reference);
            assert_eq!(history.last().unwrap().status, expected.unwrap_or(status), "{reference}");
            match expected {
                Some(_) => assert_eq!(outcome, Ok(()), "{reference}"),
                None => {
                    let why = outcome.unwrap_err();
                    assert!(why.contains(change.name()) && why.contains(status), "{why}");
                    assert_eq!(history.len(), entered, "{reference}");
                }
            }
        }
    }
    assert!(env.simulator.change("none", Claim).unwrap_err().contains("no link none"));
}

#[tokio::test]
async fn hyperswitch_changes_payouts_as_its_source_does() {
    let provider = Provider::Hyperswitch(HyperswitchSettings::new(hyperswitch::KEY));
    let env = TestEnv::new(provider, ("api-key", hyperswitch::KEY.into())).await;
    changes_as(HYPERSWITCH, &env, "/payouts/create", &hyperswitch::link(), "payout_id").await;
}

#[tokio::test]
async fn revolut_changes_links_as_it_says() {
    let env = revolut::env().await;
    changes_as(REVOLUT, &env, revolut::LINKS, &revolut::link(), "request_id").await;
}

#[tokio::test]
async fn razorpayx_changes_links_as_it_says() {
    let provider = Provider::RazorpayX(RazorpayXSettings::new("id", "secret"));
    let env = TestEnv::new(provider, ("authorization", razorpayx::basic("id", "secret"))).await;
    changes_as(RAZORPAYX, &env, razorpayx::LINKS, &razorpayx::link(), "receipt").await;
}

#[tokio::test]
async fn xendit_changes_payouts_as_it_says() {
    let provider = Provider::Xendit(XenditSettings::new(xendit::KEY));
    let env = TestEnv::new(provider, ("authorization", xendit::basic(xendit::KEY, ""))).await;
    changes_as(XENDIT, &env, "/payouts", &xendit::payout(), "external_id").await;
}

#[tokio::test]
async fn changes_are_requested_over_http_as_well() {
    let provider = Provider::Xendit(XenditSettings::new(xendit::KEY));
    let env = TestEnv::new(provider, ("authorization", xendit::basic(xendit::KEY, ""))).await;
    let id = env.post("/payouts", &xendit::payout()).await.with(200)["id"].as_str().unwrap().to_owned();
    let request = async |path: &str, body: Value| {
        answer(env.bare(Method::POST, &format!("/control/links/{path}")).body(body.to_string())).await
    };
    assert_eq!(request(&format!("{id}/change"), json!({ "to": "claim" })).await.status, 204);
    assert_eq!(request("po_1001/change", json!({ "to": "pay" })).await.status, 204);
    assert_eq!(env.get(&format!("/payouts/{id}")).await.with(200)["status"], "COMPLETED");
    let rejected = request("po_1001/change", json!({ "to": "cancel" })).await.with(409);
    assert!(rejected["error"]["message"].as_str().unwrap().contains("is COMPLETED"), "{rejected}");
    assert_eq!(request("po_1001/change", json!({ "to": "explode" })).await.status, 400);
    assert_eq!(request("po_1001/late-submit", json!(null)).await.status, 409);

    let ledger = answer(env.bare(Method::GET, "/ledger")).await.with(200);
    let history = ledger["links"][0]["history"].as_array().unwrap().clone();
    let entered: Vec<&Value> = history.iter().map(|change| &change["status"]).collect();
    assert_eq!(entered, ["PENDING", "CLAIMED", "COMPLETED"]);
}
