//! Limits of concurrency and rate, and circuit breakers.
//!
//! Work past a limit waits. It is never dropped, and no queue grows without a limit.

mod breaker;
mod permits;
mod rate;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use self::{
    breaker::{Breaker, BreakerSettings, Health},
    permits::{Permit, Permits},
    rate::RateLimit,
};

use crate::lock::lock;

/// One permit of a [`PermitPool`]. Dropping it returns it to the pool.
#[derive(Debug)]
pub struct PooledPermit {
    _permit: OwnedSemaphorePermit,
}

/// A pool of permits.
#[derive(Debug, Clone)]
pub struct PermitPool {
    semaphore: Arc<Semaphore>,
    all: usize,
}

impl PermitPool {
    /// Creates `all` permits.
    pub fn new(all: usize) -> Self {
        Self { semaphore: Arc::new(Semaphore::new(all)), all }
    }

    /// Waits for a permit.
    pub async fn take(&self) -> PooledPermit {
        #[expect(clippy::expect_used, reason = "the semaphore is private and never closed")]
        let permit = self.semaphore.clone().acquire_owned().await.expect("the semaphore is never closed");
        PooledPermit { _permit: permit }
    }

    /// Waits until a permit is free, and does not take it.
    pub async fn wait_until_free(&self) {
        drop(self.take().await);
    }

    /// Takes a permit if one is free.
    pub fn try_take(&self) -> Option<PooledPermit> {
        Some(PooledPermit { _permit: self.semaphore.clone().try_acquire_owned().ok()? })
    }

    /// Returns the number of free permits.
    pub fn free(&self) -> usize {
        self.semaphore.available_permits()
    }

    /// Returns the number of permits in use.
    pub fn taken(&self) -> usize {
        self.all - self.free()
    }
}

/// A permit pool for each of an unknown number of keys. A key that hangs uses only its own permits.
#[derive(Debug)]
pub struct KeyedPermitPools {
    each: usize,
    pools: Mutex<HashMap<String, PermitPool>>,
}

impl KeyedPermitPools {
    /// Creates pools of `each` permits.
    pub fn new(each: usize) -> Self {
        Self { each, pools: Mutex::default() }
    }

    /// Returns the pool of a key.
    pub fn of(&self, key: &str) -> PermitPool {
        let mut known = lock(&self.pools);
        if let Some(pool) = known.get(key) {
            return pool.clone();
        }
        if known.len() >= KNOWN_KEYS {
            known.retain(|_, pool| Arc::strong_count(&pool.semaphore) > 1);
        }
        known.entry(key.to_owned()).or_insert_with(|| PermitPool::new(self.each)).clone()
    }
}

/// The number of keys above which those without a permit in use are forgotten.
const KNOWN_KEYS: usize = 4096;
