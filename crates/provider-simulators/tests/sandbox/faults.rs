//! Tests every fault, from the client's side.

use std::error::Error;
use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use provider_simulators::sandbox::{Fault, FaultRule, Garbage, Operation, When};
use serde_json::{Value, json};

use crate::client::{Answer, TestEnv, answer, read, request};

/// The client's result if no whole answer comes.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    Reset,
    ClosedBeforeTheAnswer,
    ClosedInTheBody,
    TimedOut,
}

impl Failure {
    fn of(error: &reqwest::Error) -> Self {
        let causes: Vec<&(dyn Error + 'static)> = std::iter::successors(Some(error as _), cause).collect();
        let io = causes.iter().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
        let text = causes.last().map(ToString::to_string).unwrap_or_default();
        match io {
            _ if error.is_timeout() => Self::TimedOut,
            Some(io::ErrorKind::ConnectionReset) => Self::Reset,
            _ if error.is_body() || error.is_decode() => Self::ClosedInTheBody,
            _ if text.contains("connection closed before message completed") => Self::ClosedBeforeTheAnswer,
            _ => panic!("another failure: {error:?}"),
        }
    }
}

fn cause<'a>(error: &&'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    (*error).source()
}

async fn create(env: &TestEnv, key: &str) -> Result<Answer, Failure> {
    create_within(env, key, crate::client::DEADLINE).await
}

async fn create_within(env: &TestEnv, key: &str, timeout: Duration) -> Result<Answer, Failure> {
    let response = env.create(key, &request("po_1", 1250)).timeout(timeout).send().await;
    read(response.map_err(|error| Failure::of(&error))?).await.map_err(|error| Failure::of(&error))
}

fn links(env: &TestEnv) -> usize {
    env.sandbox.ledger().links.len()
}

#[tokio::test]
async fn a_cut_connection_carries_no_answer_and_the_work_is_done_or_not() {
    let expected = [
        (Fault::Reset, Failure::Reset),
        (Fault::Close, Failure::ClosedBeforeTheAnswer),
        (Fault::Truncated, Failure::ClosedInTheBody),
    ];
    for (fault, failure) in expected {
        let env = TestEnv::new().await;
        // The first round uses a new connection, the second one a connection that has carried answers before.
        for round in 0..10 {
            let key = format!("key-{round}");
            env.sandbox.inject_fault(fault.clone());
            assert_eq!(create(&env, &key).await.err().as_ref(), Some(&failure));
            assert_eq!(links(&env), round, "{fault:?} before the work");

            env.sandbox.inject_fault(FaultRule::new(fault.clone()).after_the_work());
            assert_eq!(create(&env, &key).await.err().as_ref(), Some(&failure));
            assert_eq!(links(&env), round + 1, "{fault:?} after the work");

            assert_eq!(create(&env, &key).await.unwrap().json()["replayed"], true);
        }
        let creates =
            env.sandbox.ledger().creates().map(|call| (call.status, call.fault)).take(3).collect::<Vec<_>>();
        let reply = if failure == Failure::ClosedInTheBody { Some(201) } else { None };
        assert_eq!(creates, [(reply, Some(fault.name())), (reply, Some(fault.name())), (Some(201), None)]);
    }
}

#[tokio::test]
async fn silence_lasts_until_the_client_gives_up() {
    for fault in [Fault::Silence, Fault::Stalled] {
        for (rule, made) in
            [(FaultRule::new(fault.clone()), 0), (FaultRule::new(fault.clone()).after_the_work(), 1)]
        {
            let env = TestEnv::new().await;
            env.sandbox.inject_fault(rule);
            let failed = create_within(&env, "key-1", Duration::from_millis(500)).await;
            assert_eq!(failed.err(), Some(Failure::TimedOut), "{fault:?}");
            env.until(|ledger| ledger.calls.len() == 1 && ledger.links.len() == made).await;
        }
    }
}

#[tokio::test]
async fn slowness_is_a_delay_and_nothing_else() {
    let env = TestEnv::new().await;
    for when in ["before", "after"] {
        env.inject_fault(json!({ "fault": { "slow": { "milliseconds": 150 } }, "when": when })).await;
        let start = Instant::now();
        assert_eq!(create(&env, when).await.unwrap().status, 201);
        assert!(start.elapsed() >= Duration::from_millis(150));
    }
}

#[tokio::test]
async fn the_work_is_done_even_if_the_client_has_gone() {
    let env = TestEnv::new().await;
    let held = env.sandbox.hold_next_call();
    tokio::select! {
        _ = create(&env, "key-1") => panic!("it was held"),
        () = held.arrived() => {}
    }
    assert_eq!(links(&env), 0);
    // Other calls give the server time to notice that the first client has disconnected.
    for _ in 0..5 {
        assert_eq!(env.get("/healthz").await.body, "ok");
    }

    held.release();
    env.until(|ledger| ledger.links.len() == 1).await;
    assert_eq!(create(&env, "key-1").await.unwrap().json()["replayed"], true);
}

#[tokio::test]
async fn a_held_answer_belongs_to_work_that_is_done() {
    let env = TestEnv::new().await;
    let held = env.sandbox.hold_next_answer();
    let first = tokio::spawn(env.create("key-1", &request("po_1", 1250)).send());
    held.arrived().await;
    assert_eq!(links(&env), 1);
    assert_eq!(create(&env, "key-1").await.unwrap().json()["replayed"], true);
    held.release();
    assert_eq!(first.await.unwrap().unwrap().status(), 201);
}

#[tokio::test]
async fn error_statuses_come_with_and_without_retry_after_and_body() {
    let env = TestEnv::new().await;
    let date = "Tue, 01 Dec 2026 00:00:00 GMT";
    env.inject_fault(json!({ "fault": { "status": { "code": 503, "retry_after": 7 } } })).await;
    env.inject_fault(json!({ "fault": { "status": { "code": 429, "retry_after": date } } })).await;
    env.inject_fault(json!({ "fault": { "status": { "code": 500, "body": "oops" } }, "when": "after" }))
        .await;

    let answers = [create(&env, "key-1").await, create(&env, "key-1").await, create(&env, "key-1").await];
    let [first, second, third] = answers.map(Result::unwrap);
    assert_eq!((first.status, first.header("retry-after")), (503, Some("7")));
    assert_eq!(first.error_code(), "ordered_fault");
    assert_eq!((second.status, second.header("retry-after")), (429, Some(date)));
    assert_eq!((third.status, third.header("retry-after"), third.body.as_str()), (500, None, "oops"));
    assert_eq!(links(&env), 1, "the third call did its work");
}

#[tokio::test]
async fn garbage_looks_like_success_and_is_none() {
    let env = TestEnv::new().await;
    for garbage in
        [Garbage::Html, Garbage::NotJson, Garbage::Empty, Garbage::MissingFields, Garbage::InsecureUrl]
    {
        for rule in [
            FaultRule::new(Fault::Garbage(garbage)),
            FaultRule::new(Fault::Garbage(garbage)).after_the_work(),
        ] {
            env.sandbox.inject_fault(rule);
            let answer = create(&env, &format!("{garbage:?}")).await.unwrap();
            assert_eq!(answer.status, if garbage == Garbage::Html { 200 } else { 201 });
            let link: Option<Value> = serde_json::from_str(&answer.body).ok();
            match garbage {
                Garbage::Html | Garbage::NotJson | Garbage::Empty => assert_eq!(link, None),
                Garbage::MissingFields => assert_eq!(link.unwrap().get("url"), None),
                Garbage::InsecureUrl => {
                    assert!(link.unwrap()["url"].as_str().unwrap().starts_with("http://links.example/"));
                }
                Garbage::Huge => unreachable!("has a test of its own"),
            }
        }
    }
    assert_eq!(links(&env), 5, "one for each fault after the work");
}

#[tokio::test]
async fn a_huge_body_is_a_good_link_but_for_its_size() {
    let env = TestEnv::new().await;
    env.sandbox.inject_fault(FaultRule::new(Fault::Garbage(Garbage::Huge)).after_the_work());
    let answer = create(&env, "key-1").await.unwrap();
    assert!(answer.body.len() > 32 * 1024 * 1024);
    assert_eq!(answer.header("content-length"), None);
    assert_eq!(answer.json()["status"], "issued");
}

#[tokio::test]
async fn a_redirect_is_injected_with_its_location() {
    let env = TestEnv::new().await;
    env.inject_fault(json!({ "fault": { "redirect": { "location": "https://elsewhere.example/" } } })).await;
    let answer = create(&env, "key-1").await.unwrap();
    assert_eq!((answer.status, answer.header("location")), (307, Some("https://elsewhere.example/")));
}

#[tokio::test]
async fn faults_are_injected_into_the_calls_of_their_rule_as_often_as_it_says() {
    let env = TestEnv::new().await;
    let id = env.created("key-1", &request("po_1", 1250)).await["id"].as_str().unwrap().to_owned();
    let get = format!("/v1/payout-links/{id}");
    env.inject_fault(json!({ "count": 2, "on": "get", "fault": { "status": { "code": 502 } } })).await;
    env.inject_fault(json!({ "on": "list", "reference": "po_1", "fault": { "status": { "code": 504 } } }))
        .await;
    env.inject_fault(json!({ "on": "cancel", "fault": { "status": { "code": 500 } } })).await;

    assert_eq!(create(&env, "key-2").await.unwrap().status, 201);
    let gets = [env.get(&get).await.status, env.get(&get).await.status, env.get(&get).await.status];
    assert_eq!(gets, [502, 502, 200]);
    assert_eq!(env.get("/v1/payout-links?reference=po_2").await.status, 200);
    assert_eq!(env.get("/v1/payout-links?reference=po_1").await.status, 504);
    assert_eq!(env.post(&format!("{get}/cancel"), &Value::Null).await.status, 500);
    assert_eq!(env.post(&format!("{get}/cancel"), &Value::Null).await.status, 200);
}

#[tokio::test]
async fn faults_by_amount_have_their_count_for_each_reference() {
    let env = TestEnv::new().await;
    for reference in ["po_1", "po_2"] {
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(answer(env.create(reference, &request(reference, 50_302))).await.status);
        }
        assert_eq!(statuses, [503, 503, 201, 201], "{reference}");
    }
    let throttled = answer(env.create("key-3", &request("po_3", 42_901))).await;
    assert_eq!((throttled.status, throttled.header("retry-after")), (429, Some("1")));
    for _ in 0..3 {
        assert_eq!(answer(env.create("key-4", &request("po_4", 42_200))).await.status, 422);
    }
    let lost = env.create("key-5", &request("po_5", 61_201)).send().await.unwrap_err();
    assert_eq!(Failure::of(&lost), Failure::Reset);
    assert_eq!(env.created("key-5", &request("po_5", 61_201)).await["replayed"], true);
}

#[tokio::test]
async fn fault_rules_are_shown_and_cleared() {
    let env = TestEnv::new().await;
    let rule = json!({ "count": 3, "on": "create", "reference": "po_1", "when": "after", "fault": "reset" });
    env.inject_fault(rule.clone()).await;
    env.sandbox.inject_fault(Fault::status_with_retry_after(503, "7"));
    let _held = env.sandbox.hold_next(Operation::Get, When::Before);

    let shown = env.get("/control/faults").await.json()["data"].clone();
    assert_eq!(shown[0], rule);
    assert_eq!(shown[1]["fault"], json!({ "status": { "code": 503, "retry_after": "7", "body": null } }));
    assert_eq!(shown[2]["fault"], json!({ "hold": null }));
    let cleared = env.call(reqwest::Method::DELETE, "/control/faults").send().await.unwrap();
    assert_eq!(cleared.status(), 204);
    assert_eq!(env.get("/control/faults").await.json(), json!({ "data": [] }));
    assert_eq!(create(&env, "key-1").await.unwrap().status, 201);
}

#[tokio::test]
async fn an_invalid_rule_is_rejected_with_its_reason() {
    let env = TestEnv::new().await;
    let bad = [
        (json!({}), "missing field `fault`"),
        (json!({ "fault": "explode" }), "unknown variant `explode`"),
        (json!({ "fault": "hold" }), "unknown variant `hold`"),
        (json!({ "fault": { "status": { "code": 99 } } }), "between 200 and 599"),
        (json!({ "fault": { "status": { "code": 503, "retry_after": 1.5 } } }), "whole number"),
        (json!({ "fault": { "slow": { "seconds": 1 } } }), "unknown field `seconds`"),
        (json!({ "fault": "reset", "on": "delete" }), "unknown variant `delete`"),
        (json!({ "fault": "reset", "times": 2 }), "unknown field `times`"),
    ];
    for (rule, why) in bad {
        let answer = env.post("/control/faults", &rule).await;
        assert_eq!((answer.status, answer.error_code().as_str()), (400, "invalid_request"), "{rule}");
        assert!(answer.body.contains(why), "{rule}: {}", answer.body);
    }
}

#[tokio::test]
async fn stopping_ends_the_calls_that_wait() {
    let env = TestEnv::new().await;
    env.sandbox.inject_fault(Fault::Silence);
    let held = env.sandbox.hold_next_call();
    let silent = tokio::spawn(env.create("key-1", &request("po_1", 1)).send());
    env.until(|ledger| ledger.calls.iter().any(|call| call.fault == Some("silence"))).await;
    let waiting = tokio::spawn(env.create("key-2", &request("po_2", 1)).send());
    held.arrived().await;

    let address = env.sandbox.url().strip_prefix("http://").unwrap().to_owned();
    env.sandbox.stop().await;
    assert!(TcpStream::connect(address).is_err(), "when stop returns, the port is closed");
    for call in [silent, waiting] {
        assert_eq!(Failure::of(&call.await.unwrap().unwrap_err()), Failure::ClosedBeforeTheAnswer);
    }
}
