//! Tests the changes of Revolut's links and of the transactions behind them.

use provider_simulators::providers::LinkChange;
use serde_json::{Value, json};

use crate::client::{TestEnv, answer, changed};
use crate::revolut::{LINKS, env, link};

/// Creates an active link, and returns its path.
async fn active(env: &TestEnv, request_id: &str) -> String {
    let body = changed(&link(), "request_id", request_id.into());
    let made = env.post(LINKS, &body).await.with(201);
    let path = format!("{LINKS}/{}", made["id"].as_str().unwrap());
    assert_eq!(env.get(&path).await.with(200)["state"], "active");
    path
}

#[tokio::test]
async fn a_claimed_link_names_its_transaction_and_the_transaction_has_the_outcome() {
    let env = env().await;
    let path = active(&env, "pl-1").await;
    env.simulator.change("pl-1", LinkChange::Claim).unwrap();
    let claimed = env.get(&path).await.with(200);
    assert_eq!((&claimed["state"], claimed.get("url")), (&json!("processing"), None));
    let transaction = format!("/api/1.0/transaction/{}", claimed["transaction_id"].as_str().unwrap());
    let pending = env.get(&transaction).await.with(200);
    assert_eq!(pending["state"], "pending");
    assert!(!pending.to_string().contains("pl-1"), "the link's request_id is not in it: {pending}");

    env.simulator.change("pl-1", LinkChange::Pay).unwrap();
    let paid = env.get(&path).await.with(200);
    assert_eq!(
        json!([paid["state"], paid["transaction_id"]]),
        json!(["processed", claimed["transaction_id"]])
    );
    let completed = env.get(&transaction).await.with(200);
    assert_eq!(json!([completed["state"], completed["legs"][0]["currency"]]), json!(["completed", "GBP"]));
    assert_eq!(completed["legs"][0]["amount"].to_string(), "-25.99");

    env.simulator.change("pl-1", LinkChange::Reverse).unwrap();
    assert_eq!(env.get(&transaction).await.with(200)["state"], "reverted");
    assert_eq!(env.get(&path).await.with(200), paid, "the link does not show it");
    assert!(env.simulator.change("pl-1", LinkChange::Reverse).is_err());
    assert_eq!(env.get("/api/1.0/transaction/none").await.with(404)["code"], 3006);
    let bare = env.bare(reqwest::Method::GET, &transaction);
    assert_eq!(answer(bare).await.status, 401);
}

#[tokio::test]
async fn the_transaction_of_a_failed_link_failed_and_an_unclaimed_link_has_none() {
    let env = env().await;
    let (claimed, unclaimed) = (active(&env, "pl-1").await, active(&env, "pl-2").await);
    env.simulator.change("pl-1", LinkChange::Claim).unwrap();
    for reference in ["pl-1", "pl-2"] {
        env.simulator.change(reference, LinkChange::Fail).unwrap();
    }
    let failed = env.get(&claimed).await.with(200);
    let transaction = format!("/api/1.0/transaction/{}", failed["transaction_id"].as_str().unwrap());
    assert_eq!(env.get(&transaction).await.with(200)["state"], "failed");
    let failed = env.get(&unclaimed).await.with(200);
    assert_eq!((&failed["state"], failed.get("transaction_id")), (&json!("failed"), None));
}

#[tokio::test]
async fn one_list_shows_the_states_of_many_links() {
    let env = env().await;
    for number in 0..4 {
        active(&env, &format!("pl-{number}")).await;
    }
    for (reference, change) in
        [("pl-0", LinkChange::Claim), ("pl-1", LinkChange::Pay), ("pl-2", LinkChange::Expire)]
    {
        env.simulator.change(reference, change).unwrap();
    }
    let listed = async |states: &str| {
        let page = env.get(&format!("{LINKS}?limit=1000{states}")).await.with(200);
        let of = |link: &Value| link["request_id"].as_str().unwrap().to_owned();
        page.as_array().unwrap().iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(listed("&state=active&state=processing").await, ["pl-3", "pl-0"]);
    assert_eq!(listed("&state=processed&state=expired").await, ["pl-2", "pl-1"]);
    assert_eq!(listed("").await.len(), 4);
}

#[tokio::test]
async fn a_cancellation_has_a_reason_where_it_is_revoluts_own() {
    let env = env().await;
    let (ours, theirs) = (active(&env, "pl-1").await, active(&env, "pl-2").await);
    env.simulator.change("pl-1", LinkChange::Cancel).unwrap();
    env.simulator.set_status("pl-2", "cancelled");
    assert_eq!(env.get(&ours).await.with(200).get("cancellation_reason"), None);
    assert_eq!(env.get(&theirs).await.with(200)["cancellation_reason"], "too_many_name_check_attempts");
}
