//! Tests whether the database answers, over a connection of its own: jobs may use every connection of the pool.

use std::time::Duration;

use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::{
    connect::{DatabaseSettings, options},
    error::StoreError,
};

/// A connection for readiness probes.
pub struct Probe {
    pool: PgPool,
    /// The last answer. One probe runs at a time; concurrent callers share its answer.
    last: Mutex<Option<(Instant, bool)>>,
}

/// Limit for connecting and the answer together.
const PATIENCE: Duration = Duration::from_secs(3);
/// An answer is reused for this time, so that frequent probes do not reach the database.
const FRESH: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_mins(2);

impl Probe {
    /// Makes a probe. It connects at the first question.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unusable`] if the URL cannot be read.
    pub fn new(settings: &DatabaseSettings) -> Result<Self, StoreError> {
        let options = options(settings)?.application_name("payout-link-worker probe");
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(PATIENCE)
            .idle_timeout(IDLE)
            .connect_lazy_with(options);
        Ok(Self { pool, last: Mutex::new(None) })
    }

    /// Returns whether the database answers within [`PATIENCE`].
    pub async fn answers(&self) -> bool {
        let mut last = self.last.lock().await;
        if let Some((at, answered)) = *last
            && at.elapsed() < FRESH
        {
            return answered;
        }
        let asked = timeout(PATIENCE, sqlx::query("SELECT 1").execute(&self.pool)).await;
        let answered = asked.is_ok_and(|answer| answer.is_ok());
        *last = Some((Instant::now(), answered));
        answered
    }
}
