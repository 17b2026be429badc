//! Deletes dead letters that are past their retention. Off, unless `retention.dead_letters_days` is set.
//!
//! Letters are read from the front of the queue, over a connection of their own. RabbitMQ counts each return of a letter, so
//! the queue is not read again before its oldest letter is old enough.

use std::{sync::Arc, time::Duration};

use time::OffsetDateTime;

use super::{Pipeline, retention::before};
use crate::{
    domain::retry::jittered,
    postgres::StoreError,
    rabbitmq::{BrokerError, BrokerSettings, Letter, Letters},
};

/// Settings of the retention of dead letters.
#[derive(Debug, Clone)]
pub struct LetterRetentionSettings {
    /// Days after its rejection until a letter is deleted.
    pub days: u32,
    /// Interval between two passes. Few of them read the queue.
    pub interval: Duration,
    /// The connection, and the name of the queue.
    pub broker: BrokerSettings,
}

/// An error of one pass.
#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error("RabbitMQ: {0}")]
    Broker(#[from] BrokerError),
    #[error("PostgreSQL: {0}")]
    Store(#[from] StoreError),
}

/// So many letters that stay are read in one pass: a letter that was given back may be ahead of older ones.
const MAX_YOUNGER: usize = 100;
/// The queue is read once in this time at least.
const MAX_PAUSE: time::Duration = time::Duration::DAY;

/// The retention of dead letters.
pub(super) struct LetterRetention {
    pipeline: Arc<Pipeline>,
    settings: LetterRetentionSettings,
    /// The queue is not read before this time.
    next_look: Option<OffsetDateTime>,
}

impl LetterRetention {
    pub(super) fn new(pipeline: Arc<Pipeline>, settings: LetterRetentionSettings) -> Self {
        Self { pipeline, settings, next_look: None }
    }

    /// Deletes until the pipeline is stopped. A pass that fails is repeated after the interval.
    pub(super) async fn run(mut self) {
        while !self.pipeline.is_stopping() {
            match self.run_once(OffsetDateTime::now_utc()).await {
                Ok(0) => {}
                Ok(letters) => tracing::info!(letters, "dead letters past their retention deleted"),
                Err(
                    error @ (PassError::Broker(BrokerError::Lost(_))
                    | PassError::Store(StoreError::Unavailable(_))),
                ) => tracing::debug!(%error, "retention of dead letters failed, will retry"),
                Err(error) => tracing::error!(%error, "retention of dead letters failed, will retry"),
            }
            let interval = self.settings.interval;
            self.pipeline.sleep(jittered(interval, interval * 2)).await;
        }
    }

    /// Deletes every letter that is past its retention, and returns how many. Does nothing while an operator acts on letters,
    /// or another worker.
    async fn run_once(&mut self, now: OffsetDateTime) -> Result<usize, PassError> {
        if self.next_look.is_some_and(|next| now < next) {
            return Ok(0);
        }
        let Some(lock) = self.pipeline.store.lock_acts("letters").await? else { return Ok(0) };
        let deleted = self.delete(now).await;
        // The session ends in any case.
        let _ = lock.end().await;
        deleted
    }

    async fn delete(&mut self, now: OffsetDateTime) -> Result<usize, PassError> {
        let LetterRetentionSettings { days, broker, .. } = &self.settings;
        let end = before(now, *days);
        let mut letters = Letters::open(broker, &broker.names.dead_queue).await?;
        let (mut deleted, mut younger, mut oldest) = (0_usize, 0, None);
        while younger < MAX_YOUNGER
            && !self.pipeline.is_stopping()
            && let Some(letter) = letters.next().await?
        {
            match letter.at() {
                Some(at) if at < end => {
                    // Before it is gone: no letter disappears without a line in the log.
                    log(&letter);
                    letters.remove(&letter).await?;
                    deleted += 1;
                }
                // A letter without a time stays.
                at => {
                    younger += 1;
                    oldest = oldest.into_iter().chain(at).min();
                }
            }
        }
        // RabbitMQ has carried out the removals once this returns.
        letters.give_back().await?;
        self.pipeline.metrics.dead_letters_deleted(deleted);
        self.next_look = Some(next_look(now, oldest, *days));
        Ok(deleted)
    }
}

fn log(letter: &Letter) {
    tracing::info!(
        letter.id = letter.id(),
        message.id = letter.message_id(),
        merchant.id = letter.header("x-merchant-id"),
        code = letter.header("x-rejected-code"),
        "deleting a dead letter that is past its retention"
    );
}

/// Returns when the oldest letter that stayed is past its retention, within [`MAX_PAUSE`].
fn next_look(now: OffsetDateTime, oldest: Option<OffsetDateTime>, days: u32) -> OffsetDateTime {
    let latest = now.saturating_add(MAX_PAUSE);
    let due = oldest.map(|at| at.saturating_add(time::Duration::days(days.into())));
    due.map_or(latest, |due| due.min(latest))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn the_queue_is_read_again_when_its_oldest_letter_is_due_or_after_a_day() {
        let now = datetime!(2026-12-01 12:00 UTC);
        let tomorrow = datetime!(2026-12-02 12:00 UTC);
        assert_eq!(next_look(now, None, 30), tomorrow);
        assert_eq!(
            next_look(now, Some(datetime!(2026-11-01 18:00 UTC)), 30),
            datetime!(2026-12-01 18:00 UTC)
        );
        assert_eq!(next_look(now, Some(now), 30), tomorrow);
        assert_eq!(next_look(now, Some(now), u32::MAX), tomorrow);
    }
}
