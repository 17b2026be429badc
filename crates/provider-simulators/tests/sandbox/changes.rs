//! Tests changes of a link after its creation: by hand, and by the end of its time.

use std::time::Duration;

use provider_simulators::sandbox::{LinkChange, LinkStatus, Settings};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::client::{TOKEN, TestEnv, answer, request};

const ALL: [LinkChange; 8] = [
    LinkChange::Claim,
    LinkChange::Process,
    LinkChange::Pay,
    LinkChange::Fail,
    LinkChange::Reopen,
    LinkChange::Expire,
    LinkChange::Cancel,
    LinkChange::Reverse,
];

/// A status, the changes that lead to it, and the possible changes from it.
type Row = (LinkStatus, &'static [LinkChange], &'static [(LinkChange, LinkStatus)]);

const TABLE: [Row; 8] = {
    use LinkChange::{Cancel, Claim, Expire, Fail, Pay, Process, Reopen, Reverse};
    use LinkStatus as To;
    [
        (To::Issued, &[], &[(Claim, To::Claimed), (Expire, To::Expired), (Cancel, To::Cancelled)]),
        (
            To::Claimed,
            &[Claim],
            &[(Process, To::Processing), (Pay, To::Paid), (Fail, To::Failed), (Reopen, To::Issued)],
        ),
        (To::Processing, &[Claim, Process], &[(Pay, To::Paid), (Fail, To::Failed), (Reopen, To::Issued)]),
        (To::Paid, &[Claim, Pay], &[(Reverse, To::Reversed)]),
        (To::Failed, &[Claim, Fail], &[]),
        (To::Cancelled, &[Cancel], &[]),
        (To::Expired, &[Expire], &[]),
        (To::Reversed, &[Claim, Pay, Reverse], &[]),
    ]
};

#[tokio::test]
async fn a_link_changes_as_the_table_says_and_not_otherwise() {
    let env = TestEnv::new().await;
    for (status, way, onward) in TABLE {
        for change in ALL {
            let reference = format!("{status:?} {change}");
            let id = env.created(&reference, &request(&reference, 1250)).await["id"].clone();
            for &step in way {
                env.sandbox.change(&reference, step).unwrap();
            }
            let entered = env.sandbox.history(&reference).len();
            let changed = env.sandbox.change(id.as_str().unwrap(), change);
            let expected = onward.iter().find(|(possible, _)| *possible == change).map(|(_, next)| *next);
            let history = env.sandbox.history(&reference);
            assert_eq!(history.last().unwrap().status, expected.unwrap_or(status), "{reference}");
            match expected {
                Some(_) => assert_eq!((changed, history.len()), (Ok(()), entered + 1), "{reference}"),
                None => {
                    let why = changed.unwrap_err();
                    assert!(why.contains(change.name()) && why.contains(status.name()), "{why}");
                    assert_eq!(history.len(), entered, "{reference}");
                }
            }
        }
    }
    assert!(env.sandbox.change("po_none", LinkChange::Claim).unwrap_err().contains("po_none"));
}

async fn request_change(env: &TestEnv, link: &str, change: Value) -> u16 {
    env.post(&format!("/control/links/{link}/change"), &change).await.status
}

#[tokio::test]
async fn changes_are_requested_over_http_and_shown_by_id_and_by_reference() {
    let env = TestEnv::new().await;
    let id = env.created("key-1", &request("po_1", 1250)).await["id"].as_str().unwrap().to_owned();
    for (change, status, payout_status) in [
        ("claim", "claimed", "PENDING"),
        ("process", "processing", "PENDING"),
        ("reopen", "issued", "REQUIRES_FULFILLMENT"),
        ("claim", "claimed", "PENDING"),
        ("pay", "paid", "SUCCESS"),
        ("reverse", "reversed", "REVERSED"),
    ] {
        assert_eq!(request_change(&env, "po_1", json!({ "to": change })).await, 204, "{change}");
        let link = env.get(&format!("/v1/payout-links/{id}")).await.json();
        assert_eq!(json!([link["status"], link["payout_status"]]), json!([status, payout_status]));
        let time = |name: &str| OffsetDateTime::parse(link[name].as_str().unwrap(), &Rfc3339).unwrap();
        assert!(time("updated_at") >= time("created_at"));
        let listed = env.get("/v1/payout-links?reference=po_1").await.json();
        assert_eq!(listed["data"][0], link);
    }
    let impossible = env.post(&format!("/control/links/{id}/change"), &json!({ "to": "pay" })).await;
    assert_eq!((impossible.status, impossible.error_code().as_str()), (409, "not_possible"));
    assert!(impossible.body.contains("is reversed"), "{}", impossible.body);
    assert_eq!(request_change(&env, "po_2", json!({ "to": "pay" })).await, 404);
    assert_eq!(request_change(&env, "po_1", json!({ "to": "explode" })).await, 400);
    assert_eq!(request_change(&env, "po_1", json!({ "to": "pay", "after_ms": 1 })).await, 400);

    let ledger = env.get("/ledger").await.json();
    let history = ledger["links"][0]["history"].as_array().unwrap().clone();
    let entered: Vec<&Value> = history.iter().map(|change| &change["status"]).collect();
    assert_eq!(entered, ["issued", "claimed", "processing", "issued", "claimed", "paid", "reversed"]);
    assert!(history.iter().all(|change| change["at"].is_string()));
}

#[tokio::test]
async fn a_failed_payout_says_why() {
    let env = TestEnv::new().await;
    let id = env.created("key-1", &request("po_1", 1250)).await["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/payout-links/{id}");
    assert_eq!(env.get(&path).await.json().get("failure"), None);
    for change in [LinkChange::Claim, LinkChange::Fail] {
        env.sandbox.change(&id, change).unwrap();
    }
    let link = env.get(&path).await.json();
    assert_eq!(json!([link["status"], link["payout_status"]]), json!(["failed", "FAILED"]));
    assert_eq!(link["failure"]["code"], "payout_failed");
    assert!(link["failure"]["message"].is_string());
}

#[tokio::test]
async fn a_link_that_went_further_is_not_cancelled() {
    let env = TestEnv::new().await;
    for (status, way, _) in TABLE {
        let reference = format!("{status:?}");
        let id = env.created(&reference, &request(&reference, 1250)).await["id"].clone();
        for &step in way {
            env.sandbox.change(&reference, step).unwrap();
        }
        let path = format!("/v1/payout-links/{}/cancel", id.as_str().unwrap());
        let expected = match status {
            LinkStatus::Issued | LinkStatus::Cancelled | LinkStatus::Expired => 200,
            LinkStatus::Claimed
            | LinkStatus::Processing
            | LinkStatus::Paid
            | LinkStatus::Failed
            | LinkStatus::Reversed => 409,
        };
        assert_eq!(env.post(&path, &Value::Null).await.status, expected, "{reference}");
    }
}

#[tokio::test]
async fn a_short_time_is_requested_and_its_end_is_in_the_history() {
    let env = TestEnv::new().await;
    let id = env.created("key-1", &request("po_1", 1250)).await["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/payout-links/{id}");
    assert_eq!(request_change(&env, "po_1", json!({ "to": "expire", "after_ms": 3_600_000 })).await, 204);
    let link = env.get(&path).await.json();
    let expires_at = OffsetDateTime::parse(link["expires_at"].as_str().unwrap(), &Rfc3339).unwrap();
    assert!(expires_at < OffsetDateTime::now_utc() + Duration::from_secs(3601), "{link}");
    assert_eq!(link["status"], "issued");

    env.sandbox.expire_after(&id, Duration::ZERO).unwrap();
    let link = env.get(&path).await.json();
    assert_eq!(json!([link["status"], link["updated_at"]]), json!(["expired", link["expires_at"]]));
    let entered: Vec<LinkStatus> = env.sandbox.history("po_1").iter().map(|change| change.status).collect();
    assert_eq!(entered, [LinkStatus::Issued, LinkStatus::Expired]);
    assert!(env.sandbox.expire_after(&id, Duration::ZERO).unwrap_err().contains("is expired"));
    assert!(env.sandbox.change(&id, LinkChange::Claim).unwrap_err().contains("is expired"));
    assert_eq!(env.sandbox.history("po_1").len(), 2, "an expiry is entered once");
}

#[tokio::test]
async fn payouts_are_held_and_resumed_while_it_runs() {
    let env =
        TestEnv::with(Settings { pay_after: Some(Duration::from_millis(20)), ..Settings::new(TOKEN) }).await;
    assert_eq!(env.get("/control/payouts").await.json(), json!({ "pay_after_ms": 20 }));
    for payouts in [json!({ "pay_after_ms": null }), json!({ "pay_after_ms": 5 })] {
        let put = env.call(reqwest::Method::PUT, "/control/payouts").body(payouts.to_string());
        let set = answer(put).await;
        assert_eq!((set.status, set.json()), (200, payouts.clone()));
        assert_eq!(env.get("/control/payouts").await.json(), payouts);
    }
}
