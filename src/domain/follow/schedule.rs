//! When the provider is asked about a link again.

use std::time::Duration;

use time::OffsetDateTime;

use super::{Followed, LinkStatus};

/// How a connector account follows its links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FollowPolicy {
    /// The shortest interval: at first, and near the end of the link.
    pub min_interval: Duration,
    /// The longest interval.
    pub max_interval: Duration,
    /// `payout_link.expiring` is published this long before the end of an unclaimed link; `None`: never.
    pub expiring: Option<Duration>,
    /// The provider never ends a link by itself: the worker cancels it after its end, and asks again.
    pub cancels_expired: bool,
    /// A link that was cancelled counts as cancelled only after this time, because a claim may have been on its way.
    pub confirm_cancel: Duration,
    /// For how long a payout that succeeded is asked about, because it may be reversed.
    pub watch_reversals: Duration,
}

/// The first question about a reversal, after the payout succeeded.
const FIRST_REVERSAL_CHECK: Duration = Duration::from_hours(1);
/// The interval of the following ones.
const REVERSAL_CHECK_INTERVAL: Duration = Duration::from_hours(24);
/// The interval grows by this part of the time since the last change, and shrinks alike towards the end of the link.
const PART: u32 = 8;
/// A provider's clock may be behind: the question about the end comes this much after it.
const AFTER_THE_END: Duration = Duration::from_secs(1);

/// Returns the time until the first question about a new link.
pub fn first_question(
    policy: &FollowPolicy,
    expires_at: Option<OffsetDateTime>,
    now: OffsetDateTime,
) -> Duration {
    let to_end = expires_at.map(|end| since(now, end) + AFTER_THE_END);
    policy.min_interval.min(to_end.unwrap_or(Duration::MAX))
}

/// Returns the time until the next question; `None`: the link is not asked about any more.
pub(super) fn next_question(link: &Followed, policy: &FollowPolicy, now: OffsetDateTime) -> Option<Duration> {
    let since_change = since(link.changed_at, now);
    if link.status == LinkStatus::Succeeded {
        return match since_change {
            age if age < FIRST_REVERSAL_CHECK => Some(FIRST_REVERSAL_CHECK.saturating_sub(age)),
            age if age < policy.watch_reversals => Some(REVERSAL_CHECK_INTERVAL),
            _ => None,
        };
    }
    if link.status.is_final() {
        return None;
    }
    let interval = |part: Duration| (part / PART).clamp(policy.min_interval, policy.max_interval);
    // Only a link that can be claimed ends.
    let end = link.expires_at.filter(|_| link.status == LinkStatus::Unclaimed);
    Some(match end {
        None => interval(since_change),
        Some(end) if end <= now => interval(since_change.min(since(end, now))),
        Some(end) => {
            let to_end = since(now, end);
            let next = interval(since_change.min(to_end)).min(to_end + AFTER_THE_END);
            // The opt-in warning has a time of its own.
            match policy.expiring.map(|before| to_end.saturating_sub(before)) {
                Some(to_warning) if !to_warning.is_zero() && !link.expiring_is_announced => {
                    next.min(to_warning + AFTER_THE_END)
                }
                _ => next,
            }
        }
    })
}

/// Returns the time from one moment to a later one, or zero.
pub(super) fn since(from: OffsetDateTime, to: OffsetDateTime) -> Duration {
    Duration::try_from(to - from).unwrap_or_default()
}

#[cfg(test)]
#[expect(clippy::unchecked_time_subtraction, reason = "of constants")]
mod tests {
    use time::macros::datetime;

    use super::{super::tests::link, *};

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_mins(1);
    const HOUR: Duration = Duration::from_hours(1);
    const DAY: Duration = Duration::from_hours(24);

    const POLICY: FollowPolicy = FollowPolicy {
        min_interval: MINUTE,
        max_interval: HOUR,
        expiring: None,
        cancels_expired: false,
        confirm_cancel: Duration::ZERO,
        watch_reversals: Duration::from_hours(7 * 24),
    };

    #[test]
    fn questions_are_dense_at_first_and_near_the_end_and_thin_in_between() {
        let created = datetime!(2026-12-01 00:00 UTC);
        let ends_in_a_week = Followed {
            changed_at: created,
            expires_at: Some(created + 7 * DAY),
            ..link(LinkStatus::Unclaimed)
        };
        for (age, expected) in [
            (Duration::ZERO, MINUTE),
            (8 * MINUTE, MINUTE),
            (16 * MINUTE, 2 * MINUTE),
            (4 * HOUR, 30 * MINUTE),
            (3 * DAY, HOUR),
            (7 * DAY - 4 * HOUR, 30 * MINUTE),
            (7 * DAY - 16 * MINUTE, 2 * MINUTE),
            (7 * DAY - 20 * SECOND, 21 * SECOND),
            (7 * DAY, MINUTE),
            (7 * DAY + 16 * MINUTE, 2 * MINUTE),
            (30 * DAY, HOUR),
        ] {
            assert_eq!(next_question(&ends_in_a_week, &POLICY, created + age), Some(expected), "{age:?}");
        }
        let without_end = Followed { expires_at: None, ..ends_in_a_week };
        assert_eq!(next_question(&without_end, &POLICY, created + 7 * DAY), Some(HOUR));
    }

    #[test]
    fn a_link_of_minutes_is_asked_about_at_its_end() {
        let now = datetime!(2026-12-01 00:00 UTC);
        assert_eq!(first_question(&POLICY, None, now), MINUTE);
        assert_eq!(first_question(&POLICY, Some(now + DAY), now), MINUTE);
        assert_eq!(first_question(&POLICY, Some(now + 30 * SECOND), now), 31 * SECOND);
        assert_eq!(first_question(&POLICY, Some(now - DAY), now), SECOND);
    }

    #[test]
    fn a_payout_that_succeeded_is_watched_for_a_week() {
        let paid = Followed { changed_at: datetime!(2026-12-01 00:00 UTC), ..link(LinkStatus::Succeeded) };
        for (age, expected) in [
            (Duration::ZERO, Some(HOUR)),
            (20 * MINUTE, Some(40 * MINUTE)),
            (HOUR, Some(DAY)),
            (7 * DAY - SECOND, Some(DAY)),
            (7 * DAY, None),
        ] {
            assert_eq!(next_question(&paid, &POLICY, paid.changed_at + age), expected, "{age:?}");
        }
    }

    #[test]
    fn the_warning_before_the_end_has_a_time_of_its_own() {
        let created = datetime!(2026-12-01 00:00 UTC);
        let policy = FollowPolicy { expiring: Some(DAY), max_interval: 6 * HOUR, ..POLICY };
        let ends = Followed {
            changed_at: created,
            expires_at: Some(created + 7 * DAY),
            ..link(LinkStatus::Unclaimed)
        };
        let before = created + 6 * DAY - 10 * MINUTE;
        assert_eq!(next_question(&ends, &policy, before), Some(10 * MINUTE + SECOND));
        let announced = Followed { expiring_is_announced: true, ..ends };
        assert!(next_question(&announced, &policy, before).unwrap() > HOUR);
    }

    #[test]
    fn final_links_are_not_asked_about() {
        for status in
            [LinkStatus::Expired, LinkStatus::Cancelled, LinkStatus::PayoutFailed, LinkStatus::Reversed]
        {
            let over = link(status);
            assert_eq!(next_question(&over, &POLICY, over.changed_at), None, "{status}");
        }
    }
}
