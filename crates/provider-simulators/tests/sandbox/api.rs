//! Tests creating, replaying, looking up and cancelling.

use std::time::Duration;

use provider_simulators::sandbox::{Idempotency, LinkStatus, Settings};
use reqwest::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::client::{TOKEN, TestEnv, answer, request};

#[tokio::test]
async fn a_create_issues_a_link() {
    let env = TestEnv::new().await;
    let answer = answer(env.create("key-1", &request("po_1", 1250))).await;

    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("idempotency-replayed"), None);
    let link = answer.json();
    let mut names: Vec<&str> = link.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["expires_at", "id", "status", "url"]);
    assert_eq!(link["status"], "issued");
    let token = link["url"].as_str().unwrap().strip_prefix(&format!("{}/l/", env.sandbox.url())).unwrap();
    assert_eq!(token.len(), 32, "24 random bytes in base64");
    let expires_at = OffsetDateTime::parse(link["expires_at"].as_str().unwrap(), &Rfc3339).unwrap();
    assert!(expires_at > OffsetDateTime::now_utc() + Duration::from_hours(6 * 24));
}

#[tokio::test]
async fn the_same_key_and_body_return_the_same_link_flagged() {
    let env = TestEnv::new().await;
    let first = env.created("key-1", &request("po_1", 1250)).await;
    // Another order of fields is the same request.
    let again = json!({
        "recipient": { "email": "ada@example.com", "name": "Ada Lovelace" },
        "destination_currency": "EUR",
        "amount": { "currency": "EUR", "minor_amount": 1250 },
        "reference": "po_1",
    });
    let answer = answer(env.create("key-1", &again)).await;

    assert_eq!((answer.status, answer.header("idempotency-replayed")), (201, Some("true")));
    let mut replay = answer.json();
    assert_eq!(replay.as_object_mut().unwrap().remove("replayed"), Some(json!(true)));
    assert_eq!(replay, first);
    let ledger = env.sandbox.ledger();
    assert_eq!(ledger.links.len(), 1);
    assert_eq!(ledger.keys_seen(), ["key-1", "key-1"]);
    assert_eq!(ledger.calls.iter().map(|call| call.replayed).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test]
async fn the_same_key_with_another_body_is_rejected() {
    let env = TestEnv::new().await;
    env.created("key-1", &request("po_1", 1250)).await;
    let answer = answer(env.create("key-1", &request("po_1", 1251))).await;

    assert_eq!((answer.status, answer.error_code().as_str()), (422, "idempotency_key_reused"));
    assert_eq!(env.sandbox.ledger().links.len(), 1);
}

#[tokio::test]
async fn a_key_is_in_use_while_its_first_call_is_carried_out() {
    let env = TestEnv::new().await;
    let held = env.sandbox.hold_next_call();
    let first = tokio::spawn(env.create("key-1", &request("po_1", 1250)).send());
    held.arrived().await;

    let twin = answer(env.create("key-1", &request("po_1", 1250))).await;
    assert_eq!((twin.status, twin.error_code().as_str()), (409, "idempotency_key_in_use"));
    let other = answer(env.create("key-1", &request("po_1", 1))).await;
    assert_eq!((other.status, other.error_code().as_str()), (422, "idempotency_key_reused"));

    held.release();
    assert_eq!(first.await.unwrap().unwrap().status(), 201);
    assert_eq!(env.created("key-1", &request("po_1", 1250)).await["replayed"], true);
}

#[tokio::test]
async fn without_idempotency_each_create_makes_another_link() {
    let settings = Settings { idempotency: Idempotency::Off, ..Settings::new(TOKEN) };
    let env = TestEnv::with(settings).await;
    let first = env.created("key-1", &request("po_1", 1250)).await;
    let second = env.created("key-1", &request("po_1", 1250)).await;
    assert_ne!(first["id"], second["id"]);

    let listed = env.get("/v1/payout-links?reference=po_1").await.json();
    let ids: Vec<&Value> = listed["data"].as_array().unwrap().iter().map(|link| &link["id"]).collect();
    assert_eq!(ids, [&first["id"], &second["id"]]);
}

#[tokio::test]
async fn the_mode_is_switched_while_it_runs() {
    let env = TestEnv::new().await;
    let off = json!({ "idempotency": "off" });
    let answer = answer(env.call(Method::PUT, "/control/mode").body(off.to_string())).await;
    assert_eq!((answer.status, answer.json()), (200, off.clone()));
    assert_eq!(env.get("/control/mode").await.json(), off);

    env.created("key-1", &request("po_1", 1250)).await;
    env.created("key-1", &request("po_1", 1250)).await;
    assert_eq!(env.sandbox.ledger().links_of("po_1").len(), 2);
}

#[tokio::test]
async fn every_call_needs_the_token() {
    let env = TestEnv::new().await;
    let paths = [
        (Method::POST, "/v1/payout-links"),
        (Method::GET, "/v1/payout-links?reference=po_1"),
        (Method::GET, "/v1/payout-links/plink_1"),
        (Method::POST, "/v1/payout-links/plink_1/cancel"),
    ];
    for (method, path) in paths {
        let url = format!("{}{path}", env.sandbox.url());
        for credential in [None, Some("Bearer wrong"), Some(TOKEN), Some("Basic dG9rZW4=")] {
            let mut call = env.client.request(method.clone(), &url);
            if let Some(credential) = credential {
                call = call.header("authorization", credential);
            }
            let answer = answer(call).await;
            assert_eq!((answer.status, answer.error_code().as_str()), (401, "unauthorized"), "{path}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        }
    }
}

#[tokio::test]
async fn a_create_needs_a_key_json_and_a_body_of_bounded_size() {
    let env = TestEnv::new().await;
    let body = request("po_1", 1250).to_string();
    let call = || env.call(Method::POST, "/v1/payout-links").body(body.clone());
    let json = "application/json";

    let refused = answer(call().header("content-type", json)).await;
    assert_eq!((refused.status, refused.error_code().as_str()), (400, "idempotency_key_missing"));
    let refused = answer(call().header("content-type", json).header("idempotency-key", "")).await;
    assert_eq!((refused.status, refused.error_code().as_str()), (400, "idempotency_key_invalid"));
    let refused = answer(call().header("idempotency-key", "key-1")).await;
    assert_eq!((refused.status, refused.error_code().as_str()), (415, "unsupported_media_type"));
    let refused = answer(env.create("key-1", &json!({ "reference": "x".repeat(70_000) }))).await;
    assert_eq!((refused.status, refused.error_code().as_str()), (413, "invalid_request"));
    let refused = answer(env.create("key-1", &json!({ "reference": "po_1", "sum": 1 }))).await;
    assert_eq!((refused.status, refused.error_code().as_str()), (400, "invalid_request"));

    // A key whose call was rejected can be used again.
    env.created("key-1", &request("po_1", 1250)).await;
}

#[tokio::test]
async fn a_link_is_looked_up_by_id_and_by_reference() {
    let env = TestEnv::new().await;
    let link = env.created("key-1", &request("po 1&x", 1250)).await;
    let id = link["id"].as_str().unwrap();

    let reply = env.get(&format!("/v1/payout-links/{id}")).await.json();
    assert_eq!(reply["amount"], json!({ "minor_amount": 1250, "currency": "EUR" }));
    assert_eq!(
        (&reply["id"], &reply["url"], &reply["status"]),
        (&link["id"], &link["url"], &json!("issued"))
    );
    assert_eq!(reply["payout_status"], "REQUIRES_FULFILLMENT");

    let listed = env.get("/v1/payout-links?reference=po+1%26x").await;
    assert_eq!((listed.status, listed.json()), (200, json!({ "data": [reply] })));
    let none = env.get("/v1/payout-links?reference=po_2").await;
    assert_eq!((none.status, none.json()), (200, json!({ "data": [] })));
    assert_eq!(env.get("/v1/payout-links/plink_none").await.status, 404);
    assert_eq!(env.get("/v1/payout-links").await.error_code(), "invalid_request");
    assert_eq!(env.get("/v1/payouts").await.error_code(), "not_found");
    let wrong = answer(env.call(Method::DELETE, "/v1/payout-links")).await;
    assert_eq!((wrong.status, wrong.error_code().as_str()), (405, "method_not_allowed"));
}

#[tokio::test]
async fn a_link_is_cancelled_once_and_for_all() {
    let env = TestEnv::new().await;
    let link = env.created("key-1", &request("po_1", 1250)).await;
    let path = format!("/v1/payout-links/{}/cancel", link["id"].as_str().unwrap());
    for _ in 0..2 {
        let answer = env.post(&path, &Value::Null).await;
        assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("cancelled")));
    }
    assert_eq!(env.sandbox.ledger().links[0].status(), LinkStatus::Cancelled);
    assert_eq!(env.post("/v1/payout-links/plink_none/cancel", &Value::Null).await.status, 404);
}

#[tokio::test]
async fn a_link_expires() {
    let settings = Settings { link_lifetime: Duration::ZERO, ..Settings::new(TOKEN) };
    let env = TestEnv::with(settings).await;
    let link = env.created("key-1", &request("po_1", 1250)).await;
    assert_eq!(link["status"], "issued");

    let reply = env.get(&format!("/v1/payout-links/{}", link["id"].as_str().unwrap())).await.json();
    assert_eq!((&reply["status"], &reply["payout_status"]), (&json!("expired"), &json!("EXPIRED")));
}

#[tokio::test]
async fn the_ledger_lists_every_call_and_link_and_no_secret() {
    let env = TestEnv::new().await;
    assert_eq!(answer(env.create("key-1", &request("po_1", 50_301))).await.status, 503);
    let link = env.created("key-1", &request("po_1", 50_301)).await;
    env.created("key-1", &request("po_1", 50_301)).await;
    assert_eq!(answer(env.create("key-1", &request("po_2", 50_301))).await.status, 422);
    env.get("/v1/payout-links?reference=po_1").await;

    let answer = env.get("/ledger").await;
    let ledger = answer.json();
    let calls: Vec<Value> = ledger["calls"].as_array().unwrap().iter().map(essence).collect();
    let id = &link["id"];
    assert_eq!(
        calls,
        [
            json!([1, "create", "key-1", "po_1", null, 503, false, "status"]),
            json!([2, "create", "key-1", "po_1", id, 201, false, null]),
            json!([3, "create", "key-1", "po_1", id, 201, true, null]),
            json!([4, "create", "key-1", "po_2", null, 422, false, null]),
            json!([5, "list", null, "po_1", null, 200, false, null]),
        ]
    );
    assert!(OffsetDateTime::parse(ledger["calls"][0]["at"].as_str().unwrap(), &Rfc3339).is_ok());
    assert_eq!(ledger["links"].as_array().unwrap().len(), 1);
    assert_eq!(
        json!([
            ledger["links"][0]["id"],
            ledger["links"][0]["idempotency_key"],
            ledger["links"][0]["status"]
        ]),
        json!([id, "key-1", "issued"])
    );
    for secret in [TOKEN, "ada@example.com", "Ada Lovelace", link["url"].as_str().unwrap()] {
        assert!(!answer.body.contains(secret), "{secret} is in the ledger");
    }
}

fn essence(call: &Value) -> Value {
    let names =
        ["number", "operation", "idempotency_key", "reference", "link_id", "status", "replayed", "fault"];
    names.iter().map(|name| call[name].clone()).collect()
}
