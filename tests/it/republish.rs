//! Tests `results republish`: a consumer that lost its queue gets the results of a period again.

use std::process::{Output, Stdio};

use serde_json::{Value, json};

use crate::support::{ReceivedMessage, TestEnv, eventually, job};

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn republish(env: &TestEnv, more: &[&str]) -> Output {
    let all = [
        "--output",
        "json",
        "results",
        "republish",
        "--from",
        "1h",
        "--reason",
        "queue lost",
        "--actor",
        "ada",
    ];
    env.run(&[&all[..], more].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn results_of_a_range_are_published_again_under_their_ids_and_nothing_else_happens() {
    // Given results of two merchants, one with a reply and a webhook,
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    let (queue, replies) = env.reply_queue().await;
    env.publish(job("po_1").merchant("m_1").reply_to(&queue).with("webhook_url", env.webhook_url())).await;
    env.publish(job("po_2").merchant("m_2")).await;
    for id in ["po_1", "po_2"] {
        env.wait_until_delivered(id).await;
    }
    let first = env.result_of("po_1").await;
    let before = env.shown("po_1").unwrap();
    let to = "2100-01-01";
    // then nothing happens without a confirmation, or for another period.
    assert_eq!(republish(&env, &["--to", to]).status.code(), Some(5));
    assert_eq!(republish(&env, &["--to", "30m", "--yes"]).status.code(), Some(4));
    assert_eq!((env.results().len(), replies.lock().unwrap().len()), (2, 1));
    // When the results of one merchant are published again,
    let output = republish(&env, &["--to", to, "--merchant", "m_1", "--yes"]);
    assert!(output.status.success(), "{}", text(&output));
    let done: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&done["published"], &done["last_event"]), (&json!(1), &json!(first.id())));
    // then it is the same result, marked as a replay, only on the exchange.
    let again: ReceivedMessage = env.wait_for_results("po_1", 2).await.remove(1);
    assert_eq!((again.id(), &again.body, again.kind()), (first.id(), &first.body, first.kind()));
    assert_eq!(again.properties.timestamp(), first.properties.timestamp());
    assert_eq!((again.header("x-replayed"), first.header("x-replayed")), (Some("true".into()), None));
    // With --replies, the requester gets it as well.
    assert!(republish(&env, &["--to", to, "--yes", "--replies", "--rate", "1"]).status.success());
    eventually("the reply", async || (replies.lock().unwrap().len() == 2).then_some(())).await;
    env.wait_for_results("po_1", 3).await;
    env.wait_for_results("po_2", 2).await;
    // No webhook was sent, the record is unchanged, and the action is recorded.
    assert_eq!(env.merchant.received().len(), 1);
    assert_eq!(env.shown("po_1").unwrap(), before);
    let acts = "SELECT count(*) FROM operator_actions WHERE command = 'results republish' AND actor = 'ada'";
    assert_eq!(sqlx::query_scalar::<_, i64>(acts).fetch_one(&env.pool).await.unwrap(), 2);
    assert!(worker.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_results_of_the_range_are_published_again_and_in_their_order() {
    // Given four results, one after another,
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    let mut times = Vec::new();
    for id in ["po_1", "po_2", "po_3", "po_4"] {
        env.publish(job(id)).await;
        env.wait_until_delivered(id).await;
        times.push(env.time_of_event(id));
    }
    assert!(worker.stop().await.success());
    // when those from the second to before the fourth are published again,
    let arguments =
        ["results", "republish", "--reason", "queue lost", "--actor", "ada", "--yes", "--output", "json"];
    let range = ["--from", &*times[1], "--to", &*times[3]];
    let output = env.run(&[&arguments[..], &range].concat());
    assert!(output.status.success(), "{}", text(&output));
    let done: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&done["published"], &done["unreadable"]), (&json!(2), &json!(0)));
    // then these two come again, in their order, and no other.
    let all = eventually("the results", async || Some(env.results()).filter(|all| all.len() >= 6)).await;
    let again: Vec<String> = all[4..].iter().map(ReceivedMessage::id).collect();
    let first = |id: &str| env.results_of(id)[0].id();
    assert_eq!(again, [first("po_2"), first("po_3")]);
    // A second operator learns of the first one.
    let second = env.run(&[&arguments[..], &["--from", &*times[1], "--to", &*times[2]]].concat());
    assert!(
        text(&second).contains("within the last hour ada ran results republish: queue lost"),
        "{}",
        text(&second)
    );
    env.wait_for_results("po_2", 3).await;
    assert_eq!([1, 3, 4].map(|number| env.results_of(&format!("po_{number}")).len()), [1, 2, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_published_while_no_queue_is_bound() {
    let env = crate::support::Setup::default().without_listener().build().await;
    let _worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    env.wait_until_delivered("po_1").await;
    let refused = republish(&env, &["--to", "2100-01-01", "--yes"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused).contains("bind it first"), "{}", text(&refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_says_what_is_left_and_where_to_go_on() {
    // Given three results, and a run that has a second for each,
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    for id in ["po_1", "po_2", "po_3"] {
        env.publish(job(id)).await;
        env.wait_until_delivered(id).await;
    }
    assert!(worker.stop().await.success());
    let range =
        ["results", "republish", "--from", "1h", "--to", "2100-01-01", "--yes", "--reason", "queue lost"];
    let mut command = env.command(&range);
    let process = command.args(["--rate", "1", "--output", "json"]);
    let process = process.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    env.wait_for_results("po_1", 2).await;
    // when it is interrupted after the first,
    let pid = process.id().to_string();
    assert!(std::process::Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
    // then it says what it did and what is left,
    let output = process.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let done: Value = serde_json::from_slice(&output.stdout).unwrap();
    let published = done["published"].as_u64().unwrap();
    assert!((1..3).contains(&published), "{done}");
    let wanted = format!(
        "interrupted: {published} published again, 0 unreadable, and about {} not touched",
        3 - published
    );
    assert!(text(&output).contains(&wanted), "{wanted}: {}", text(&output));
    // and it goes on after the last event.
    let rest =
        republish(&env, &["--to", "2100-01-01", "--yes", "--after", done["last_event"].as_str().unwrap()]);
    let rest: Value = serde_json::from_slice(&rest.stdout).unwrap();
    assert_eq!(rest["published"], 3 - published);
}
