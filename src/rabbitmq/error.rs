//! The errors of the broker: which of them waiting resolves.

use lapin::{
    ErrorKind,
    protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError},
};

use super::tls;

/// An error of the broker or of its connection.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BrokerError {
    /// The broker is away, is restarting, or closed the connection. Waiting resolves it.
    #[error("{0}")]
    Lost(String),
    /// Credentials, vhost or permissions are wrong. Waiting does not resolve it.
    #[error("RabbitMQ denied access: {0}")]
    AccessDenied(String),
    /// One side does not accept the other's certificate. Waiting does not resolve it.
    #[error("TLS with RabbitMQ failed: {0}")]
    Untrusted(String),
    /// A queue or exchange exists with other arguments. The worker never deletes or redeclares it.
    #[error(
        "{what} already exists with other arguments: {said}. Configure another name or the existing arguments, or delete it by hand when it is empty"
    )]
    Mismatch {
        /// The queue or exchange.
        what: String,
        /// The argument, in the broker's words.
        said: String,
    },
}

impl BrokerError {
    /// Returns whether waiting may resolve the error.
    pub(super) fn passes(&self) -> bool {
        matches!(self, Self::Lost(_))
    }

    /// Adds the broker's address.
    pub(super) fn at(self, address: &str) -> Self {
        match self {
            Self::Lost(reason) => Self::Lost(format!("{address}: {reason}")),
            Self::AccessDenied(reason) => Self::AccessDenied(format!("{address}: {reason}")),
            Self::Untrusted(reason) => Self::Untrusted(format!("{address}: {reason}")),
            mismatch @ Self::Mismatch { .. } => mismatch,
        }
    }
}

impl From<lapin::Error> for BrokerError {
    fn from(error: lapin::Error) -> Self {
        match error.kind() {
            ErrorKind::ProtocolError(error_frame)
                if matches!(
                    error_frame.kind(),
                    AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)
                        | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED)
                ) =>
            {
                Self::AccessDenied(error_frame.get_message().to_string())
            }
            ErrorKind::IOError(cause) if tls::is_refusal(cause) => Self::Untrusted(cause.to_string()),
            // "connection refused" without the number of the error.
            ErrorKind::IOError(cause) if cause.raw_os_error().is_some() => {
                Self::Lost(cause.kind().to_string())
            }
            ErrorKind::IOError(cause) => Self::Lost(cause.to_string()),
            _ => Self::Lost(error.to_string()),
        }
    }
}
