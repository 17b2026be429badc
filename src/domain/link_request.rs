//! Messages that cancel a link or ask for its status, and how they are answered.

use super::{LinkStatus, MerchantPayoutId, PayoutLinkState, Rejection, RejectionCode};

/// A message about a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkRequest {
    /// The record that the message is about.
    pub merchant_payout_id: MerchantPayoutId,
    /// Whether it cancels the link or asks for its status.
    pub kind: LinkRequestKind,
    /// Why the link is cancelled, for operators.
    pub reason: Option<String>,
    /// Whether the provider is asked before the answer.
    pub refresh: bool,
}

/// The kind of a message about a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkRequestKind {
    /// Cancel the link, if nobody has claimed it.
    Cancel,
    /// Publish the newest event of the record again.
    Status,
}

impl LinkRequestKind {
    /// Returns the name in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Status => "status",
        }
    }

    /// Parses a name in the database.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Cancel, Self::Status].into_iter().find(|kind| kind.as_str() == name)
    }
}

/// The answer to a message about a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkRequestAnswer {
    /// The newest event of the record.
    NewestEvent,
    /// The reason why there is no event.
    Rejected(Rejection),
}

/// Decides the answer to a request that waits no longer. `is_known`: the answer to a question about the status is
/// there, from the provider if that was asked for.
pub fn link_request_answer(
    kind: LinkRequestKind,
    state: PayoutLinkState,
    status: LinkStatus,
    is_known: bool,
) -> LinkRequestAnswer {
    match (kind, state, status) {
        // A failed record that is cancelled was cancelled before its provider was called.
        (
            LinkRequestKind::Cancel,
            PayoutLinkState::Created | PayoutLinkState::Failed,
            LinkStatus::Cancelled,
        ) => LinkRequestAnswer::NewestEvent,
        (LinkRequestKind::Status, _, _) if is_known => LinkRequestAnswer::NewestEvent,
        (LinkRequestKind::Status, _, _)
        | (LinkRequestKind::Cancel, PayoutLinkState::Open, _)
        | (LinkRequestKind::Cancel, PayoutLinkState::Created, LinkStatus::Unclaimed) => {
            LinkRequestAnswer::Rejected(Rejection {
                code: RejectionCode::ConnectorUnavailable,
                message: "The provider could not be asked in time (retry.max_age_seconds), or the worker does not follow the links of this account.".into(),
                field: None,
            })
        }
        (LinkRequestKind::Cancel, PayoutLinkState::Unknown, _) => LinkRequestAnswer::Rejected(Rejection {
            code: RejectionCode::ConnectorUnavailable,
            message: "The outcome of the creation is unknown, and nobody resolved it in time (retry.max_age_seconds).".into(),
            field: None,
        }),
        (LinkRequestKind::Cancel, PayoutLinkState::Created, status) => not_cancellable(status.as_str()),
        (LinkRequestKind::Cancel, PayoutLinkState::Failed, _) => not_cancellable(state.as_str()),
    }
}

fn not_cancellable(status: &str) -> LinkRequestAnswer {
    LinkRequestAnswer::Rejected(Rejection {
        code: RejectionCode::NotCancellable,
        message: format!("The payout link is {status}: it cannot be cancelled."),
        field: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_answered_with_the_newest_event_or_with_the_reason() {
        let code = |kind, state, status, is_known| match link_request_answer(kind, state, status, is_known) {
            LinkRequestAnswer::NewestEvent => "",
            LinkRequestAnswer::Rejected(rejection) => rejection.code.as_str(),
        };
        use LinkRequestKind::{Cancel, Status};
        use PayoutLinkState::{Created, Failed, Open, Unknown};
        for (kind, state, status, is_known, expected) in [
            (Cancel, Created, LinkStatus::Cancelled, false, ""),
            (Cancel, Created, LinkStatus::Unclaimed, false, "CONNECTOR_UNAVAILABLE"),
            (Cancel, Created, LinkStatus::Claimed, false, "NOT_CANCELLABLE"),
            (Cancel, Created, LinkStatus::Succeeded, true, "NOT_CANCELLABLE"),
            (Cancel, Created, LinkStatus::Expired, false, "NOT_CANCELLABLE"),
            (Cancel, Open, LinkStatus::Unclaimed, false, "CONNECTOR_UNAVAILABLE"),
            (Cancel, Failed, LinkStatus::Unclaimed, false, "NOT_CANCELLABLE"),
            (Cancel, Failed, LinkStatus::Cancelled, true, ""),
            (Cancel, Unknown, LinkStatus::Unclaimed, false, "CONNECTOR_UNAVAILABLE"),
            (Status, Created, LinkStatus::Claimed, true, ""),
            (Status, Created, LinkStatus::Claimed, false, "CONNECTOR_UNAVAILABLE"),
            (Status, Failed, LinkStatus::Unclaimed, true, ""),
        ] {
            assert_eq!(code(kind, state, status, is_known), expected, "{kind:?} {state:?} {status:?}");
        }
    }
}
