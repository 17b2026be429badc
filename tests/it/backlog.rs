//! Tests that a backlog of results is published after an outage, and that new jobs do not wait for it.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use payout_link_worker::postgres::{Column, KeyRing};
use provider_simulators::sandbox::Receiver;
use serde_json::json;
use uuid::Uuid;

use crate::support::{ReceivedMessage, Setup, TestEnv, WEBHOOK_SECRET, eventually, job};

/// Returns the number of waiting events. `BACKLOG=100000` has the size of a long outage.
fn size() -> usize {
    std::env::var("BACKLOG").ok().and_then(|text| text.parse().ok()).unwrap_or(6_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_results_and_webhooks_drains_beside_new_jobs() {
    const FRESH: usize = 40;
    let env = Setup::default().set("log.filter", "info").set("database.max_connections", 8).build().await;
    env.start_worker().await.stop().await;
    // Given as many results and webhooks as an outage leaves, all of them due,
    let size = size();
    let merchant = Receiver::start(&[WEBHOOK_SECRET.to_owned()]).await.unwrap();
    pile_up(&env, size, merchant.url()).await;
    // and new jobs after it,
    for number in 0..FRESH {
        env.publish(job(&format!("fresh_{number}")).with("webhook_url", env.webhook_url())).await;
    }
    // when a worker starts,
    let (started, worker) = (Instant::now(), env.start_worker().await);
    env.webhooks(FRESH).await;
    let (waited, left) = (started.elapsed(), count(&env, LEFT).await);
    // then all of it is published,
    let (mut last, mut since) = (size, Instant::now());
    loop {
        let left = count(&env, LEFT).await;
        if left == 0 {
            break;
        }
        if left < last {
            (last, since) = (left, Instant::now());
        }
        assert!(
            since.elapsed() < Duration::from_secs(30),
            "{left} of {size} left, and none published for half a minute"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let memory = worker.peak_memory() / 1024 / 1024;
    println!(
        "{size} waiting: {FRESH} new jobs published after {waited:.1?} with {left} left, all after {:.1?}, {:.1?} of CPU, {memory} MiB at the peak",
        started.elapsed(),
        worker.cpu()
    );
    let results = || env.results().iter().map(ReceivedMessage::id).collect::<HashSet<_>>().len();
    eventually("every result", async || (results() == size + FRESH).then_some(())).await;
    let delivered = "SELECT count(*) FROM events WHERE webhook_state = 'delivered'";
    assert_eq!(count(&env, delivered).await, size + FRESH);
    // and the new jobs did not wait for the others.
    assert!(left > size / 4, "{left} of {size} were left when the new ones were published");
    assert!(memory < 256, "{memory} MiB");
    assert!(worker.stop().await.success());
}

const LEFT: &str = "SELECT count(*) FROM events WHERE due_at IS NOT NULL";

async fn count(env: &TestEnv, query: &'static str) -> usize {
    let count: i64 = sqlx::query_scalar(query).fetch_one(&env.pool).await.unwrap();
    usize::try_from(count).unwrap()
}

/// Inserts records as workers leave them that conclude while nothing can be published.
async fn pile_up(env: &TestEnv, size: usize, webhook_url: &str) {
    let keys = KeyRing::new(
        &["k1:c2VhbGluZyBrZXkgb2YgYSB0ZXN0LCAzMiBieXRlcy4=".into()],
        &"ZmluZ2VycHJpbnQga2V5IG9mIGEgdGVzdCwgMzIgYi4=".into(),
    )
    .unwrap();
    for first in (0..size).step_by(5_000) {
        let rows = first..(first + 5_000).min(size);
        let ids: Vec<Uuid> = rows.clone().map(|_| Uuid::now_v7()).collect();
        let events: Vec<Uuid> = rows.clone().map(|_| Uuid::now_v7()).collect();
        let names: Vec<String> = rows.clone().map(|number| format!("past_{number}")).collect();
        let results: Vec<Vec<u8>> = ids
            .iter()
            .zip(&names)
            .map(|(id, name)| {
                let result = json!({ "merchant_payout_id": name, "payout_status": "REQUIRES_FULFILLMENT" });
                keys.seal(Column::Result, *id, result.to_string().as_bytes())
            })
            .collect();
        sqlx::query(
            "WITH made AS (
                INSERT INTO payout_links (
                    id, merchant_id, merchant_payout_id, request_fingerprint, connector, amount_minor, currency,
                    destination_currency, state, connector_payout_id, result, event_id, concluded_at
                )
                SELECT id, '', name, '', 'sandbox', 1250, 'EUR', 'EUR', 'created', name, result, event, now()
                FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::bytea[]) AS new (id, event, name, result)
                RETURNING id, event_id
            )
            INSERT INTO events (id, payout_link_id, type, webhook_url, webhook_state, webhook_due_at, due_at)
            SELECT event_id, id, 'payout_link.created', $5, 'pending', now(), now() FROM made",
        )
        .bind(ids)
        .bind(events)
        .bind(names)
        .bind(results)
        .bind(webhook_url)
        .execute(&env.pool)
        .await
        .unwrap();
    }
}
