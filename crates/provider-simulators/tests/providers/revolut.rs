//! Tests Revolut: tokens that expire, amounts with their digits, links that become active later, and a list for
//! look-ups.

use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use provider_simulators::providers::{
    ACCESS_TOKEN_LIFETIME, ACCOUNTS, Duplicates, Fault, FaultRule, Operation, Provider, RevolutClient,
    RevolutSettings,
};
use reqwest::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::client::{Answer, TestEnv, answer, changed, number};

pub(crate) const TOKEN: &str = "oa_sand_of_the_tests";
pub(crate) const LINKS: &str = "/api/1.0/payout-links";

pub(crate) fn client(public_key: Vec<u8>) -> RevolutClient {
    RevolutClient {
        client_id: "client-1".into(),
        issuer: "example.com".into(),
        refresh_token: "oa_refresh".into(),
        public_key,
        access_token_lifetime: ACCESS_TOKEN_LIFETIME,
        access_token: Some(TOKEN.into()),
    }
}

pub(crate) async fn env() -> TestEnv {
    with(RevolutSettings::new(client(Vec::new()))).await
}

pub(crate) async fn with(settings: RevolutSettings) -> TestEnv {
    TestEnv::new(Provider::Revolut(settings), ("authorization", format!("Bearer {TOKEN}"))).await
}

pub(crate) fn link() -> Value {
    json!({
        "counterparty_name": "Ada Example",
        "request_id": "pl-1",
        "account_id": ACCOUNTS[0].0,
        "amount": number("25.99"),
        "currency": "GBP",
        "reference": "po_1001",
    })
}

async fn code(env: &TestEnv, body: &Value) -> (u16, u64) {
    let answer = env.post(LINKS, body).await;
    (answer.status, answer.json()["code"].as_u64().unwrap_or_default())
}

#[tokio::test]
async fn a_link_is_created_and_has_a_url_once_it_is_active() {
    let env = env().await;
    let made = env.post(LINKS, &link()).await.with(201);
    assert_eq!(made["state"], "created");
    assert!(made.get("url").is_none() && made.get("expiry_date").is_none());
    assert_eq!(made["amount"].to_string(), "25.99");
    assert_eq!(made["payout_methods"], json!(["revolut", "bank_account"]));

    let path = format!("{LINKS}/{}", made["id"].as_str().unwrap());
    let active = env.get(&path).await.with(200);
    assert_eq!(active["state"], "active");
    assert!(active["url"].as_str().unwrap().starts_with("https://links.example/p/"));
    let time = |name: &str| OffsetDateTime::parse(active[name].as_str().unwrap(), &Rfc3339).unwrap();
    assert_eq!(time("expiry_date") - time("created_at"), time::Duration::days(7));

    env.simulator.set_status("pl-1", "processed");
    let processed = env.get(&path).await.with(200);
    assert!(processed.get("url").is_none() && processed["transaction_id"].is_string());
    assert_eq!(env.get(&format!("{LINKS}/none")).await.with(404)["code"], 3006);
}

#[tokio::test]
async fn a_repeated_request_id_is_rejected_or_returns_the_link_by_its_setting() {
    let refusing = env().await;
    refusing.post(LINKS, &link()).await.with(201);
    assert_eq!(code(&refusing, &link()).await, (400, 3020));
    assert_eq!(refusing.links(), 1);

    let settings =
        RevolutSettings { duplicates: Duplicates::SameLink, ..RevolutSettings::new(client(Vec::new())) };
    let progress = with(settings).await;
    let first = progress.post(LINKS, &link()).await.with(201);
    assert_eq!(progress.post(LINKS, &link()).await.with(201)["id"], first["id"]);
    assert_eq!(code(&progress, &changed(&link(), "amount", json!(26))).await, (400, 3020));
    assert_eq!(progress.links(), 1);
}

#[tokio::test]
async fn a_list_is_paged_by_the_time_of_its_last() {
    let env = env().await;
    env.simulator.set_stages(&["active"]);
    for n in 0..5 {
        env.post(LINKS, &changed(&link(), "request_id", format!("pl-{n}").into())).await.with(201);
    }
    let mut seen = Vec::new();
    let mut query = "limit=2".to_owned();
    loop {
        let page = env.get(&format!("{LINKS}?{query}")).await.with(200);
        let page = page.as_array().unwrap().clone();
        let Some(last) = page.last() else { break };
        query = format!("limit=2&created_before={}", last["created_at"].as_str().unwrap());
        seen.extend(page.iter().map(|link| link["request_id"].as_str().unwrap().to_owned()));
    }
    assert_eq!(seen, ["pl-4", "pl-3", "pl-2", "pl-1", "pl-0"]);
    env.simulator.set_status("pl-3", "failed");
    let failed = env.get(&format!("{LINKS}?state=failed&state=expired")).await.with(200);
    assert_eq!((failed.as_array().unwrap().len(), &failed[0]["request_id"]), (1, &json!("pl-3")));
    for query in ["limit=1001", "limit=0", "state=nonsense", "request_id=pl-1", "created_before=yesterday"] {
        assert_eq!(env.get(&format!("{LINKS}?{query}")).await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn an_invalid_request_has_the_code_of_its_problem() {
    let env = env().await;
    let none = Value::Null;
    for (field, value, expected) in [
        ("counterparty_name", none.clone(), 3009),
        ("request_id", none.clone(), 3009),
        ("request_id", json!("x".repeat(41)), 3000),
        ("account_id", none.clone(), 3009),
        ("account_id", json!("main"), 3000),
        ("account_id", json!("5d6e7f80-1111-4222-8333-944455566699"), 3000),
        ("amount", none.clone(), 3009),
        ("amount", json!("25.99"), 3000),
        ("amount", number("25.999"), 3000),
        ("amount", number("2.599e1"), 3000),
        ("amount", number("0.99"), 3000),
        ("amount", number("2500.01"), 3000),
        ("amount", json!(-5), 3000),
        ("currency", json!("gbp"), 3000),
        ("currency", json!("EUR"), 3000),
        ("reference", none, 3009),
        ("reference", json!("x".repeat(101)), 3000),
        ("payout_methods", json!([]), 3000),
        ("payout_methods", json!(["card"]), 3000),
        ("payout_methods", json!(["cash"]), 3000),
        ("expiry_period", json!("P8D"), 3000),
        ("expiry_period", json!("PT23H"), 3000),
        ("expiry_period", json!("7 days"), 3000),
        ("save_counterparty", json!("yes"), 3000),
        ("idempotency_key", json!("x"), 3000),
    ] {
        assert_eq!(
            code(&env, &changed(&link(), field, value.clone())).await,
            (400, expected),
            "{field} {value}"
        );
    }
    assert_eq!(env.links(), 0);
    for amount in ["1", "1.00", "2500", "2500.00"] {
        let body = changed(&changed(&link(), "amount", number(amount)), "request_id", amount.into());
        env.post(LINKS, &body).await.with(201);
    }
    let yen = json!({ "account_id": ACCOUNTS[3].0, "currency": "JPY", "amount": 1250, "counterparty_name": "A",
        "request_id": "yen", "reference": "r", "expiry_period": "P1D", "save_counterparty": true });
    env.post(LINKS, &yen).await.with(201);
    assert_eq!(code(&env, &changed(&yen, "amount", number("1250.0"))).await, (400, 3000));
}

#[tokio::test]
async fn a_link_is_cancelled_until_it_is_claimed() {
    let env = env().await;
    let made = env.post(LINKS, &link()).await.with(201);
    let path = format!("{LINKS}/{}/cancel", made["id"].as_str().unwrap());
    let cancel = async || answer(env.call(Method::POST, &path)).await;
    let cancelled = cancel().await;
    assert_eq!((cancelled.status, cancelled.body.as_str()), (204, ""));
    assert_eq!(cancel().await.status, 400);
    env.simulator.set_status("pl-1", "processing");
    assert_eq!(cancel().await.status, 400);
}

struct Signer(KeyPair);

impl Signer {
    fn new() -> Self {
        Self(KeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    fn public_key(&self) -> Vec<u8> {
        self.0.public_key().as_ref().to_vec()
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |json: &Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    fn assertion(&self) -> String {
        self.sign(&json!({ "alg": "RS256", "typ": "JWT" }), &claims())
    }
}

fn claims() -> Value {
    let end = OffsetDateTime::now_utc().unix_timestamp() + 60;
    json!({ "iss": "example.com", "sub": "client-1", "aud": "https://revolut.com", "exp": end })
}

async fn token(env: &TestEnv, changes: &[(&str, &str)], assertion: &str) -> Answer {
    let mut form = vec![
        ("grant_type", "refresh_token"),
        ("refresh_token", "oa_refresh"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion),
    ];
    for change in changes {
        form.retain(|(name, _)| *name != change.0);
        form.push(*change);
    }
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let call = env.bare(Method::POST, "/api/1.0/auth/token");
    answer(call.header("content-type", "application/x-www-form-urlencoded").body(body)).await
}

async fn is_good(env: &TestEnv, token: &str) -> bool {
    answer(env.bare(Method::GET, LINKS).bearer_auth(token)).await.status == 200
}

#[tokio::test]
async fn an_access_token_is_given_for_a_signed_assertion_and_ends() {
    let signer = Signer::new();
    let env = with(RevolutSettings::new(client(signer.public_key()))).await;
    let granted = token(&env, &[], &signer.assertion()).await.with(200);
    assert_eq!((&granted["token_type"], &granted["expires_in"]), (&json!("bearer"), &json!(2399)));
    let access = granted["access_token"].as_str().unwrap();
    assert!(is_good(&env, access).await);
    env.simulator.forget_tokens();
    assert!(!is_good(&env, access).await);
    assert!(is_good(&env, TOKEN).await, "a job's own is not from here");

    let brief = RevolutClient { access_token_lifetime: Duration::ZERO, ..client(signer.public_key()) };
    let env = with(RevolutSettings::new(brief)).await;
    let granted = token(&env, &[], &signer.assertion()).await.with(200);
    assert!(!is_good(&env, granted["access_token"].as_str().unwrap()).await, "it is over at once");
}

#[tokio::test]
async fn no_token_is_given_for_anything_else() {
    let (signer, other) = (Signer::new(), Signer::new());
    let env = with(RevolutSettings::new(client(signer.public_key()))).await;
    let header = json!({ "alg": "RS256", "typ": "JWT" });
    let over = OffsetDateTime::now_utc().unix_timestamp() - 1;
    let unsigned = signer.assertion().rsplit_once('.').unwrap().0.to_owned() + ".";
    for (what, assertion) in [
        ("another key", other.assertion()),
        ("no signature", unsigned),
        ("another algorithm", signer.sign(&json!({ "alg": "none" }), &claims())),
        ("another issuer", signer.sign(&header, &changed(&claims(), "iss", "other.com".into()))),
        ("another client", signer.sign(&header, &changed(&claims(), "sub", "client-2".into()))),
        ("another audience", signer.sign(&header, &changed(&claims(), "aud", "revolut.com".into()))),
        ("it is over", signer.sign(&header, &changed(&claims(), "exp", over.into()))),
        ("it has no end", signer.sign(&header, &changed(&claims(), "exp", Value::Null))),
        ("nonsense", "x".into()),
    ] {
        assert_eq!(token(&env, &[], &assertion).await.with(401)["error"], "unauthorized_client", "{what}");
    }
    for (change, expected) in [
        (("grant_type", "authorization_code"), "unsupported_grant_type"),
        (("refresh_token", "other"), "invalid_grant"),
        (("client_assertion_type", "jwt"), "invalid_request"),
        (("scope", "PAY"), "invalid_request"),
    ] {
        let refused = token(&env, &[change], &signer.assertion()).await.with(400);
        assert_eq!(refused["error"], expected);
    }
}

#[tokio::test]
async fn every_path_asks_for_a_token_and_fails_in_the_providers_form() {
    let env = env().await;
    for credential in [None, Some("Bearer wrong"), Some(TOKEN)] {
        let mut call = env.bare(Method::POST, LINKS).body(link().to_string());
        if let Some(credential) = credential {
            call = call.header("authorization", credential);
        }
        assert_eq!(answer(call).await.with(401)["code"], 1000);
    }
    for (status, expected) in [(429, 3162), (500, 5000), (503, 5003), (403, 9002)] {
        env.simulator.inject_fault(Fault::status_with_retry_after(status, "3"));
        let refused = env.post(LINKS, &link()).await;
        assert_eq!(refused.header("retry-after"), Some("3"));
        assert_eq!(refused.with(status)["code"], expected);
    }
    env.simulator.inject_fault(FaultRule::new(Fault::status(500)).on(Operation::Token));
    assert_eq!(env.links(), 0);
}
