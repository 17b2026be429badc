//! The record so far, the connector's replay rule and now: what to do next.
//!
//! Nothing that could be paid twice is ever repeated blindly, and doubt sticks: once a call may have been carried
//! out, only a link or a look-up's reliable "not there" settles it. A later refusal does not (it may come before
//! the provider looks at its idempotency key), nor does running out of retries.
//!
//! The only file that knows the `backoff` crate (unmaintained, RUSTSEC-2025-0012): its delay policy and no more.

mod progress;

use std::time::Duration;

use backoff::{ExponentialBackoffBuilder, backoff::Backoff};
use time::OffsetDateTime;

pub use self::progress::{Last, Progress};
use super::{AccountId, ConnectorError, CreatedLink, LookUp, PayoutStatus, ReplayRule, Steady};

/// When calls are repeated, and until when.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    pub initial: Duration,
    pub max_interval: Duration,
    /// A record older than this is not called again.
    pub max_age: Duration,
    pub max_attempts: u32,
    /// A same-key repeat is not begun this close to the end of the connector's window.
    pub window_margin: Duration,
    /// Records last written before this may have been called by a worker whose writes are lost.
    pub ask_before_calling_since: Option<OffsetDateTime>,
}

/// What a decision rests on beside the record.
#[derive(Debug, Clone)]
pub struct Circumstances {
    /// The database's time.
    pub now: OffsetDateTime,
    /// Since when the database's clock is known to run steadily.
    pub steady: Steady,
    /// The account that would be called.
    pub account: AccountId,
}

#[derive(Debug)]
pub enum Next {
    Call { after: Duration },
    LookUp { after: Duration },
    Conclude(Conclusion),
}

/// How a record ends.
#[derive(Debug, Clone)]
pub enum Conclusion {
    Created(CreatedLink),
    /// The connector said no.
    Rejected {
        error: ConnectorError,
        payout_status: PayoutStatus,
    },
    /// Nothing happened, for certain, and time is up.
    Unavailable(ConnectorError),
    /// It may have been carried out and cannot be asked about.
    Unknown(ConnectorError),
}

impl ReplayRule {
    pub fn look_up(self) -> Option<LookUp> {
        match self {
            Self::SameKey { look_up, .. } => look_up,
            Self::LookUp(look_up) => Some(look_up),
            Self::Never => None,
        }
    }
}

/// Decides. Asked before every call, also of a record that a dead worker left.
pub fn next(progress: &Progress, rule: ReplayRule, policy: &RetryPolicy, seen: &Circumstances) -> Next {
    let now = seen.now;
    let time_is_up = now - progress.created_at >= policy.max_age || progress.attempts >= policy.max_attempts;
    match &progress.last {
        Some(Last::Link(link)) => Next::Conclude(Conclusion::Created(link.clone())),
        Some(Last::Ended { error, payout_status }) => {
            Next::Conclude(Conclusion::Rejected { error: error.clone(), payout_status: *payout_status })
        }
        // A repeat there would be a second link, and "not there" says nothing of the other account.
        _ if progress.is_elsewhere(seen) => {
            let error =
                "it may have been created in another account than the connector is configured with now";
            Next::Conclude(Conclusion::Unknown(ConnectorError::new(progress.status_code, None, error, None)))
        }
        _ if progress.connector_payout_id.is_some() => underway(progress, policy, now),
        _ if progress.in_doubt_since.is_some() => in_doubt(progress, rule, policy, seen, time_is_up),
        Some(Last::Declined(error)) => {
            Next::Conclude(Conclusion::Rejected { error: error.clone(), payout_status: PayoutStatus::Failed })
        }
        // The first call is always made, however long its job waited in the queue.
        _ if time_is_up && progress.attempts > 0 => {
            Next::Conclude(Conclusion::Unavailable(progress.last_error()))
        }
        Some(Last::NotFound) | None => Next::Call { after: Duration::ZERO },
        Some(Last::NoLink { .. } | Last::AlreadyExists(_)) => {
            Next::Call { after: delay(progress, policy, progress.attempts) }
        }
    }
}

/// The connector has it: ask until the link is there. A link that never comes is not known to have failed.
fn underway(progress: &Progress, policy: &RetryPolicy, now: OffsetDateTime) -> Next {
    if now - progress.created_at >= policy.max_age && progress.look_ups > 0 {
        return Next::Conclude(Conclusion::Unknown(progress.last_error()));
    }
    match progress.last {
        None => Next::LookUp { after: Duration::ZERO },
        Some(_) => Next::LookUp { after: look_up_delay(progress, policy, now) },
    }
}

fn in_doubt(
    progress: &Progress,
    rule: ReplayRule,
    policy: &RetryPolicy,
    seen: &Circumstances,
    time_is_up: bool,
) -> Next {
    let now = seen.now;
    let no_use_to_repeat = matches!(progress.last, Some(Last::Declined(_) | Last::AlreadyExists(_)));
    if let ReplayRule::SameKey { window, .. } = rule
        && !no_use_to_repeat
        && !time_is_up
    {
        let after = match progress.last {
            None => Duration::ZERO,
            Some(_) => delay(progress, policy, progress.attempts),
        };
        let window_ends =
            progress.first_called_at.unwrap_or(progress.created_at) + window - policy.window_margin;
        if now + after < window_ends {
            return Next::Call { after };
        }
    }
    let (Some(look_up), Some(settled)) = (rule.look_up(), progress.settled_at(rule, seen)) else {
        return Next::Conclude(Conclusion::Unknown(progress.last_error()));
    };
    match progress.last {
        None | Some(Last::AlreadyExists(_)) => Next::LookUp { after: Duration::ZERO },
        // Too early to tell: once more when it can be trusted.
        // A clock that has stepped would have it wait for as long as the step.
        Some(Last::NotFound) => {
            let left = (settled - now).try_into().unwrap_or(Duration::ZERO);
            Next::LookUp { after: left.min(look_up.settle) }
        }
        Some(Last::NoLink { .. }) if time_is_up && progress.look_ups > 0 => {
            Next::Conclude(Conclusion::Unknown(progress.last_error()))
        }
        _ => Next::LookUp { after: look_up_delay(progress, policy, now) },
    }
}

/// Like [`delay`]; and since questions are counted only while a worker holds the record, a quarter of the time that
/// has passed since the last call at least: what takes a provider's day is not asked about every second.
fn look_up_delay(progress: &Progress, policy: &RetryPolicy, now: OffsetDateTime) -> Duration {
    let passed = now - progress.last_called_at.unwrap_or(progress.created_at);
    let quarter = Duration::try_from(passed / 4).unwrap_or_default().min(policy.max_interval);
    delay(progress, policy, progress.look_ups + 1).max(jittered(quarter, policy.max_interval))
}

/// The wait before the call after the `count`th: the exponential policy with its jitter, never past
/// `max_interval`, never before the connector's own Retry-After: unless that is longer than a record is worked on, when
/// waiting for it would keep quiet what has to be told.
fn delay(progress: &Progress, policy: &RetryPolicy, count: u32) -> Duration {
    let doubled =
        policy.initial.saturating_mul(1_u32.checked_shl(count.saturating_sub(1)).unwrap_or(u32::MAX));
    jittered(doubled.min(policy.max_interval), policy.max_interval)
        .max(progress.retry_after().unwrap_or_default().min(policy.max_age))
}

/// `interval`, up to half of it shorter or longer at random, at most `limit`.
pub fn jittered(interval: Duration, limit: Duration) -> Duration {
    ExponentialBackoffBuilder::new()
        .with_initial_interval(interval)
        .with_max_interval(limit)
        .with_max_elapsed_time(None)
        .build()
        .next_backoff()
        .unwrap_or(interval)
        .min(limit)
}

/// `interval` and 10 to 20 % of it at random: later, never earlier.
pub fn later(interval: Duration) -> Duration {
    // 1.15 of it, give or take a twenty-third of that.
    const ONE_TWENTY_THIRD: f64 = 0.043_478;
    let middle = interval.saturating_mul(23) / 20;
    ExponentialBackoffBuilder::new()
        .with_initial_interval(middle)
        .with_max_interval(middle)
        .with_randomization_factor(ONE_TWENTY_THIRD)
        .with_max_elapsed_time(None)
        .build()
        .next_backoff()
        .unwrap_or(middle)
}

#[cfg(test)]
mod tests;
