//! Stores which circuit breakers are open, so that `status` shows them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::Pipeline;
use crate::{domain::retry::jittered, postgres::StoreError};

const INTERVAL: Duration = Duration::from_secs(1);
/// Open breakers are stored again after this time: another worker deletes their rows if this one has lost its session.
const REPEAT: Duration = Duration::from_secs(10);

/// The watcher of the circuit breakers.
pub(super) struct BreakerWatch {
    pipeline: Arc<Pipeline>,
    stored: Vec<String>,
    stored_at: Option<Instant>,
}

impl BreakerWatch {
    pub(super) fn new(pipeline: Arc<Pipeline>) -> Self {
        Self { pipeline, stored: Vec::new(), stored_at: None }
    }

    /// Watches until the pipeline is stopped.
    pub(super) async fn run(mut self) {
        while !self.pipeline.is_stopping() {
            if let Err(error) = self.run_once().await {
                tracing::debug!(%error, "open circuit breakers not stored, will retry");
            }
            self.pipeline.sleep(jittered(INTERVAL, INTERVAL * 2)).await;
        }
    }

    async fn run_once(&mut self) -> Result<(), StoreError> {
        let accounts = self.pipeline.connectors.iter().filter(|account| account.breaker.level() > 0);
        let open: Vec<String> = accounts.map(|account| account.name.to_string()).collect();
        let is_recent = self.stored_at.is_some_and(|at| at.elapsed() < REPEAT);
        if open == self.stored && (open.is_empty() || is_recent) {
            return Ok(());
        }
        self.pipeline.store.record_open_breakers(&open).await?;
        (self.stored, self.stored_at) = (open, Some(Instant::now()));
        Ok(())
    }
}
