//! The world of a test: a database, queues, a provider, a merchant, and workers.

mod broker;
mod certificates;
mod dns;
mod jobs;
mod service;
mod worker;
mod world;

pub use self::{
    broker::Heard,
    certificates::{Authority, Certified},
    dns::{Answer, Dns, addresses},
    jobs::{Job, job},
    service::Service,
    worker::Worker,
    world::{Setup, TOKEN, WEBHOOK_SECRET, World},
};

use std::time::Duration;

/// Everything that a test waits for comes within this, or the test fails.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits for a condition, looking again and again.
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
