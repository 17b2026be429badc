//! A circuit breaker. It stops the calls to a failing provider for a while, then allows one trial call.

use std::{
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use crate::lock::lock;

/// The settings of a breaker.
#[derive(Debug, Clone, Copy)]
pub struct BreakerSettings {
    /// The number of consecutive failures that open it. 0 disables it.
    pub failures: u32,
    /// The time that it stays open before it allows a trial call.
    pub pause: Duration,
    /// The time after which a trial call without an outcome counts as lost.
    pub patience: Duration,
}

/// The breaker of one connector account. Only failures of the provider open it.
#[derive(Debug)]
pub struct Breaker {
    name: String,
    settings: BreakerSettings,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
    },
    /// One trial call is under way.
    HalfOpen {
        until: Instant,
    },
}

/// The health of the provider, as the outcome of a call shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answered, possibly by declining.
    Works,
    /// It did not answer, or said that it cannot.
    Fails,
    /// The outcome says nothing about its health (a rate limit, a configured credential).
    Silent,
}

impl Breaker {
    /// Creates a closed breaker.
    pub fn new(name: &str, settings: BreakerSettings) -> Self {
        Self { name: name.to_owned(), settings, state: Mutex::new(State::Closed { failures: 0 }) }
    }

    /// Returns the number of calls that are allowed now: all, one or none.
    pub fn allowed_calls(&self, now: Instant) -> usize {
        match *self.state() {
            State::Closed { .. } => usize::MAX,
            State::Open { until } | State::HalfOpen { until } => usize::from(until <= now),
        }
    }

    /// Allows a call.
    ///
    /// # Errors
    ///
    /// Returns the wait before the next try if the breaker is open.
    pub fn pass(&self, now: Instant) -> Result<(), Duration> {
        let mut state = self.state();
        match *state {
            State::Closed { .. } => Ok(()),
            State::Open { until } | State::HalfOpen { until } if now < until => Err(until - now),
            State::Open { .. } | State::HalfOpen { .. } => {
                tracing::info!(
                    connector.name = self.name,
                    breaker = "half-open",
                    "circuit breaker half-open, trial call begins"
                );
                *state = State::HalfOpen { until: now + self.settings.patience };
                Ok(())
            }
        }
    }

    /// Records the outcome of an allowed call.
    pub fn record(&self, health: Health, now: Instant) {
        let mut state = self.state();
        match (*state, health) {
            (_, Health::Silent) => {}
            (State::Closed { failures: 0 }, Health::Works) => {}
            (State::Closed { .. }, Health::Works) => *state = State::Closed { failures: 0 },
            (State::Open { .. } | State::HalfOpen { .. }, Health::Works) => {
                tracing::info!(
                    connector.name = self.name,
                    breaker = "closed",
                    "circuit breaker closed, the provider works again"
                );
                *state = State::Closed { failures: 0 };
            }
            (State::Closed { failures }, Health::Fails) if failures + 1 != self.settings.failures => {
                *state = State::Closed { failures: failures.saturating_add(1) };
            }
            // A call from before it opened adds no information.
            (State::Open { .. }, Health::Fails) => {}
            (State::Closed { .. } | State::HalfOpen { .. }, Health::Fails) => {
                let pause_ms = u64::try_from(self.settings.pause.as_millis()).unwrap_or(u64::MAX);
                tracing::error!(
                    connector.name = self.name,
                    breaker = "open",
                    pause_ms,
                    "circuit breaker opened, jobs of this connector wait"
                );
                *state = State::Open { until: now + self.settings.pause };
            }
        }
    }

    /// Returns `closed`, `open` or `half-open`.
    pub fn shown(&self) -> &'static str {
        match *self.state() {
            State::Closed { .. } => "closed",
            State::Open { .. } => "open",
            State::HalfOpen { .. } => "half-open",
        }
    }

    /// Returns the state as a number: 0 closed, 1 half-open, 2 open.
    pub fn level(&self) -> i64 {
        match *self.state() {
            State::Closed { .. } => 0,
            State::HalfOpen { .. } => 1,
            State::Open { .. } => 2,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn breaker(failures: u32) -> Breaker {
        Breaker::new("a", BreakerSettings { failures, pause: 15 * SECOND, patience: 30 * SECOND })
    }

    fn opened(now: Instant) -> Breaker {
        let breaker = breaker(3);
        (0..3).for_each(|_| breaker.record(Health::Fails, now));
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_nothing_else() {
        let (breaker, now) = (breaker(3), Instant::now());
        use Health::{Fails, Silent, Works};
        for health in [Fails, Fails, Works, Fails, Silent, Fails] {
            breaker.record(health, now);
            assert_eq!((breaker.shown(), breaker.pass(now)), ("closed", Ok(())));
        }
        breaker.record(Fails, now);
        assert_eq!(
            (breaker.shown(), breaker.allowed_calls(now), breaker.pass(now)),
            ("open", 0, Err(15 * SECOND))
        );
    }

    #[test]
    fn after_the_pause_one_call_tries_it() {
        let start = Instant::now();
        let breaker = opened(start);
        let now = start + 15 * SECOND;
        assert_eq!((breaker.allowed_calls(now), breaker.pass(now)), (1, Ok(())));
        assert_eq!(
            (breaker.shown(), breaker.allowed_calls(now), breaker.pass(now)),
            ("half-open", 0, Err(30 * SECOND))
        );
        // Back to the pause when it fails; to all when it works.
        breaker.record(Health::Fails, now);
        assert_eq!(breaker.pass(now), Err(15 * SECOND));
        let now = now + 15 * SECOND;
        assert_eq!(breaker.pass(now), Ok(()));
        breaker.record(Health::Works, now);
        assert_eq!((breaker.shown(), breaker.allowed_calls(now)), ("closed", usize::MAX));
    }

    #[test]
    fn a_try_that_never_comes_back_makes_room_for_another() {
        let start = Instant::now();
        let breaker = opened(start);
        let now = start + 15 * SECOND;
        assert_eq!(breaker.pass(now), Ok(()));
        let now = now + 30 * SECOND;
        assert_eq!((breaker.allowed_calls(now), breaker.pass(now)), (1, Ok(())));
    }

    #[test]
    fn where_none_is_wanted_it_never_opens() {
        let (breaker, now) = (breaker(0), Instant::now());
        (0..1000).for_each(|_| breaker.record(Health::Fails, now));
        assert_eq!(breaker.shown(), "closed");
    }
}
