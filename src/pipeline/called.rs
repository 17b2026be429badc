//! What is kept of a call: a line of the timeline and of the log, without secrets.

use std::time::Duration;

use time::OffsetDateTime;

use crate::{
    connector::Account,
    domain::{Attempt, AttemptKind, ConnectorError, Finding, OpenLink, Outcome},
};

/// A connector may repeat what it was sent, its own account's credentials too: none of it goes on.
pub(super) fn redact(error: &mut ConnectorError, link: &OpenLink, account: &Account) {
    account.redact(error, Some(&link.job));
}

pub(super) fn redact_outcome(outcome: &mut Outcome, link: &OpenLink, account: &Account) {
    match outcome {
        Outcome::Refused(error)
        | Outcome::NotSent(error)
        | Outcome::TryLater { error, .. }
        | Outcome::AlreadyThere(error)
        | Outcome::InDoubt(error) => redact(error, link, account),
        Outcome::Created(_) | Outcome::Underway { .. } => {}
    }
}

pub(super) fn timeline_of_call(
    outcome: &Outcome,
    number: u32,
    started_at: OffsetDateTime,
    took: Duration,
) -> Attempt {
    let (name, status_code, detail) = match outcome {
        Outcome::Created(link) => ("created", link.status_code, link.connector_payout_id.clone()),
        Outcome::Underway { connector_payout_id, status_code } => {
            ("underway", *status_code, connector_payout_id.clone())
        }
        Outcome::Refused(error) => ("refused", error.status_code, error.message.clone()),
        Outcome::NotSent(error) => ("not_sent", error.status_code, error.message.clone()),
        Outcome::TryLater { error, .. } => ("try_later", error.status_code, error.message.clone()),
        Outcome::AlreadyThere(error) => ("already_there", error.status_code, error.message.clone()),
        Outcome::InDoubt(error) => ("in_doubt", error.status_code, error.message.clone()),
    };
    let kind = AttemptKind::Create;
    Attempt { kind, number, started_at, took, status_code, outcome: name, detail: Some(detail) }
}

pub(super) fn timeline_of_look_up(
    finding: &Finding,
    number: u32,
    started_at: OffsetDateTime,
    took: Duration,
) -> Attempt {
    let (name, status_code, detail) = match finding {
        Finding::Found(link) => ("found", link.status_code, Some(link.connector_payout_id.clone())),
        Finding::Underway { connector_payout_id, status_code } => {
            ("underway", *status_code, Some(connector_payout_id.clone()))
        }
        Finding::Ended { error, .. } => ("ended", error.status_code, Some(error.message.clone())),
        Finding::NotThere { status_code } => ("not_there", *status_code, None),
        Finding::Unanswered { error, .. } => ("unanswered", error.status_code, Some(error.message.clone())),
    };
    let kind = AttemptKind::LookUp;
    Attempt { kind, number, started_at, took, status_code, outcome: name, detail }
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
