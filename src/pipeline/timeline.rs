//! Converts the outcome of a call to an attempt in the timeline.

use std::time::Duration;

use time::OffsetDateTime;

use crate::domain::{Attempt, AttemptKind, CreatedLink, Finding, Outcome};

/// Makes the attempt of a `create` call.
pub(super) fn of_call(outcome: &Outcome, number: u32, started_at: OffsetDateTime, took: Duration) -> Attempt {
    let (status_code, detail) = match outcome {
        Outcome::Created(link) => (link.status_code, found(link)),
        Outcome::Underway { connector_payout_id, status_code } => (*status_code, connector_payout_id.clone()),
        Outcome::Declined(error)
        | Outcome::NotSent(error)
        | Outcome::TryLater { error, .. }
        | Outcome::AlreadyExists(error)
        | Outcome::Unknown(error) => (error.status_code, error.message.clone()),
    };
    let (kind, outcome) = (AttemptKind::Create, outcome.of_attempt());
    Attempt { kind, number, started_at, took, status_code, outcome, detail: Some(detail) }
}

/// Makes the attempt of a `look_up` call.
pub(super) fn of_look_up(
    finding: &Finding,
    number: u32,
    started_at: OffsetDateTime,
    took: Duration,
) -> Attempt {
    let (status_code, detail) = match finding {
        Finding::Found(link) => (link.status_code, Some(found(link))),
        Finding::Underway { connector_payout_id, status_code } => {
            (*status_code, Some(connector_payout_id.clone()))
        }
        Finding::Ended { error, .. } | Finding::Unanswered { error, .. } => {
            (error.status_code, Some(error.message.clone()))
        }
        Finding::NotFound { status_code } => (*status_code, None),
    };
    let (kind, outcome) = (AttemptKind::LookUp, finding.of_attempt());
    Attempt { kind, number, started_at, took, status_code, outcome, detail }
}

/// Returns the link's id at the provider, and its status if that is unknown.
fn found(link: &CreatedLink) -> String {
    let id = &link.connector_payout_id;
    link.unknown_status
        .as_ref()
        .map_or_else(|| id.clone(), |status| format!("{id} (its status {status:?} is not known)"))
}

#[cfg(test)]
mod tests {
    use crate::domain::{AttemptOutcome, ConnectorError};

    use super::*;

    #[test]
    fn every_outcome_of_a_call_has_its_name_status_and_detail() {
        let error = || ConnectorError::new(409, Some("E1"), "no", None);
        let underway = Outcome::Underway { connector_payout_id: "plink_1".into(), status_code: 202 };
        for (outcome, name, status_code, detail) in [
            (underway, AttemptOutcome::Underway, 202, "plink_1"),
            (Outcome::Declined(error()), AttemptOutcome::Declined, 409, "no"),
            (Outcome::NotSent(error()), AttemptOutcome::NotSent, 409, "no"),
            (Outcome::TryLater { error: error(), retry_after: None }, AttemptOutcome::TryLater, 409, "no"),
            (Outcome::AlreadyExists(error()), AttemptOutcome::AlreadyExists, 409, "no"),
            (Outcome::Unknown(error()), AttemptOutcome::Unknown, 409, "no"),
        ] {
            let attempt = of_call(&outcome, 1, OffsetDateTime::UNIX_EPOCH, Duration::ZERO);
            assert_eq!((attempt.outcome, attempt.status_code), (name, status_code));
            assert_eq!(attempt.detail.as_deref(), Some(detail));
            assert!(AttemptOutcome::OF_CREATE.contains(&attempt.outcome));
        }
    }

    #[test]
    fn a_look_up_that_finds_nothing_has_no_detail() {
        let nothing = Finding::NotFound { status_code: 404 };
        let attempt = of_look_up(&nothing, 2, OffsetDateTime::UNIX_EPOCH, Duration::ZERO);
        assert_eq!((attempt.outcome, attempt.status_code), (AttemptOutcome::NotFound, 404));
        assert_eq!((attempt.kind, attempt.number, attempt.detail), (AttemptKind::LookUp, 2, None));
        assert!(AttemptOutcome::OF_LOOK_UP.contains(&AttemptOutcome::NotFound));
    }
}
