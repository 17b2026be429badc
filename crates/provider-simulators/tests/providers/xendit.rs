//! Tests Xendit: a duplicate without the link, whole rupiah, and two forms of body.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use provider_simulators::providers::{LinkChange, Provider, Settings, XenditSettings};
use reqwest::Method;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::client::{TestEnv, answer, changed, number};

pub(crate) const KEY: &str = "xnd_development_key_of_the_tests";

pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

async fn env() -> TestEnv {
    with(Settings::new(Provider::Xendit(XenditSettings::new(KEY)))).await
}

async fn with(settings: Settings) -> TestEnv {
    TestEnv::with(settings, ("authorization", basic(KEY, ""))).await
}

pub(crate) fn payout() -> Value {
    json!({ "external_id": "po_1001", "amount": 23000, "email": "ada@example.com" })
}

#[tokio::test]
async fn a_payout_is_made_with_a_link_for_three_days() {
    let env = env().await;
    let made = env.post("/payouts", &payout()).await.with(200);

    assert_eq!(
        (&made["external_id"], &made["amount"], &made["status"]),
        (&json!("po_1001"), &json!(23000), &json!("PENDING"))
    );
    assert!(made["payout_url"].as_str().unwrap().starts_with("https://links.example/web/"));
    let time = |name: &str| OffsetDateTime::parse(made[name].as_str().unwrap(), &Rfc3339).unwrap();
    assert_eq!(time("expiration_timestamp") - time("created"), Duration::days(3));
    let id = made["id"].as_str().unwrap();
    assert_eq!(env.get(&format!("/payouts/{id}")).await.with(200), made);
    assert_eq!(env.get("/payouts/none").await.with(404)["error_code"], "DATA_NOT_FOUND");
}

#[tokio::test]
async fn an_external_id_that_is_taken_is_an_error_and_cannot_be_asked_about() {
    let env = env().await;
    env.post("/payouts", &payout()).await.with(200);
    let again = env.post("/payouts", &payout()).await.with(400);
    assert_eq!(again["error_code"], "DUPLICATE_PAYOUT_ERROR");
    assert!(again.get("id").is_none() && again.get("payout_url").is_none());
    assert_eq!(env.get("/payouts?external_id=po_1001").await.status, 404);
    assert_eq!(env.links(), 1);
}

#[tokio::test]
async fn a_sub_account_has_ids_of_its_own() {
    let env = env().await;
    env.post("/payouts", &payout()).await.with(200);
    let call = env.call(Method::POST, "/payouts").header("for-user-id", "sub_1");
    let call = call.header("content-type", "application/json").body(payout().to_string());
    let id = answer(call).await.with(200)["id"].as_str().unwrap().to_owned();
    assert_eq!(env.get(&format!("/payouts/{id}")).await.status, 404);
}

#[tokio::test]
async fn the_body_may_be_a_form() {
    let env = env().await;
    let form = |body: &'static str| {
        let call = env.call(Method::POST, "/payouts");
        answer(call.header("content-type", "application/x-www-form-urlencoded").body(body))
    };
    assert_eq!(
        form("external_id=po+1&amount=23000&email=ada%40example.com").await.with(200)["external_id"],
        "po 1"
    );
    assert_eq!(form("external_id=po+2&amount=2.5&email=ada%40example.com").await.status, 400);
    let bare = answer(env.call(Method::POST, "/payouts").body(payout().to_string())).await;
    assert_eq!(bare.with(400)["error_code"], "API_VALIDATION_ERROR");
}

#[tokio::test]
async fn the_problem_of_an_invalid_request_is_named() {
    let env = env().await;
    for (field, value) in [
        ("external_id", Value::Null),
        ("external_id", json!("")),
        ("external_id", json!(7)),
        ("amount", Value::Null),
        ("amount", json!("23000")),
        ("amount", number("23000.00")),
        ("amount", number("0.5")),
        ("amount", json!(0)),
        ("amount", json!(-1)),
        ("email", Value::Null),
        ("email", json!("ada")),
        ("email", json!("ada @example.com")),
        ("currency", json!("IDR")),
    ] {
        let refused = env.post("/payouts", &changed(&payout(), field, value.clone())).await.with(400);
        assert_eq!(refused["error_code"], "API_VALIDATION_ERROR", "{field} {value}");
        assert!(refused["message"].as_str().unwrap().contains(field), "{refused}");
    }
    assert_eq!(env.links(), 0);
}

#[tokio::test]
async fn the_key_is_the_user_and_the_password_is_empty() {
    let env = env().await;
    for credential in [
        None,
        Some(basic("wrong", "")),
        Some(basic(KEY, "x")),
        Some(format!("Bearer {KEY}")),
        Some(KEY.to_owned()),
    ] {
        let mut call = env.bare(Method::POST, "/payouts");
        if let Some(credential) = credential {
            call = call.header("authorization", credential);
        }
        assert_eq!(answer(call.body(payout().to_string())).await.with(401)["error_code"], "INVALID_API_KEY");
    }
}

#[tokio::test]
async fn a_payout_above_the_balance_is_declined() {
    let settings = XenditSettings { balance: 22_999, ..XenditSettings::new(KEY) };
    let env = with(Settings::new(Provider::Xendit(settings))).await;
    assert_eq!(env.post("/payouts", &payout()).await.with(400)["error_code"], "INSUFFICIENT_BALANCE");
}

#[tokio::test]
async fn a_pending_payout_is_voided_and_no_other() {
    let env = env().await;
    let id = env.post("/payouts", &payout()).await.with(200)["id"].as_str().unwrap().to_owned();
    let path = format!("/payouts/{id}/void");
    env.simulator.set_status(&id, "CLAIMED");
    assert_eq!(env.post(&path, &json!({})).await.status, 400);
    env.simulator.set_status(&id, "PENDING");
    let voided = env.post(&path, &json!({})).await.with(200);
    assert_eq!((&voided["status"], voided.get("payout_url")), (&json!("VOIDED"), None));
}

#[tokio::test]
async fn an_expiry_is_requested_and_looks_like_a_void_after_the_end() {
    let env = env().await;
    let made = env.post("/payouts", &payout()).await.with(200);
    let id = made["id"].as_str().unwrap();
    env.simulator.change(id, LinkChange::Expire).unwrap();
    let expired = env.get(&format!("/payouts/{id}")).await.with(200);
    assert_eq!(expired["status"], "VOIDED");
    let end = OffsetDateTime::parse(expired["expiration_timestamp"].as_str().unwrap(), &Rfc3339).unwrap();
    assert!(end <= OffsetDateTime::now_utc());
}

#[tokio::test]
async fn every_answer_shows_the_limit_and_a_call_above_it_is_rejected() {
    let provider = Provider::Xendit(XenditSettings::new(KEY));
    let env = with(Settings { calls_per_minute: Some(2), ..Settings::new(provider) }).await;
    for left in ["1", "0"] {
        let answer = env.post("/payouts", &payout()).await;
        assert_eq!(answer.header("rate-limit-limit"), Some("2"));
        assert_eq!(answer.header("rate-limit-remaining"), Some(left));
    }
    let refused = env.post("/payouts", &payout()).await;
    let reset: u64 = refused.header("rate-limit-reset").unwrap().parse().unwrap();
    assert!((1..=60).contains(&reset), "{reset} seconds");
    assert_eq!(refused.header("retry-after"), None);
    assert_eq!(refused.with(429)["error_code"], "RATE_LIMIT_EXCEEDED");
    assert_eq!(env.links(), 1);
}
