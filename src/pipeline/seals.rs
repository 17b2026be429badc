//! Records how much the sealing key has encrypted, and warns long before it is worn out.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use super::Pipeline;
use crate::{
    domain::retry::jittered,
    postgres::{MANY_SEALS, MAX_SEALS, StoreError},
};

const INTERVAL: Duration = Duration::from_secs(60);
/// At the end.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two warnings of one worker.
const WARNING_INTERVAL: Duration = Duration::from_secs(3600);

/// Until the pipeline is stopped. What is encrypted after that is recorded by [`at_the_end`].
pub(super) async fn run(pipeline: Arc<Pipeline>) {
    let mut warned_at: Option<Instant> = None;
    while !pipeline.is_stopping() {
        let seals = record(&pipeline).await;
        if seals >= MANY_SEALS && warned_at.is_none_or(|at| at.elapsed() >= WARNING_INTERVAL) {
            tracing::warn!(
                seals,
                limit = MAX_SEALS,
                "the first key of keys.sealing has encrypted many values: put a new key first (docs/how-to/rotate-keys.md)"
            );
            warned_at = Some(Instant::now());
        }
        pipeline.sleep(jittered(INTERVAL, INTERVAL)).await;
    }
}

/// Once everything that was under way is finished.
pub(super) async fn at_the_end(pipeline: &Pipeline) {
    // A database that is away holds up no shutdown for it.
    let _ = timeout(PATIENCE, record(pipeline)).await;
}

async fn record(pipeline: &Pipeline) -> u64 {
    match pipeline.store.record_seals().await {
        Ok(seals) => {
            pipeline.metrics.seals(seals);
            seals
        }
        Err(error @ StoreError::Unavailable(_)) => {
            tracing::debug!(%error, "cannot record what the sealing key has encrypted");
            0
        }
        Err(error) => {
            tracing::error!(%error, "cannot record what the sealing key has encrypted");
            0
        }
    }
}
