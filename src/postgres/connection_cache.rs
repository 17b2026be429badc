//! Reuses connections from one batch to the next.
//!
//! The pool tests each connection that is returned to it, twice, which costs more than the statement of a single job.
//! The connection used last is used next, for every kind of batch. So the statements of one job find one
//! PostgreSQL backend that is awake, not three that have to wake up.

use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use sqlx::{PgConnection, PgPool, Postgres, pool::PoolConnection};
use tokio::time::Instant;

use super::{connect::answered, error::StoreError};
use crate::lock::lock;

/// An idle connection goes back to the pool after this time, because others may need it.
pub(super) const IDLE: Duration = Duration::from_millis(100);
/// Every connection goes back to the pool after this time, because the pool replaces old ones.
const MAX_AGE: Duration = Duration::from_mins(1);

pub(super) struct ConnectionCache {
    pool: PgPool,
    /// The connection used last is at the end. At most one for each kind of batch: a kind has one fast batch at a
    /// time, and the connection of a slow one is not cached.
    free: Mutex<Vec<CachedConnection>>,
}

/// A connection without a failed statement.
pub(super) struct CachedConnection {
    connection: PoolConnection<Postgres>,
    since: Instant,
    used: Instant,
}

impl ConnectionCache {
    pub(super) fn new(pool: PgPool) -> Self {
        Self { pool, free: Mutex::default() }
    }

    pub(super) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Returns the connection used last, or one of the pool.
    pub(super) async fn take(&self) -> Result<CachedConnection, StoreError> {
        let last = self.free().pop();
        if let Some(cached) = last.filter(|cached| cached.since.elapsed() < MAX_AGE) {
            return Ok(cached);
        }
        let connection = answered(&self.pool, self.pool.acquire()).await?;
        Ok(CachedConnection { connection, since: Instant::now(), used: Instant::now() })
    }

    pub(super) fn put_back(&self, mut cached: CachedConnection) {
        cached.used = Instant::now();
        self.free().push(cached);
    }

    pub(super) fn give_back_idle(&self) {
        self.free().retain(|cached| cached.used.elapsed() < IDLE);
    }

    fn free(&self) -> MutexGuard<'_, Vec<CachedConnection>> {
        lock(&self.free)
    }
}

impl CachedConnection {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}
