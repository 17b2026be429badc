//! Explains why a connection could not be opened.

use std::{io, time::Duration};

use sqlx::postgres::PgConnectOptions;

use super::error::StoreError;

/// The remedy for a pooler that cannot be used.
pub(super) const POOLER: &str = "a connection pooler shares sessions, or rejects session settings. Connect to PostgreSQL itself, or to a pooler in session mode (PgBouncer: ignore_startup_parameters = extra_float_digits)";

/// SQLSTATE classes of a pooler's rejections. PostgreSQL itself accepts these statements.
pub(super) const PROTOCOL_VIOLATION: &str = "08P01";

/// Adds host and port to an error of connecting. At the start, an error that waiting does not resolve is a mistake in
/// the configuration.
pub(super) fn not_connected(options: &PgConnectOptions, error: sqlx::Error) -> StoreError {
    let address = address(options);
    if is_untrusted(&error) {
        return StoreError::Unusable(format!("{address}: TLS failed: {error}"));
    }
    if let sqlx::Error::Database(rejection) = &error
        && rejection.code().as_deref() == Some(PROTOCOL_VIOLATION)
    {
        return StoreError::Unusable(format!("{address}: {}: {POOLER}", rejection.message()));
    }
    if let sqlx::Error::Io(cause) = &error {
        return StoreError::Unavailable(format!("{address}: {}", plainly(cause)));
    }
    match StoreError::from(error) {
        StoreError::Unavailable(reason) => StoreError::Unavailable(format!("{address}: {reason}")),
        StoreError::Unusable(reason) => StoreError::Unusable(format!("{address}: {reason}")),
        StoreError::Rejected(reason) => StoreError::Rejected(format!("{address}: {reason}")),
        other => other,
    }
}

/// Describes a server that did not answer in time.
pub(super) fn no_answer(options: &PgConnectOptions, within: Duration) -> StoreError {
    StoreError::Unavailable(format!("{}: no answer within {} s", address(options), within.as_secs()))
}

/// Returns the host and the port, or the socket.
pub(super) fn address(options: &PgConnectOptions) -> String {
    match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None if options.get_host().contains(':') => {
            format!("[{}]:{}", options.get_host(), options.get_port())
        }
        None => format!("{}:{}", options.get_host(), options.get_port()),
    }
}

/// Returns "connection refused" without the number of the error.
fn plainly(error: &io::Error) -> String {
    if error.raw_os_error().is_some() { error.kind().to_string() } else { error.to_string() }
}

/// Tests whether a certificate was rejected, or TLS is missing. At the start that is a mistake in the configuration.
/// Later the certificate may be in the middle of a change, so the worker waits.
fn is_untrusted(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Tls(_) => true,
        sqlx::Error::Io(error) => error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()),
        _ => false,
    }
}
