//! Connections between one batch and the next.
//!
//! The pool asks each connection that it gets back whether it is there still, twice, which is more than a lone job's
//! statement costs. And what was used last is used next, whatever kind of batch comes: a job's statements find one
//! backend that is awake, not three that have to be woken.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::{PgConnection, PgPool, Postgres, pool::PoolConnection};
use tokio::time::Instant;

use super::{StoreError, connect::answered};

/// A connection that nothing is done on for so long is given back: others may need it.
pub(super) const IDLE: Duration = Duration::from_millis(100);
/// After so long it goes back in any case: the pool replaces those that are old.
const MAX_AGE: Duration = Duration::from_secs(60);

pub(super) struct ConnectionCache {
    pool: PgPool,
    /// Used last, at the end. One for each kind of batch at most: a kind has one quick batch under way, and what a slow one
    /// had is not kept.
    free: Mutex<Vec<CachedConnection>>,
}

/// A connection on which all has gone well.
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

    /// The one used last, or another of the pool's.
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
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CachedConnection {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}
