//! Limits of concurrency and rate, and circuit breakers.
//!
//! Work past a limit waits. It is never dropped, and no queue grows without a limit.

mod breaker;
mod merchants;
mod permits;
mod rate;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use self::{
    breaker::{Breaker, BreakerSettings, Health},
    merchants::{MerchantPermit, MerchantSettings, Merchants},
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
    #[expect(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "the semaphore is private and never closed"
    )]
    pub async fn take(&self) -> PooledPermit {
        let permit = self.semaphore.clone().acquire_owned().await.expect("the semaphore is never closed");
        PooledPermit { _permit: permit }
    }

    /// Waits until a permit is free, and does not take it.
    pub async fn wait_until_free(&self) {
        if self.free() == 0 {
            drop(self.take().await);
        }
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

/// New work, or due work that waited in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Work for a job that just arrived.
    New,
    /// Work that was stored before and became due.
    Due,
}

/// A pool of permits of which due work takes three quarters at most. New work does not wait for a backlog of due work.
#[derive(Debug, Clone)]
pub struct LanePool {
    all: PermitPool,
    due: PermitPool,
}

/// One permit of a [`LanePool`].
#[derive(Debug)]
pub struct LanePermit {
    _permit: PooledPermit,
    _due: Option<PooledPermit>,
}

impl LanePool {
    /// Creates `all` permits.
    pub fn new(all: usize) -> Self {
        Self { all: PermitPool::new(all), due: PermitPool::new((all - all / 4).max(1)) }
    }

    /// Waits for a permit.
    pub async fn take(&self, lane: Lane) -> LanePermit {
        // The permit for due work comes first. Otherwise the due work that waits would hold permits of new work.
        let due = match lane {
            Lane::New => None,
            Lane::Due => Some(self.due.take().await),
        };
        LanePermit { _permit: self.all.take().await, _due: due }
    }

    /// Takes a permit if one is free.
    pub fn try_take(&self, lane: Lane) -> Option<LanePermit> {
        let due = match lane {
            Lane::New => None,
            Lane::Due => Some(self.due.try_take()?),
        };
        Some(LanePermit { _permit: self.all.try_take()?, _due: due })
    }

    /// Returns the number of permits in use.
    pub fn taken(&self) -> usize {
        self.all.taken()
    }
}

/// A permit pool for each of an unknown number of keys. A key that hangs uses only its own permits.
#[derive(Debug)]
pub struct KeyedPermitPools {
    each: usize,
    pools: Mutex<HashMap<String, LanePool>>,
}

impl KeyedPermitPools {
    /// Creates pools of `each` permits.
    pub fn new(each: usize) -> Self {
        Self { each, pools: Mutex::default() }
    }

    /// Returns the pool of a key.
    pub fn of(&self, key: &str) -> LanePool {
        let mut known = lock(&self.pools);
        if let Some(pool) = known.get(key) {
            return pool.clone();
        }
        if known.len() >= KNOWN_KEYS {
            known.retain(|_, pool| Arc::strong_count(&pool.all.semaphore) > 1);
        }
        known.entry(key.to_owned()).or_insert_with(|| LanePool::new(self.each)).clone()
    }
}

/// The number of keys above which those without a permit in use are forgotten.
const KNOWN_KEYS: usize = 4096;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn due_work_leaves_permits_for_new_work() {
        let pool = LanePool::new(8);
        let due: Vec<_> = (0..6).filter_map(|_| pool.take(Lane::Due).now_or_never()).collect();
        assert_eq!(due.len(), 6);
        // Due work that waits does not stand before new work.
        let mut waits = Box::pin(pool.take(Lane::Due));
        assert!((&mut waits).now_or_never().is_none());
        let new: Vec<_> = (0..3).filter_map(|_| pool.take(Lane::New).now_or_never()).collect();
        assert_eq!((new.len(), pool.taken()), (2, 8));
        drop(due);
        assert!(waits.now_or_never().is_some());
    }

    #[test]
    fn a_pool_of_one_permit_serves_both_lanes() {
        let pool = LanePool::new(1);
        for lane in [Lane::Due, Lane::New] {
            assert!(pool.take(lane).now_or_never().is_some(), "{lane:?}");
        }
    }
}
