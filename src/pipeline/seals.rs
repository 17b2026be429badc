//! Stores how many values the sealing key has encrypted, and warns long before its limit.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use super::Pipeline;
use crate::{
    domain::retry::jittered,
    postgres::{MANY_SEALS, MAX_SEALS, StoreError},
};

/// Settings of the seal counter.
#[derive(Debug, Clone, Copy)]
pub(super) struct SealCounterSettings {
    /// Interval between two writes of the count.
    pub(super) interval: Duration,
    /// Interval between two warnings of one worker.
    pub(super) warning_interval: Duration,
}

impl Default for SealCounterSettings {
    fn default() -> Self {
        Self { interval: Duration::from_mins(1), warning_interval: Duration::from_hours(1) }
    }
}

/// The service that stores the count.
pub(super) struct SealCounter {
    pipeline: Arc<Pipeline>,
    settings: SealCounterSettings,
    warned_at: Option<Instant>,
}

/// Limit of the last write.
const PATIENCE: Duration = Duration::from_secs(2);

impl SealCounter {
    pub(super) fn new(pipeline: Arc<Pipeline>) -> Self {
        Self { pipeline, settings: SealCounterSettings::default(), warned_at: None }
    }

    /// Stores the count until the pipeline is stopped. [`at_the_end`] stores the rest.
    pub(super) async fn run(mut self) {
        while !self.pipeline.is_stopping() {
            let seals = self.run_once().await;
            self.warn(seals, Instant::now());
            let interval = self.settings.interval;
            self.pipeline.sleep(jittered(interval, interval)).await;
        }
    }

    /// Stores the count, and returns that of all workers.
    async fn run_once(&self) -> u64 {
        record(&self.pipeline).await
    }

    fn warn(&mut self, seals: u64, now: Instant) {
        if !is_warning_due(seals, self.warned_at, now, self.settings.warning_interval) {
            return;
        }
        tracing::warn!(
            seals,
            limit = MAX_SEALS,
            "sealing key has encrypted many values: put a new key first in keys.sealing (docs/how-to/rotate-keys.md)"
        );
        self.warned_at = Some(now);
    }
}

/// Returns whether an operator is to be warned about this many seals.
fn is_warning_due(seals: u64, warned_at: Option<Instant>, now: Instant, interval: Duration) -> bool {
    seals >= MANY_SEALS && warned_at.is_none_or(|at| now.saturating_duration_since(at) >= interval)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_seals_are_warned_of_once_an_interval() {
        let (now, hour) = (Instant::now(), Duration::from_hours(1));
        for (seals, warned_at, is_due) in [
            (MANY_SEALS - 1, None, false),
            (MANY_SEALS, None, true),
            (MANY_SEALS, Some(now), false),
            (MAX_SEALS, Some(now), false),
        ] {
            assert_eq!(is_warning_due(seals, warned_at, now, hour), is_due, "{seals} {warned_at:?}");
        }
        assert!(!is_warning_due(MANY_SEALS, Some(now), now + hour - Duration::from_secs(1), hour));
        assert!(is_warning_due(MANY_SEALS, Some(now), now + hour, hour));
    }
}
