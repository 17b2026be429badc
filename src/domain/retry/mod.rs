//! Decides the next step of a record from its progress, the connector's replay rule and the time.
//!
//! This module never repeats a call that could pay twice. Once a call may have been carried out, its outcome stays unknown until a
//! link or a look-up's reliable "not found" resolves it. A later decline does not resolve it, because a provider may decline before
//! it checks the idempotency key. Exhausted retries do not resolve it either.
//!
//! Only this file uses the `backoff` crate (unmaintained, RUSTSEC-2025-0012), and only its delay policy.

mod horizon;
mod progress;
mod reopen;

use std::time::Duration;

use backoff::{ExponentialBackoffBuilder, backoff::Backoff};
use time::OffsetDateTime;

pub use self::{
    horizon::{Horizon, horizon},
    progress::{Last, Progress},
    reopen::{Concluded, NotReopened, Reopening, reopen},
};
use super::{AccountId, Conclusion, ConnectorError, LookUp, MAX_STEP, PayoutStatus, ReplayRule, Steady};

/// The limits of retries.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// The first pause; each further one is longer.
    pub initial: Duration,
    /// The maximum pause between two calls.
    pub max_interval: Duration,
    /// The maximum age of a record that is called again.
    pub max_age: Duration,
    /// The maximum number of `create` calls for one record.
    pub max_attempts: u32,
    /// The safety margin before the end of the same-key window. No retry begins within it.
    pub window_margin: Duration,
    /// The time before which writes may be lost, after a restore. A record last written before it may have been called.
    pub ask_before_calling_since: Option<OffsetDateTime>,
}

/// The inputs of a decision besides the record.
#[derive(Debug, Clone)]
pub struct Circumstances {
    /// The database's time.
    pub now: OffsetDateTime,
    /// The period for which the database's clock is known to run steadily.
    pub steady: Steady,
    /// The account that would be called.
    pub account: AccountId,
}

/// The next step of a record.
#[derive(Debug)]
pub enum Next {
    /// Call the provider.
    Call {
        /// The wait before the call.
        after: Duration,
    },
    /// Look the payout up.
    LookUp {
        /// The wait before the look-up.
        after: Duration,
    },
    /// Nothing is left to do: write the conclusion.
    Conclude(Conclusion),
}

impl ReplayRule {
    /// Returns the look-up of this rule, if there is one.
    pub fn look_up(self) -> Option<LookUp> {
        match self {
            Self::SameKey { look_up, .. } => look_up,
            Self::LookUp(look_up) => Some(look_up),
            Self::Never => None,
        }
    }
}

/// Decides the next step. It is called before every call, also for a record that a failed worker left.
pub fn next(progress: &Progress, rule: ReplayRule, policy: &RetryPolicy, seen: &Circumstances) -> Next {
    let now = seen.now;
    let attempts = progress.attempts_since_opened();
    let time_is_up = now - progress.opened_at >= policy.max_age || attempts >= policy.max_attempts;
    match &progress.last {
        Some(Last::Link(link)) => Next::Conclude(Conclusion::Created(link.clone())),
        Some(Last::Ended { error, payout_status }) => {
            Next::Conclude(Conclusion::Declined { error: error.clone(), payout_status: *payout_status })
        }
        // A record that may have been called is created first, and its link is cancelled then.
        None if progress.cancel_is_requested && progress.is_uncalled() => {
            Next::Conclude(Conclusion::Cancelled)
        }
        // A retry in another account would create a second link. A look-up there does not see the first account.
        _ if progress.is_elsewhere(seen) => {
            let error =
                "it may have been created in another account than the connector is configured with now";
            Next::Conclude(Conclusion::Unknown(ConnectorError::new(progress.status_code, None, error, None)))
        }
        _ if progress.connector_payout_id.is_some() => underway(progress, policy, now),
        _ if progress.in_doubt_since.is_some() => unknown(progress, rule, policy, seen, time_is_up),
        Some(Last::Declined(error)) => {
            Next::Conclude(Conclusion::Declined { error: error.clone(), payout_status: PayoutStatus::Failed })
        }
        // The first call is always made, however long its job waited in the queue.
        _ if time_is_up && attempts > 0 => Next::Conclude(Conclusion::Unavailable(progress.last_error())),
        Some(Last::NotFound) | None => Next::Call { after: Duration::ZERO },
        Some(Last::NoLink { .. } | Last::AlreadyExists(_)) => {
            Next::Call { after: delay(progress, policy, attempts) }
        }
    }
}

/// Looks the payout up until its link is ready. A link that never becomes ready stays unknown.
fn underway(progress: &Progress, policy: &RetryPolicy, now: OffsetDateTime) -> Next {
    if now - progress.opened_at >= policy.max_age && progress.look_ups > 0 {
        return Next::Conclude(Conclusion::Unknown(progress.last_error()));
    }
    match progress.last {
        None => Next::LookUp { after: Duration::ZERO },
        Some(_) => Next::LookUp { after: look_up_delay(progress, policy, now) },
    }
}

fn unknown(
    progress: &Progress,
    rule: ReplayRule,
    policy: &RetryPolicy,
    seen: &Circumstances,
    time_is_up: bool,
) -> Next {
    let now = seen.now;
    let retry_cannot_help = matches!(progress.last, Some(Last::Declined(_) | Last::AlreadyExists(_)));
    if let ReplayRule::SameKey { window, .. } = rule
        && !retry_cannot_help
        && !time_is_up
    {
        let after = match progress.last {
            None => Duration::ZERO,
            Some(_) => delay(progress, policy, progress.attempts_since_opened()),
        };
        let began = progress.first_called_at.unwrap_or(progress.created_at);
        // A clock that was set back shows less than the time that has passed. If that happened before this worker
        // watched the clock, nobody knows by how much.
        let passed = now + seen.steady.uncounted_since(began) - began;
        let is_known = passed > -MAX_STEP;
        if is_known && passed + after + policy.window_margin < window {
            return Next::Call { after };
        }
    }
    let (Some(look_up), Some(settled)) = (rule.look_up(), progress.settled_at(rule, seen)) else {
        return Next::Conclude(Conclusion::Unknown(progress.last_error()));
    };
    match progress.last {
        None | Some(Last::AlreadyExists(_)) => Next::LookUp { after: Duration::ZERO },
        // "Not found" is not reliable yet: look up again after the settle time.
        // The limit keeps a clock that stepped from extending the wait by the step.
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

/// Returns the wait before the next look-up: [`delay`], but at least a quarter of the time since the last call.
///
/// Look-ups are counted only while a worker holds the record. The quarter limits look-ups of a payout that takes a day.
fn look_up_delay(progress: &Progress, policy: &RetryPolicy, now: OffsetDateTime) -> Duration {
    let passed = now - progress.last_called_at.unwrap_or(progress.created_at);
    let quarter = Duration::try_from(passed / 4).unwrap_or_default().min(policy.max_interval);
    delay(progress, policy, progress.look_ups + 1).max(jittered(quarter, policy.max_interval))
}

/// Returns the wait after the `count`th call: exponential with jitter, `max_interval` at most.
///
/// It is not shorter than the provider's Retry-After, up to `max_age`: a longer wait would delay the result.
fn delay(progress: &Progress, policy: &RetryPolicy, count: u32) -> Duration {
    let doubled =
        policy.initial.saturating_mul(1_u32.checked_shl(count.saturating_sub(1)).unwrap_or(u32::MAX));
    jittered(doubled.min(policy.max_interval), policy.max_interval)
        .max(progress.retry_after().unwrap_or_default().min(policy.max_age))
}

/// Returns `interval` with a random jitter of up to half of it, `limit` at most.
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

/// Returns `interval` plus a random 10 to 20 % of it.
pub fn later(interval: Duration) -> Duration {
    // 1.15 times the interval, plus or minus a twenty-third of that.
    const ONE_TWENTY_THIRD: f64 = 0.043_478;
    around(interval.saturating_mul(23) / 20, ONE_TWENTY_THIRD)
}

/// Returns `interval` plus a random part of up to an eighth of it: never less, so that a provider is not asked too early.
pub fn spread(interval: Duration) -> Duration {
    // 17/16 of the interval, plus or minus a seventeenth of that.
    const ONE_SEVENTEENTH: f64 = 0.058_823;
    around(interval.saturating_mul(17) / 16, ONE_SEVENTEENTH)
}

/// Returns a random duration around `middle`, by the part `factor` of it shorter or longer.
fn around(middle: Duration, factor: f64) -> Duration {
    ExponentialBackoffBuilder::new()
        .with_initial_interval(middle)
        .with_max_interval(middle)
        .with_randomization_factor(factor)
        .with_max_elapsed_time(None)
        .build()
        .next_backoff()
        .unwrap_or(middle)
}

#[cfg(test)]
mod tests;
