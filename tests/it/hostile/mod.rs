//! Tests malicious messages among valid jobs: each ends as the contract says, and every valid job is created.

mod corpus;

use serde_json::Value;

use self::corpus::{Bad, bodies, envelopes, oddities, values};
use crate::support::{
    CORRELATION_ID, HEADERS, MESSAGE_ID, REPLY_TO, Setup, TestEnv, deep_headers, eventually, job, long, short,
};

/// Returns the bad messages that became records.
async fn taken_of(env: &TestEnv) -> Vec<usize> {
    let cases = "SELECT correlation_id FROM payout_links WHERE correlation_id LIKE 'case %'";
    let cases: Vec<String> = sqlx::query_scalar(cases).fetch_all(&env.pool).await.unwrap();
    cases.iter().map(|case| case["case ".len()..].parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_message_ends_as_the_contract_says_and_every_good_job_is_created() {
    // Given a worker, and messages of every bad kind among good jobs,
    let env = Setup::default()
        .set("jobs.allow_http_webhooks", false)
        .set("webhooks.allowed_networks", "[]")
        .build()
        .await;
    let worker = env.start_worker().await;
    env.publish(job("first")).await;
    env.result_of("first").await;
    let before = worker.peak_memory();
    let bad: Vec<Bad> = [bodies(), values(), envelopes(&env)].concat();
    assert!(bad.len() >= 300, "{}", bad.len());
    let mut good = oddities();
    for (number, (bad, ..)) in bad.iter().enumerate() {
        let mut bad = bad.clone().header("x-case", &number.to_string());
        bad.correlation_id.get_or_insert_with(|| format!("case {number}"));
        env.publish(bad).await;
        if number % 5 == 0 {
            let job = job(&format!("good_{number}"));
            env.publish(&job).await;
            good.push(job);
        }
    }
    for job in &good[..oddities().len()] {
        env.publish(job).await;
    }
    // then each bad one is a dead letter with its original body, its code and its field,
    let mut wrong = Vec::new();
    eventually("the dead letters", async || {
        let taken = taken_of(&env).await;
        assert!(
            taken.is_empty(),
            "accepted as valid: {:?}",
            taken.iter().map(|case| String::from_utf8_lossy(&bad[*case].0.body)).collect::<Vec<_>>()
        );
        (env.ready(&env.names.dead_queue).await as usize >= bad.len()).then_some(())
    })
    .await;
    for _ in &bad {
        let dead = env.dead_letter().await;
        let case: usize = dead.header("x-case").unwrap().parse().unwrap();
        let (job, code, field) = &bad[case];
        let (said, reason) = (dead.header("x-rejected-code"), dead.header("x-rejected-reason").unwrap());
        let (path, message) = reason.split_once(": ").unwrap_or(("", &reason));
        let is_bounded = reason.len() < 1000 && !reason.chars().any(char::is_control);
        let is_reported = field == "?" || path == field || path.starts_with(&format!("{field}."));
        if said.as_deref() != Some(*code) || !is_reported || !is_bounded || dead.body != job.body {
            let body = String::from_utf8_lossy(&job.body[..job.body.len().min(120)]).into_owned();
            wrong.push(format!("case {case}: {said:?} {path:?} {message:?}, not {code} {field:?}: {body}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // and its rejection is published, with a limited size;
    let is_rejected = |received: &crate::support::ReceivedMessage| received.kind() == "payout_link.rejected";
    eventually("every refusal", async || {
        (env.results().iter().filter(|received| is_rejected(received)).count() >= bad.len()).then_some(())
    })
    .await;
    assert!(env.results().iter().all(|received| received.body.len() < 4096));
    // every valid job is created, under its own id;
    for job in &good {
        let id = job.id();
        assert_eq!(env.result_of(id).await.kind(), "payout_link.created", "{id:?}");
    }
    let made: Vec<String> =
        sqlx::query_scalar("SELECT merchant_payout_id FROM payout_links").fetch_all(&env.pool).await.unwrap();
    assert_eq!(made.len(), good.len() + 1, "nothing else became a record");
    // and the worker used little memory, and wrote no line break of theirs into its log.
    let more = worker.peak_memory() - before;
    assert!(more < 64 * 1024 * 1024, "{more} bytes");
    let log = worker.log();
    assert!(log.lines().all(|line| line.len() < 8192 && serde_json::from_str::<Value>(line).is_ok()));
    assert!(!log.contains('\u{1b}') && !log.contains("lease lost"));
}

/// Checks that a message that no client can parse is rejected by its delivery tag, without a redelivery of others.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_parsed_causes_no_redelivery_of_others() {
    // Given messages whose properties are not text, among good jobs,
    let env = TestEnv::new().await;
    env.start_worker().await.stop().await;
    let mut raw = env.raw_publisher();
    let queue = &env.names.jobs_queue;
    for number in 0..20 {
        env.publish(job(&format!("po_{number}"))).await;
        match number {
            3 => raw.publish(queue, &job("bad").body, CORRELATION_ID, &short(b"\xff\xfe")),
            9 => raw.publish(
                queue,
                &job("bad").body,
                REPLY_TO | MESSAGE_ID,
                &[short(b"\xc0\xaf"), short(b"m")].concat(),
            ),
            _ => {}
        }
    }
    // when two workers receive them,
    let (first, second) = (env.start_worker().await, env.start_worker().await);
    // then every valid job is created and none is rejected,
    for number in 0..20 {
        assert_eq!(env.result_of(&format!("po_{number}")).await.kind(), "payout_link.created", "{number}");
    }
    // the bad ones are dead letters, which the broker makes from what it has,
    eventually("the broker's dead letters", async || {
        (env.ready(&env.names.dead_queue).await == 2).then_some(())
    })
    .await;
    let rejected = env.results_of("bad");
    assert_eq!(rejected.len(), 2);
    assert!(
        rejected.iter().all(|received| received.field().as_deref() == Some("properties")),
        "{rejected:?}"
    );
    // and no connection was closed because of them.
    env.publish(job("after")).await;
    env.result_of("after").await;
    for worker in [&first, &second] {
        assert_eq!(worker.log().matches("connected to RabbitMQ, consuming").count(), 1, "{}", worker.log());
    }
}

/// Checks headers of any depth and size. The client's parser recurses for nested lists, and headers that fill a frame
/// leave no space for the reason of a rejection.
#[tokio::test(flavor = "multi_thread")]
async fn headers_of_any_depth_and_size_are_survived() {
    let env = TestEnv::new().await;
    let mut worker = env.start_worker().await;
    let mut raw = env.raw_publisher();
    let queue = &env.names.jobs_queue;
    // Given a valid and an invalid job with headers thousands of levels deep,
    raw.publish(queue, &job("deep").body, HEADERS, &deep_headers(5000));
    raw.publish(queue, b"bad", HEADERS | MESSAGE_ID, &[deep_headers(5000), short(b"deep and bad")].concat());
    // and an invalid one whose headers fill a frame to its last byte,
    let mut table = Vec::new();
    while table.len() < 130_000 {
        table.extend(
            [short(format!("x-{}", table.len()).as_bytes()), b"S".to_vec(), long(&[b'v'; 900])].concat(),
        );
    }
    raw.publish(queue, b"bad", HEADERS | MESSAGE_ID, &[long(&table), short(b"full and bad")].concat());
    // then the valid one is created, and the others are rejected and reported,
    assert_eq!(env.result_of("deep").await.kind(), "payout_link.created");
    for id in ["deep and bad", "full and bad"] {
        assert_eq!(env.answer_to(id).await.error_code().as_deref(), Some("INVALID_JOB"), "{id}");
    }
    // and are dead letters, dead-lettered by the broker if there is no space for the reason.
    eventually("the dead letters", async || (env.ready(&env.names.dead_queue).await == 2).then_some(()))
        .await;
    env.publish(job("after")).await;
    env.result_of("after").await;
    assert!(!worker.log().contains("unavailable"), "{}", worker.log());
    worker.kill();
}

/// Checks a delivery that comes once too often, of an accepted job: its record exists, so a rejection would be wrong.
#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_job_is_never_rejected_for_its_redeliveries() {
    let env = Setup::default().set("worker.max_unfinished_begins", 1).build().await;
    let worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    let first = env.result_of("po_1").await;
    worker.stop().await;
    env.publish(job("po_1")).await;
    for _ in 0..4 {
        env.deliver_and_give_back().await;
    }
    let _worker = env.start_worker().await;
    let again = env.wait_for_results("po_1", 2).await.remove(1);
    assert_eq!((again.id(), again.kind()), (first.id(), first.kind()));
    assert_eq!(env.ready(&env.names.dead_queue).await, 0);
}
