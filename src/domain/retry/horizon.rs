//! Says until when a call with an unknown outcome is repeated or looked up, at most.

use std::time::Duration;

use time::OffsetDateTime;

use super::RetryPolicy;
use crate::domain::ReplayRule;

/// The end of the attempts to resolve an unknown outcome, and what follows then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    /// No attempt of this kind begins later. The retries can end earlier, by their number.
    pub until: OffsetDateTime,
    /// Whether the call is repeated under the same key until then; otherwise the provider is asked.
    pub repeats: bool,
    /// Whether the provider is asked afterwards. Otherwise the record ends as unknown.
    pub then_asked: bool,
}

/// Returns the end of the attempts to resolve an unknown outcome; `None` if the replay rule makes none.
///
/// `first_called_at`: the begin of the first call under the key. `opened_at`: when the job was accepted, or an operator had
/// the record tried again.
pub fn horizon(
    rule: ReplayRule,
    policy: &RetryPolicy,
    first_called_at: OffsetDateTime,
    opened_at: OffsetDateTime,
) -> Option<Horizon> {
    let after = |begin: OffsetDateTime, length: Duration| begin.checked_add(length.try_into().ok()?);
    let time_is_up = after(opened_at, policy.max_age)?;
    match rule {
        ReplayRule::SameKey { window, look_up } => {
            let window_ends = after(first_called_at, window.saturating_sub(policy.window_margin))?;
            Some(Horizon { until: window_ends.min(time_is_up), repeats: true, then_asked: look_up.is_some() })
        }
        ReplayRule::LookUp(_) => Some(Horizon { until: time_is_up, repeats: false, then_asked: false }),
        ReplayRule::Never => None,
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::domain::LookUp;

    #[test]
    fn the_earlier_end_counts() {
        const HOUR: Duration = Duration::from_hours(1);
        let policy = |max_age| RetryPolicy {
            initial: Duration::ZERO,
            max_interval: Duration::ZERO,
            max_age,
            max_attempts: 9,
            window_margin: HOUR,
            ask_before_calling_since: None,
        };
        let look_up = LookUp { settle: Duration::from_secs(90) };
        let (opened, called) = (datetime!(2026-11-29 06:00 UTC), datetime!(2026-11-29 07:00 UTC));
        let of = |rule, max_age| horizon(rule, &policy(max_age), called, opened);
        let keyed = |look_up| ReplayRule::SameKey { window: 12 * HOUR, look_up };
        let horizon = |until, repeats, then_asked| Some(Horizon { until, repeats, then_asked });
        // The window without its margin, or the age of the record.
        assert_eq!(of(keyed(None), 24 * HOUR), horizon(datetime!(2026-11-29 18:00 UTC), true, false));
        assert_eq!(of(keyed(Some(look_up)), 24 * HOUR), horizon(datetime!(2026-11-29 18:00 UTC), true, true));
        assert_eq!(of(keyed(None), HOUR), horizon(datetime!(2026-11-29 07:00 UTC), true, false));
        let asked = of(ReplayRule::LookUp(look_up), 24 * HOUR);
        assert_eq!(asked, horizon(datetime!(2026-11-30 06:00 UTC), false, false));
        assert_eq!(of(ReplayRule::Never, HOUR), None);
    }
}
