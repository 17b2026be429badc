//! Tests the common features of all simulators with one of them: faults in the provider's form, stages, and the
//! ledger.

use provider_simulators::providers::{
    Fault, FaultRule, Garbage, HyperswitchSettings, Operation, Provider, When,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{TestEnv, answer};

async fn env() -> TestEnv {
    TestEnv::new(Provider::Hyperswitch(HyperswitchSettings::new("key")), ("api-key", "key".into())).await
}

fn link(id: &str) -> Value {
    json!({ "payout_id": id, "amount": 1, "currency": "EUR", "payout_link": true, "customer_id": "cus_secret" })
}

#[tokio::test]
async fn an_injected_error_has_the_providers_form() {
    let env = env().await;
    env.simulator.inject_fault(Fault::status_with_retry_after(429, "7"));
    let refused = env.post("/payouts/create", &link("a")).await;
    assert_eq!(refused.header("retry-after"), Some("7"));
    assert_eq!(refused.with(429)["error"]["code"], "HE_00");
    assert_eq!(env.links(), 0);

    env.simulator.inject_fault(FaultRule::new(Fault::status(500)).after_the_work());
    assert_eq!(env.post("/payouts/create", &link("a")).await.with(500)["error"]["type"], "api");
    assert_eq!(env.links(), 1);
}

#[tokio::test]
async fn garbage_looks_like_the_providers_success() {
    let env = env().await;
    env.simulator.inject_fault(FaultRule::new(Fault::Garbage(Garbage::MissingFields)).after_the_work());
    let reply = env.post("/payouts/create", &link("a")).await.with(200);
    assert_eq!(reply["payout_id"], "a");
    assert!(reply["payout_link"].is_object() && reply["payout_link"].get("link").is_none());

    env.simulator.inject_fault(Fault::Garbage(Garbage::InsecureUrl));
    let reply = env.post("/payouts/create", &link("b")).await.with(200);
    assert!(reply["payout_link"]["link"].as_str().unwrap().starts_with("http://"));
    assert_eq!(env.links(), 1, "the second was never created");
}

#[tokio::test]
async fn an_answer_is_lost_after_the_work() {
    let env = env().await;
    env.simulator.inject_fault(FaultRule::new(Fault::Reset).after_the_work());
    let call = env.call(Method::POST, "/payouts/create").header("content-type", "application/json");
    call.body(link("a").to_string()).send().await.unwrap_err();
    let ledger = env.simulator.until(|ledger| ledger.links.len() == 1).await;
    let create = ledger.creates().next().unwrap();
    assert_eq!((create.status, create.fault), (None, Some("reset")));
}

#[tokio::test]
async fn of_two_that_race_for_a_reference_one_makes_the_link() {
    let env = env().await;
    let held = env.simulator.hold_next(Operation::Create, When::Before);
    let body = link("a");
    let (first, second) = tokio::join!(env.post("/payouts/create", &body), async {
        held.arrived().await;
        let second = env.post("/payouts/create", &body).await;
        held.release();
        second
    });
    second.with(200);
    assert_eq!(first.with(400)["error"]["code"], "HE_01");
    assert_eq!(env.links(), 1);
}

#[tokio::test]
async fn a_link_goes_through_its_stages_one_for_each_look() {
    let env = env().await;
    env.simulator.set_stages(&["requires_payout_method_data", "pending", "success"]);
    let status = |reply: Value| reply["status"].as_str().unwrap().to_owned();
    assert_eq!(
        status(env.post("/payouts/create", &link("a")).await.with(200)),
        "requires_payout_method_data"
    );
    for expected in ["pending", "success", "success"] {
        assert_eq!(status(env.get("/payouts/a").await.with(200)), expected);
    }
}

#[tokio::test]
async fn it_is_controlled_over_http_as_well() {
    let env = env().await;
    let put = async |path: &str, body: Value| {
        answer(env.bare(Method::PUT, path).body(body.to_string())).await.status
    };
    assert_eq!(put("/control/stages", json!(["pending"])).await, 204);
    assert_eq!(put("/control/stages", json!(["nonsense"])).await, 400);
    assert_eq!(put("/control/stages", json!([])).await, 400);
    assert_eq!(env.post("/payouts/create", &link("a")).await.with(200)["status"], "pending");
    assert_eq!(put("/control/links/a", json!({ "status": "success" })).await, 204);
    assert_eq!(put("/control/links/b", json!({ "status": "success" })).await, 400);
    assert_eq!(put("/control/links/a", json!({ "status": "nonsense" })).await, 400);

    let rule = json!({ "fault": { "status": { "code": 503 } }, "reference": "a", "on": "get" });
    answer(env.bare(Method::POST, "/control/faults").body(rule.to_string())).await.with(201);
    assert_eq!(env.get("/payouts/a").await.status, 503);
    assert_eq!(env.get("/payouts/a").await.with(200)["status"], "success");
}

#[tokio::test]
async fn the_ledger_lists_calls_and_links_without_their_secrets() {
    let env = env().await;
    env.post("/payouts/create", &link("a")).await.with(200);
    env.get("/payouts/a").await.with(200);
    let reply = answer(env.bare(Method::GET, "/ledger")).await;
    for secret in ["links.example", "cus_secret"] {
        assert!(!reply.body.contains(secret), "{}", reply.body);
    }
    let ledger = reply.with(200);
    let calls: Vec<&Value> =
        ledger["calls"].as_array().unwrap().iter().map(|call| &call["operation"]).collect();
    assert_eq!(calls, ["create", "get"]);
    assert_eq!(ledger["calls"][1]["reference"], "a");
    assert_eq!(ledger["links"][0]["amount"], "1");
}

#[tokio::test]
async fn an_unknown_path_is_rejected_in_the_providers_form() {
    let env = env().await;
    assert_eq!(env.get("/payouts").await.with(404)["error"]["code"], "IR_02");
    assert_eq!(env.get("/healthz").await.body, "ok");
}
