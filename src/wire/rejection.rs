//! Why a job is refused: a code, the path of the field, one sentence. Never a secret's value.

/// A job that was refused; its connector is never called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub code: RejectionCode,
    /// One sentence for a developer.
    pub message: String,
    /// `amount.minor_amount`, where there is one.
    pub field: Option<String>,
}

/// `unified_details.code` (contract, section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectionCode {
    InvalidJob,
    MissingIdentifier,
    IdempotencyConflict,
    UnknownConnector,
    UnsupportedByConnector,
}

impl RejectionCode {
    pub const ALL: [Self; 5] = [
        Self::InvalidJob,
        Self::MissingIdentifier,
        Self::IdempotencyConflict,
        Self::UnknownConnector,
        Self::UnsupportedByConnector,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJob => "INVALID_JOB",
            Self::MissingIdentifier => "MISSING_IDENTIFIER",
            Self::IdempotencyConflict => "IDEMPOTENCY_CONFLICT",
            Self::UnknownConnector => "UNKNOWN_CONNECTOR",
            Self::UnsupportedByConnector => "UNSUPPORTED_BY_CONNECTOR",
        }
    }
}

impl Rejection {
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        let field = Some(field.into()).filter(|field| !field.is_empty());
        Self { code: RejectionCode::InvalidJob, message: message.into(), field }
    }
}
