//! The records in process and the limits of each merchant, at one connector account.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::RateLimit;
use crate::lock::lock;

/// Limits of each merchant at one account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MerchantSettings {
    /// Maximum number of records in process.
    pub concurrency: Option<usize>,
    /// Maximum number of calls in any minute.
    pub requests_per_minute: Option<u32>,
}

/// The merchants of one account.
#[derive(Debug, Clone)]
pub struct Merchants(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: MerchantSettings,
    state: Mutex<State>,
    /// Wakes the sweeper when a merchant whose due records wait is below its limit again.
    below_limit: Notify,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<String, Merchant>,
    /// Merchants at a limit that have due records.
    waiting: HashSet<String>,
}

#[derive(Debug)]
struct Merchant {
    taken: usize,
    rate: Arc<RateLimit>,
}

/// The permit of one record. Dropping it gives it back, and its call under the rate limit if that is not used.
#[derive(Debug)]
pub struct MerchantPermit {
    of: Merchants,
    merchant_id: String,
    rate: Arc<RateLimit>,
    is_reserved: bool,
}

impl Merchants {
    /// Creates the limits.
    pub fn new(settings: MerchantSettings) -> Self {
        Self(Arc::new(Inner { settings, state: Mutex::default(), below_limit: Notify::new() }))
    }

    /// Takes a permit of a merchant, with one call of its rate limit. `None`: the merchant is at a limit.
    pub fn try_take(&self, merchant_id: &str, now: Instant) -> Option<MerchantPermit> {
        let mut state = self.state();
        let Inner { settings, .. } = &*self.0;
        let merchant = state.merchant(merchant_id, settings, now);
        if settings.concurrency.is_some_and(|limit| merchant.taken >= limit)
            || merchant.rate.reserve(now, Duration::ZERO).is_err()
        {
            return None;
        }
        merchant.taken += 1;
        Some(self.permit(merchant_id, merchant.rate.clone(), true))
    }

    /// Takes a permit also past the limits, for a record that is claimed already. Its call is not reserved.
    pub fn take(&self, merchant_id: &str, now: Instant) -> MerchantPermit {
        let mut state = self.state();
        let merchant = state.merchant(merchant_id, &self.0.settings, now);
        merchant.taken += 1;
        self.permit(merchant_id, merchant.rate.clone(), false)
    }

    /// Returns how many permits of a merchant are in use.
    pub fn taken(&self, merchant_id: &str) -> usize {
        self.state().known.get(merchant_id).map_or(0, |merchant| merchant.taken)
    }

    /// Returns how long it takes until a merchant is below its rate limit. `None`: as long as its permits are in use.
    pub fn wait(&self, merchant_id: &str, now: Instant) -> Option<Duration> {
        let state = self.state();
        let Some(merchant) = state.known.get(merchant_id) else { return Some(Duration::ZERO) };
        match self.0.settings.concurrency {
            Some(limit) if merchant.taken >= limit => None,
            _ => Some(merchant.rate.wait(now)),
        }
    }

    /// Stores which merchants have due records and are at a limit. Their new jobs wait behind those.
    pub fn set_waiting(&self, waiting: HashSet<String>) {
        self.state().waiting = waiting;
    }

    /// Returns whether due records of a merchant wait for its limit.
    pub fn is_waiting(&self, merchant_id: &str) -> bool {
        self.0.settings != MerchantSettings::default() && self.state().waiting.contains(merchant_id)
    }

    /// Waits until a merchant whose due records wait has a free permit.
    pub async fn below_limit(&self) {
        self.0.below_limit.notified().await;
    }

    fn permit(&self, merchant_id: &str, rate: Arc<RateLimit>, is_reserved: bool) -> MerchantPermit {
        MerchantPermit { of: self.clone(), merchant_id: merchant_id.to_owned(), rate, is_reserved }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }
}

impl State {
    fn merchant(&mut self, merchant_id: &str, settings: &MerchantSettings, now: Instant) -> &mut Merchant {
        if self.known.len() >= KNOWN_MERCHANTS && !self.known.contains_key(merchant_id) {
            self.known.retain(|_, merchant| merchant.taken > 0 || !merchant.rate.is_unused(now));
        }
        // Looked up first: the name is copied for a merchant that is not known only.
        if !self.known.contains_key(merchant_id) {
            let rate = Arc::new(RateLimit::beginning(settings.requests_per_minute, now));
            self.known.insert(merchant_id.to_owned(), Merchant { taken: 0, rate });
        }
        #[expect(clippy::expect_used, reason = "inserted above")]
        self.known.get_mut(merchant_id).expect("the merchant is known")
    }
}

impl MerchantPermit {
    /// Uses the reserved call up. Returns `false` if there is none.
    pub fn use_reservation(&mut self) -> bool {
        std::mem::take(&mut self.is_reserved)
    }

    /// Reserves another call under the rate limit if its wait is at most `limit`, and returns that wait.
    ///
    /// # Errors
    ///
    /// Returns how long the wait would be where it is longer. Nothing is reserved then.
    pub fn reserve(&self, now: Instant, limit: Duration) -> Result<Duration, Duration> {
        self.rate.reserve(now, limit)
    }

    /// Gives back a call that was reserved and not made.
    pub fn give_back(&self) {
        self.rate.give_back(1);
    }
}

impl Drop for MerchantPermit {
    fn drop(&mut self) {
        if self.is_reserved {
            self.rate.give_back(1);
        }
        let mut state = self.of.state();
        let has_limit = self.of.0.settings.requests_per_minute.is_some();
        if let Some(merchant) = state.known.get_mut(&self.merchant_id) {
            merchant.taken -= 1;
            // Without a rate limit, a merchant without records in process has no state.
            if merchant.taken == 0 && !has_limit {
                state.known.remove(&self.merchant_id);
            }
        }
        let is_waiting = state.waiting.contains(&self.merchant_id);
        drop(state);
        if is_waiting {
            self.of.0.below_limit.notify_one();
        }
    }
}

/// The number of merchants above which those without a permit in use and without recent calls are forgotten.
const KNOWN_MERCHANTS: usize = 4096;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_merchant_has_its_own_limit() {
        let merchants = Merchants::new(MerchantSettings { concurrency: Some(2), requests_per_minute: None });
        let now = Instant::now();
        let held = [merchants.try_take("m1", now).unwrap(), merchants.try_take("m1", now).unwrap()];
        assert!(merchants.try_take("m1", now).is_none() && merchants.try_take("m2", now).is_some());
        assert_eq!((merchants.taken("m1"), merchants.taken("m2")), (2, 0));
        assert_eq!((merchants.wait("m1", now), merchants.wait("m2", now)), (None, Some(Duration::ZERO)));
        // Nobody is woken for a merchant without due records.
        merchants.set_waiting(HashSet::from(["m1".into()]));
        assert!(merchants.is_waiting("m1") && !merchants.is_waiting("m2"));
        assert!(merchants.below_limit().now_or_never().is_none());
        drop(held);
        assert!(merchants.below_limit().now_or_never().is_some());
        assert!(merchants.try_take("m1", now).is_some());
    }

    #[test]
    fn an_unused_call_of_a_merchant_is_given_back() {
        let merchants = Merchants::new(MerchantSettings { concurrency: None, requests_per_minute: Some(1) });
        let now = Instant::now();
        drop(merchants.try_take("m1", now).unwrap());
        let mut used = merchants.try_take("m1", now).unwrap();
        assert!(used.use_reservation() && !used.use_reservation());
        drop(used);
        assert!(merchants.try_take("m1", now).is_none() && merchants.try_take("m2", now).is_some());
        assert!(merchants.wait("m1", now).unwrap() > Duration::from_secs(59));
        assert!(merchants.take("m1", now).reserve(now, Duration::ZERO).is_err());
    }

    #[test]
    fn without_limits_permits_are_counted_only() {
        let merchants = Merchants::new(MerchantSettings::default());
        let now = Instant::now();
        let held: Vec<_> = (0..100).filter_map(|_| merchants.try_take("m1", now)).collect();
        assert_eq!((held.len(), merchants.taken("m1")), (100, 100));
        drop(held);
        assert!(merchants.state().known.is_empty());
    }
}
