//! How far a record has come, and what each call makes of it.

use std::time::Duration;

use time::OffsetDateTime;

use super::{Circumstances, RetryPolicy};
use crate::domain::{AccountId, ConnectorError, CreatedLink, Finding, Outcome, PayoutStatus, ReplayRule};

/// How far a record has come.
#[derive(Debug, Clone)]
pub struct Progress {
    /// When the job was accepted, by the database's clock.
    pub created_at: OffsetDateTime,
    /// When the record was created or tried again: the limits of retries count from here.
    pub opened_at: OffsetDateTime,
    /// Calls begun.
    pub attempts: u32,
    /// Calls begun before the record was tried again.
    pub attempts_before: u32,
    /// When the first `create` call began.
    pub first_called_at: Option<OffsetDateTime>,
    /// When the last call of any kind began.
    pub last_called_at: Option<OffsetDateTime>,
    /// Since when the outcome of a `create` call is unknown.
    pub in_doubt_since: Option<OffsetDateTime>,
    /// The account that was called last; `None` also where an earlier version called.
    pub account: Option<AccountId>,
    /// The provider's id of the payout, if known. The worker then looks it up and never creates it again.
    pub connector_payout_id: Option<String>,
    /// Somebody asked to cancel the link before the provider was called.
    pub cancel_is_requested: bool,
    /// The HTTP status of the provider's last answer, or 0 if it never answered.
    pub status_code: u16,
    /// Look-ups since this worker claimed the record.
    pub look_ups: u32,
    /// The outcome of the last call; `None` for a record just claimed.
    pub last: Option<Last>,
}

/// The outcome of the last call of either kind.
#[derive(Debug, Clone)]
pub enum Last {
    /// The link exists.
    Link(CreatedLink),
    /// The payout exists and will never have a usable link.
    Ended {
        /// The provider's reason.
        error: ConnectorError,
        /// The final status of the payout.
        payout_status: PayoutStatus,
    },
    /// The provider declined.
    Declined(ConnectorError),
    /// An earlier call used the key already.
    AlreadyExists(ConnectorError),
    /// Not carried out, or not answered. `in_doubt_since` is set if the outcome is unknown.
    NoLink {
        /// Why there is no link so far.
        error: ConnectorError,
        /// The wait that the provider asked for.
        retry_after: Option<Duration>,
    },
    /// Looked up and not found. If `in_doubt_since` is still set, the settle time had not passed.
    NotFound,
}

impl Progress {
    /// Creates the progress of a new record.
    pub fn new(created_at: OffsetDateTime) -> Self {
        Self {
            created_at,
            opened_at: created_at,
            attempts: 0,
            attempts_before: 0,
            first_called_at: None,
            last_called_at: None,
            in_doubt_since: None,
            account: None,
            connector_payout_id: None,
            cancel_is_requested: false,
            status_code: 0,
            look_ups: 0,
            last: None,
        }
    }

    /// Returns whether the provider was certainly never called.
    pub(super) fn is_uncalled(&self) -> bool {
        self.attempts == 0
            && self.in_doubt_since.is_none()
            && self.connector_payout_id.is_none()
            && self.last.is_none()
    }

    /// Records the outcome of a create call that ended at `now`.
    pub fn record(&mut self, outcome: Outcome, now: OffsetDateTime) {
        self.last = Some(match outcome {
            Outcome::Created(link) => {
                self.answered(link.status_code);
                Last::Link(link)
            }
            Outcome::Underway { connector_payout_id, status_code } => {
                self.underway(connector_payout_id, status_code)
            }
            Outcome::Declined(error) => {
                self.answered(error.status_code);
                Last::Declined(error)
            }
            Outcome::NotSent(error) => Last::NoLink { error, retry_after: None },
            Outcome::TryLater { error, retry_after } => {
                self.answered(error.status_code);
                Last::NoLink { error, retry_after }
            }
            Outcome::AlreadyExists(error) => {
                self.answered(error.status_code);
                self.in_doubt_since.get_or_insert(now);
                Last::AlreadyExists(error)
            }
            Outcome::Unknown(error) => {
                self.answered(error.status_code);
                self.in_doubt_since.get_or_insert(now);
                Last::NoLink { error, retry_after: None }
            }
        });
    }

    /// Records the outcome of a look-up that began at `asked.now`.
    pub fn record_finding(&mut self, finding: Finding, rule: ReplayRule, asked: &Circumstances) {
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
            Finding::NotFound { status_code } => {
                self.answered(status_code);
                if self.settled_at(rule, asked).is_some_and(|settled| asked.now >= settled) {
                    // Reliable: nothing was created, so the next call counts as a first call.
                    self.in_doubt_since = None;
                    self.first_called_at = None;
                }
                Last::NotFound
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

    /// Returns the time from which on "not found" is reliable.
    ///
    /// If the last call was made before this worker watched the database's clock, or is not known, the settle time
    /// counts from the beginning of the watch.
    pub(super) fn settled_at(&self, rule: ReplayRule, seen: &Circumstances) -> Option<OffsetDateTime> {
        let look_up = rule.look_up()?;
        let is_watched = |called: &OffsetDateTime| (seen.steady.since..=seen.now).contains(called);
        Some(self.last_called_at.filter(is_watched).unwrap_or(seen.steady.since) + look_up.settle)
    }

    /// Returns the time of the first call, so that a look-up can skip older payouts. Returns `None` if the clock has stepped since.
    pub fn first_call_to_narrow_by(&self, seen: &Circumstances) -> Option<OffsetDateTime> {
        self.first_called_at
            .filter(|first| *first <= seen.now && (*first >= seen.steady.since || !seen.steady.after_step))
    }

    /// Marks the outcome as unknown if a call may be lost after a restore or a failover to a standby. Returns whether it did.
    pub fn mark_lost_calls_unknown(&mut self, policy: &RetryPolicy, now: OffsetDateTime) -> bool {
        let written_at =
            self.last_called_at.map_or(self.created_at, |called_at| called_at.max(self.created_at));
        let is_lost = policy.ask_before_calling_since.is_some_and(|time| written_at < time);
        if !is_lost || self.in_doubt_since.is_some() {
            return false;
        }
        self.in_doubt_since = Some(now);
        self.first_called_at.get_or_insert(self.created_at);
        true
    }

    /// Returns whether an earlier call was made in another account than the configured one.
    pub(super) fn is_elsewhere(&self, seen: &Circumstances) -> bool {
        self.account.as_ref().is_some_and(|account| *account != seen.account)
            && (self.in_doubt_since.is_some() || self.connector_payout_id.is_some())
    }

    /// Returns the calls begun since the record was created or tried again.
    pub(super) fn attempts_since_opened(&self) -> u32 {
        self.attempts.saturating_sub(self.attempts_before)
    }

    pub(super) fn last_error(&self) -> ConnectorError {
        match &self.last {
            Some(
                Last::Declined(error)
                | Last::AlreadyExists(error)
                | Last::NoLink { error, .. }
                | Last::Ended { error, .. },
            ) => error.clone(),
            None if self.attempts == 0 => {
                let error = "an earlier call may be lost, because the record is older than jobs.ask_before_calling_since";
                ConnectorError::new(0, None, error, None)
            }
            Some(Last::Link(_) | Last::NotFound) | None => {
                ConnectorError::new(self.status_code, None, "no answer resolved the outcome", None)
            }
        }
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self.last {
            Some(Last::NoLink { retry_after, .. }) => retry_after,
            _ => None,
        }
    }
}
