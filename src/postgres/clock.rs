//! `look_at_clock`, `steady`: since when the database's clock runs steadily, and how far it is from this worker's.

use std::sync::{Mutex, PoisonError};

use time::{Duration, OffsetDateTime};
use tokio::time::Instant;

use super::{Store, StoreError, connect::answered};
use crate::domain::{ClockSample, ClockWatch, Steady};

/// What is known of the database's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClockState {
    /// Ahead of this worker's; `None` before the first look.
    pub offset: Option<Duration>,
    /// Steps since the start.
    pub steps: u64,
}

#[derive(Debug, Default)]
pub(super) struct DatabaseClock(Mutex<Watched>);

#[derive(Debug, Default)]
struct Watched {
    watch: ClockWatch,
    state: ClockState,
}

impl DatabaseClock {
    /// `time`: the database's, read after `asked_at` and before `answered_at`.
    pub(super) fn observe(&self, time: OffsetDateTime, asked_at: Instant, answered_at: Instant) {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(step) = watched.watch.observe(ClockSample { time, asked_at, answered_at }) {
            watched.state.steps += 1;
            tracing::warn!(
                step_seconds = step.as_seconds_f64(),
                "the database's clock has stepped, look-ups are not believed before a settle time has passed"
            );
        }
    }

    fn state(&self) -> ClockState {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).state
    }
}

impl Store {
    /// Reads the database's clock.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn look_at_clock(&self) -> Result<(), StoreError> {
        let asked_at = Instant::now();
        let read = sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#).fetch_one(&self.pool);
        let time = answered(&self.pool, read).await?;
        let (answered_at, own) = (Instant::now(), OffsetDateTime::now_utc());
        self.clock.observe(time, asked_at, answered_at);
        let mut watched = self.clock.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.state.offset = Some(time - own + (answered_at - asked_at) / 2);
        Ok(())
    }

    /// Since when the database's clock runs steadily; `now` where it was not looked at yet.
    pub fn steady(&self, now: OffsetDateTime) -> Steady {
        let watched = self.clock.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.watch.steady().unwrap_or(Steady { since: now, after_step: true })
    }

    /// For metrics.
    pub fn clock(&self) -> ClockState {
        self.clock.state()
    }
}
