//! Asks whether the database answers, over a connection that no job shares: jobs may have taken all of the pool's.

use std::time::Duration;

use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::{DatabaseSettings, StoreError, connect::options};

pub struct Probe {
    pool: PgPool,
    /// One question at a time: whoever asks meanwhile gets its answer.
    last: Mutex<Option<(Instant, bool)>>,
}

/// For connecting and the answer together.
const PATIENCE: Duration = Duration::from_secs(3);
/// An answer holds for so long: whoever asks without end asks the database no more often.
const FRESH: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_secs(120);

impl Probe {
    /// Connects when it is asked first.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unusable`] where the URL cannot be read.
    pub fn new(settings: &DatabaseSettings) -> Result<Self, StoreError> {
        let options = options(settings)?.application_name("payout-link-worker probe");
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(PATIENCE)
            .idle_timeout(IDLE)
            .connect_lazy_with(options);
        Ok(Self { pool, last: Mutex::new(None) })
    }

    /// Whether the database answers a question within [`PATIENCE`].
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
