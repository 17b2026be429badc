//! Rejections of jobs: a code, the path of the field, the mistake, the expectation and the remedy. They never contain a value.

/// The rejection of a job. The worker never calls a provider for a rejected job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The code on the wire.
    pub code: RejectionCode,
    /// For a developer: what is wrong, and what is expected.
    pub message: String,
    /// `amount.minor_amount`, where there is one.
    pub field: Option<String>,
}

/// `unified_details.code` (contract, section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectionCode {
    /// A field or the whole message breaks the contract.
    InvalidJob,
    /// There is no `merchant_payout_id`.
    MissingIdentifier,
    /// The identifier belongs to another request.
    IdempotencyConflict,
    /// No account has the name in `x-connector`.
    UnknownConnector,
    /// The connector cannot carry out the job.
    UnsupportedByConnector,
    /// A message about a link names no record of its merchant.
    NotFound,
    /// The link is claimed or over.
    NotCancellable,
    /// A message about a link could not be carried out in time.
    ConnectorUnavailable,
}

impl RejectionCode {
    /// Every code.
    pub const ALL: [Self; 8] = [
        Self::InvalidJob,
        Self::MissingIdentifier,
        Self::IdempotencyConflict,
        Self::UnknownConnector,
        Self::UnsupportedByConnector,
        Self::NotFound,
        Self::NotCancellable,
        Self::ConnectorUnavailable,
    ];

    /// Returns the code as it is written on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJob => "INVALID_JOB",
            Self::MissingIdentifier => "MISSING_IDENTIFIER",
            Self::IdempotencyConflict => "IDEMPOTENCY_CONFLICT",
            Self::UnknownConnector => "UNKNOWN_CONNECTOR",
            Self::UnsupportedByConnector => "UNSUPPORTED_BY_CONNECTOR",
            Self::NotFound => "NOT_FOUND",
            Self::NotCancellable => "NOT_CANCELLABLE",
            Self::ConnectorUnavailable => "CONNECTOR_UNAVAILABLE",
        }
    }

    /// Parses a code as it is written on the wire.
    pub fn parse(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == code)
    }
}

impl Rejection {
    /// Rejects an invalid job. `field`: the path of the field that is wrong, empty for the whole message.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        let field = Some(field.into()).filter(|field| !field.is_empty());
        Self { code: RejectionCode::InvalidJob, message: message.into(), field }
    }

    /// Returns what to do about it (`user_guidance_message`).
    pub fn guidance(&self) -> &'static str {
        match (self.code, &self.field) {
            (RejectionCode::InvalidJob, Some(_)) => {
                "Correct the field that the description names and publish the job again under the same merchant_payout_id. No payout link was requested."
            }
            (RejectionCode::InvalidJob, None) => {
                "Correct the message and publish it again under the same merchant_payout_id. No payout link was requested."
            }
            (RejectionCode::MissingIdentifier, _) => {
                "Give each payout a merchant_payout_id of its own and publish the job again. No payout link was requested."
            }
            (RejectionCode::IdempotencyConflict, _) => {
                "For another payout use a new merchant_payout_id. For the payout that was accepted publish the first job unchanged: its result is published again."
            }
            (RejectionCode::UnknownConnector, _) => {
                "Name a configured connector in the header x-connector, or have the connector configured, and publish the job again. No payout link was requested."
            }
            (RejectionCode::NotFound, _) => {
                "Correct merchant_payout_id or the header x-merchant-id, and publish the message again. A job that is not accepted yet is not found."
            }
            (RejectionCode::NotCancellable, _) => {
                "Nothing can be taken back. Ask for the status of the payout link, and decide by that."
            }
            (RejectionCode::ConnectorUnavailable, _) => {
                "Publish the message again once the provider answers. Nothing is known to have changed."
            }
            (RejectionCode::UnsupportedByConnector, _) => {
                "Change the field that the description names to what the connector supports, or name another connector in the header x-connector, and publish the job again. No payout link was requested."
            }
        }
    }
}
