//! The state of a payout link record.

use std::fmt;

use super::EventType;

/// The state of a record, as its row has it. A record begins open and a worker concludes it. Only an
/// operator's act changes a conclusion: it ends an unknown record, opens a failed one again, or corrects one that an operator
/// ended as not created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PayoutLinkState {
    /// The creation of the link is not concluded.
    Open,
    /// The provider created the link.
    Created,
    /// The provider declined, could not be reached before retries ran out, or was not called because of a cancel. No link
    /// was created.
    Failed,
    /// The provider may have created the link, and no look-up can resolve it.
    Unknown,
}

impl PayoutLinkState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Open, Self::Created, Self::Failed, Self::Unknown];

    /// Returns the name in the database, in metrics and for operators.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Created => "created",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }

    /// Parses a name in the database.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Returns the type of the event that announces the state; `None` for an open record.
    pub fn event_type(self) -> Option<EventType> {
        match self {
            Self::Open => None,
            Self::Created => Some(EventType::Created),
            Self::Failed => Some(EventType::Failed),
            Self::Unknown => Some(EventType::Pending),
        }
    }
}

impl fmt::Display for PayoutLinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_read_as_it_is_written() {
        for state in PayoutLinkState::ALL {
            assert_eq!(PayoutLinkState::parse(state.as_str()), Some(state));
        }
        assert_eq!(PayoutLinkState::parse("OPEN"), None);
    }
}
