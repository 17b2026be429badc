//! Stores how many values the sealing key has encrypted, and warns long before its limit.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use super::Pipeline;
use crate::{
    domain::retry::jittered,
    postgres::{MANY_SEALS, MAX_SEALS, StoreError},
};

const INTERVAL: Duration = Duration::from_secs(60);
/// Limit of the last write.
const PATIENCE: Duration = Duration::from_secs(2);
/// Interval between two warnings of one worker.
const WARNING_INTERVAL: Duration = Duration::from_secs(3600);

/// Stores the count until the pipeline is stopped. [`at_the_end`] stores the rest.
pub(super) async fn run(pipeline: Arc<Pipeline>) {
    let mut warned_at: Option<Instant> = None;
    while !pipeline.is_stopping() {
        let seals = record(&pipeline).await;
        if seals >= MANY_SEALS && warned_at.is_none_or(|at| at.elapsed() >= WARNING_INTERVAL) {
            tracing::warn!(
                seals,
                limit = MAX_SEALS,
                "sealing key has encrypted many values: put a new key first in keys.sealing (docs/how-to/rotate-keys.md)"
            );
            warned_at = Some(Instant::now());
        }
        pipeline.sleep(jittered(INTERVAL, INTERVAL)).await;
    }
}

/// Stores the rest of the count, after all work is done.
pub(super) async fn at_the_end(pipeline: &Pipeline) {
    // A database that is away does not delay the shutdown.
    let _ = timeout(PATIENCE, record(pipeline)).await;
}

async fn record(pipeline: &Pipeline) -> u64 {
    match pipeline.store.record_seals().await {
        Ok(seals) => {
            pipeline.metrics.seals(seals);
            seals
        }
        Err(error @ StoreError::Unavailable(_)) => {
            tracing::debug!(%error, "seal count not stored, will retry");
            0
        }
        Err(error) => {
            tracing::error!(%error, "seal count not stored, will retry");
            0
        }
    }
}
