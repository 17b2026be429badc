//! The outcomes of one call to a provider, and the replay rules for unknown outcomes.

use std::time::Duration;

use secrecy::SecretString;
use time::OffsetDateTime;

use super::{PayoutStatus, Redactor, redaction, text};

/// A payout link as the provider made it.
#[derive(Debug, Clone)]
pub struct CreatedLink {
    /// The provider's id of the payout.
    pub connector_payout_id: String,
    /// The status in Prism's words.
    pub payout_status: PayoutStatus,
    /// The provider's own status, if this version does not know it. The timeline shows it.
    pub unknown_status: Option<String>,
    /// A secret: anybody who has the URL can claim the payout.
    pub url: SecretString,
    /// The end of the link; `None` if the provider does not say it.
    pub expires_at: Option<OffsetDateTime>,
    /// The HTTP status of the answer.
    pub status_code: u16,
}

/// The provider's error, or the reason why the provider did not answer.
///
/// Its texts come from outside. [`ConnectorError::redact`] must remove the secrets before any text is published, stored or
/// logged. It redacts before it truncates, because a truncated secret would not be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectorError {
    /// The HTTP status of the answer, or 0 if there was none.
    pub status_code: u16,
    /// The provider's code, as it came.
    pub code: Option<String>,
    /// The provider's text for people, or what prevented an answer.
    pub message: String,
    /// A more exact code, where the provider has one.
    pub reason: Option<String>,
}

impl ReplayRule {
    /// The window of a key that does not expire. It is longer than any record is processed.
    pub const NO_END: Duration = Duration::from_hours(10 * 366 * 24);
}

impl ConnectorError {
    /// The maximum length of a published message, in characters.
    const MAX_TEXT_CHARS: usize = 512;
    /// The maximum length of a published code, in characters.
    const MAX_CODE_CHARS: usize = 64;

    /// Creates an error with the texts as they came, without their control characters.
    pub fn new(status_code: u16, code: Option<&str>, message: &str, reason: Option<&str>) -> Self {
        let bounded = |text: &str| -> String {
            let text = text.chars().take(redaction::MAX_TEXT_CHARS);
            text.map(|letter| if text::is_control(letter) { ' ' } else { letter }).collect()
        };
        Self { status_code, code: code.map(bounded), message: bounded(message), reason: reason.map(bounded) }
    }

    /// Removes the secrets, then truncates each text.
    pub fn redact(&mut self, secrets: &Redactor) {
        let clean = |text: &str, max_chars| secrets.redact(text).chars().take(max_chars).collect();
        self.code = self.code.as_deref().map(|code| clean(code, Self::MAX_CODE_CHARS));
        self.message = clean(&self.message, Self::MAX_TEXT_CHARS);
        self.reason = self.reason.as_deref().map(|reason| clean(reason, Self::MAX_TEXT_CHARS));
    }

    /// Creates an error for a call without an answer: it has no status and no code.
    pub fn unanswered(message: &str) -> Self {
        Self::new(0, None, message, None)
    }
}

/// The outcome of a create call.
///
/// It is not a `Result`, because `?` would hide a decision. An answer that no rule covers is [`Outcome::Unknown`].
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The provider created the link.
    Created(CreatedLink),
    /// The provider created the payout, but its link is not ready. The worker looks it up by this id and never creates it again.
    Underway {
        /// The provider's id of the payout.
        connector_payout_id: String,
        /// The HTTP status of the answer.
        status_code: u16,
    },
    /// The provider declined, for a reason that a retry does not change.
    Declined(ConnectorError),
    /// The request was not sent, so nothing was created.
    NotSent(ConnectorError),
    /// The provider did nothing, for a reason that may change (429, 503 with Retry-After, the configured credential).
    TryLater {
        /// Why nothing was done.
        error: ConnectorError,
        /// The wait that the provider asked for.
        retry_after: Option<Duration>,
    },
    /// The provider has the key already, but does not say for which payout. The outcome is looked up or stays unknown.
    AlreadyExists(ConnectorError),
    /// The provider may have created the link.
    Unknown(ConnectorError),
}

/// The outcome of a look-up.
#[derive(Debug, Clone)]
pub enum Finding {
    /// The link exists.
    Found(CreatedLink),
    /// The payout exists, and its link is not ready.
    Underway {
        /// The provider's id of the payout.
        connector_payout_id: String,
        /// The HTTP status of the answer.
        status_code: u16,
    },
    /// The payout exists and will never have a usable link (cancelled, failed).
    Ended {
        /// The provider's reason.
        error: ConnectorError,
        /// The final status of the payout.
        payout_status: PayoutStatus,
        /// The provider's id of the payout.
        connector_payout_id: String,
    },
    /// The provider has no such payout.
    NotFound {
        /// The HTTP status of the answer.
        status_code: u16,
    },
    /// The look-up itself was not answered.
    Unanswered {
        /// Why there is no answer.
        error: ConnectorError,
        /// The wait that the provider asked for.
        retry_after: Option<Duration>,
    },
}

/// The outcome of an attempt, as the timeline stores it and metrics count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttemptOutcome {
    /// [`Outcome::Created`].
    Created,
    /// [`Outcome::Underway`] or [`Finding::Underway`].
    Underway,
    /// [`Outcome::Declined`].
    Declined,
    /// [`Outcome::NotSent`].
    NotSent,
    /// [`Outcome::TryLater`].
    TryLater,
    /// [`Outcome::AlreadyExists`].
    AlreadyExists,
    /// [`Outcome::Unknown`].
    Unknown,
    /// [`Finding::Found`].
    Found,
    /// [`Finding::Ended`].
    Ended,
    /// [`Finding::NotFound`].
    NotFound,
    /// [`Finding::Unanswered`].
    Unanswered,
    /// The merchant took the webhook.
    Delivered,
    /// The merchant wants no further webhook of the event (410).
    Gone,
    /// The webhook was not delivered.
    Failed,
}

impl AttemptOutcome {
    /// Every outcome of a `create` attempt.
    pub const OF_CREATE: &'static [Self] = &[
        Self::Created,
        Self::Underway,
        Self::Declined,
        Self::NotSent,
        Self::TryLater,
        Self::AlreadyExists,
        Self::Unknown,
    ];
    /// Every outcome of a `look_up` attempt.
    pub const OF_LOOK_UP: &'static [Self] =
        &[Self::Found, Self::Underway, Self::Ended, Self::NotFound, Self::Unanswered];

    /// Returns the name in the timeline and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Underway => "underway",
            Self::Declined => "declined",
            Self::NotSent => "not_sent",
            Self::TryLater => "try_later",
            Self::AlreadyExists => "already_there",
            Self::Unknown => "unknown",
            Self::Found => "found",
            Self::Ended => "ended",
            Self::NotFound => "not_there",
            Self::Unanswered => "unanswered",
            Self::Delivered => "delivered",
            Self::Gone => "gone",
            Self::Failed => "failed",
        }
    }

    /// Returns whether the attempt resulted in a link.
    pub fn has_link(self) -> bool {
        matches!(self, Self::Created | Self::Found)
    }
}

impl Outcome {
    /// Returns the outcome without its values.
    pub fn of_attempt(&self) -> AttemptOutcome {
        match self {
            Self::Created(_) => AttemptOutcome::Created,
            Self::Underway { .. } => AttemptOutcome::Underway,
            Self::Declined(_) => AttemptOutcome::Declined,
            Self::NotSent(_) => AttemptOutcome::NotSent,
            Self::TryLater { .. } => AttemptOutcome::TryLater,
            Self::AlreadyExists(_) => AttemptOutcome::AlreadyExists,
            Self::Unknown(_) => AttemptOutcome::Unknown,
        }
    }
}

impl Finding {
    /// Returns the outcome without its values.
    pub fn of_attempt(&self) -> AttemptOutcome {
        match self {
            Self::Found(_) => AttemptOutcome::Found,
            Self::Underway { .. } => AttemptOutcome::Underway,
            Self::Ended { .. } => AttemptOutcome::Ended,
            Self::NotFound { .. } => AttemptOutcome::NotFound,
            Self::Unanswered { .. } => AttemptOutcome::Unanswered,
        }
    }
}

/// How a connector resolves an unknown outcome. Each connector declares one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayRule {
    /// A retry with the same idempotency key returns the same link while the first call is younger than `window`.
    /// After that the worker uses the look-up, if there is one.
    SameKey {
        /// How long the provider keeps the key after the first call.
        window: Duration,
        /// How the payout is looked up after that, if the provider offers it.
        look_up: Option<LookUp>,
    },
    /// The worker looks the payout up by its reference before any retry.
    LookUp(LookUp),
    /// The provider supports neither a safe retry nor a look-up.
    Never,
}

/// The reliability of a look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LookUp {
    /// The settle time. "Not found" means "was never created" only if the last call began longer ago than this.
    /// It must not be shorter than a lease, because a call may begin late in its lease.
    pub settle: Duration,
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    /// A secret that crosses the cut: the redactor does not find fewer than six characters of it.
    #[test]
    fn secrets_are_taken_out_before_a_text_is_cut() {
        let card = "4929420573595709";
        let secrets = Redactor::new([SecretString::from(card)]);
        for before_cut in 1..=16 {
            let message = format!("{}{card}", "x".repeat(ConnectorError::MAX_TEXT_CHARS - before_cut));
            let code = format!("{}{card}", "x".repeat(ConnectorError::MAX_CODE_CHARS - before_cut));
            let mut error = ConnectorError::new(400, Some(&code), &message, Some(&message));
            error.redact(&secrets);
            let texts = [Some(error.message), error.code, error.reason];
            for text in texts.into_iter().flatten() {
                assert!(!text.contains(|letter: char| letter.is_ascii_digit()), "{before_cut}: {text}");
            }
        }
    }
}
