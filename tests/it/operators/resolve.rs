//! `resolve` ends unknown records.

use provider_simulators::sandbox::{Fault, FaultRule, Idempotency, LinkChange, Operation};
use serde_json::{Value, json};
use sqlx::Connection;

use super::{acts, begin, gate, reply_of_duplicate, said, unknown, until_waiting};
use crate::support::{Setup, TestEnv, job};

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
async fn the_operator_gives_the_url_that_the_provider_does_not_say() {
    // Given an unknown payout whose link exists, and a provider that says so, but does not answer with the link itself,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    let link = unknown(&env, "po_1").await;
    env.wait_until_delivered("po_1").await;
    env.provider.inject_fault(FaultRule::new(Fault::status(500)).on(Operation::List).always());
    let resolve = |more: &[&str]| {
        env.run(&[&["resolve", "po_1", "--created", &link, "--reason", "seen"], more].concat())
    };
    // when the command has no URL, or no URL of a link, then it says so, and nothing changes;
    let without = resolve(&[]);
    assert_eq!(without.status.code(), Some(2), "{}", said(&without));
    assert!(said(&without).contains("give it with --url"), "{}", said(&without));
    for bad in ["/l/1", "javascript:alert(1)", "https://ada@pay.example/1"] {
        let bad = resolve(&["--url", bad]);
        assert_eq!(bad.status.code(), Some(2), "{}", said(&bad));
        assert!(said(&bad).contains("expected an absolute https URL"), "{}", said(&bad));
    }
    let url = "https://pay.example/l/1?token=canary";
    let of_none = env.run(&["resolve", "po_1", "--not-created", "--url", url, "--reason", "seen"]);
    assert_eq!(of_none.status.code(), Some(2), "{}", said(&of_none));
    assert_eq!(
        (env.shown("po_1").unwrap()["state"].clone(), acts(&env, "po_1").await.len()),
        ("unknown".into(), 0)
    );
    // when it has the URL, then the result and the webhook have it too,
    let resolved = resolve(&["--url", url]);
    assert!(resolved.status.success(), "{}", said(&resolved));
    let results = env.wait_for_results("po_1", 2).await;
    assert_eq!(
        (results[1].kind(), &results[1].json()["payout_link"]["url"]),
        ("payout_link.created".into(), &json!(url))
    );
    assert!(env.webhooks(2).await[1].body.contains(url));
    // and the act and the output do not.
    assert!(!said(&resolved).contains("canary"), "{}", said(&resolved));
    assert!(!acts(&env, "po_1").await[0].2.to_string().contains("canary"));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_unknown_payouts_are_resolved_and_the_one_that_exists_is_refused() {
    // Given three unknown payouts whose last calls are long past: two that the provider does not have, and one that it has,
    let env = Setup::default().set("retry.max_attempts", 1).build().await;
    let _worker = env.start_worker().await;
    for id in ["po_1", "po_2", "po_3"] {
        let reset = FaultRule::new(Fault::Reset);
        env.provider.inject_fault(if id == "po_2" { reset.after_the_work() } else { reset });
        env.provider.inject_fault(FaultRule::new(Fault::status(500)).on(Operation::List).times(1));
        env.publish(job(id).connector("asked")).await;
        assert_eq!(env.result_of(id).await.kind(), "payout_link.pending");
        env.wait_until_delivered(id).await;
        env.provider.clear_faults();
    }
    sqlx::query("UPDATE payout_links SET last_called_at = now() - interval '1 hour'")
        .execute(&env.pool)
        .await
        .unwrap();
    let link = env.provider.ledger().links[0].id.clone();
    let resolve = |more: &[&str]| {
        env.run(
            &[
                &["resolve", "--where", "state=unknown", "--reason", "provider's word", "--actor", "ada"],
                more,
            ]
            .concat(),
        )
    };
    // when it is not confirmed, or the command is a wrong one, then nothing happens;
    let preview = resolve(&["--not-created"]);
    assert_eq!(preview.status.code(), Some(5), "{}", said(&preview));
    assert!(said(&preview).contains("resolve acts on 3 of 3 records that match"), "{}", said(&preview));
    assert!(["po_1", "po_2", "po_3"].iter().all(|id| said(&preview).contains(id)), "{}", said(&preview));
    for wrong in [&["--created", &link, "--yes"][..], &["--not-created", "--where", "state=failed", "--yes"]]
    {
        let wrong = resolve(wrong);
        assert_eq!(wrong.status.code(), Some(2), "{}", said(&wrong));
    }
    assert_eq!(acts(&env, "po_1").await.len(), 0);
    // when it is confirmed, then each is reported, the oldest first, and the one that the provider has is refused.
    let done = resolve(&["--not-created", "--yes", "--output", "json"]);
    assert_eq!(done.status.code(), Some(3), "{}", said(&done));
    let reports: Vec<Value> = serde_json::from_slice(&done.stdout).unwrap();
    let outcomes: Vec<_> = reports
        .iter()
        .map(|report| (report["merchant_payout_id"].as_str().unwrap(), report["outcome"].as_str().unwrap()))
        .collect();
    assert_eq!(outcomes, [("po_1", "done"), ("po_2", "refused"), ("po_3", "done")]);
    assert!(reports[1]["message"].as_str().unwrap().contains(&link), "{}", reports[1]);
    for id in ["po_1", "po_3"] {
        let failed = env.wait_for_results(id, 2).await.remove(1);
        assert_eq!(
            (failed.kind(), failed.error_code().as_deref()),
            ("payout_link.failed".into(), Some("NOT_CREATED"))
        );
        assert_eq!(acts(&env, id).await[0].1, "ada");
    }
    assert_eq!(env.shown("po_2").unwrap()["state"], "unknown");
    assert_eq!((env.results_of("po_2").len(), acts(&env, "po_2").await.len()), (1, 0));
    // The same command goes on with what is left, and that is refused again.
    let again = resolve(&["--not-created", "--yes"]);
    assert_eq!(again.status.code(), Some(5), "{}", said(&again));
    assert!(!said(&again).contains("po_1"), "{}", said(&again));
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
    let resolved = env.run(&[
        "resolve",
        "po_1",
        "--not-created",
        "--force",
        "--reason",
        "not in the list",
        "--actor",
        "ada",
    ]);
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
    // The second operator learns of the first one's act.
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
async fn an_act_whose_command_is_killed_is_done_completely_or_not_at_all() {
    for (command, expected) in [("resolve", "unknown"), ("retry", "failed")] {
        // Given a command that is killed between the writes of its act,
        let env = TestEnv::new().await;
        let worker = env.start_worker().await;
        let arguments = if command == "resolve" {
            unknown(&env, "po_1").await;
            vec!["resolve", "po_1", "--not-created", "--force", "--reason", "not seen"]
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
