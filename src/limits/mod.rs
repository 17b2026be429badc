//! How many at once: past a limit one waits, nothing grows and nothing is dropped.

mod breaker;
mod permits;
mod rate;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use self::{
    breaker::{Breaker, BreakerSettings, Health},
    permits::{Permit, Permits},
    rate::RateLimit,
};

/// A place that is free again when it is dropped.
#[derive(Debug)]
pub struct PooledPermit {
    _permit: OwnedSemaphorePermit,
}

/// A number of places.
#[derive(Debug, Clone)]
pub struct PermitPool {
    semaphore: Arc<Semaphore>,
    all: usize,
}

impl PermitPool {
    pub fn new(all: usize) -> Self {
        Self { semaphore: Arc::new(Semaphore::new(all)), all }
    }

    pub async fn take(&self) -> PooledPermit {
        #[expect(clippy::expect_used, reason = "the semaphore is private and never closed")]
        let permit = self.semaphore.clone().acquire_owned().await.expect("slots are never closed");
        PooledPermit { _permit: permit }
    }

    /// Until there is a place.
    pub async fn wait_until_free(&self) {
        drop(self.take().await);
    }

    pub fn try_take(&self) -> Option<PooledPermit> {
        Some(PooledPermit { _permit: self.semaphore.clone().try_acquire_owned().ok()? })
    }

    pub fn free(&self) -> usize {
        self.semaphore.available_permits()
    }

    pub fn taken(&self) -> usize {
        self.all - self.free()
    }
}

/// The same for each of an unknown number of keys: one that hangs takes its own places and nobody else's.
#[derive(Debug)]
pub struct KeyedPermitPools {
    each: usize,
    slots: Mutex<HashMap<String, PermitPool>>,
}

impl KeyedPermitPools {
    pub fn new(each: usize) -> Self {
        Self { each, slots: Mutex::default() }
    }

    pub fn of(&self, key: &str) -> PermitPool {
        let mut known = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slots) = known.get(key) {
            return slots.clone();
        }
        if known.len() >= KNOWN_KEYS {
            known.retain(|_, slots| Arc::strong_count(&slots.semaphore) > 1);
        }
        known.entry(key.to_owned()).or_insert_with(|| PermitPool::new(self.each)).clone()
    }
}

/// Keys remembered before those without a call under way are forgotten.
const KNOWN_KEYS: usize = 4096;
