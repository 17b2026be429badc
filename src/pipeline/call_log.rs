//! Redacts the outcome of a call, and logs it.

use crate::{
    connectors::Account,
    domain::{Attempt, ConnectorError, CreatedLink, OpenLink, Outcome},
};

/// Redacts an error: a provider may echo the request, its credentials included.
pub(super) fn redact(error: &mut ConnectorError, link: &OpenLink, account: &Account) {
    account.redact(error, Some(&link.job));
}

/// Redacts an outcome.
pub(super) fn redact_outcome(outcome: &mut Outcome, link: &OpenLink, account: &Account) {
    match outcome {
        Outcome::Declined(error)
        | Outcome::NotSent(error)
        | Outcome::TryLater { error, .. }
        | Outcome::AlreadyExists(error)
        | Outcome::Unknown(error) => redact(error, link, account),
        Outcome::Created(created) => redact_status(created, link, account),
        Outcome::Underway { .. } => {}
    }
}

/// Redacts an unknown status, because it may hold any text.
pub(super) fn redact_status(created: &mut CreatedLink, link: &OpenLink, account: &Account) {
    if let Some(status) = &created.unknown_status {
        created.unknown_status = Some(account.redact_status(status, &link.job));
    }
}

/// Logs one line for an attempt. A rejected credential of the deployment is an error, because an operator has to
/// correct it.
pub(super) fn log_attempt(attempt: &Attempt, credential_rejected: bool) {
    let (kind, outcome, status) = (attempt.kind.as_str(), attempt.outcome.as_str(), attempt.status_code);
    let took_ms = u64::try_from(attempt.took.as_millis()).unwrap_or(u64::MAX);
    if credential_rejected {
        tracing::error!(
            kind,
            outcome,
            http.status = status,
            took_ms,
            "provider rejected the configured credential or address"
        );
    } else if attempt.outcome.has_link() {
        tracing::debug!(kind, outcome, http.status = status, took_ms, "connector called");
    } else {
        let reason = attempt.detail.as_deref().unwrap_or_default();
        tracing::info!(kind, outcome, http.status = status, took_ms, reason, "connector called");
    }
}
