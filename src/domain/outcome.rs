//! What one call to a connector can come to, and what may be done where that is not known.

use std::time::Duration;

use secrecy::SecretString;
use time::OffsetDateTime;

use super::{PayoutStatus, Redactor, redaction, text};

/// A payout link as the connector made it.
#[derive(Debug, Clone)]
pub struct CreatedLink {
    pub connector_payout_id: String,
    pub payout_status: PayoutStatus,
    /// The connector's own word for its status, where this version does not know it. It stands in the timeline.
    pub unknown_status: Option<String>,
    /// Who has it can claim the money: a secret.
    pub url: SecretString,
    pub expires_at: Option<OffsetDateTime>,
    pub status_code: u16,
}

/// What a connector said when it did not give a link, or why it could not be asked.
///
/// Texts come from outside. Nobody is told of them before [`ConnectorError::redact`] has taken the secrets out and cut them to their
/// length, in this order: a secret that stands across the cut would no longer be found.
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
    /// Characters of a message that are told.
    const MAX_TEXT_CHARS: usize = 512;
    /// Characters of a code that are told.
    const MAX_CODE_CHARS: usize = 64;

    /// Takes texts as they came, but for their control characters.
    pub fn new(status_code: u16, code: Option<&str>, message: &str, reason: Option<&str>) -> Self {
        let bounded = |text: &str| -> String {
            let text = text.chars().take(redaction::MAX_TEXT_CHARS);
            text.map(|letter| if text::is_control(letter) { ' ' } else { letter }).collect()
        };
        Self { status_code, code: code.map(bounded), message: bounded(message), reason: reason.map(bounded) }
    }

    /// Takes the secrets out, then cuts each text to its length.
    pub fn redact(&mut self, secrets: &Redactor) {
        let clean = |text: &str, max_chars| secrets.redact(text).chars().take(max_chars).collect();
        self.code = self.code.as_deref().map(|code| clean(code, Self::MAX_CODE_CHARS));
        self.message = clean(&self.message, Self::MAX_TEXT_CHARS);
        self.reason = self.reason.as_deref().map(|reason| clean(reason, Self::MAX_TEXT_CHARS));
    }

    /// An error of our own side of the wire: no status, no code of the connector's.
    pub fn unanswered(message: &str) -> Self {
        Self::new(0, None, message, None)
    }
}

/// What a call that creates came to. Not a `Result`: every one of these is a decision, and `?` would hide it.
///
/// Unknown is the default: an answer that nobody thought of is [`Outcome::Unknown`].
#[derive(Debug, Clone)]
pub enum Outcome {
    Created(CreatedLink),
    /// Made, but the link is not there yet: asked for again by this id, never made again.
    Underway {
        connector_payout_id: String,
        status_code: u16,
    },
    /// The connector said no, for a reason that a repeat does not change.
    Declined(ConnectorError),
    /// The request never left: certain that nothing happened.
    NotSent(ConnectorError),
    /// The connector says that it did nothing, and why that may change (429, 503 with Retry-After, our credential).
    TryLater {
        error: ConnectorError,
        retry_after: Option<Duration>,
    },
    /// The connector knows our key already, and does not say what of: it is asked, or left unknown. Never a refusal.
    AlreadyExists(ConnectorError),
    /// It may have been carried out.
    Unknown(ConnectorError),
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
    NotFound {
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
    /// "Not there" means "was never made" only when the last call began longer ago than this. No
    /// shorter than a lease, within which a call may begin late and be carried out: it would be taken for one that
    /// never happened.
    pub settle: Duration,
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    /// A secret that stands across the place of the cut: fewer than six characters of it would be found by nobody.
    #[test]
    fn secrets_are_taken_out_before_a_text_is_cut() {
        let card = "4929420573595709";
        let secrets = Redactor::new([SecretString::from(card)]);
        for kept in 1..=16 {
            let message = format!("{}{card}", "x".repeat(ConnectorError::MAX_TEXT_CHARS - kept));
            let code = format!("{}{card}", "x".repeat(ConnectorError::MAX_CODE_CHARS - kept));
            let mut error = ConnectorError::new(400, Some(&code), &message, Some(&message));
            error.redact(&secrets);
            let texts = [Some(error.message), error.code, error.reason];
            for text in texts.into_iter().flatten() {
                assert!(!text.contains(|letter: char| letter.is_ascii_digit()), "{kept}: {text}");
            }
        }
    }
}
