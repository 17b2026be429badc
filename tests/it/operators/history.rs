//! `show` has what happened before an operator's act: the former conclusion, its result and its webhook.

use provider_simulators::sandbox::Fault;
use serde_json::Value;

use super::{said, unknown};
use crate::support::{TestEnv, eventually, job};

/// Returns the timeline that `show` prints. Its entries are in the order of `wanted`, and each is there.
fn timeline(env: &TestEnv, id: &str, wanted: &[&str]) -> String {
    let text = said(&env.run(&["show", id]));
    let timeline = text.split_once("  timeline\n").unwrap().1.to_owned();
    let mut rest = &*timeline;
    for entry in wanted {
        let Some((_, after)) = rest.split_once(entry) else {
            panic!("{entry:?} is not there, or not in its place: {text}")
        };
        rest = after;
    }
    timeline
}

async fn wait_for_webhook(env: &TestEnv, id: &str, event: impl Fn(&Value) -> &Value) {
    env.wait_until_shown(id, "the webhook is delivered", |shown| {
        event(shown)["webhook_state"] == "delivered" && event(shown)["due_at"].is_null()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_conclusion_stands_in_the_timeline_after_it_is_resolved() {
    // Given an unknown payout whose merchant has its webhook,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    let link = unknown(&env, "po_1").await;
    wait_for_webhook(&env, "po_1", |shown| &shown["event"]).await;
    let before = env.shown("po_1").unwrap();
    // when it is resolved,
    let resolve =
        ["resolve", "po_1", "--created", &link, "--reason", "seen in the dashboard", "--actor", "ada"];
    assert!(env.run(&resolve).status.success());
    wait_for_webhook(&env, "po_1", |shown| &shown["later_events"][0]).await;
    // then its timeline has what was known before, who resolved it and why, and the new conclusion,
    let act = "operator ada: resolve (";
    let because = "because: seen in the dashboard";
    let events = ["published: payout_link.pending ", act, because, "published: payout_link.created "];
    let all = timeline(&env, "po_1", &events);
    timeline(
        &env,
        "po_1",
        &[
            " create 1 ",
            " outcome of the call unknown",
            " concluded: unknown (OUTCOME_UNKNOWN)",
            act,
            " concluded: created\n",
        ],
    );
    // The worker's clock has the time of a webhook: it may be a little before the conclusion.
    timeline(&env, "po_1", &[" webhook 1 delivered", act, " webhook 1 delivered"]);
    assert_eq!(all.matches("concluded: ").count(), 2, "{all}");
    // with the times from before the act,
    let at = |time: &Value, entry: &str| {
        let line = format!("{} {entry}", time.as_str().unwrap());
        assert!(all.contains(&line), "{line}: {all}");
    };
    at(&before["concluded_at"], "concluded: unknown");
    at(&before["in_doubt_since"], "outcome of the call unknown");
    at(&before["event"]["published_at"], "published: payout_link.pending");
    // and the former event is as it was.
    let after = env.shown("po_1").unwrap();
    assert_eq!(after["event"], before["event"]);
    let stored = &after["operator_actions"][0]["details"]["before"];
    assert_eq!((&stored["state"], &stored["error_code"]), (&"unknown".into(), &"OUTCOME_UNKNOWN".into()));
    // The result of each event was published once.
    let kinds: Vec<String> = env.results_of("po_1").iter().map(|result| result.kind()).collect();
    assert_eq!(kinds, ["payout_link.pending", "payout_link.created"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_conclusions_stand_in_the_timeline_while_and_after_they_are_tried_again() {
    // Given an unknown payout that was resolved as not created,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    env.provider.inject_fault(Fault::Reset);
    env.publish(job("po_1").connector("mute")).await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.pending");
    env.wait_until_delivered("po_1").await;
    let resolve =
        ["resolve", "po_1", "--not-created", "--force", "--reason", "not in the list", "--actor", "ada"];
    assert!(env.run(&resolve).status.success());
    env.wait_until_shown("po_1", "the second result is published", |shown| {
        shown["later_events"][0]["published_at"].is_string() && shown["later_events"][0]["due_at"].is_null()
    })
    .await;
    // and a declined one whose merchant has its webhook,
    env.provider.inject_fault(Fault::status(422));
    env.publish(job("po_2").with("webhook_url", env.webhook_url())).await;
    wait_for_webhook(&env, "po_2", |shown| &shown["event"]).await;
    let before = env.shown("po_2").unwrap();
    // when both are tried again,
    let retry = |id| {
        let retried = env.run(&["retry", id, "--reason", "limit raised", "--actor", "grace"]);
        assert!(retried.status.success(), "{}", said(&retried));
    };
    let call = env.provider.hold_next_call();
    retry("po_2");
    call.arrived().await;
    // then their timelines have the former conclusions during the attempt,
    let declined = [
        " create 1 declined 422",
        " concluded: failed (CONNECTOR_REJECTED)",
        " operator grace: retry (",
        "because: limit raised",
    ];
    let webhook = [" create 1 declined 422", " webhook 1 delivered", " operator grace: retry ("];
    timeline(&env, "po_2", &webhook);
    let during = timeline(&env, "po_2", &declined);
    assert!(during.contains(" published: payout_link.failed "), "{during}");
    let shown = env.shown("po_2").unwrap();
    assert_eq!((&shown["state"], &shown["event"]), (&"open".into(), &before["event"]));
    call.release();
    retry("po_1");
    for (id, count) in [("po_1", 3), ("po_2", 2)] {
        assert_eq!(env.wait_for_results(id, count).await[count - 1].kind(), "payout_link.created");
        eventually("the record is concluded", async || {
            (env.shown(id).unwrap()["state"] == "created").then_some(())
        })
        .await;
    }
    // and after it.
    timeline(&env, "po_2", &[&declined[..], &[" create 2 created", " concluded: created\n"]].concat());
    timeline(
        &env,
        "po_1",
        &[
            " concluded: unknown (OUTCOME_UNKNOWN)",
            " operator ada: resolve (",
            " concluded: failed (NOT_CREATED)",
            " operator grace: retry (",
            " concluded: created\n",
        ],
    );
}
