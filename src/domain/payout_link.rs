//! An open payout link record, and the lease under which a worker processes it.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use super::{AttemptOutcome, CreateLink, Progress};

/// The W3C Trace Context of the job, passed on unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceContext {
    /// W3C trace context of the job, version 00.
    pub traceparent: Option<String>,
    /// The vendors' part, passed on unchanged.
    pub tracestate: Option<String>,
}

/// An open record. No other worker processes it before the lease expires.
#[derive(Debug)]
pub struct OpenLink {
    /// UUIDv7.
    pub id: Uuid,
    /// The merchant that owns the `merchant_payout_id`; empty if the job names no merchant.
    pub merchant_id: String,
    /// The name of the connector in the configuration.
    pub connector: String,
    /// The request, decrypted.
    pub job: Box<CreateLink>,
    /// How far the record has come.
    pub progress: Progress,
    /// Number of the record's last event; 0 if it has none. Only a record that is tried again has one.
    pub last_sequence: u32,
    /// How long this worker may act on the record.
    pub lease: Lease,
    /// `true` if the row already counts the next call, because the insert of a new record counts its first call.
    pub call_is_written: bool,
    /// The trace of the job, continued in results, calls and webhooks.
    pub trace: TraceContext,
    /// Calls that were made under this lease and are not stored yet.
    pub calls: Vec<Attempt>,
}

/// The lease of a row. The database's clock decides when it expires; a worker can only underestimate the remaining time.
#[derive(Debug, Clone, Copy)]
pub struct Lease {
    /// The claim that holds the record: a new one for each claim.
    pub holder: Uuid,
    /// The database's time when the lease was granted.
    pub granted_at: OffsetDateTime,
    /// This process's clock before the claim was sent. The lease cannot have begun earlier.
    pub asked_at: Instant,
    /// This process's clock when the answer came. `granted_at` cannot be later.
    pub answered_at: Instant,
    /// How long the lease lasts from `asked_at`.
    pub length: Duration,
}

impl OpenLink {
    /// Counts the call that the row counts already.
    pub fn begin_written_call(&mut self) {
        self.call_is_written = false;
        self.progress.attempts += 1;
        self.progress.first_called_at.get_or_insert(self.lease.granted_at);
        self.progress.last_called_at = Some(self.lease.granted_at);
    }
}

impl Lease {
    /// Estimates the database's time at `now` without a query. The estimate is never ahead, so that nothing settles
    /// too early.
    pub fn time_at(&self, now: Instant) -> OffsetDateTime {
        self.granted_at + now.saturating_duration_since(self.answered_at)
    }

    /// Returns the time of the lease that remains at `now`.
    pub fn left_at(&self, now: Instant) -> Duration {
        self.length.saturating_sub(now.saturating_duration_since(self.asked_at))
    }
}

/// One HTTP call to a provider or a merchant, as the timeline shows it.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The kind of the call.
    pub kind: AttemptKind,
    /// Counted from 1 within its kind.
    pub number: u32,
    /// When the request was begun, by the worker's clock.
    pub started_at: OffsetDateTime,
    /// The time until the outcome was known.
    pub took: Duration,
    /// The HTTP status, or 0 if there was no answer.
    pub status_code: u16,
    /// The outcome of the attempt.
    pub outcome: AttemptOutcome,
    /// The error, or the provider's id of the payout. Short and free of secrets.
    pub detail: Option<String>,
}

/// The kind of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptKind {
    /// A call that creates a link.
    Create,
    /// A call that looks a payout up.
    LookUp,
    /// A webhook to the merchant.
    Post,
}

impl AttemptKind {
    /// Returns the kind as the timeline stores it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::LookUp => "look_up",
            Self::Post => "post",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_only_underestimates_its_remaining_time_and_the_time_of_the_database() {
        let asked_at = Instant::now();
        let second = Duration::from_secs(1);
        let lease = Lease {
            holder: Uuid::nil(),
            granted_at: OffsetDateTime::UNIX_EPOCH,
            asked_at,
            answered_at: asked_at + 3 * second,
            length: 10 * second,
        };
        // The claim was granted at some moment of the three seconds before its answer.
        for (at, left, time) in [(0, 10, 0), (3, 7, 0), (5, 5, 2), (10, 0, 7), (60, 0, 57)] {
            let now = asked_at + at * second;
            assert_eq!(lease.left_at(now), left * second, "{at}");
            assert_eq!(lease.time_at(now), OffsetDateTime::UNIX_EPOCH + time * second, "{at}");
        }
    }
}
