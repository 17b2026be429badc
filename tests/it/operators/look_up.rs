//! `look-up` asks the provider at once.

use provider_simulators::sandbox::{Fault, FaultRule, LinkChange, Operation};
use serde_json::{Value, json};

use super::{said, unknown};
use crate::support::{Setup, job};

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
    let shown = said(&env.run(&["show", "po_1"]));
    assert!(shown.contains(" concluded: unknown (OUTCOME_UNKNOWN)"), "{shown}");
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
async fn a_look_up_of_an_open_record_ends_with_the_workers_look_up() {
    // Given a record with an unknown outcome at a provider that is asked by our reference, and whose next step is due in an hour,
    let env = Setup::default()
        .set("connectors.asked.calls.breaker_failures", 100)
        .set("retry.initial_ms", 3_600_000)
        .set("retry.max_interval_seconds", 3600)
        .build()
        .await;
    let _worker = env.start_worker().await;
    env.provider.inject_fault(FaultRule::new(Fault::Reset).after_the_work());
    env.provider.inject_fault(FaultRule::new(Fault::status(500)).on(Operation::List).always());
    env.publish(job("po_1").connector("asked")).await;
    let is_put_off = |shown: &Value| shown["in_doubt_since"].is_string() && shown["leased"] == false;
    env.wait_until_shown("po_1", "it is put off", is_put_off).await;
    // when an operator looks it up, then the command ends after the worker has asked, which is no call of the record.
    let looked_up = env.run(&["look-up", "po_1", "--reason", "the merchant asks"]);
    assert!(looked_up.status.success(), "{}", said(&looked_up));
    assert!(said(&looked_up).contains("next step of the replay rule"), "{}", said(&looked_up));
    assert!(said(&env.run(&["show", "po_1"])).contains(" look_up 1 "), "{}", said(&looked_up));
    assert_eq!(env.shown("po_1").unwrap()["attempts"], 1);
}
