//! A token bucket: how many calls begin in a minute.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};

/// At most so many calls in any minute, a tenth of them at once; or as many as come.
#[derive(Debug)]
pub struct Pace(Option<DefaultDirectRateLimiter>);

impl Pace {
    /// `per_minute`: `None` or 0 is no limit.
    pub fn new(per_minute: Option<u32>) -> Self {
        let Some(per_minute) = per_minute.and_then(NonZeroU32::new) else { return Self(None) };
        let at_once = NonZeroU32::new(per_minute.get().div_ceil(10)).unwrap_or(NonZeroU32::MIN);
        // Both together stay within the limit, also in the minute after a rest.
        let steady = NonZeroU32::new(per_minute.get() - at_once.get()).unwrap_or(NonZeroU32::MIN);
        Self(Some(RateLimiter::direct(Quota::per_minute(steady).allow_burst(at_once))))
    }

    /// Counts a call, or says when to come again.
    pub fn pass(&self) -> Result<(), Duration> {
        let Some(bucket) = &self.0 else { return Ok(()) };
        bucket.check().map_err(|full| full.wait_time_from(DefaultClock::default().now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_at_once_and_the_rest_in_its_time() {
        let pace = Pace::new(Some(60));
        assert_eq!((0..60).filter(|_| pace.pass().is_ok()).count(), 6);
        let wait = pace.pass().unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(2), "{wait:?}");
        // One in a minute is one.
        let pace = Pace::new(Some(1));
        assert!(pace.pass().is_ok() && pace.pass().is_err());
    }

    #[test]
    fn no_limit_is_none() {
        for none in [None, Some(0)] {
            let pace = Pace::new(none);
            assert!((0..10_000).all(|_| pace.pass().is_ok()));
        }
    }
}
