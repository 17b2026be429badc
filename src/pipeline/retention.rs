//! What is past its retention is erased: in small batches with pauses between, beside the jobs and never in their way.

use std::{sync::Arc, time::Duration};

use time::OffsetDateTime;
use uuid::Uuid;

use super::Pipeline;
use crate::{
    domain::retry::jittered,
    postgres::{Batch, StoreError},
};

/// How long what is done with is kept, in days.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Requests, from their record's conclusion.
    pub requests: u32,
    /// Events that are told.
    pub events: u32,
    pub attempts: u32,
}

/// A batch is a few milliseconds for the database, and it has rest for many times that before the next.
const BATCH: u32 = 500;
const REST: Duration = Duration::from_millis(100);
/// Between two passes, in sweep intervals: nothing here is urgent, and one that finds nothing is three index probes.
const INTERVALS: u32 = 10;

/// Until the pipeline is stopped.
pub(super) async fn run(pipeline: Arc<Pipeline>) {
    while !pipeline.is_stopping() {
        // The same few statements again and again: one that fails now is tried in the next pass.
        if let Err(error) = pass(&pipeline).await {
            match error {
                StoreError::Unavailable(_) => {
                    tracing::debug!(%error, "cannot erase what is past its retention")
                }
                _ => tracing::error!(%error, "cannot erase what is past its retention"),
            }
        }
        let interval = pipeline.settings.sweep_interval * INTERVALS;
        pipeline.sleep(jittered(interval, interval * 2)).await;
    }
}

async fn pass(pipeline: &Pipeline) -> Result<(), StoreError> {
    for what in [What::Requests, What::Events, What::Attempts] {
        let (mut erased, mut after) = (0, None);
        while !pipeline.is_stopping() {
            let batch = erase(pipeline, what, after).await?;
            erased += batch.rows;
            after = batch.last;
            if batch.rows < BATCH as usize {
                break;
            }
            pipeline.sleep(REST).await;
        }
        if erased > 0 {
            tracing::debug!(?what, erased, "past their retention, erased");
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
