//! Tests Hyperswitch: unknown keys, a `payout_id` that is taken, and the preconditions of links.

use provider_simulators::providers::{HyperswitchSettings, LinkChange, Provider};
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{TestEnv, answer, changed, number};

pub(crate) const KEY: &str = "snd_key_of_the_tests";
pub(crate) const ID: &str = "0f9a2c1e-5f3a-5c88-9a10-7de1c2b3a4f5";

async fn env() -> TestEnv {
    with(HyperswitchSettings::new(KEY)).await
}

async fn with(settings: HyperswitchSettings) -> TestEnv {
    TestEnv::new(Provider::Hyperswitch(settings), ("api-key", KEY.into())).await
}

pub(crate) fn link() -> Value {
    json!({
        "payout_id": ID,
        "amount": 2599,
        "currency": "EUR",
        "payout_link": true,
        "confirm": false,
        "customer_id": "cus_88",
        "merchant_order_reference_id": "po_1001",
        "session_expiry": 3600,
        "auto_fulfill": true,
        "priority": "regular",
        "billing": { "address": { "line1": "1 Main St", "country": "DE", "zip": "10115" }, "email": "a@example.com" },
        "metadata": { "merchant_payout_id": "po_1001" },
    })
}

async fn error(env: &TestEnv, body: &Value) -> (u16, String, String) {
    let answer = env.post("/payouts/create", body).await;
    let error = answer.json()["error"].clone();
    let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    (answer.status, text("code"), text("message"))
}

#[tokio::test]
async fn a_link_is_made_and_found_by_our_own_id() {
    let env = env().await;
    let made = env.post("/payouts/create", &link()).await.with(200);

    assert_eq!(made["payout_id"], ID);
    assert_eq!(made["status"], "requires_payout_method_data");
    assert_eq!(made["amount"], 2599);
    let url = made["payout_link"]["link"].as_str().unwrap();
    assert_eq!(url, format!("https://links.example/payout_link/merchant_stand_in/{ID}?locale=en"));
    assert!(made.get("expires_at").is_none(), "there is no expiry in the answer");

    let got = env.get(&format!("/payouts/{ID}?force_sync=false")).await.with(200);
    assert_eq!(got["payout_link"], made["payout_link"]);
    let listed =
        env.post("/payouts/list", &json!({ "merchant_order_reference_id": "po_1001", "limit": 20 })).await;
    assert_eq!(listed.with(200)["data"][0]["payout_id"], ID);
    assert_eq!(env.get("/payouts/none").await.with(404)["error"]["code"], "HE_02");
}

#[tokio::test]
async fn a_payout_id_that_is_taken_is_an_error_without_the_payout_whatever_the_body() {
    let env = env().await;
    env.post("/payouts/create", &link()).await.with(200);
    for again in [link(), changed(&link(), "amount", 1.into())] {
        let (status, code, message) = error(&env, &again).await;
        assert_eq!((status, code.as_str()), (400, "HE_01"));
        assert!(message.contains(ID));
    }
    assert_eq!(env.links(), 1);
    assert_eq!(env.simulator.ledger().references_seen(), [ID, ID, ID]);
}

#[tokio::test]
async fn without_a_payout_id_each_create_makes_another() {
    let env = env().await;
    let body = changed(&link(), "payout_id", Value::Null);
    let first = env.post("/payouts/create", &body).await.with(200);
    let second = env.post("/payouts/create", &body).await.with(200);
    assert_ne!(first["payout_id"], second["payout_id"]);
}

#[tokio::test]
async fn every_path_asks_for_the_key() {
    let env = env().await;
    for (method, path) in [
        (Method::POST, "/payouts/create"),
        (Method::GET, "/payouts/x"),
        (Method::POST, "/payouts/list"),
        (Method::POST, "/payouts/x/cancel"),
    ] {
        for credential in [None, Some("wrong")] {
            let mut call = env.bare(method.clone(), path);
            if let Some(credential) = credential {
                call = call.header("api-key", credential);
            }
            assert_eq!(answer(call).await.with(401)["error"]["code"], "IR_01", "{path}");
        }
    }
}

#[tokio::test]
async fn the_problem_of_an_invalid_request_is_named() {
    let env = env().await;
    let none = Value::Null;
    let cases = [
        ("amount", none.clone(), "IR_04"),
        ("amount", json!("2599"), "IR_07"),
        ("amount", number("25.99"), "IR_07"),
        ("amount", number("2599.0"), "IR_07"),
        ("amount", json!(-1), "IR_07"),
        ("currency", none.clone(), "IR_04"),
        ("currency", json!("eur"), "IR_07"),
        ("customer_id", none, "IR_04"),
        ("customer_id", json!("x".repeat(256)), "IR_07"),
        ("payout_id", json!("x".repeat(65)), "IR_07"),
        ("payout_id", json!("po 1"), "IR_07"),
        ("session_expiry", json!(7_890_001), "IR_07"),
        ("priority", json!("REGULAR"), "IR_07"),
        ("entity_type", json!("person"), "IR_07"),
        ("connector", json!(["nobody"]), "IR_07"),
        ("metadata", json!({ "x": "y".repeat(501) }), "IR_07"),
        ("confirm", json!("false"), "IR_07"),
        ("idempotency_key", json!("x"), "IR_06"),
        ("billing.address.zip_code", json!("10115"), "IR_06"),
        ("payout_link_config.colour", json!("red"), "IR_06"),
    ];
    for (path, value, expected) in cases {
        let (status, code, message) = error(&env, &changed(&link(), path, value.clone())).await;
        assert_eq!((status, code.as_str()), (400, expected), "{path} {value}: {message}");
        assert!(message.contains(path), "{path}: {message}");
    }
    assert_eq!(error(&env, &json!([])).await.1, "IR_06");
    assert_eq!(env.links(), 0);
}

#[tokio::test]
async fn a_link_has_its_preconditions() {
    let sandbox = env().await;
    let (_, code, message) = error(&sandbox, &changed(&link(), "confirm", true.into())).await;
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("IR_06", "cannot confirm a payout while creating a payout link")
    );
    // `customer.id` is the newer form, but the provider does not read it.
    let newer = changed(&changed(&link(), "customer_id", Value::Null), "customer.id", "cus_88".into());
    assert_eq!(error(&sandbox, &newer).await.1, "IR_04");

    let bare = with(HyperswitchSettings { allowed_domains: false, ..HyperswitchSettings::new(KEY) }).await;
    let tested = changed(&link(), "payout_link_config.test_mode", true.into());
    assert!(error(&bare, &link()).await.2.contains("allowed_domains"));
    bare.post("/payouts/create", &tested).await.with(200);

    let production = with(HyperswitchSettings { production: true, ..HyperswitchSettings::new(KEY) }).await;
    assert!(error(&production, &tested).await.2.contains("test_mode"));
    production.post("/payouts/create", &link()).await.with(200);
}

#[tokio::test]
async fn a_payout_is_cancelled_until_it_has_gone_further() {
    let env = env().await;
    env.post("/payouts/create", &link()).await.with(200);
    let path = format!("/payouts/{ID}/cancel");
    let body = json!({ "payout_id": ID });
    assert_eq!(env.post(&path, &json!({})).await.with(400)["error"]["code"], "IR_04");
    assert_eq!(env.post(&path, &body).await.with(200)["status"], "cancelled");
    env.simulator.set_status(ID, "success");
    assert_eq!(env.post(&path, &body).await.with(422)["error"]["code"], "IR_06");
}

/// Checks that the end of a link changes nothing in the payout: only its page shows the end.
#[tokio::test]
async fn a_session_that_is_over_changes_nothing_in_the_payout() {
    let env = env().await;
    env.post("/payouts/create", &changed(&link(), "session_expiry", 0.into())).await.with(200);
    let status = env.get(&format!("/payouts/{ID}")).await.with(200)["status"].clone();
    assert_eq!(status, "requires_payout_method_data");
    assert!(env.simulator.change(ID, LinkChange::Claim).unwrap_err().contains("expired"));
    env.simulator.late_submit(ID).unwrap();
    assert_eq!(env.get(&format!("/payouts/{ID}")).await.with(200)["status"], "initiated");
}

#[tokio::test]
async fn a_late_submission_overwrites_a_cancellation() {
    let env = env().await;
    env.post("/payouts/create", &link()).await.with(200);
    let cancelled = env.post(&format!("/payouts/{ID}/cancel"), &json!({ "payout_id": ID })).await.with(200);
    assert_eq!(
        json!([cancelled["status"], cancelled["error_message"]]),
        json!(["cancelled", "Cancelled by user"])
    );
    assert!(env.simulator.change(ID, LinkChange::Claim).is_err());
    env.simulator.late_submit(ID).unwrap();
    assert!(env.simulator.late_submit(ID).unwrap_err().contains("is initiated"));
    env.simulator.change(ID, LinkChange::Pay).unwrap();
    assert_eq!(env.get(&format!("/payouts/{ID}")).await.with(200)["status"], "success");
}

#[tokio::test]
async fn a_payout_at_the_processor_fails_when_it_is_cancelled() {
    let env = env().await;
    env.post("/payouts/create", &link()).await.with(200);
    for change in [LinkChange::Claim, LinkChange::Process] {
        env.simulator.change(ID, change).unwrap();
    }
    let cancel = async || env.post(&format!("/payouts/{ID}/cancel"), &json!({ "payout_id": ID })).await;
    assert_eq!(cancel().await.with(200)["status"], "failed");
    assert_eq!(cancel().await.with(422)["error"]["code"], "IR_06");
}

#[tokio::test]
async fn a_list_has_no_links() {
    let env = env().await;
    env.post("/payouts/create", &link()).await.with(200);
    let listed = env.post("/payouts/list", &json!({ "payout_id": ID })).await.with(200);
    assert_eq!(listed["data"][0]["payout_link"], Value::Null);
}
