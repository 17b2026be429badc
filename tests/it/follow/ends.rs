//! Tests how a link ends: it expires, its payout fails, or a cancel has its effect or none.

use serde_json::json;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_expires_is_announced_at_its_end() {
    // Given an account that asks about a link at most every hour,
    let env = Setup::default().set("connectors.sandbox.follow.min_interval_seconds", 2).build().await;
    let _worker = env.start_worker().await;
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    env.result_of("po_1").await;
    // when the end is moved to a time that only the provider knows,
    env.provider.expire_after(&link_of(&env, 0), Duration::from_secs(6)).unwrap();
    // then the expiry is announced after it.
    let webhooks = env.webhooks(2).await;
    assert_eq!(kind(&webhooks[1]), "expired");
    assert_eq!(body(&webhooks[1])["data"]["payout_status"], "EXPIRED");
    eventually("the provider is not asked any more", async || {
        let due = "SELECT count(*) FROM payout_links WHERE follow_due_at IS NOT NULL";
        let due: i64 = sqlx::query_scalar(due).fetch_one(&env.pool).await.unwrap();
        (due == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payout_that_fails_says_why() {
    let env = dense().build().await;
    let _worker = env.start_worker().await;
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    env.result_of("po_1").await;
    env.wait_until_delivered("po_1").await;
    let link = link_of(&env, 0);
    let webhooks = changes(
        &env,
        &link,
        &[LinkChange::Claim, LinkChange::Fail],
        &["created", "claimed", "payout_failed"],
    )
    .await;
    let error = &body(&webhooks[2])["data"]["error"];
    assert_eq!(error["unified_details"]["code"], "PAYOUT_FAILED");
    assert!(error["connector_details"]["message"].is_string(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_repeats_no_secret_of_the_job() {
    // Given jobs with a secret that is in the provider's text, of which one request is deleted,
    let env = dense().build().await;
    let _worker = env.start_worker().await;
    let address = json!({ "billing_address": { "city": "because it was ordered" } });
    for id in ["po_1", "po_2"] {
        let job = job(id).with("address", address.clone()).with("webhook_url", env.webhook_url());
        env.publish(job).await;
        env.wait_until_delivered(id).await;
    }
    let erase = "UPDATE payout_links SET request = NULL WHERE merchant_payout_id = 'po_2'";
    sqlx::query(erase).execute(&env.pool).await.unwrap();
    // when their payouts fail,
    for link in [link_of(&env, 0), link_of(&env, 1)] {
        env.provider.change(&link, LinkChange::Claim).unwrap();
        env.provider.change(&link, LinkChange::Fail).unwrap();
    }
    // then the text is redacted, or left out if the secrets are no longer known.
    let message = async |id: &str| {
        let results = eventually("the failure", async || {
            let failed = |result: &ReceivedMessage| result.kind() == "payout_link.payout_failed";
            env.results_of(id).into_iter().find(failed)
        });
        results.await.json()["error"]["connector_details"]["message"].as_str().unwrap().to_owned()
    };
    let redacted = message("po_1").await;
    assert!(redacted.starts_with("the payout failed") && !redacted.contains("ordered"), "{redacted}");
    let erased = message("po_2").await;
    assert!(erased.contains("left out") && !erased.contains("ordered"), "{erased}");
    assert!(!env.pg_dump().contains("because it was ordered"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_without_effect_does_not_explain_a_later_end() {
    // Given a cancel that came after a claim,
    let env = dense().build().await;
    let _worker = env.start_worker().await;
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    env.wait_until_delivered("po_1").await;
    let link = link_of(&env, 0);
    env.provider.inject_fault(FaultRule::new(Fault::status(503)).on(Operation::Cancel).always());
    let begin = "UPDATE payout_links SET cancel_requested_at = now(), follow_due_at = now()";
    sqlx::query(begin).execute(&env.pool).await.unwrap();
    cancels(&env, 1).await;
    // when the link is claimed, reopened, and expires,
    let webhooks = changes(
        &env,
        &link,
        &[LinkChange::Claim, LinkChange::Reopen, LinkChange::Expire],
        &["created", "claimed", "reopened", "expired"],
    );
    // then it is announced as expired.
    webhooks.await;
}

/// Waits for so many calls that cancel a link.
async fn cancels(env: &TestEnv, count: usize) {
    eventually("a cancel", async || {
        let calls = env.provider.ledger().calls;
        let cancels = calls.iter().filter(|call| call.operation == Operation::Cancel).count();
        (cancels >= count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_expires_after_a_cancel_that_failed_has_expired() {
    for fault in [Fault::status(422), Fault::status(503)] {
        // Given a provider that ignores cancels,
        let env = dense().build().await;
        let _worker = env.start_worker().await;
        env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
        env.wait_until_delivered("po_1").await;
        env.provider.inject_fault(FaultRule::new(fault).on(Operation::Cancel).always());
        let request = "UPDATE payout_links SET cancel_requested_at = now(), follow_due_at = now()";
        sqlx::query(request).execute(&env.pool).await.unwrap();
        cancels(&env, 3).await;
        // when the link expires, then its merchant gets no cancelled event.
        env.provider.change(&link_of(&env, 0), LinkChange::Expire).unwrap();
        let webhooks = env.webhooks(2).await;
        assert_eq!(webhooks.iter().map(kind).collect::<Vec<_>>(), ["created", "expired"]);
    }
}
