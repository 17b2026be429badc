//! Deletes rows that are past their retention: in small batches with pauses, so that it never delays a job.

use std::{sync::Arc, time::Duration};

use time::OffsetDateTime;
use uuid::Uuid;

use super::Pipeline;
use crate::{
    domain::retry::jittered,
    postgres::{Batch, StoreError},
};

/// Retention of finished data, in days.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Retention of requests, from their record's conclusion.
    pub requests: u32,
    /// Retention of events that are delivered.
    pub events: u32,
    /// Retention of attempts.
    pub attempts: u32,
}

/// A batch takes the database a few milliseconds; the pause is many times longer.
const BATCH: u32 = 500;
const PAUSE: Duration = Duration::from_millis(100);
/// Interval between two passes, in sweep intervals. A pass that finds nothing costs three index probes.
const INTERVALS: u32 = 10;

/// Deletes until the pipeline is stopped.
pub(super) async fn run(pipeline: Arc<Pipeline>) {
    while !pipeline.is_stopping() {
        // A statement that fails is tried again in the next pass.
        if let Err(error) = pass(&pipeline).await {
            match error {
                StoreError::Unavailable(_) => {
                    tracing::debug!(%error, "retention failed, will retry")
                }
                _ => tracing::error!(%error, "retention failed, will retry"),
            }
        }
        let interval = pipeline.settings.sweep_interval * INTERVALS;
        pipeline.sleep(jittered(interval, interval * 2)).await;
    }
}

async fn pass(pipeline: &Pipeline) -> Result<(), StoreError> {
    for what in [What::Requests, What::Events, What::Attempts] {
        let (mut deleted, mut after) = (0, None);
        while !pipeline.is_stopping() {
            let batch = erase(pipeline, what, after).await?;
            deleted += batch.rows;
            after = batch.last;
            if batch.rows < BATCH as usize {
                break;
            }
            pipeline.sleep(PAUSE).await;
        }
        if deleted > 0 {
            tracing::debug!(table = ?what, deleted, "rows past their retention deleted");
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum What {
    Requests,
    Events,
    Attempts,
}

async fn erase(pipeline: &Pipeline, what: What, after: Option<Uuid>) -> Result<Batch, StoreError> {
    let (store, retention) = (&pipeline.store, pipeline.settings.retention);
    match what {
        What::Requests => store.erase_requests(retention.requests, BATCH).await,
        What::Events => store.delete_events(before_now(retention.events), after, BATCH).await,
        What::Attempts => store.delete_attempts(before_now(retention.attempts), after, BATCH).await,
    }
}

fn before_now(days: u32) -> OffsetDateTime {
    OffsetDateTime::now_utc()
        .checked_sub(time::Duration::days(days.into()))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
