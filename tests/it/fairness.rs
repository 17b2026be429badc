//! Tests that one merchant's backlog does not delay others: turns, limits of each merchant, and the reported delays.

use std::time::Duration;

use payout_link_worker::{
    domain::Turn,
    postgres::{EventProgress, migrate},
};
use provider_simulators::sandbox::{Fault, FaultRule};
use serde_json::Value;
use sqlx::Executor;
use uuid::Uuid;

use crate::support::{
    Setup, TestEnv, accept, accept_of, all_delivered, claim, claim_events, created, eventually, job,
    pool_of_one, store, submit_parked_of,
};

#[tokio::test(flavor = "multi_thread")]
async fn merchants_take_turns() {
    // Given a merchant with many parked jobs, and another with a few that came later,
    let env = TestEnv::new().await;
    let store = store(pool_of_one(&env).await);
    for number in 0..30 {
        submit_parked_of(&store, "large", &format!("large_{number:02}")).await;
    }
    for number in 0..3 {
        submit_parked_of(&store, "small", &format!("small_{number:02}")).await;
    }
    // when some are claimed,
    let claimed = claim(&store, 10).await;
    // then each merchant has its share, one takes the share that the other does not need, and the oldest come first.
    let mut ids: Vec<String> =
        claimed.into_iter().map(|link| link.unwrap().job.merchant_payout_id.as_str().to_owned()).collect();
    ids.sort();
    let expected = (0..7).map(|number| format!("large_{number:02}"));
    let expected: Vec<String> = expected.chain((0..3).map(|number| format!("small_{number:02}"))).collect();
    assert_eq!(ids, expected);
}

/// Events of several merchants that wait for their next webhook attempt: the first merchant's are the longest due.
const WAITING_EVENTS: &str = "
    INSERT INTO events (
        id, payout_link_id, type, published_at, webhook_url, webhook_state, webhook_due_at, due_at, turn_priority, turn_merchant_id
    )
    SELECT
        gen_random_uuid(), p.id, 'payout_link.created', now(), 'https://merchant.example/' || merchant, 'pending',
        now() - overdue, now() - overdue, priority, merchant
    FROM payout_links p
    JOIN (VALUES
        ('large', 2, interval '3 hours', 3000), ('small', 2, interval '1 minute', 3), ('instant', 0, interval '1 second', 2)
    ) AS of (merchant, priority, overdue, count) ON of.merchant = p.merchant_id
    CROSS JOIN LATERAL generate_series(1, of.count)";

#[tokio::test]
async fn waiting_events_are_claimed_by_priority_and_in_turns_of_the_merchants() {
    let env = TestEnv::new().await;
    migrate(&env.pool).await.unwrap();
    let store = store(env.pool.clone());
    // Given an event that is postponed: it has its merchant and its priority from then on,
    let mut link = accept(&store, "po_1").await;
    let content = created(&mut link, "plink_1");
    let event = store.conclude(link, content).await.unwrap();
    let turn = async || -> Option<(i16, String)> {
        let turn = "SELECT turn_priority, turn_merchant_id FROM events WHERE turn_merchant_id IS NOT NULL";
        sqlx::query_as(turn).fetch_optional(&env.pool).await.unwrap()
    };
    assert_eq!(turn().await, None);
    let later = Duration::from_hours(1);
    store.delivered(&event, postponed(later)).await.unwrap();
    assert_eq!(turn().await, Some((2, String::new())));
    for merchant in ["large", "small", "instant"] {
        let mut link = accept_of(&store, merchant, "po_1").await;
        let content = created(&mut link, "plink_1");
        store.conclude(link, content).await.unwrap();
    }
    // and a merchant with three thousand, one with three, and one with two of instant payouts.
    env.pool.execute(WAITING_EVENTS).await.unwrap();
    // When some are claimed,
    let claimed = claim_events(&store, 10).await;
    // then those of instant payouts are first, and each merchant has its share of the rest.
    let mut hosts: Vec<String> = claimed
        .iter()
        .map(|event| {
            event.as_ref().unwrap().webhook_url.as_ref().unwrap().path().trim_start_matches('/').to_owned()
        })
        .collect();
    hosts.sort();
    let expected = [("instant", 2), ("large", 5), ("small", 3)];
    let expected: Vec<&str> =
        expected.into_iter().flat_map(|(merchant, count)| std::iter::repeat_n(merchant, count)).collect();
    assert_eq!(hosts, expected);
    // A lease that expired is found behind those that wait, and before them.
    let lapse =
        "UPDATE events SET turn_merchant_id = NULL, turn_priority = NULL, due_at = now() WHERE id = $1";
    sqlx::query(lapse).bind(event.id).execute(&env.pool).await.unwrap();
    let first = claim_events(&store, 1).await.remove(0).unwrap();
    assert_eq!(first.id, event.id);
}

#[tokio::test]
async fn an_expired_lease_is_found_among_events_that_wait_for_the_broker() {
    let env = TestEnv::new().await;
    migrate(&env.pool).await.unwrap();
    let store = store(env.pool.clone());
    // Given an event whose lease has expired, and more results that wait for the broker, before it and after it, than a
    // search looks at,
    let mut link = accept_of(&store, "waits", "po_1").await;
    let content = created(&mut link, "plink_1");
    let expired = store.conclude(link, content).await.unwrap();
    env.pool.execute(WAITING_FOR_THE_BROKER).await.unwrap();
    // when the broker is away, then the event is found for its webhook, and nothing else is.
    let claimed = store.claim_events(10, false, &Turn::ExpiredLeases).await.unwrap();
    let claimed: Vec<Uuid> = claimed.into_iter().map(|event| event.unwrap().id).collect();
    assert_eq!(claimed, [expired.id]);
}

/// The first event's webhook is due; the results of the others cannot be published.
const WAITING_FOR_THE_BROKER: &str = "
    UPDATE events SET due_at = now() - interval '1 hour', webhook_url = 'https://merchant.example/', webhook_state = 'pending',
        webhook_due_at = now() - interval '1 hour';
    INSERT INTO events (id, payout_link_id, type, webhook_state, due_at, turn_priority, turn_merchant_id)
    SELECT gen_random_uuid(), p.id, 'payout_link.created', 'none', now() - interval '1 second' * number * 2, 2, p.merchant_id
    FROM payout_links p CROSS JOIN generate_series(1, 4000) AS number";

/// Builds the progress of an event that is postponed before its result is published.
fn postponed(publish_after: Duration) -> EventProgress {
    EventProgress { published: false, publish_after: Some(publish_after), ..all_delivered() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_in_the_queue_does_not_delay_another_merchant() {
    const JOBS: usize = 200;
    // Given an account that accepts four calls at a time, and a merchant whose jobs need ten seconds of it, and leave
    // no time for a delivery to wait,
    let env = Setup::default()
        .set("connectors.sandbox.calls.concurrency", 4)
        .set("broker.prefetch", 8)
        .only_connector("sandbox")
        .build()
        .await;
    let _worker = env.start_worker().await;
    env.publish(job("first").merchant("small")).await;
    env.result_of("first").await;
    env.provider.inject_fault(FaultRule::new(Fault::Slow { milliseconds: 200 }).always());
    for number in 0..JOBS {
        env.publish(job(&format!("large_{number}")).merchant("large")).await;
    }
    // when another merchant's jobs come after them,
    for number in 0..2 {
        env.publish(job(&format!("small_{number}")).merchant("small")).await;
    }
    // then they are created while most of the others wait.
    for number in 0..2 {
        assert_eq!(env.result_of(&format!("small_{number}")).await.kind(), "payout_link.created");
    }
    let made = env.provider.ledger().links.len();
    assert!(made < JOBS * 3 / 4, "{made} before the last of them");
    for number in 0..JOBS {
        assert_eq!(env.result_of(&format!("large_{number}")).await.kind(), "payout_link.created");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merchant_at_its_limit_leaves_the_permits_to_others() {
    // Given a merchant that may have one call at a time, and has it,
    let env = Setup::default()
        .set("limits.per_merchant.concurrency", 1)
        .set("connectors.sandbox.calls.concurrency", 4)
        .only_connector("sandbox")
        .build()
        .await;
    let worker = env.start_worker().await;
    let held = env.provider.hold_next_call();
    env.publish(job("held").merchant("m1")).await;
    held.arrived().await;
    // when it and another merchant send more jobs,
    for number in 0..3 {
        env.publish(job(&format!("po_{number}")).merchant("m1")).await;
        env.publish(job(&format!("other_{number}")).merchant("m2")).await;
    }
    // then the other merchant's jobs are created in turn, and its own wait. Their delay does not count as the
    // worker's.
    for number in 0..3 {
        assert_eq!(env.result_of(&format!("other_{number}")).await.kind(), "payout_link.created");
    }
    assert_eq!(env.provider.ledger().calls.len(), 4);
    eventually("the merchant waits, and is not delayed", async || {
        let metrics = worker.metrics().await;
        let oldest = "payout_links_oldest_due_record_seconds ";
        let waits = |line: &str| line.starts_with(oldest) && !line.ends_with(" 0");
        (metrics.lines().any(waits)
            && metrics.contains("payout_links_merchants_waiting 1\n")
            && metrics.contains("payout_links_most_delayed_merchant_seconds 0\n"))
        .then_some(())
    })
    .await;
    held.release();
    for id in ["held", "po_0", "po_1", "po_2"] {
        assert_eq!(env.result_of(id).await.kind(), "payout_link.created");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_delay_of_a_merchant_is_measured_until_its_turn() {
    const GAUGE: &str = "payout_links_most_delayed_merchant_seconds";
    // Given an account with one permit, which a call of one merchant has,
    let env = Setup::default()
        .set("connectors.sandbox.calls.concurrency", 1)
        .only_connector("sandbox")
        .build()
        .await;
    let worker = env.start_worker().await;
    let held = env.provider.hold_next_call();
    env.publish(job("held").merchant("m1")).await;
    held.arrived().await;
    worker.measures(GAUGE, 0).await;
    // when a job of another merchant waits for it, at no limit of its own,
    env.publish(job("po_1").merchant("m2")).await;
    // then its delay is measured,
    eventually("the merchant is delayed", async || {
        let series = worker.series().await;
        (series[GAUGE].parse::<i64>().unwrap() > 0 && series["payout_links_merchants_waiting"] == "1")
            .then_some(())
    })
    .await;
    assert!(env.results_of("po_1").is_empty());
    held.release();
    // and no more after its turn.
    for id in ["held", "po_1"] {
        assert_eq!(env.result_of(id).await.kind(), "payout_link.created");
    }
    worker.measures(GAUGE, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merchant_has_a_rate_limit_of_its_own() {
    // Given merchants that may be called a few times a minute, a tenth of it at once,
    let env = Setup::default()
        .set("limits.per_merchant.requests_per_minute", 20)
        .only_connector("sandbox")
        .build()
        .await;
    let _worker = env.start_worker().await;
    // when one of them sends more, then the rest waits as parked records without attempts,
    for number in 0..4 {
        env.publish(job(&format!("po_{number}")).merchant("m1")).await;
    }
    // (which of them is not said: their deliveries are processed side by side)
    let parked =
        "SELECT count(*) FROM payout_links WHERE merchant_id = 'm1' AND state = 'open' AND attempts = 0";
    eventually("a job is parked", async || {
        (sqlx::query_scalar::<_, i64>(parked).fetch_one(&env.pool).await.unwrap() > 0).then_some(())
    })
    .await;
    // while another merchant's jobs are called,
    for number in 0..2 {
        env.publish(job(&format!("other_{number}")).merchant("m2")).await;
        assert_eq!(env.result_of(&format!("other_{number}")).await.kind(), "payout_link.created");
    }
    assert!((0..4).any(|number| env.results_of(&format!("po_{number}")).is_empty()));
    // and each is created in its turn.
    for number in 0..4 {
        assert_eq!(env.result_of(&format!("po_{number}")).await.kind(), "payout_link.created");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_names_the_merchant_that_waits_longest() {
    // Given records of two merchants that no worker claims,
    let env = TestEnv::new().await;
    let store = store(pool_of_one(&env).await);
    for merchant in ["m1", "m2"] {
        submit_parked_of(&store, merchant, merchant).await;
    }
    sqlx::query("UPDATE payout_links SET due_at = now() - interval '10 minutes' WHERE merchant_id = 'm2'")
        .execute(&env.pool)
        .await
        .unwrap();
    let overdue = || {
        let output = env.run(&["status", "--output", "json"]);
        let status: Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = status["findings"].as_array().unwrap().clone();
        findings.into_iter().find(|finding| finding["name"] == "overdue_records")
    };
    // then `status` names the merchant, but not while it is paused.
    let text = overdue().unwrap()["text"].as_str().unwrap().to_owned();
    assert!(text.contains("the oldest is of merchant m2"), "{text}");
    let paused = env.run(&["pause", "merchant", "m2", "--reason", "test"]);
    assert!(paused.status.success());
    assert_eq!(overdue(), None);
}
