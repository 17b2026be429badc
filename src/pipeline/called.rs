//! Takes the secrets out of what a call came to, and writes its line of the log.

use crate::{
    connectors::Account,
    domain::{Attempt, ConnectorError, CreatedLink, OpenLink, Outcome},
};

/// A connector may repeat what it was sent, its own account's credentials too: none of it goes on.
pub(super) fn redact(error: &mut ConnectorError, link: &OpenLink, account: &Account) {
    account.redact(error, Some(&link.job));
}

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

/// A word that nobody knows may be anything.
pub(super) fn redact_status(created: &mut CreatedLink, link: &OpenLink, account: &Account) {
    if let Some(status) = &created.unknown_status {
        created.unknown_status = Some(account.redact_status(status, &link.job));
    }
}

/// One line a call. A credential of the deployment that a connector refuses is somebody's to mend, now.
pub(super) fn tell_log(attempt: &Attempt, our_credential_refused: bool) {
    let (kind, outcome, status) = (attempt.kind.as_str(), attempt.outcome, attempt.status_code);
    let took_ms = u64::try_from(attempt.took.as_millis()).unwrap_or(u64::MAX);
    if our_credential_refused {
        tracing::error!(
            kind,
            outcome,
            http.status = status,
            took_ms,
            "the connector refuses the configured credential or address"
        );
    } else if matches!(outcome, "created" | "found") {
        tracing::debug!(kind, outcome, http.status = status, took_ms, "connector called");
    } else {
        let reason = attempt.detail.as_deref().unwrap_or_default();
        tracing::info!(kind, outcome, http.status = status, took_ms, reason, "connector called");
    }
}
