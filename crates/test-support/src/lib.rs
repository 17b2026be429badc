//! Provides the equipment that the tests share: each test has its own environment with a database, queues, a provider
//! simulator, a webhook receiver and workers. All are real servers on loopback.
//!
//! Nothing here runs in production.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]
#![expect(clippy::missing_panics_doc, reason = "in a test a panic is an assertion")]

pub mod accounts;
pub mod alerts;
mod broker;
pub mod calls;
mod certificates;
mod dns;
mod jobs;
pub mod proxy;
mod raw;
mod service;
mod setup;
mod store;
mod worker;
mod test_env;

pub use self::{
    broker::ReceivedMessage,
    certificates::{Authority, Certified},
    dns::{Answer, Dns, addresses},
    jobs::{Job, job},
    raw::{CORRELATION_ID, HEADERS, MESSAGE_ID, REPLY_TO, RawPublisher, deep_headers, long, short},
    service::Service,
    setup::Setup,
    store::{
        accept, accept_of, all_delivered, claim, claim_events, created, pool_of_one, store, store_with,
        store_within, submit, submit_parked, submit_parked_of,
    },
    test_env::{TOKEN, TestEnv, WEBHOOK_SECRET},
    worker::Worker,
};

use std::time::Duration;

use sqlx::PgPool;

/// Limits every wait of a test. A test fails if a wait takes longer.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// Waits until a condition is true, and checks it again and again.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, found).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

/// Waits until a statement has waited this long for a lock.
pub async fn until_a_statement_waits(pool: &PgPool, seconds: f64) {
    let late = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event_type = 'Lock' AND clock_timestamp() - query_start > $1 * interval '1 second'";
    eventually("a statement that waits", async || {
        let waiting: i64 = sqlx::query_scalar(late).bind(seconds).fetch_one(pool).await.unwrap();
        (waiting > 0).then_some(())
    })
    .await;
}
