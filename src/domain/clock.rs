//! Detects steps of another clock, compared with the monotonic clock of this process.
//!
//! A look-up's "not found" is reliable once the settle time has passed since the last call. The database's clock measures that
//! time, because a record outlives its worker. A clock that steps forward makes the time seem to have passed.

use time::{Duration, OffsetDateTime};
use tokio::time::Instant;

/// The largest drift within a minute that does not count as a step.
pub const MAX_STEP: Duration = Duration::seconds(1);
/// The maximum age of the reference sample. It bounds the sum of many small steps.
const REFERENCE_AGE: Duration = Duration::seconds(60);
/// The longest fetch of a sample that may become the reference.
const MAX_WIDTH: Duration = Duration::seconds(1);

/// The other clock's time, read between two readings of the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct ClockSample {
    /// The time that the other clock showed.
    pub time: OffsetDateTime,
    /// The monotonic time before the request.
    pub asked_at: Instant,
    /// The monotonic time after the answer.
    pub answered_at: Instant,
}

/// The time since which the other clock has run without a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steady {
    /// The start of the steady period, by the other clock.
    pub since: OffsetDateTime,
    /// `true` if the clock stepped at `since`; `false` if the first sample was taken then.
    pub after_step: bool,
    /// The steps back that were seen so far.
    pub set_back: Option<SetBack>,
}

/// How far the other clock was set back while it was watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetBack {
    /// The sum of the steps.
    pub by: Duration,
    /// The latest time that the clock showed before the last of them. A time up to this one may be from before it.
    pub seen_until: OffsetDateTime,
}

impl Steady {
    /// Returns by how much more time may have passed since `time` than the clock shows.
    pub fn uncounted_since(&self, time: OffsetDateTime) -> Duration {
        self.set_back
            .filter(|set_back| time <= set_back.seen_until)
            .map_or(Duration::ZERO, |set_back| set_back.by)
    }
}

/// A watch that compares samples of another clock.
#[derive(Debug, Default)]
pub struct ClockWatch {
    reference: Option<ClockSample>,
    steady: Option<Steady>,
}

impl ClockWatch {
    /// Compares a sample with an earlier one and returns the size of the step, if there was one.
    pub fn observe(&mut self, sample: ClockSample) -> Option<Duration> {
        let Some(reference) = self.reference else {
            self.reference = Some(sample);
            self.steady = Some(Steady { since: sample.time, after_step: false, set_back: None });
            return None;
        };
        // The order of the two readings is unknown.
        if sample.asked_at < reference.answered_at {
            return None;
        }
        let passed = sample.time - reference.time;
        let least = signed(sample.asked_at, reference.answered_at);
        let most = signed(sample.answered_at, reference.asked_at);
        // Clocks that are being corrected run up to 0.05 % fast or slow (adjtime, NTP).
        let tolerance = MAX_STEP + most / 1000;
        let step = if passed > most + tolerance {
            passed - most
        } else if passed < least - tolerance {
            passed - least
        } else {
            if most > REFERENCE_AGE && signed(sample.answered_at, sample.asked_at) <= MAX_WIDTH {
                self.reference = Some(sample);
            }
            return None;
        };
        let before = self.steady.and_then(|steady| steady.set_back);
        let set_back = if step.is_negative() {
            let shown = reference.time + most;
            Some(SetBack {
                by: before.map_or(Duration::ZERO, |before| before.by) - step,
                seen_until: before.map_or(shown, |before| before.seen_until.max(shown)),
            })
        } else {
            before
        };
        self.reference = Some(sample);
        self.steady = Some(Steady { since: sample.time, after_step: true, set_back });
        Some(step)
    }

    /// Returns the current steady period, or `None` before the first sample.
    pub fn steady(&self) -> Option<Steady> {
        self.steady
    }
}

fn signed(later: Instant, earlier: Instant) -> Duration {
    let saturating = |duration: std::time::Duration| Duration::try_from(duration).unwrap_or(Duration::MAX);
    match later.checked_duration_since(earlier) {
        Some(passed) => saturating(passed),
        None => -saturating(earlier.duration_since(later)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

    /// Samples of a clock that says `time` seconds after the first, `at` seconds later, each fetched in `width` seconds.
    fn observed(samples: &[(f64, f64, f64)]) -> (Vec<Option<i64>>, ClockWatch) {
        let (start, mut watch) = (Instant::now(), ClockWatch::default());
        let steps = samples.iter().map(|(time, at, width)| {
            watch
                .observe(ClockSample {
                    time: OffsetDateTime::UNIX_EPOCH + SECOND * 1_000_000 + Duration::seconds_f64(*time),
                    asked_at: start + SECOND.mul_f64(*at),
                    answered_at: start + SECOND.mul_f64(*at) + SECOND.mul_f64(*width),
                })
                .map(Duration::whole_seconds)
        });
        (steps.collect(), watch)
    }

    #[test]
    fn a_step_is_distinguished_from_a_slow_answer_and_from_drift() {
        for (samples, steps) in [
            (&[(0., 0., 0.), (10., 10., 0.), (50., 50., 0.)][..], [None, None, None]),
            // Half a second in a minute, and again in the next.
            (&[(0., 0., 0.), (61.5, 61., 0.), (122.9, 122., 0.)], [None, None, None]),
            (&[(0., 0., 0.), (3610., 10., 0.), (3620., 20., 0.)], [None, Some(3600), None]),
            (&[(0., 0., 0.), (-3590., 10., 0.), (-3580., 20., 0.)], [None, Some(-3600), None]),
            // The answer took ten seconds: the clock was read at any time meanwhile.
            (&[(0., 0., 0.), (1., 1., 10.), (21., 11., 10.)], [None, None, None]),
            // Many small steps: less than the limit each, and seen within a minute.
            (&[(0., 0., 0.), (10.8, 10., 0.), (21.6, 20., 0.)], [None, None, Some(1)]),
            // Requested before the step was seen and answered after it: not usable.
            (&[(0., 0., 0.), (3605., 3., 2.), (4., 4., 2.)], [None, Some(3600), None]),
        ] {
            assert_eq!(observed(samples).0, steps, "{samples:?}");
        }
    }

    #[test]
    fn it_is_steady_since_the_first_look_or_the_last_step() {
        assert_eq!(ClockWatch::default().steady(), None);
        let since = |seconds: u64, after_step| {
            Some(Steady {
                since: OffsetDateTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000 + seconds),
                after_step,
                set_back: None,
            })
        };
        assert_eq!(observed(&[(0., 0., 0.), (500., 500., 0.)]).1.steady(), since(0, false));
        assert_eq!(
            observed(&[(0., 0., 0.), (900., 500., 0.), (901., 501., 0.)]).1.steady(),
            since(900, true)
        );
    }

    #[test]
    fn steps_back_add_up_for_what_is_from_before_them() {
        let at =
            |seconds: u64| OffsetDateTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000 + seconds);
        let watch = observed(&[(0., 0., 0.), (-590., 10., 0.), (-640., 20., 0.), (9000., 30., 0.)]).1;
        let steady = watch.steady().expect("samples");
        for (time, uncounted) in [(0, 660), (10, 660), (11, 0), (9000, 0)] {
            assert_eq!(steady.uncounted_since(at(time)), Duration::seconds(uncounted), "{time}");
        }
        assert_eq!(observed(&[(0., 0., 0.)]).1.steady().expect("one").uncounted_since(at(0)), Duration::ZERO);
    }
}
