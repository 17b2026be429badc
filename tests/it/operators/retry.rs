//! `retry` has failed records tried again.

use payout_link_worker::domain::retry::Reopening;
use payout_link_worker::postgres::{Acted, NewAct, Operator, StoreError, Unconcluded};
use provider_simulators::sandbox::Fault;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use super::{said, unknown};
use crate::support::{Setup, TestEnv, accept, claim, created, eventually, job, store};

#[tokio::test(flavor = "multi_thread")]
async fn a_declined_payout_is_tried_again_and_its_duplicates_wait_for_the_next_end() {
    // Given a payout that its provider declined,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    env.provider.inject_fault(Fault::status(422));
    let wanted = || job("po_1").with("webhook_url", env.webhook_url());
    env.publish(wanted()).await;
    let failed = env.result_of("po_1").await;
    env.wait_until_delivered("po_1").await;
    // when it is tried again, and a duplicate comes during the attempt,
    let call = env.provider.hold_next_answer();
    assert!(env.run(&["retry", "po_1", "--reason", "limit raised"]).status.success());
    call.arrived().await;
    let again = env.run(&["retry", "po_1", "--reason", "impatient"]);
    assert_eq!(again.status.code(), Some(5), "{}", said(&again));
    assert!(
        said(&again).contains("the record is open") && said(&again).contains("limit raised"),
        "{}",
        said(&again)
    );
    let (queue, replies) = env.reply_queue().await;
    env.publish(wanted().reply_to(&queue)).await;
    let taken = "SELECT EXISTS (SELECT FROM payout_links WHERE reply_to = $1)";
    eventually("the duplicate is accepted", async || {
        sqlx::query_scalar::<_, bool>(taken).bind(&queue).fetch_one(&env.pool).await.unwrap().then_some(())
    })
    .await;
    assert!(replies.lock().unwrap().is_empty());
    call.release();
    // then it waits for the new conclusion, and gets it alone.
    let reply = eventually("a reply", async || replies.lock().unwrap().first().cloned()).await;
    let results = env.wait_for_results("po_1", 2).await;
    assert_eq!((reply.kind(), reply.id()), ("payout_link.created".into(), results[1].id()));
    assert_eq!((results[0].id(), results[0].json()), (failed.id(), failed.json()));
    let webhooks = env.webhooks(2).await;
    assert_eq!(webhooks[1].event_type.as_deref(), Some("payout_link.created"));
    // A record with a link is not tried again.
    let refused = env.run(&["retry", "po_1", "--reason", "again"]);
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    assert_eq!((env.provider.ledger().links.len(), replies.lock().unwrap().len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_is_still_tried_keeps_its_content_and_goes_first() {
    // Given a merchant that does not take the first webhook, and whose next attempt is an hour away,
    let env = Setup::default().set("webhooks.schedule_seconds", "[3600]").build().await;
    let _worker = env.start_worker().await;
    env.merchant.inject_fault(Fault::status(500));
    let link = unknown(&env, "po_1").await;
    let first = env.webhooks(1).await.remove(0);
    env.wait_until_shown("po_1", "the failed webhook is stored", |shown| {
        shown["event"]["webhook_attempts"] == 1
    })
    .await;
    // when the payout is resolved,
    assert!(env.run(&["resolve", "po_1", "--created", &link, "--reason", "seen"]).status.success());
    // then the first webhook is tried again at once, to the letter, and the second one after it.
    let webhooks = env.webhooks(3).await;
    assert_eq!((&webhooks[1].id, &webhooks[1].body), (&first.id, &first.body));
    assert_eq!(webhooks[2].event_type.as_deref(), Some("payout_link.created"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payout_without_its_request_or_its_account_is_not_tried_again() {
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    for id in ["po_1", "po_2", "po_3"] {
        env.provider.inject_fault(Fault::status(422));
        env.publish(job(id)).await;
        env.wait_until_delivered(id).await;
    }
    assert!(worker.stop().await.success());
    for change in [
        "UPDATE payout_links SET request = NULL WHERE merchant_payout_id = 'po_1'",
        "UPDATE payout_links SET account = 'another' WHERE merchant_payout_id = 'po_2'",
        // The sandbox forgets keys after a day, and cannot be asked under this replay rule.
        "UPDATE payout_links SET first_called_at = now() - interval '2 days' WHERE merchant_payout_id = 'po_3'",
    ] {
        assert_eq!(sqlx::query(change).execute(&env.pool).await.unwrap().rows_affected(), 1);
    }
    let output =
        env.run(&["retry", "po_1", "po_2", "po_3", "po_9", "--reason", "again", "--output", "jsonl"]);
    assert_eq!(output.status.code(), Some(5), "{}", said(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let reports: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (report, (outcome, words)) in reports.iter().zip([
        ("refused", "the request is deleted"),
        ("refused", "in another account"),
        ("refused", "may have forgotten the idempotency key"),
        ("not_found", "no record has the id"),
    ]) {
        assert_eq!(report["outcome"], outcome);
        assert!(report["message"].as_str().unwrap().contains(words), "{report}");
    }
    assert_eq!(reports.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conclusion_of_a_lost_claim_does_not_end_the_next_attempt() {
    // Given a record that one claim concluded as failed, and another claim of it with an answer in hand,
    let env = TestEnv::new().await;
    payout_link_worker::postgres::migrate(&env.pool).await.unwrap();
    let store = store(env.pool.clone());
    let late = accept(&store, "po_1").await;
    let expire = "UPDATE payout_links SET due_at = now() - interval '1 second', in_doubt_since = NULL";
    sqlx::query(expire).execute(&env.pool).await.unwrap();
    let mut link = claim(&store, 1).await.remove(0).unwrap();
    link.progress.in_doubt_since = None;
    let mut failed = created(&mut link, "plink_1");
    failed.state = payout_link_worker::domain::PayoutLinkState::Failed;
    failed.event_type = payout_link_worker::domain::EventType::Failed;
    failed.connector_payout_id = None;
    failed.error_code = Some(payout_link_worker::domain::ConclusionCode::ConnectorRejected);
    let event = store.conclude(link, failed).await.unwrap();
    let (operator, details) = (Operator { actor: "ada".into(), reason: "again".into() }, json!({}));
    let act = NewAct { operator: &operator, command: "retry", details: &details };
    // when an operator tries it again before its result is published, then that is refused;
    let record = store.acted("po_1").await.unwrap().remove(0);
    assert_eq!(store.reopen(&record, Reopening::Call, act).await.unwrap(), Acted::Unpublished);
    sqlx::query("UPDATE events SET published_at = now(), due_at = NULL, holder = NULL")
        .execute(&env.pool)
        .await
        .unwrap();
    assert_eq!(store.reopen(&record, Reopening::Call, act).await.unwrap(), Acted::Done);
    // a second operator who saw the same record is too late;
    assert_eq!(store.reopen(&record, Reopening::Call, act).await.unwrap(), Acted::Changed);
    // and the answer of the lost claim does not count.
    let mut late = late;
    let answer = created(&mut late, "plink_late");
    let refused = store.conclude(late, answer).await;
    assert!(matches!(refused, Err(Unconcluded { error: StoreError::LeaseLost, .. })));
    // The next claim concludes it again, once, with the next event.
    let mut link = claim(&store, 1).await.remove(0).unwrap();
    assert_eq!(
        (link.last_sequence, link.progress.attempts_before, link.progress.in_doubt_since),
        (1, 1, None)
    );
    store.renew_for_call(&mut link).await.unwrap();
    let answer = created(&mut link, "plink_2");
    let again = store.conclude(link, answer).await.unwrap();
    assert_eq!((again.sequence, again.webhook_waits), (2, false));
    let chain: Vec<(uuid::Uuid, i32, Option<uuid::Uuid>, Option<uuid::Uuid>)> = sqlx::query_as(
        AssertSqlSafe("SELECT id, sequence, previous_event_id, next_event_id FROM events ORDER BY sequence"),
    )
    .fetch_all(&env.pool)
    .await
    .unwrap();
    assert_eq!(chain, [(event.id, 1, None, Some(again.id)), (again.id, 2, Some(event.id), None)]);
}
