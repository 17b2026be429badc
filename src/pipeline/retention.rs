//! Deletes rows that are past their retention: in small batches with pauses, so that it never delays a job.

use std::{sync::Arc, time::Duration};

use time::OffsetDateTime;
use uuid::Uuid;

use super::Pipeline;
use crate::{
    domain::retry::jittered,
    postgres::{Batch, StoreError},
};

/// Settings of the retention service.
#[derive(Debug, Clone, Copy)]
pub struct RetentionSettings {
    /// Retention of requests in days, from their record's conclusion.
    pub requests_days: u32,
    /// Retention of events that are delivered, in days.
    pub events_days: u32,
    /// Retention of attempts in days.
    pub attempts_days: u32,
    /// Interval between two passes. A pass that finds nothing costs four index probes.
    pub interval: Duration,
    /// Maximum number of rows in one statement, which takes the database a few milliseconds.
    pub batch: u32,
    /// Pause between two statements: many times longer than a statement takes.
    pub pause: Duration,
}

/// Retention of providers' webhooks in days: longer than any provider repeats one.
const PROVIDER_WEBHOOKS_DAYS: u32 = 7;

/// The rows that one pass deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Deleted {
    pub(super) requests: usize,
    pub(super) events: usize,
    pub(super) attempts: usize,
    pub(super) provider_webhooks: usize,
}

/// The retention service.
pub(super) struct Retention {
    pipeline: Arc<Pipeline>,
    settings: RetentionSettings,
}

#[derive(Debug, Clone, Copy)]
enum Rows {
    Requests,
    Events,
    Attempts,
    ProviderWebhooks,
}

impl Retention {
    pub(super) fn new(pipeline: Arc<Pipeline>) -> Self {
        Self { settings: pipeline.settings.retention, pipeline }
    }

    /// Deletes until the pipeline is stopped. A statement that fails is tried again in the next pass.
    pub(super) async fn run(self) {
        while !self.pipeline.is_stopping() {
            match self.run_once().await {
                Ok(deleted) if deleted == Deleted::default() => {}
                Ok(Deleted { requests, events, attempts, provider_webhooks }) => {
                    tracing::debug!(
                        requests,
                        events,
                        attempts,
                        provider_webhooks,
                        "rows past their retention deleted"
                    );
                }
                Err(error @ StoreError::Unavailable(_)) => {
                    tracing::debug!(%error, "retention failed, will retry");
                }
                Err(error) => tracing::error!(%error, "retention failed, will retry"),
            }
            let interval = self.settings.interval;
            self.pipeline.sleep(jittered(interval, interval * 2)).await;
        }
    }

    /// Deletes everything that is past its retention, and returns how much.
    async fn run_once(&self) -> Result<Deleted, StoreError> {
        Ok(Deleted {
            requests: self.delete(Rows::Requests).await?,
            events: self.delete(Rows::Events).await?,
            attempts: self.delete(Rows::Attempts).await?,
            provider_webhooks: self.delete(Rows::ProviderWebhooks).await?,
        })
    }

    async fn delete(&self, rows: Rows) -> Result<usize, StoreError> {
        let (mut deleted, mut after) = (0, None);
        while !self.pipeline.is_stopping() {
            let batch = self.delete_batch(rows, after).await?;
            deleted += batch.rows;
            after = batch.last;
            if batch.rows < self.settings.batch as usize {
                break;
            }
            self.pipeline.sleep(self.settings.pause).await;
        }
        Ok(deleted)
    }

    async fn delete_batch(&self, rows: Rows, after: Option<Uuid>) -> Result<Batch, StoreError> {
        let (store, settings, now) = (&self.pipeline.store, self.settings, OffsetDateTime::now_utc());
        match rows {
            Rows::Requests => store.erase_requests(settings.requests_days, settings.batch).await,
            Rows::Events => {
                store.delete_events(before(now, settings.events_days), after, settings.batch).await
            }
            Rows::Attempts => {
                store.delete_attempts(before(now, settings.attempts_days), after, settings.batch).await
            }
            Rows::ProviderWebhooks => {
                store.delete_provider_webhooks(before(now, PROVIDER_WEBHOOKS_DAYS), settings.batch).await
            }
        }
    }
}

/// Returns the time that was `days` before `now`, or the earliest one.
pub(super) fn before(now: OffsetDateTime, days: u32) -> OffsetDateTime {
    now.checked_sub(time::Duration::days(days.into())).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_retention_of_days_ends_at_a_time_and_one_without_end_never() {
        let now = datetime!(2026-12-01 12:00 UTC);
        assert_eq!(before(now, 0), now);
        assert_eq!(before(now, 90), datetime!(2026-09-02 12:00 UTC));
        assert_eq!(before(now, u32::MAX), OffsetDateTime::UNIX_EPOCH);
    }
}
