//! Operators end unknown records and have failed ones tried again, beside running workers and each other.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Output, Stdio},
};

use payout_link_worker::domain::retry::Reopening;
use payout_link_worker::postgres::{Acted, NewAct, Operator, StoreError, Unconcluded};
use provider_simulators::sandbox::{Fault, FaultRule, Idempotency, LinkChange, Operation};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::support::{Setup, TestEnv, accept, claim, created, eventually, job, store};

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The acts on a payout: command, actor and details.
async fn acts(env: &TestEnv, id: &str) -> Vec<(String, String, Value)> {
    let acts = "SELECT command, actor, details FROM operator_actions
        JOIN payout_links p ON p.id = payout_link_id WHERE merchant_payout_id = $1 ORDER BY operator_actions.id";
    sqlx::query_as(acts).bind(id).fetch_all(&env.pool).await.unwrap()
}

/// A payout whose link was created by a call without an answer, at a connector that cannot be asked by our reference.
async fn unknown(env: &TestEnv, id: &str) -> String {
    env.provider.inject_fault(FaultRule::new(Fault::Reset).after_the_work());
    env.publish(job(id).connector("mute").with("webhook_url", env.webhook_url())).await;
    assert_eq!(env.result_of(id).await.kind(), "payout_link.pending");
    env.provider.ledger().links.last().unwrap().id.clone()
}

async fn reply_of_duplicate(env: &TestEnv, job: crate::support::Job) -> crate::support::Heard {
    let (queue, replies) = env.reply_queue().await;
    env.publish(job.reply_to(&queue)).await;
    eventually("a reply", async || replies.lock().unwrap().first().cloned()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_payout_is_resolved_as_created_and_its_link_is_followed() {
    // Given an unknown payout whose link exists, and its event,
    let env = Setup::default().set("connectors.mute.follow.min_interval_seconds", 1).build().await;
    let _worker = env.start_worker().await;
    let link = unknown(&env, "po_1").await;
    let pending = env.webhooks(1).await.remove(0);
    // when an operator names another link, then it is refused, and nothing changes;
    let other =
        env.run(&["resolve", "po_1", "--created", "plink_other", "--reason", "seen", "--actor", "ada"]);
    assert_eq!(other.status.code(), Some(5), "{}", said(&other));
    assert!(said(&other).contains("has no link plink_other"), "{}", said(&other));
    assert_eq!(
        (env.shown("po_1").unwrap()["state"].clone(), acts(&env, "po_1").await.len()),
        ("unknown".into(), 0)
    );
    // when the link is named,
    let resolved = env.run(&["resolve", "po_1", "--created", &link, "--reason", "seen", "--actor", "ada"]);
    assert!(resolved.status.success(), "{}", said(&resolved));
    // then the worker publishes the next event of the record, with the link's URL,
    let results = env.wait_for_results("po_1", 2).await;
    assert_eq!(
        (results[1].kind(), &results[1].json()["sequence"]),
        ("payout_link.created".into(), &2.into())
    );
    let url = results[1].json()["payout_link"]["url"].as_str().unwrap().to_owned();
    assert!(url.contains("/l/"), "{url}");
    // delivers it after the first one, whose content is as it was,
    let webhooks = env.webhooks(2).await;
    assert_eq!(
        (webhooks[1].event_type.as_deref(), webhooks[1].id.as_deref()),
        (Some("payout_link.created"), Some(&*results[1].id()))
    );
    assert_eq!(webhooks[0].body, pending.body);
    // and follows the link.
    env.provider.change(&link, LinkChange::Claim).unwrap();
    let results = env.wait_for_results("po_1", 3).await;
    assert_eq!(
        (results[2].kind(), &results[2].json()["sequence"]),
        ("payout_link.claimed".into(), &3.into())
    );
    assert_eq!(results[2].json()["payout_link"]["url"], url);
    // A duplicate gets the newest event. Who did it, and why, is stored without the URL.
    let reply = reply_of_duplicate(&env, job("po_1").connector("mute")).await;
    assert_eq!((reply.kind(), reply.id()), (results[2].kind(), results[2].id()));
    let acts = acts(&env, "po_1").await;
    let [(command, actor, details)] = &acts[..] else { panic!("{acts:?}") };
    assert_eq!((&**command, &**actor, &details["to"]), ("resolve", "ada", &"created".into()));
    assert!(!details.to_string().contains(&url));
    assert_eq!(env.provider.ledger().links.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_payout_that_was_not_created_is_tried_again() {
    // Given an unknown payout that the provider has not created,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    env.provider.inject_fault(Fault::Reset);
    env.publish(job("po_1").connector("mute").with("webhook_url", env.webhook_url())).await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.pending");
    // when an operator tries it again at once, then it is refused;
    let retried = env.run(&["retry", "po_1", "--reason", "again"]);
    assert_eq!(retried.status.code(), Some(5), "{}", said(&retried));
    // when it is resolved as not created,
    let resolved =
        env.run(&["resolve", "po_1", "--not-created", "--reason", "not in the list", "--actor", "ada"]);
    assert!(resolved.status.success(), "{}", said(&resolved));
    let results = env.wait_for_results("po_1", 2).await;
    assert_eq!(
        (results[1].kind(), results[1].error_code().as_deref()),
        ("payout_link.failed".into(), Some("NOT_CREATED"))
    );
    env.webhooks(2).await;
    // and tried again, then it is created under the same key, as the third event.
    let retried = env.run(&["retry", "po_1", "--reason", "again", "--actor", "grace"]);
    assert!(retried.status.success(), "{}", said(&retried));
    let results = env.wait_for_results("po_1", 3).await;
    assert_eq!(
        (results[2].kind(), &results[2].json()["sequence"]),
        ("payout_link.created".into(), &3.into())
    );
    let ledger = env.provider.ledger();
    let keys: Vec<_> = ledger
        .calls
        .iter()
        .filter(|call| call.idempotency_key.is_some())
        .map(|call| &call.idempotency_key)
        .collect();
    assert!(keys.len() == 2 && keys[0] == keys[1] && ledger.links.len() == 1, "{keys:?}");
    let webhooks = env.webhooks(3).await;
    let types: Vec<_> = webhooks.iter().map(|webhook| webhook.event_type.as_deref().unwrap()).collect();
    assert_eq!(types, ["payout_link.pending", "payout_link.failed", "payout_link.created"]);
    // The second operator hears of the first one's act.
    let again = env.run(&["resolve", "po_1", "--not-created", "--reason", "again"]);
    assert_eq!(again.status.code(), Some(5));
    assert!(
        said(&again).contains("the record is created") && said(&again).contains("`retry` by grace"),
        "{}",
        said(&again)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contradiction_of_the_provider_is_refused() {
    // Given an unknown payout at a connector that can be asked, and that did not answer its look-ups,
    let env = Setup::default()
        .set("retry.max_attempts", 1)
        .set("connectors.asked.follow.min_interval_seconds", 1)
        .build()
        .await;
    let _worker = env.start_worker().await;
    env.provider.inject_fault(FaultRule::new(Fault::Reset).after_the_work());
    env.provider.inject_fault(FaultRule::new(Fault::status(500)).on(Operation::List).times(1));
    env.publish(job("po_1").connector("asked")).await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.pending");
    let link = env.provider.ledger().links[0].id.clone();
    // when an operator says that nothing was created, then the provider's word counts;
    let not_created = env.run(&["resolve", "po_1", "--not-created", "--reason", "guess"]);
    assert_eq!(not_created.status.code(), Some(5), "{}", said(&not_created));
    assert!(
        said(&not_created).contains(&link) && said(&not_created).contains("--force"),
        "{}",
        said(&not_created)
    );
    // nor can it be said of the link of another payout,
    env.publish(job("po_2").connector("asked")).await;
    let other = env.result_of("po_2").await.json()["connector_payout_id"].as_str().unwrap().to_owned();
    let of_another = env.run(&["resolve", "po_1", "--created", &other, "--reason", "guess"]);
    assert_eq!(of_another.status.code(), Some(5), "{}", said(&of_another));
    // or while the provider does not answer.
    env.provider.inject_fault(FaultRule::new(Fault::status(500)).on(Operation::List).times(1));
    let unanswered = env.run(&["resolve", "po_1", "--not-created", "--reason", "guess"]);
    assert_eq!(unanswered.status.code(), Some(5), "{}", said(&unanswered));
    assert!(acts(&env, "po_1").await.is_empty());
    // With --force it is done all the same, and the act says so. Another attempt finds the link, and makes no second,
    // though the provider would.
    env.provider.set_idempotency(Idempotency::Off);
    let forced = env.run(&["resolve", "po_1", "--not-created", "--force", "--reason", "guess"]);
    assert!(forced.status.success(), "{}", said(&forced));
    env.wait_for_results("po_1", 2).await;
    assert!(env.run(&["retry", "po_1", "--reason", "again"]).status.success());
    let results = env.wait_for_results("po_1", 3).await;
    assert_eq!(
        (results[2].kind(), &results[2].json()["connector_payout_id"]),
        ("payout_link.created".into(), &json!(link))
    );
    assert_eq!(env.provider.ledger().links.len(), 2);
    assert_eq!(acts(&env, "po_1").await[0].2["forced"], true);
}

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

/// Makes every write to a record wait, inside its transaction, until the gate is dropped.
async fn gate(env: &TestEnv) -> PgConnection {
    let mut gate = PgConnection::connect_with(&env.pool.connect_options()).await.unwrap();
    for statement in [
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$",
        "CREATE TRIGGER wait AFTER UPDATE ON payout_links FOR EACH STATEMENT EXECUTE FUNCTION wait()",
        "SELECT pg_advisory_lock(1)",
    ] {
        sqlx::query(statement).execute(&mut gate).await.unwrap();
    }
    gate
}

async fn until_waiting(env: &TestEnv, wanted: i64) {
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted
        AND (locktype = 'transactionid' OR locktype = 'advisory' AND objsubid = 1)
        AND pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database())";
    eventually("the acts wait", async || {
        let count: i64 = sqlx::query_scalar(waiting).fetch_one(&env.pool).await.unwrap();
        (count >= wanted).then_some(())
    })
    .await;
}

fn begin(env: &TestEnv, arguments: &[&str]) -> Child {
    env.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_operators_at_once_one_acts() {
    // Given an unknown payout, and two operators who resolve it in the same moment, in different ways,
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    let link = unknown(&env, "po_1").await;
    env.wait_until_delivered("po_1").await;
    assert!(worker.stop().await.success());
    let gate = gate(&env).await;
    let first = begin(&env, &["resolve", "po_1", "--created", &link, "--reason", "seen", "--actor", "ada"]);
    until_waiting(&env, 1).await;
    let second =
        begin(&env, &["resolve", "po_1", "--not-created", "--reason", "not seen", "--actor", "grace"]);
    until_waiting(&env, 2).await;
    // when both acts go on,
    gate.close().await.unwrap();
    let (first, second) = (first.wait_with_output().unwrap(), second.wait_with_output().unwrap());
    // then one is done, and the other is refused with a name.
    assert!(first.status.success(), "{}", said(&first));
    assert_eq!(second.status.code(), Some(5), "{}", said(&second));
    assert!(said(&second).contains("`resolve` by ada"), "{}", said(&second));
    assert_eq!(
        (acts(&env, "po_1").await.len(), env.shown("po_1").unwrap()["state"].clone()),
        (1, "created".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_act_whose_command_is_killed_is_done_completely_or_not_at_all() {
    for (command, expected) in [("resolve", "unknown"), ("retry", "failed")] {
        // Given a command that is killed between the writes of its act,
        let env = TestEnv::new().await;
        let worker = env.start_worker().await;
        let arguments = if command == "resolve" {
            unknown(&env, "po_1").await;
            vec!["resolve", "po_1", "--not-created", "--reason", "not seen"]
        } else {
            env.provider.inject_fault(Fault::status(422));
            env.publish(job("po_1")).await;
            vec!["retry", "po_1", "--reason", "again"]
        };
        env.wait_until_delivered("po_1").await;
        let closed = gate(&env).await;
        let mut killed = begin(&env, &arguments);
        until_waiting(&env, 1).await;
        killed.kill().unwrap();
        killed.wait().unwrap();
        let end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'
            AND objsubid = 1 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        sqlx::query(end).execute(&env.pool).await.unwrap();
        closed.close().await.unwrap();
        // then nothing of it is left,
        let events = "SELECT count(*) FROM events WHERE sequence > 1 OR next_event_id IS NOT NULL OR earlier_result IS NOT NULL";
        assert_eq!(sqlx::query_scalar::<_, i64>(events).fetch_one(&env.pool).await.unwrap(), 0, "{command}");
        assert_eq!(
            (env.shown("po_1").unwrap()["state"].as_str().unwrap(), acts(&env, "po_1").await.len()),
            (expected, 0)
        );
        // and it can be repeated.
        let repeated = env.run(&arguments);
        assert!(repeated.status.success(), "{}", said(&repeated));
        assert_eq!(env.wait_for_results("po_1", 2).await.len(), 2);
        assert!(worker.stop().await.success());
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_asks_at_once_and_changes_what_the_rules_say() {
    // Given an account whose links are asked about once an hour, and one that could not be asked,
    let env = Setup::default()
        .set("retry.max_attempts", 1)
        .set("connectors.asked.follow.min_interval_seconds", 3600)
        .set("connectors.asked.follow.max_interval_seconds", 3600)
        .build()
        .await;
    let _worker = env.start_worker().await;
    env.provider.inject_fault(FaultRule::new(Fault::Reset).after_the_work());
    env.provider.inject_fault(FaultRule::new(Fault::status(500)).on(Operation::List).times(1));
    env.publish(job("po_1").connector("asked")).await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.pending");
    let look_up = || env.run(&["look-up", "po_1", "--reason", "the merchant asks"]);
    // when the provider does not answer, then nothing changes;
    env.provider.inject_fault(FaultRule::new(Fault::status(500)).on(Operation::List).times(1));
    let unanswered = look_up();
    assert_eq!(unanswered.status.code(), Some(1), "{}", said(&unanswered));
    assert_eq!(env.shown("po_1").unwrap()["state"], "unknown");
    // when it has the link, then the record is created.
    let found = look_up();
    let link = env.provider.ledger().links[0].id.clone();
    assert!(found.status.success() && said(&found).contains(&link), "{}", said(&found));
    let results = env.wait_for_results("po_1", 2).await;
    assert_eq!(
        (results[1].kind(), &results[1].json()["connector_payout_id"]),
        ("payout_link.created".into(), &json!(link))
    );
    // A link is asked about at once, and its change is announced.
    env.provider.change(&link, LinkChange::Claim).unwrap();
    let asked = look_up();
    assert!(asked.status.success() && said(&asked).contains("the link is claimed"), "{}", said(&asked));
    assert_eq!(env.wait_for_results("po_1", 3).await[2].kind(), "payout_link.claimed");
    // A payout that cannot be asked about by our reference is left to an operator.
    unknown(&env, "po_2").await;
    let refused = env.run(&["look-up", "po_2", "--reason", "the merchant asks"]);
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_records_are_acted_on_after_a_preview_and_a_confirmation() {
    // Given three declined payouts of a merchant, and one of another,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    for (id, merchant) in [("po_1", "m1"), ("po_2", "m1"), ("po_3", "m1"), ("po_4", "m2")] {
        env.provider.inject_fault(Fault::status(422));
        env.publish(job(id).merchant(merchant)).await;
        env.wait_until_delivered(id).await;
    }
    let retry = |arguments: &[&str]| {
        env.run(&[&["retry", "--where", "merchant=m1", "--reason", "limit raised"], arguments].concat())
    };
    // when there is no terminal and no --yes, then there is a preview, and nothing is done;
    let preview = retry(&[]);
    assert_eq!(preview.status.code(), Some(5), "{}", said(&preview));
    assert!(
        said(&preview).contains("retry acts on 3 of 3 records") && said(&preview).contains("po_2"),
        "{}",
        said(&preview)
    );
    for wrong in [&["po_1", "--yes"][..], &["--where", "state=created", "--yes"]] {
        assert_eq!(retry(wrong).status.code(), Some(2), "{wrong:?}");
    }
    assert_eq!(env.provider.ledger().links.len(), 0);
    // when the first two are wanted, then each is reported, the oldest first;
    let two = retry(&["--yes", "--limit", "2", "--output", "json"]);
    assert!(two.status.success(), "{}", said(&two));
    let reports: Value = serde_json::from_slice(&two.stdout).unwrap();
    let ids: Vec<_> = reports
        .as_array()
        .unwrap()
        .iter()
        .map(|report| report["merchant_payout_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["po_1", "po_2"]);
    for id in ids {
        assert_eq!(env.wait_for_results(id, 2).await[1].kind(), "payout_link.created");
    }
    // a repeated command goes on with the rest, and finds nothing after that.
    assert!(retry(&["--yes"]).status.success());
    assert_eq!(env.wait_for_results("po_3", 2).await[1].kind(), "payout_link.created");
    assert_eq!(retry(&["--yes"]).status.code(), Some(4));
    assert_eq!((env.provider.ledger().links.len(), env.results_of("po_4").len()), (3, 1));
    // Their links are taken back together.
    let cancelled = env.run(&["cancel", "--where", "merchant=m1", "--yes", "--reason", "sent twice"]);
    assert!(cancelled.status.success(), "{}", said(&cancelled));
    for id in ["po_1", "po_2", "po_3"] {
        assert_eq!(env.wait_for_results(id, 3).await[2].kind(), "payout_link.cancelled");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_payout_has_no_personal_data_and_its_books_stay() {
    // Given a payout that was resolved, with its results in two events, and another of the same person that is open,
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    let link = unknown(&env, "po_1").await;
    env.wait_until_delivered("po_1").await;
    assert!(env.run(&["resolve", "po_1", "--created", &link, "--reason", "seen"]).status.success());
    let created = env.wait_for_results("po_1", 2).await.remove(1);
    env.webhooks(2).await;
    env.provider.inject_fault(Fault::status_with_retry_after(503, "600"));
    env.publish(job("po_2")).await;
    env.wait_until_shown("po_2", "a call is postponed", |shown| shown["attempts"] == 1).await;
    let due = "SELECT count(*) FROM events WHERE due_at IS NOT NULL";
    eventually("everything is delivered", async || {
        (sqlx::query_scalar::<_, i64>(due).fetch_one(&env.pool).await.unwrap() == 0).then_some(())
    })
    .await;
    // when both are erased, then the open one is refused,
    let output =
        env.run(&["erase", "po_1", "po_2", "--reason", "request of 29 November", "--output", "jsonl"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let reports: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!([&reports[0]["outcome"], &reports[1]["outcome"]], ["done", "refused"]);
    // and of the other one the request, the link and the attempts are gone.
    let left = "SELECT request IS NULL AND NOT EXISTS (SELECT FROM attempts WHERE payout_link_id = p.id)
        AND erased_at IS NOT NULL FROM payout_links p WHERE merchant_payout_id = 'po_1'";
    assert!(sqlx::query_scalar::<_, bool>(left).fetch_one(&env.pool).await.unwrap());
    let shown = env.shown("po_1").unwrap();
    assert_eq!(
        (&shown["state"], &shown["amount_minor"], &shown["connector_payout_id"]),
        (&"created".into(), &1250.into(), &json!(link))
    );
    let events: Vec<&Value> =
        std::iter::once(&shown["event"]).chain(shown["later_events"].as_array().unwrap()).collect();
    assert_eq!(
        events.iter().map(|event| event["type"].as_str().unwrap()).collect::<Vec<_>>(),
        ["payout_link.pending", "payout_link.created"]
    );
    // A duplicate gets the newest result without the link, and no second payout. A second erasure changes nothing.
    let reply = reply_of_duplicate(&env, job("po_1").connector("mute")).await;
    assert_eq!(
        (reply.kind(), reply.id(), &reply.json()["payout_link"]),
        (created.kind(), created.id(), &Value::Null)
    );
    assert!(env.run(&["erase", "po_1", "--reason", "again"]).status.success());
    assert_eq!(env.provider.ledger().links.len(), 1);
    assert!(worker.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_command_says_what_is_left_and_goes_on_when_it_is_repeated() {
    // Given three declined payouts, and a command that has a second for each,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    for id in ["po_1", "po_2", "po_3"] {
        env.provider.inject_fault(Fault::status(422));
        env.publish(job(id)).await;
        env.wait_until_delivered(id).await;
    }
    let retry =
        ["retry", "--where", "state=failed", "--yes", "--reason", "limit raised", "--output", "jsonl"];
    let mut command = env.command(&[&retry[..], &["--rate", "1"]].concat());
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    // when it is interrupted after the first,
    let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(first["merchant_payout_id"], "po_1");
    let sent = Command::new("kill").args(["-s", "INT", &process.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let output = process.wait_with_output().unwrap();
    // then it ends between two records, and says how many are left.
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let others = lines.count();
    assert!(said(&output).contains(&format!("interrupted: {} done", 1 + others)), "{}", said(&output));
    assert!(said(&output).contains(&format!("and {} not touched", 2 - others)), "{}", said(&output));
    // The same command goes on.
    assert!(env.run(&retry).status.success());
    for id in ["po_1", "po_2", "po_3"] {
        assert_eq!(env.wait_for_results(id, 2).await[1].kind(), "payout_link.created");
    }
}
