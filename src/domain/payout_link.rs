//! The record of one payout link while something is still to be done for it, and the lease that makes it ours.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use super::{CreateLink, Progress};

/// Where a message came from in its sender's trace (W3C Trace Context), passed on as it came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceContext {
    pub traceparent: Option<String>,
    pub tracestate: Option<String>,
}

/// A record that nobody else works on while the lease runs.
#[derive(Debug)]
pub struct OpenLink {
    /// UUIDv7.
    pub id: Uuid,
    /// Whose `merchant_payout_id` it is; empty where the job named no merchant.
    pub merchant_id: String,
    /// The name of the connector in the configuration.
    pub connector: String,
    pub job: Box<CreateLink>,
    pub progress: Progress,
    pub lease: Lease,
    /// The row has the next call counted and leased already: a job is written down once before its first call.
    pub call_is_written: bool,
    pub trace: TraceContext,
    /// Calls made in this hold and not yet written down.
    pub calls: Vec<Attempt>,
}

/// How long a row is ours. The database's clock decides; this side only ever believes in less.
#[derive(Debug, Clone, Copy)]
pub struct Lease {
    pub holder: Uuid,
    /// The database's time when it was granted.
    pub granted_at: OffsetDateTime,
    /// This process's clock before it was asked for: the lease cannot have begun earlier.
    pub asked_at: Instant,
    /// This process's clock when the answer came: `granted_at` cannot have been later.
    pub answered_at: Instant,
    pub length: Duration,
}

impl OpenLink {
    /// Begins the call that the row has already.
    pub fn begin_written_call(&mut self) {
        self.call_is_written = false;
        self.progress.attempts += 1;
        self.progress.first_called_at.get_or_insert(self.lease.granted_at);
        self.progress.last_called_at = Some(self.lease.granted_at);
    }
}

impl Lease {
    /// The database's time, as well as it can be known without asking: never ahead of it, so that nothing counts
    /// as settled too early.
    pub fn now(&self) -> OffsetDateTime {
        self.granted_at + self.answered_at.elapsed()
    }

    pub fn left(&self) -> Duration {
        self.length.saturating_sub(self.asked_at.elapsed())
    }
}

/// One call to a connector or a merchant, as the timeline shows it.
#[derive(Debug, Clone)]
pub struct Attempt {
    pub kind: AttemptKind,
    /// Counted from 1 within its kind.
    pub number: u32,
    pub started_at: OffsetDateTime,
    pub took: Duration,
    /// HTTP status, 0 where there was no answer.
    pub status_code: u16,
    pub outcome: &'static str,
    /// What went wrong, or the connector's id of what it made. Short, and free of secrets.
    pub detail: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptKind {
    Create,
    LookUp,
    Post,
}

impl AttemptKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::LookUp => "look_up",
            Self::Post => "post",
        }
    }
}
