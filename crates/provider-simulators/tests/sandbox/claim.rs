//! Tests the page behind a link's URL, without a browser.

use std::time::Duration;

use provider_simulators::sandbox::{LinkChange, LinkStatus, Settings};
use reqwest::Method;
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::client::{Answer, TOKEN, TestEnv, answer, request};

const IBAN: &str = "DE89 3704 0044 0532 0130 00";

/// Creates a link, and returns its page's path.
async fn issue(env: &TestEnv, body: &Value) -> String {
    let link = env.created("key-1", body).await;
    link["url"].as_str().unwrap().strip_prefix(env.sandbox.url()).unwrap().to_owned()
}

async fn show(env: &TestEnv, page: &str) -> Answer {
    answer(env.client.get(format!("{}{page}", env.sandbox.url()))).await
}

async fn claim(env: &TestEnv, page: &str, holder: &str, account: &str) -> Answer {
    let fields = [("account_holder", holder), ("account_number", account)];
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let call = env.client.post(format!("{}{page}", env.sandbox.url())).body(body);
    answer(call.header("content-type", "application/x-www-form-urlencoded")).await
}

fn status(env: &TestEnv) -> LinkStatus {
    env.sandbox.ledger().links[0].status()
}

#[tokio::test]
async fn the_page_shows_the_payout_and_asks_for_the_account() {
    let env = TestEnv::new().await;
    let page = issue(&env, &request("po_1", 123_450)).await;
    let shown = show(&env, &page).await;

    assert_eq!((shown.status, shown.header("content-type")), (200, Some("text/html; charset=utf-8")));
    for expected in [
        r#"<html lang="en">"#,
        "<title>Claim EUR 1,234.50</title>",
        r#"name="viewport""#,
        r#"<label for="account_holder">"#,
        r#"id="account_holder" name="account_holder""#,
        r#"<label for="account_number">"#,
        r#"id="account_number" name="account_number""#,
        r#"value="Ada Lovelace""#,
        r#"<form method="post""#,
        r#"<button type="submit">"#,
    ] {
        assert!(shown.body.contains(expected), "{expected} is not in {}", shown.body);
    }
    assert!(!shown.body.contains("src=") && !shown.body.contains("http"), "the page loads nothing");
    assert!(!shown.body.contains("Paid out in"), "there is but one currency");
}

#[tokio::test]
async fn caches_frames_and_other_sites_do_not_get_the_page() {
    let env = TestEnv::new().await;
    let page = issue(&env, &request("po_1", 1250)).await;
    let shown = show(&env, &page).await;
    let policy = shown.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert_eq!(shown.header("cache-control"), Some("no-store"));
    assert_eq!(shown.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(shown.header("x-content-type-options"), Some("nosniff"));
}

#[tokio::test]
async fn claiming_makes_the_payout_pending_and_then_a_success() {
    let env = TestEnv::new().await;
    env.sandbox.set_pay_after(None);
    let page = issue(&env, &request("po_1", 1250)).await;
    let claimed = claim(&env, &page, "Ada Lovelace", IBAN).await;
    assert_eq!(claimed.status, 303);
    assert_eq!(page, format!("/l/{}", claimed.header("location").unwrap()), "relative to the page");

    let shown = show(&env, &page).await;
    assert_eq!(shown.status, 200);
    assert!(shown.body.contains("Payout status: PENDING"), "{}", shown.body);
    assert_eq!(seen(&env).await, json!(["claimed", "PENDING"]));
    env.sandbox.change("po_1", LinkChange::Pay).unwrap();
    assert!(show(&env, &page).await.body.contains("Payout status: SUCCESS"));
    assert_eq!(seen(&env).await, json!(["paid", "SUCCESS"]));

    let ledger = env.get("/ledger").await.body;
    assert!(!ledger.contains("DE89") && !format!("{:?}", env.sandbox.ledger()).contains("DE89"));
}

/// Returns the only link, as the API has it.
async fn seen(env: &TestEnv) -> Value {
    let reply = env.get("/v1/payout-links?reference=po_1").await.json();
    json!([reply["data"][0]["status"], reply["data"][0]["payout_status"]])
}

/// Claims a link of this amount with this account, and checks the statuses that it enters by itself.
async fn course(minor_amount: i64, account: &str, wanted: &[LinkStatus]) -> (TestEnv, String) {
    let env = TestEnv::with(Settings { pay_after: Some(Duration::ZERO), ..Settings::new(TOKEN) }).await;
    let page = issue(&env, &request("po_1", minor_amount)).await;
    assert_eq!(claim(&env, &page, "Ada", account).await.status, 303);
    let ledger = env.until(|ledger| ledger.links[0].history().len() > wanted.len()).await;
    let entered: Vec<LinkStatus> = ledger.links[0].history().iter().map(|change| change.status).collect();
    assert_eq!(entered[1..], *wanted, "{minor_amount} {account}");
    (env, page)
}

#[tokio::test]
async fn a_claimed_payout_is_paid_by_itself_unless_the_account_or_the_amount_says_otherwise() {
    course(1250, IBAN, &[LinkStatus::Claimed, LinkStatus::Paid]).await;
    let came_back = [LinkStatus::Claimed, LinkStatus::Paid, LinkStatus::Reversed];
    course(1250, "99990003", &came_back).await;
    let (env, page) = course(70_300, IBAN, &came_back).await;
    assert!(show(&env, &page).await.body.contains("Payout status: REVERSED"));

    let failed = [LinkStatus::Claimed, LinkStatus::Failed];
    course(1250, "9999 0001", &failed).await;
    let (env, page) = course(70_100, IBAN, &failed).await;
    let shown = show(&env, &page).await;
    assert!(shown.status == 200 && shown.body.contains("Payout status: FAILED"), "{}", shown.body);
    let id = env.sandbox.ledger().links[0].id.clone();
    let reply = env.get(&format!("/v1/payout-links/{id}")).await.json();
    assert_eq!((&reply["status"], &reply["failure"]["code"]), (&json!("failed"), &json!("account_closed")));
}

#[tokio::test]
async fn a_payout_that_is_held_waits_for_a_change_by_hand() {
    for (minor_amount, account) in [(1250, "99990002"), (70_200, IBAN)] {
        let (env, _) = course(minor_amount, account, &[LinkStatus::Claimed]).await;
        env.sandbox.change("po_1", LinkChange::Process).unwrap();
        assert_eq!(status(&env), LinkStatus::Processing);
    }
    let env = TestEnv::with(Settings { pay_after: None, ..Settings::new(TOKEN) }).await;
    let page = issue(&env, &request("po_1", 1250)).await;
    claim(&env, &page, "Ada", IBAN).await;
    env.sandbox.change("po_1", LinkChange::Fail).unwrap();
    assert_eq!(status(&env), LinkStatus::Failed);
}

/// Checks that the timer of a first claim does not pay after a change by hand.
#[tokio::test]
async fn a_change_by_hand_ends_the_automatic_course() {
    let pay_after = Some(Duration::from_millis(100));
    let env = TestEnv::with(Settings { pay_after, ..Settings::new(TOKEN) }).await;
    let page = issue(&env, &request("po_1", 1250)).await;
    assert_eq!(claim(&env, &page, "Ada", IBAN).await.status, 303);
    for change in [LinkChange::Reopen, LinkChange::Claim] {
        env.sandbox.change("po_1", change).unwrap();
    }
    // When a link that was claimed later is paid, the timer of the first one has ended.
    let later = env.created("key-2", &request("po_2", 1250)).await;
    let page = later["url"].as_str().unwrap().strip_prefix(env.sandbox.url()).unwrap().to_owned();
    assert_eq!(claim(&env, &page, "Ada", IBAN).await.status, 303);
    env.until(|ledger| ledger.links[1].status() == LinkStatus::Paid).await;
    assert_eq!(status(&env), LinkStatus::Claimed);
}

#[tokio::test]
async fn a_payout_is_claimed_once() {
    let env = TestEnv::new().await;
    let page = issue(&env, &request("po_1", 1250)).await;
    let twins = tokio::join!(claim(&env, &page, "Ada", IBAN), claim(&env, &page, "Bob", IBAN));
    let mut statuses = [twins.0.status, twins.1.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [303, 409]);

    let again = claim(&env, &page, "Ada", IBAN).await;
    assert!(again.status == 409 && again.body.contains("claimed already"), "{}", again.body);
    let id = env.sandbox.ledger().links[0].id.clone();
    let cancel = env.post(&format!("/v1/payout-links/{id}/cancel"), &Value::Null).await;
    assert_eq!((cancel.status, cancel.error_code().as_str()), (409, "already_claimed"));
    assert_eq!(status(&env), LinkStatus::Claimed);
}

#[tokio::test]
async fn invalid_details_are_shown_again_with_their_problems() {
    let env = TestEnv::new().await;
    let page = issue(&env, &request("po_1", 1250)).await;
    let refused = claim(&env, &page, " ", "DE89 3704 0044 0532 0130 01").await;

    assert_eq!(refused.status, 422);
    for expected in [
        "<title>Error: Claim EUR 12.50</title>",
        r#"role="alert""#,
        r##"<a href="#account_holder">Enter the name of the account holder.</a>"##,
        r##"<a href="#account_number">This is not a valid IBAN."##,
        r#"aria-invalid="true" aria-describedby="account_number-hint account_number-error""#,
        r#"value="DE89 3704 0044 0532 0130 01""#,
    ] {
        assert!(refused.body.contains(expected), "{expected} is not in {}", refused.body);
    }
    assert_eq!(claim(&env, &page, "Ada", "").await.status, 422);
    let not_a_form = env.client.post(format!("{}{page}", env.sandbox.url())).body("{}");
    assert_eq!(answer(not_a_form).await.status, 400);
    assert_eq!(status(&env), LinkStatus::Issued);
}

#[tokio::test]
async fn text_from_outside_is_escaped() {
    let env = TestEnv::new().await;
    let mut body = request("po_1", 1250);
    body["recipient"]["name"] = json!(r#""><script>alert('x')</script>"#);
    let page = issue(&env, &body).await;
    let refused = claim(&env, &page, "<b>Ada</b>", r#""><img src=x onerror=alert(1)>"#).await;
    for page in [show(&env, &page).await, refused] {
        assert!(!page.body.contains("<script") && !page.body.contains("<img") && !page.body.contains("<b>"));
    }
}

#[tokio::test]
async fn a_payout_in_another_currency_says_so() {
    let env = TestEnv::new().await;
    let mut body = request("po_1", 5000);
    body["amount"]["currency"] = json!("JPY");
    let page = issue(&env, &body).await;
    let shown = show(&env, &page).await.body;
    assert!(shown.contains("JPY 5,000") && shown.contains("Paid out in EUR"), "{shown}");
}

#[tokio::test]
async fn links_that_are_over_and_links_that_never_were_have_a_page_too() {
    let expired = TestEnv::with(Settings { link_lifetime: Duration::ZERO, ..Settings::new(TOKEN) }).await;
    let page = issue(&expired, &request("po_1", 1250)).await;
    for answer in [show(&expired, &page).await, claim(&expired, &page, "Ada", IBAN).await] {
        assert!(answer.status == 410 && answer.body.contains("has expired"), "{}", answer.body);
    }

    let env = TestEnv::new().await;
    let page = issue(&env, &request("po_1", 1250)).await;
    let id = env.sandbox.ledger().links[0].id.clone();
    env.post(&format!("/v1/payout-links/{id}/cancel"), &Value::Null).await;
    for answer in [show(&env, &page).await, claim(&env, &page, "Ada", "bad").await] {
        assert!(answer.status == 410 && answer.body.contains("was cancelled"), "{}", answer.body);
    }
    assert_eq!(status(&env), LinkStatus::Cancelled);

    for answer in [show(&env, "/l/guessed").await, claim(&env, "/l/guessed", "Ada", IBAN).await] {
        assert!(answer.status == 404 && answer.body.contains("no such payout link"), "{}", answer.body);
    }
    let put = answer(env.call(Method::PUT, &page)).await;
    assert_eq!(put.status, 405);
}
