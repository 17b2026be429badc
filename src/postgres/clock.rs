//! `look_at_clock`, `steady`: watch the database's clock for steps, and compare it with this worker's clock.

use std::sync::Mutex;

use time::{Duration, OffsetDateTime};
use tokio::time::Instant;

use super::{Store, connect::answered, error::StoreError};
use crate::{
    domain::{ClockSample, ClockWatch, Steady},
    lock::lock,
};

/// The observed state of the database's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClockState {
    /// How far it is ahead of this worker's clock; `None` before the first observation.
    pub offset: Option<Duration>,
    /// Steps since the worker started.
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
    /// Records an observation. `time` is the database's time, read after `asked_at` and before `answered_at`.
    pub(super) fn observe(&self, time: OffsetDateTime, asked_at: Instant, answered_at: Instant) {
        let mut watched = lock(&self.0);
        if let Some(step) = watched.watch.observe(ClockSample { time, asked_at, answered_at }) {
            watched.state.steps += 1;
            tracing::warn!(
                step_seconds = step.as_seconds_f64(),
                "database clock stepped; a look-up's \"not found\" counts only after another settle time"
            );
        }
    }

    fn state(&self) -> ClockState {
        lock(&self.0).state
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
        let mut watched = lock(&self.clock.0);
        watched.state.offset = Some(time - own + (answered_at - asked_at) / 2);
        Ok(())
    }

    /// Returns since when the database's clock has run without a step; `now` before the first observation.
    pub fn steady(&self, now: OffsetDateTime) -> Steady {
        let watched = lock(&self.clock.0);
        watched.watch.steady().unwrap_or(Steady { since: now, after_step: true, set_back: None })
    }

    /// Returns the observed state, for metrics.
    pub fn clock(&self) -> ClockState {
        self.clock.state()
    }
}
