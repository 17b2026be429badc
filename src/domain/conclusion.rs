//! The conclusion of a record: how the creation of its link ended.

use super::{ConnectorError, CreatedLink, EventType, PayoutLinkState, PayoutStatus};

/// The conclusion of a record.
#[derive(Debug, Clone)]
pub enum Conclusion {
    /// The provider created the link.
    Created(CreatedLink),
    /// The provider declined.
    Declined { error: ConnectorError, payout_status: PayoutStatus },
    /// Nothing was created and retries ran out.
    Unavailable(ConnectorError),
    /// The provider may have created a link, and no look-up can resolve it.
    Unknown(ConnectorError),
}

/// `unified_details.code` of a conclusion without a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConclusionCode {
    ConnectorRejected,
    ConnectorUnavailable,
    OutcomeUnknown,
}

impl Conclusion {
    /// Returns the state that the record comes to.
    pub fn state(&self) -> PayoutLinkState {
        match self {
            Self::Created(_) => PayoutLinkState::Created,
            Self::Declined { .. } | Self::Unavailable(_) => PayoutLinkState::Failed,
            Self::Unknown(_) => PayoutLinkState::Unknown,
        }
    }

    /// Returns the type of the event that announces it.
    pub fn event_type(&self) -> EventType {
        match self {
            Self::Created(_) => EventType::Created,
            Self::Declined { .. } | Self::Unavailable(_) => EventType::Failed,
            Self::Unknown(_) => EventType::Pending,
        }
    }

    /// Returns the status of the payout.
    pub fn payout_status(&self) -> PayoutStatus {
        match self {
            Self::Created(link) => link.payout_status,
            Self::Declined { payout_status, .. } => *payout_status,
            Self::Unavailable(_) => PayoutStatus::Failed,
            Self::Unknown(_) => PayoutStatus::Pending,
        }
    }

    /// Returns the link, if there is one.
    pub fn link(&self) -> Option<&CreatedLink> {
        match self {
            Self::Created(link) => Some(link),
            Self::Declined { .. } | Self::Unavailable(_) | Self::Unknown(_) => None,
        }
    }

    /// Returns the code and the provider's error, if there is no link.
    pub fn error(&self) -> Option<(ConclusionCode, &ConnectorError)> {
        match self {
            Self::Created(_) => None,
            Self::Declined { error, .. } => Some((ConclusionCode::ConnectorRejected, error)),
            Self::Unavailable(error) => Some((ConclusionCode::ConnectorUnavailable, error)),
            Self::Unknown(error) => Some((ConclusionCode::OutcomeUnknown, error)),
        }
    }
}

impl ConclusionCode {
    /// Every code.
    pub const ALL: [Self; 3] = [Self::ConnectorRejected, Self::ConnectorUnavailable, Self::OutcomeUnknown];

    /// Returns the code as it is written on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConnectorRejected => "CONNECTOR_REJECTED",
            Self::ConnectorUnavailable => "CONNECTOR_UNAVAILABLE",
            Self::OutcomeUnknown => "OUTCOME_UNKNOWN",
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
        ] {
            assert_eq!(conclusion.state().event_type(), Some(conclusion.event_type()), "{conclusion:?}");
        }
    }
}
