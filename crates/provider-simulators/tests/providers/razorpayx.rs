//! Tests RazorpayX: no idempotency, a list by receipt, and contacts in two forms.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use provider_simulators::providers::{LinkChange, Provider, RazorpayXSettings};
use reqwest::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::client::{TestEnv, answer, changed, number};

const ACCOUNT: &str = "7878780080316316";
pub(crate) const LINKS: &str = "/v1/payout-links";

pub(crate) fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{id}:{secret}")))
}

async fn env() -> TestEnv {
    with(RazorpayXSettings::new("rzp_live_1", "secret")).await
}

async fn with(settings: RazorpayXSettings) -> TestEnv {
    TestEnv::new(Provider::RazorpayX(settings), ("authorization", basic("rzp_live_1", "secret"))).await
}

pub(crate) fn link() -> Value {
    json!({
        "account_number": ACCOUNT,
        "contact": { "name": "Asha Example", "contact": "9000012345", "email": "asha@example.com", "type": "customer" },
        "amount": 259_900,
        "currency": "INR",
        "purpose": "refund",
        "description": "Refund for order 1001",
        "receipt": "po_1001",
        "send_sms": false,
        "send_email": false,
        "notes": { "merchant_payout_id": "po_1001" },
        "expire_by": OffsetDateTime::now_utc().unix_timestamp() + 3600,
    })
}

#[tokio::test]
async fn a_link_is_issued_and_found_by_its_receipt() {
    let env = env().await;
    let made = env.post(LINKS, &link()).await.with(200);
    let id = made["id"].as_str().unwrap();

    assert!(id.starts_with("poutlk_") && id.len() == 21, "{id}");
    assert_eq!(
        (&made["entity"], &made["status"], &made["amount"]),
        (&json!("payout_link"), &json!("issued"), &json!(259_900))
    );
    assert!(made["short_url"].as_str().unwrap().starts_with("https://links.example/i/"));
    assert_eq!(env.get(&format!("{LINKS}/{id}")).await.with(200), made);
    let listed = env.get(&format!("{LINKS}?receipt=po_1001&count=100")).await.with(200);
    assert_eq!(
        (&listed["entity"], &listed["count"], &listed["items"][0]),
        (&json!("collection"), &json!(1), &made)
    );
    assert_eq!(env.get(&format!("{LINKS}?receipt=po_100")).await.with(200)["count"], 0);
    assert_eq!(
        env.get(&format!("{LINKS}/poutlk_none")).await.with(400)["error"]["code"],
        "BAD_REQUEST_ERROR"
    );
}

#[tokio::test]
async fn a_repeat_makes_a_second_link_whatever_its_key() {
    let env = env().await;
    for _ in 0..2 {
        let call = env.call(Method::POST, LINKS).header("x-payout-idempotency", "key-1");
        answer(call.header("content-type", "application/json").body(link().to_string())).await.with(200);
    }
    assert_eq!(env.simulator.ledger().links_of("po_1001").len(), 2);
}

#[tokio::test]
async fn a_list_comes_in_pages_the_newest_first() {
    let env = env().await;
    let mut ids = Vec::new();
    for _ in 0..12 {
        ids.insert(0, env.post(LINKS, &link()).await.with(200)["id"].clone());
    }
    let page = async |query: &str| {
        let page = env.get(&format!("{LINKS}?receipt=po_1001{query}")).await.with(200);
        page["items"].as_array().unwrap().iter().map(|item| item["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(page("").await, ids[..10]);
    assert_eq!(page("&skip=10").await, ids[10..]);
    assert_eq!(page("&count=3&skip=1").await, ids[1..4]);
    let now = OffsetDateTime::now_utc().unix_timestamp();
    assert_eq!(page(&format!("&from={}", now + 60)).await, Vec::<Value>::new());
    assert_eq!(page(&format!("&from={}&to={}", now - 60, now + 60)).await.len(), 10);
    for query in ["count=101", "count=0", "count=x", "reference=x"] {
        assert_eq!(env.get(&format!("{LINKS}?{query}")).await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn the_problem_of_an_invalid_request_is_named() {
    let env = env().await;
    let none = Value::Null;
    let soon = OffsetDateTime::now_utc().unix_timestamp() + 14 * 60;
    for (path, value) in [
        ("account_number", none.clone()),
        ("account_number", json!("1")),
        ("amount", json!(99)),
        ("amount", json!("259900")),
        ("amount", number("2599.00")),
        ("currency", json!("USD")),
        ("purpose", none.clone()),
        ("purpose", json!("gift")),
        ("description", none.clone()),
        ("receipt", json!("x".repeat(41))),
        ("send_sms", json!("false")),
        ("notes", json!({ "x": "y".repeat(257) })),
        ("notes", (0..16).map(|n| (n.to_string(), json!("x"))).collect()),
        ("expire_by", json!(soon)),
        ("expire_by", json!("tomorrow")),
        ("contact", none.clone()),
        ("contact.name", none),
        ("contact.name", json!("Al")),
        ("contact.name", json!("x".repeat(51))),
        ("contact.name", json!("Ada <b>")),
        ("contact.name", json!("Ada (")),
        ("contact.contact", json!("nine")),
        ("contact.email", json!("asha")),
        ("contact.type", json!("friend")),
        ("contact.phone", json!("1")),
        ("reference_id", json!("x")),
        ("contact.id", json!("cont_1")),
    ] {
        let refused =
            env.post(LINKS, &changed(&link(), path, value.clone())).await.with(400)["error"].clone();
        assert_eq!(
            (&refused["code"], &refused["field"]),
            (&json!("BAD_REQUEST_ERROR"), &json!(path)),
            "{value}: {refused}"
        );
    }
    assert_eq!(env.links(), 0);
}

#[tokio::test]
async fn a_contact_is_known_by_its_id_alone_or_described() {
    let env = env().await;
    let known = changed(&link(), "contact", json!({ "id": "cont_Q7x2KabcDEF123" }));
    assert_eq!(env.post(LINKS, &known).await.with(200)["contact_id"], "cont_Q7x2KabcDEF123");
    let both = changed(&link(), "contact.id", "cont_Q7x2KabcDEF123".into());
    env.post(LINKS, &both).await.with(400);
    let unreachable = changed(&link(), "contact", json!({ "name": "Asha Example" }));
    assert_eq!(env.post(LINKS, &unreachable).await.with(400)["error"]["field"], "contact.contact");
    let mailed =
        changed(&link(), "contact", json!({ "name": "J. R. Example Jr.", "email": "asha@example.com" }));
    env.post(LINKS, &mailed).await.with(200);
}

#[tokio::test]
async fn expiry_is_there_only_where_it_is_enabled() {
    let settings = RazorpayXSettings { expiry: false, ..RazorpayXSettings::new("rzp_live_1", "secret") };
    let env = with(settings).await;
    assert_eq!(env.post(LINKS, &link()).await.with(400)["error"]["field"], "expire_by");
    let made = env.post(LINKS, &changed(&link(), "expire_by", Value::Null)).await.with(200);
    assert_eq!(made["expire_by"], Value::Null);
}

#[tokio::test]
async fn both_halves_of_the_key_count() {
    let env = env().await;
    for credential in
        [None, Some(basic("rzp_live_1", "wrong")), Some(basic("x", "secret")), Some("Bearer secret".into())]
    {
        let mut call = env.bare(Method::GET, LINKS);
        if let Some(credential) = credential {
            call = call.header("authorization", credential);
        }
        assert_eq!(answer(call).await.with(401)["error"]["code"], "BAD_REQUEST_ERROR");
    }
}

#[tokio::test]
async fn an_issued_link_is_cancelled_and_no_other() {
    let env = env().await;
    env.simulator.set_stages(&["pending", "issued"]);
    let made = env.post(LINKS, &link()).await.with(200);
    let path = format!("{LINKS}/{}/cancel", made["id"].as_str().unwrap());
    assert_eq!(env.post(&path, &json!({})).await.status, 400, "it is pending");
    env.simulator.set_status("po_1001", "issued");
    let cancelled = env.post(&path, &json!({})).await.with(200);
    assert_eq!(cancelled["status"], "cancelled");
    assert!(cancelled["cancelled_at"].is_i64());
}

#[tokio::test]
async fn a_payout_that_fails_opens_the_link_again_and_the_next_one_is_another() {
    let env = env().await;
    let id = env.post(LINKS, &link()).await.with(200)["id"].as_str().unwrap().to_owned();
    let shown = async || env.get(&format!("{LINKS}/{id}")).await.with(200);
    let brief = |link: &Value| json!([link["status"], link["attempt_count"], link["payout_id"]]);

    env.simulator.change("po_1001", LinkChange::Claim).unwrap();
    let claimed = shown().await;
    assert_eq!(brief(&claimed), json!(["processing", 1, null]));
    assert!(env.simulator.change(&id, LinkChange::Fail).unwrap_err().contains("reopen"));
    env.simulator.change(&id, LinkChange::Reopen).unwrap();
    let open = shown().await;
    assert_eq!(brief(&open), json!(["issued", 1, null]));
    assert_eq!(open["fund_account_id"], claimed["fund_account_id"], "of the last attempt");

    env.simulator.change(&id, LinkChange::Claim).unwrap();
    env.simulator.change(&id, LinkChange::Pay).unwrap();
    let paid = shown().await;
    let payout_id = paid["payout_id"].as_str().unwrap();
    assert_eq!(brief(&paid), json!(["processed", 2, payout_id]));
    let listed = env.get(&format!("{LINKS}?receipt=po_1001&status=processed")).await.with(200);
    assert_eq!(listed["items"][0], paid);
    let payouts = env.simulator.ledger().links[0].payouts.clone();
    let statuses: Vec<&str> = payouts.iter().map(|payout| payout.status.as_str()).collect();
    assert_eq!((statuses, payouts[1].id.as_str()), (vec!["failed", "processed"], payout_id));
}

#[tokio::test]
async fn only_the_payout_says_that_it_was_reversed() {
    let env = env().await;
    let id = env.post(LINKS, &link()).await.with(200)["id"].as_str().unwrap().to_owned();
    assert!(env.simulator.change(&id, LinkChange::Reverse).is_err());
    for change in [LinkChange::Claim, LinkChange::Pay] {
        env.simulator.change(&id, change).unwrap();
    }
    let paid = env.get(&format!("{LINKS}/{id}")).await.with(200);
    let path = format!("/v1/payouts/{}", paid["payout_id"].as_str().unwrap());
    let payout = env.get(&path).await.with(200);
    assert_eq!(json!([payout["entity"], payout["status"]]), json!(["payout", "processed"]));
    assert!(payout["id"].as_str().unwrap().len() == 19 && !payout.to_string().contains(&id), "{payout}");

    env.simulator.change(&id, LinkChange::Reverse).unwrap();
    assert_eq!(env.get(&path).await.with(200)["status"], "reversed");
    assert_eq!(env.get(&format!("{LINKS}/{id}")).await.with(200), paid, "the link does not show it");
    let changes = env.simulator.history(&id);
    let last = changes.last().unwrap();
    assert_eq!((last.status.as_str(), last.payout_status.as_deref()), ("processed", Some("reversed")));
    assert_eq!(env.get("/v1/payouts/pout_none").await.with(400)["error"]["code"], "BAD_REQUEST_ERROR");
    let bare = answer(env.bare(Method::GET, &path)).await;
    assert_eq!(bare.status, 401);
}

#[tokio::test]
async fn an_expiry_is_requested_and_moves_the_end() {
    let env = env().await;
    let made = env.post(LINKS, &link()).await.with(200);
    let path = format!("{LINKS}/{}", made["id"].as_str().unwrap());
    env.simulator.change("po_1001", LinkChange::Expire).unwrap();
    let expired = env.get(&path).await.with(200);
    assert_eq!(json!([expired["status"], expired["cancelled_at"]]), json!(["expired", null]));
    assert!(expired["expired_at"].as_i64() >= expired["expire_by"].as_i64(), "{expired}");
    assert!(expired["expire_by"].as_i64() < made["expire_by"].as_i64(), "{expired}");
    assert_eq!(env.post(&format!("{path}/cancel"), &json!({})).await.status, 400);
}
