//! A rate limit whose permits are reserved in order of arrival.
//!
//! The generic cell rate algorithm (ITU-T I.371): one timestamp says until when the limit is reserved. A reservation
//! moves it by one interval; the call may begin when it is at most a burst ahead of the clock. The `governor` crate
//! reserves nothing: the first caller that wakes would take the permit of the one that waits.

use std::{
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use crate::lock::lock;

/// A limit of calls in any minute, a tenth of them at once; or no limit.
#[derive(Debug)]
pub struct RateLimit(Option<Limit>);

#[derive(Debug)]
struct Limit {
    interval: Duration,
    /// How far ahead of the clock reservations may be without a wait.
    burst: Duration,
    /// The theoretical arrival time of the next call.
    next: Mutex<Instant>,
}

impl RateLimit {
    /// Creates a limit of `per_minute` calls. `None` or 0 is no limit.
    pub fn new(per_minute: Option<u32>) -> Self {
        Self::beginning(per_minute, Instant::now())
    }

    /// Creates a limit whose first call may begin at `now`.
    pub fn beginning(per_minute: Option<u32>, now: Instant) -> Self {
        let Some(per_minute) = per_minute.filter(|per_minute| *per_minute > 0) else { return Self(None) };
        let at_once = per_minute.div_ceil(10);
        // Both together stay within the limit, also in the minute after a rest.
        let steady = (per_minute - at_once).max(1);
        let interval = Duration::from_mins(1) / steady;
        Self(Some(Limit { interval, burst: interval * (at_once - 1), next: Mutex::new(now) }))
    }

    /// Reserves the next permit if its wait is at most `limit`, and returns that wait.
    ///
    /// # Errors
    ///
    /// Returns how long the wait would be where it is longer. Nothing is reserved then.
    pub fn reserve(&self, now: Instant, limit: Duration) -> Result<Duration, Duration> {
        let Some(rate) = &self.0 else { return Ok(Duration::ZERO) };
        let mut next = rate.next();
        let arrival = (*next).max(now);
        let wait = arrival.saturating_duration_since(now).saturating_sub(rate.burst);
        if wait > limit {
            return Err(wait);
        }
        *next = arrival + rate.interval;
        Ok(wait)
    }

    /// Reserves the permits that are available without a wait, at most `limit`, and returns their number.
    pub fn reserve_now(&self, now: Instant, limit: usize) -> usize {
        if self.0.is_none() {
            return limit;
        }
        (0..limit).take_while(|_| self.reserve(now, Duration::ZERO).is_ok()).count()
    }

    /// Gives back `permits` that were reserved and not used.
    pub fn give_back(&self, permits: usize) {
        let Some(rate) = &self.0 else { return };
        let mut next = rate.next();
        let back = rate.interval * u32::try_from(permits).unwrap_or(u32::MAX);
        *next = next.checked_sub(back).unwrap_or(*next);
    }

    /// Returns whether no reservation is left that a later one has to take into account.
    pub fn is_unused(&self, now: Instant) -> bool {
        self.0.as_ref().is_none_or(|rate| *rate.next() <= now)
    }

    /// Returns how long it takes until a permit is available without a wait.
    pub fn wait(&self, now: Instant) -> Duration {
        match &self.0 {
            None => Duration::ZERO,
            Some(rate) => rate.next().saturating_duration_since(now).saturating_sub(rate.burst),
        }
    }
}

impl Limit {
    fn next(&self) -> MutexGuard<'_, Instant> {
        lock(&self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_tenth_goes_at_once_and_the_rest_in_order_of_arrival() {
        let rate = RateLimit::new(Some(60));
        let now = Instant::now();
        assert_eq!(rate.reserve_now(now, 100), 6);
        let waits: Vec<Duration> = (0..3).map(|_| rate.reserve(now, 10 * SECOND).unwrap()).collect();
        assert!(waits[0] > Duration::ZERO && waits[0] < waits[1] && waits[1] < waits[2], "{waits:?}");
        // A minute never has more than sixty: six, and one in each interval of 60/54 s.
        let granted = (0..1000).take_while(|_| rate.reserve(now, 60 * SECOND).is_ok()).count();
        assert!(granted + 9 <= 60 + 1, "{granted}");
    }

    #[test]
    fn a_wait_past_the_limit_reserves_nothing() {
        let rate = RateLimit::new(Some(1));
        let now = Instant::now();
        assert_eq!(rate.reserve(now, SECOND), Ok(Duration::ZERO));
        let wait = rate.reserve(now, SECOND).unwrap_err();
        assert!(wait > 59 * SECOND, "{wait:?}");
        assert_eq!(rate.reserve(now, SECOND).unwrap_err(), wait);
    }

    #[test]
    fn what_is_given_back_is_free_again() {
        let rate = RateLimit::new(Some(60));
        let now = Instant::now();
        assert_eq!(rate.reserve_now(now, 6), 6);
        assert_eq!(rate.reserve_now(now, 6), 0);
        rate.give_back(4);
        assert_eq!(rate.reserve_now(now, 6), 4);
    }

    #[test]
    fn no_limit_is_none() {
        for none in [None, Some(0)] {
            let rate = RateLimit::new(none);
            assert_eq!(rate.reserve_now(Instant::now(), 10_000), 10_000);
            assert_eq!(rate.wait(Instant::now()), Duration::ZERO);
        }
    }
}
