//! The conclusion of a record: how the creation of its link ended.

use super::{ConnectorError, CreatedLink, EventType, PayoutLinkState, PayoutStatus};

/// The conclusion of a record.
#[derive(Debug, Clone)]
pub enum Conclusion {
    /// The provider created the link.
    Created(CreatedLink),
    /// The provider declined.
    Declined {
        /// The provider's reason.
        error: ConnectorError,
        /// The final status of the payout.
        payout_status: PayoutStatus,
    },
    /// Nothing was created and retries ran out.
    Unavailable(ConnectorError),
    /// The provider may have created a link, and no look-up can resolve it.
    Unknown(ConnectorError),
    /// An operator found that the provider created nothing.
    NotCreated,
    /// It was cancelled before the provider was called.
    Cancelled,
}

/// `unified_details.code` of a conclusion without a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConclusionCode {
    /// The provider declined the payout.
    ConnectorRejected,
    /// Nothing was created, and retries ran out.
    ConnectorUnavailable,
    /// A call may have created a link, and no replay rule tells.
    OutcomeUnknown,
    /// An operator resolved the record as not created.
    NotCreated,
}

impl Conclusion {
    /// Returns the state that the record comes to.
    pub fn state(&self) -> PayoutLinkState {
        match self {
            Self::Created(_) => PayoutLinkState::Created,
            Self::Declined { .. } | Self::Unavailable(_) | Self::NotCreated | Self::Cancelled => {
                PayoutLinkState::Failed
            }
            Self::Unknown(_) => PayoutLinkState::Unknown,
        }
    }

    /// Returns the type of the event that announces it.
    pub fn event_type(&self) -> EventType {
        match self {
            Self::Created(_) => EventType::Created,
            Self::Declined { .. } | Self::Unavailable(_) | Self::NotCreated => EventType::Failed,
            Self::Unknown(_) => EventType::Pending,
            Self::Cancelled => EventType::Cancelled,
        }
    }

    /// Returns the status of the payout.
    pub fn payout_status(&self) -> PayoutStatus {
        match self {
            Self::Created(link) => link.payout_status,
            Self::Declined { payout_status, .. } => *payout_status,
            Self::Unavailable(_) | Self::NotCreated => PayoutStatus::Failed,
            Self::Unknown(_) => PayoutStatus::Pending,
            Self::Cancelled => PayoutStatus::Cancelled,
        }
    }

    /// Returns the link, if there is one.
    pub fn link(&self) -> Option<&CreatedLink> {
        match self {
            Self::Created(link) => Some(link),
            Self::Declined { .. }
            | Self::Unavailable(_)
            | Self::Unknown(_)
            | Self::NotCreated
            | Self::Cancelled => None,
        }
    }

    /// Returns the code and the provider's error, if the creation failed. An operator's finding has no error of the
    /// provider.
    pub fn error(&self) -> Option<(ConclusionCode, Option<&ConnectorError>)> {
        match self {
            Self::Created(_) | Self::Cancelled => None,
            Self::Declined { error, .. } => Some((ConclusionCode::ConnectorRejected, Some(error))),
            Self::Unavailable(error) => Some((ConclusionCode::ConnectorUnavailable, Some(error))),
            Self::Unknown(error) => Some((ConclusionCode::OutcomeUnknown, Some(error))),
            Self::NotCreated => Some((ConclusionCode::NotCreated, None)),
        }
    }
}

impl ConclusionCode {
    /// Every code.
    pub const ALL: [Self; 4] =
        [Self::ConnectorRejected, Self::ConnectorUnavailable, Self::OutcomeUnknown, Self::NotCreated];

    /// Returns the code as it is written on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConnectorRejected => "CONNECTOR_REJECTED",
            Self::ConnectorUnavailable => "CONNECTOR_UNAVAILABLE",
            Self::OutcomeUnknown => "OUTCOME_UNKNOWN",
            Self::NotCreated => "NOT_CREATED",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conclusion_has_the_event_of_its_state() {
        let error = ConnectorError::unanswered("timed out");
        for conclusion in [
            Conclusion::Declined { error: error.clone(), payout_status: PayoutStatus::Expired },
            Conclusion::Unavailable(error.clone()),
            Conclusion::Unknown(error),
            Conclusion::NotCreated,
        ] {
            assert_eq!(conclusion.state().event_type(), Some(conclusion.event_type()), "{conclusion:?}");
        }
    }
}
