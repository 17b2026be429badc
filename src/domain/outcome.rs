//! What one call to a connector can come to, and what may be done where that is not known.

use std::time::Duration;

use secrecy::SecretString;
use time::OffsetDateTime;

use super::PayoutStatus;

/// A payout link as the connector made it.
#[derive(Debug, Clone)]
pub struct CreatedLink {
    pub connector_payout_id: String,
    pub payout_status: PayoutStatus,
    /// Who has it can claim the money: a secret.
    pub url: SecretString,
    pub expires_at: Option<OffsetDateTime>,
    pub status_code: u16,
}

/// What a connector said when it did not give a link, or why it could not be asked.
///
/// Texts come from outside: bounded by [`ConnectorError::new`], and freed of the job's secrets before they are
/// told to anybody (`CreateLink::redact`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectorError {
    /// HTTP status of the answer, 0 where there was none.
    pub status_code: u16,
    pub code: Option<String>,
    pub message: String,
    pub reason: Option<String>,
}

impl ReplayRule {
    /// The window of a key that does not end: longer than any record is worked on.
    pub const NO_END: Duration = Duration::from_secs(10 * 366 * 86_400);
}

impl ConnectorError {
    const TEXT_LIMIT: usize = 512;

    pub fn new(status_code: u16, code: Option<&str>, message: &str, reason: Option<&str>) -> Self {
        let bounded = |text: &str| -> String {
            text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(Self::TEXT_LIMIT).collect()
        };
        Self { status_code, code: code.map(bounded), message: bounded(message), reason: reason.map(bounded) }
    }

    /// An error of our own side of the wire: no status, no code of the connector's.
    pub fn unanswered(message: &str) -> Self {
        Self::new(0, None, message, None)
    }
}

/// What a call that creates came to. Not a `Result`: every one of these is a decision, and `?` would hide it.
///
/// In doubt is the default: an answer that nobody thought of is [`Outcome::InDoubt`].
#[derive(Debug, Clone)]
pub enum Outcome {
    Created(CreatedLink),
    /// Made, but the link is not there yet: asked for again by this id, never made again.
    Underway {
        connector_payout_id: String,
        status_code: u16,
    },
    /// The connector said no, for a reason that a repeat does not change.
    Refused(ConnectorError),
    /// The request never left: certain that nothing happened.
    NotSent(ConnectorError),
    /// The connector says that it did nothing, and why that may change (429, 503 with Retry-After, our credential).
    TryLater {
        error: ConnectorError,
        retry_after: Option<Duration>,
    },
    /// The connector knows our key already, and does not say what of: it is asked, or left unknown. Never a refusal.
    AlreadyThere(ConnectorError),
    /// It may have been carried out.
    InDoubt(ConnectorError),
}

/// What asking the connector for a payout link came to.
#[derive(Debug, Clone)]
pub enum Finding {
    Found(CreatedLink),
    Underway {
        connector_payout_id: String,
        status_code: u16,
    },
    /// It is there and will never be a link (cancelled, failed).
    Ended {
        error: ConnectorError,
        payout_status: PayoutStatus,
        connector_payout_id: String,
    },
    NotThere {
        status_code: u16,
    },
    /// Nobody knows: the question itself was not answered.
    Unanswered {
        error: ConnectorError,
        retry_after: Option<Duration>,
    },
}

/// What a connector allows where the outcome of a call is not known. Declared by each connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayRule {
    /// The same call with the same idempotency key gives the same link while the first is younger than `window`;
    /// after that a look-up, where there is one.
    SameKey { window: Duration, look_up: Option<LookUp> },
    /// Ask by our reference before anything else.
    LookUp(LookUp),
    /// It can neither be repeated nor asked about.
    Never,
}

/// How far a look-up can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LookUp {
    /// "Not there" means "was never made" only when the last call began longer ago than this. Longer than any
    /// call's timeout, or a call still under way would be taken for one that never happened.
    pub settle: Duration,
}
