//! The record so far, the connector's replay rule and now: what to do next.
//!
//! Nothing that could be paid twice is ever repeated blindly, and doubt sticks: once a call may have been carried
//! out, only a link or a look-up's reliable "not there" settles it. A later refusal does not (it may come before
//! the provider looks at its idempotency key), nor does running out of retries.
//!
//! The only file that knows the `backoff` crate (unmaintained, RUSTSEC-2025-0012): its delay policy and no more.

use std::time::Duration;

use backoff::{ExponentialBackoffBuilder, backoff::Backoff};
use time::OffsetDateTime;

use super::{ConnectorError, CreatedLink, Finding, LookUp, Outcome, PayoutStatus, ReplayRule};

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
}

/// How far a record has come.
#[derive(Debug, Clone)]
pub struct Progress {
    pub created_at: OffsetDateTime,
    /// Calls begun.
    pub attempts: u32,
    pub first_called_at: Option<OffsetDateTime>,
    pub last_called_at: Option<OffsetDateTime>,
    pub in_doubt_since: Option<OffsetDateTime>,
    /// Known: the connector has made it. It is asked for, never made again.
    pub connector_payout_id: Option<String>,
    /// Status of the connector's last answer, 0 where it never answered.
    pub status_code: u16,
    /// Questions asked since this worker took the record.
    pub look_ups: u32,
    /// What the last call came to; `None` for a record just taken.
    pub last: Option<Last>,
}

/// What the last call, of either kind, came to.
#[derive(Debug, Clone)]
pub enum Last {
    Link(CreatedLink),
    Ended {
        error: ConnectorError,
        payout_status: PayoutStatus,
    },
    Refused(ConnectorError),
    /// Made under our key, by an earlier call.
    AlreadyThere(ConnectorError),
    /// Not carried out, or no answer; `in_doubt_since` tells which.
    NoLink {
        error: ConnectorError,
        retry_after: Option<Duration>,
    },
    /// Asked, and not there. Where doubt is left, it was too early to tell.
    NotThere,
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

impl Progress {
    pub fn new(created_at: OffsetDateTime) -> Self {
        Self {
            created_at,
            attempts: 0,
            first_called_at: None,
            last_called_at: None,
            in_doubt_since: None,
            connector_payout_id: None,
            status_code: 0,
            look_ups: 0,
            last: None,
        }
    }

    /// Takes note of what a call came to, at `now`.
    pub fn record(&mut self, outcome: Outcome, now: OffsetDateTime) {
        self.last = Some(match outcome {
            Outcome::Created(link) => {
                self.answered(link.status_code);
                Last::Link(link)
            }
            Outcome::Underway { connector_payout_id, status_code } => {
                self.underway(connector_payout_id, status_code)
            }
            Outcome::Refused(error) => {
                self.answered(error.status_code);
                Last::Refused(error)
            }
            Outcome::NotSent(error) => Last::NoLink { error, retry_after: None },
            Outcome::TryLater { error, retry_after } => {
                self.answered(error.status_code);
                Last::NoLink { error, retry_after }
            }
            Outcome::AlreadyThere(error) => {
                self.answered(error.status_code);
                self.in_doubt_since.get_or_insert(now);
                Last::AlreadyThere(error)
            }
            Outcome::InDoubt(error) => {
                self.answered(error.status_code);
                self.in_doubt_since.get_or_insert(now);
                Last::NoLink { error, retry_after: None }
            }
        });
    }

    /// Takes note of what a look-up, asked at `asked_at`, came to.
    pub fn record_finding(&mut self, finding: Finding, rule: ReplayRule, asked_at: OffsetDateTime) {
        self.look_ups += 1;
        self.last = Some(match finding {
            Finding::Found(link) => {
                self.answered(link.status_code);
                Last::Link(link)
            }
            Finding::Underway { connector_payout_id, status_code } => {
                self.underway(connector_payout_id, status_code)
            }
            Finding::Ended { error, payout_status, connector_payout_id } => {
                self.answered(error.status_code);
                self.connector_payout_id = Some(connector_payout_id);
                Last::Ended { error, payout_status }
            }
            Finding::NotThere { status_code } => {
                self.answered(status_code);
                if self.settled_at(rule).is_some_and(|settled| asked_at >= settled) {
                    // Reliable: nothing was made, so the next call is a first call again.
                    self.in_doubt_since = None;
                    self.first_called_at = None;
                }
                Last::NotThere
            }
            Finding::Unanswered { error, retry_after } => {
                self.answered(error.status_code);
                Last::NoLink { error, retry_after }
            }
        });
    }

    fn answered(&mut self, status_code: u16) {
        if status_code != 0 {
            self.status_code = status_code;
        }
    }

    fn underway(&mut self, connector_payout_id: String, status_code: u16) -> Last {
        self.answered(status_code);
        self.connector_payout_id = Some(connector_payout_id);
        let error = ConnectorError::new(status_code, None, "the payout link is not ready yet", None);
        Last::NoLink { error, retry_after: None }
    }

    fn settled_at(&self, rule: ReplayRule) -> Option<OffsetDateTime> {
        let look_up = rule.look_up()?;
        Some(self.last_called_at? + look_up.settle)
    }

    fn last_error(&self) -> ConnectorError {
        match &self.last {
            Some(
                Last::Refused(error)
                | Last::AlreadyThere(error)
                | Last::NoLink { error, .. }
                | Last::Ended { error, .. },
            ) => error.clone(),
            Some(Last::Link(_) | Last::NotThere) | None => {
                ConnectorError::new(self.status_code, None, "no answer that settles it", None)
            }
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self.last {
            Some(Last::NoLink { retry_after, .. }) => retry_after,
            _ => None,
        }
    }
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
pub fn next(progress: &Progress, rule: ReplayRule, policy: &RetryPolicy, now: OffsetDateTime) -> Next {
    let time_is_up = now - progress.created_at >= policy.max_age || progress.attempts >= policy.max_attempts;
    match &progress.last {
        Some(Last::Link(link)) => Next::Conclude(Conclusion::Created(link.clone())),
        Some(Last::Ended { error, payout_status }) => {
            Next::Conclude(Conclusion::Rejected { error: error.clone(), payout_status: *payout_status })
        }
        _ if progress.connector_payout_id.is_some() => underway(progress, policy, now),
        _ if progress.in_doubt_since.is_some() => in_doubt(progress, rule, policy, now, time_is_up),
        Some(Last::Refused(error)) => {
            Next::Conclude(Conclusion::Rejected { error: error.clone(), payout_status: PayoutStatus::Failed })
        }
        // The first call is always made, however long its job waited in the queue.
        _ if time_is_up && progress.attempts > 0 => {
            Next::Conclude(Conclusion::Unavailable(progress.last_error()))
        }
        Some(Last::NotThere) | None => Next::Call { after: Duration::ZERO },
        Some(Last::NoLink { .. } | Last::AlreadyThere(_)) => {
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
    now: OffsetDateTime,
    time_is_up: bool,
) -> Next {
    let no_use_to_repeat = matches!(progress.last, Some(Last::Refused(_) | Last::AlreadyThere(_)));
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
    let (Some(_), Some(settled)) = (rule.look_up(), progress.settled_at(rule)) else {
        return Next::Conclude(Conclusion::Unknown(progress.last_error()));
    };
    match progress.last {
        None | Some(Last::AlreadyThere(_)) => Next::LookUp { after: Duration::ZERO },
        // Too early to tell: once more when it can be trusted.
        Some(Last::NotThere) => Next::LookUp { after: (settled - now).try_into().unwrap_or(Duration::ZERO) },
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
/// `max_interval`, never before the connector's own Retry-After.
fn delay(progress: &Progress, policy: &RetryPolicy, count: u32) -> Duration {
    let doubled =
        policy.initial.saturating_mul(1_u32.checked_shl(count.saturating_sub(1)).unwrap_or(u32::MAX));
    jittered(doubled.min(policy.max_interval), policy.max_interval)
        .max(progress.retry_after().unwrap_or_default())
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
