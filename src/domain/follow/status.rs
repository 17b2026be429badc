//! The status of a created link, and the changes that are announced.

use std::fmt;

use crate::domain::{EventType, PayoutStatus};

/// The status of a created link, as its merchant was informed last. Each provider's own words map to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkStatus {
    /// The link can be claimed.
    Unclaimed,
    /// The recipient submitted their details.
    Claimed,
    /// The money is on its way.
    Processing,
    /// The recipient was paid.
    Succeeded,
    /// The link was claimed, and the payout failed for good.
    PayoutFailed,
    /// The link was not claimed in time.
    Expired,
    /// The link was taken back.
    Cancelled,
    /// The recipient was paid, and the money came back.
    Reversed,
}

/// The changes that are announced. Every other change is stale, or a mistake, and is asked about again.
///
/// Source: contract, section 7. `docs/reference/states.md` has the diagram.
pub const TRANSITIONS: &[(LinkStatus, &[LinkStatus])] = {
    use LinkStatus::{Cancelled, Claimed, Expired, PayoutFailed, Processing, Reversed, Succeeded, Unclaimed};
    &[
        (Unclaimed, &[Claimed, Processing, Succeeded, PayoutFailed, Expired, Cancelled, Reversed]),
        (Claimed, &[Unclaimed, Processing, Succeeded, PayoutFailed, Expired, Cancelled, Reversed]),
        (Processing, &[Unclaimed, Succeeded, PayoutFailed, Expired, Cancelled, Reversed]),
        (Succeeded, &[Reversed]),
        // A provider may accept a claim that was submitted before the end.
        (Cancelled, &[Succeeded]),
        (Expired, &[Succeeded]),
        (PayoutFailed, &[]),
        (Reversed, &[]),
    ]
};

impl LinkStatus {
    /// Every status.
    pub const ALL: [Self; 8] = [
        Self::Unclaimed,
        Self::Claimed,
        Self::Processing,
        Self::Succeeded,
        Self::PayoutFailed,
        Self::Expired,
        Self::Cancelled,
        Self::Reversed,
    ];

    /// Returns the name in the database, in metrics and for operators.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unclaimed => "unclaimed",
            Self::Claimed => "claimed",
            Self::Processing => "processing",
            Self::Succeeded => "succeeded",
            Self::PayoutFailed => "payout_failed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Reversed => "reversed",
        }
    }

    /// Parses a name in the database.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// Returns the type of the event that announces a change to the status.
    pub fn event_type(self) -> EventType {
        match self {
            Self::Unclaimed => EventType::Reopened,
            Self::Claimed => EventType::Claimed,
            Self::Processing => EventType::Processing,
            Self::Succeeded => EventType::Succeeded,
            Self::PayoutFailed => EventType::PayoutFailed,
            Self::Expired => EventType::Expired,
            Self::Cancelled => EventType::Cancelled,
            Self::Reversed => EventType::Reversed,
        }
    }

    /// Returns the status of the payout that the event states. `reported`: the provider's.
    pub fn payout_status(self, reported: PayoutStatus) -> PayoutStatus {
        use PayoutStatus::{Failed, Ineligible, NotPermitted, Pending};
        match self {
            Self::Unclaimed => PayoutStatus::RequiresFulfillment,
            Self::Claimed if reported.is_over() => Pending,
            Self::Claimed => reported,
            Self::Processing => Pending,
            Self::Succeeded => PayoutStatus::Success,
            Self::PayoutFailed if matches!(reported, Ineligible | NotPermitted) => reported,
            Self::PayoutFailed => Failed,
            Self::Expired => PayoutStatus::Expired,
            Self::Cancelled => PayoutStatus::Cancelled,
            Self::Reversed => PayoutStatus::Reversed,
        }
    }

    /// Returns whether a change to `next` is announced.
    pub fn may_become(self, next: Self) -> bool {
        let of_this = TRANSITIONS.iter().find(|(from, _)| *from == self);
        of_this.is_some_and(|(_, to)| to.contains(&next))
    }

    /// Returns whether the provider need not be asked again. A payout that succeeded may still be reversed.
    pub fn is_final(self) -> bool {
        matches!(self, Self::PayoutFailed | Self::Expired | Self::Cancelled | Self::Reversed)
    }

    /// Returns whether a recipient has claimed the link and its payout is not over.
    pub fn is_under_way(self) -> bool {
        matches!(self, Self::Claimed | Self::Processing)
    }
}

impl fmt::Display for LinkStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_read_as_it_is_written() {
        for status in LinkStatus::ALL {
            assert_eq!(LinkStatus::parse(status.as_str()), Some(status));
            assert_eq!(TRANSITIONS.iter().filter(|(from, _)| *from == status).count(), 1);
        }
        assert_eq!(LinkStatus::parse("CLAIMED"), None);
    }

    #[test]
    fn final_statuses_change_only_as_the_contract_says() {
        for from in LinkStatus::ALL {
            for to in LinkStatus::ALL {
                let late = matches!(from, LinkStatus::Cancelled | LinkStatus::Expired);
                let expected = late && to == LinkStatus::Succeeded;
                if from.is_final() {
                    assert_eq!(from.may_become(to), expected, "{from} to {to}");
                }
                assert!(!from.may_become(from), "{from}");
            }
        }
        assert!(LinkStatus::Succeeded.may_become(LinkStatus::Reversed));
        assert!(!LinkStatus::Succeeded.may_become(LinkStatus::PayoutFailed));
    }

    #[test]
    fn an_event_states_the_payout_status_that_it_stands_for() {
        use PayoutStatus::{Expired, Failed, Ineligible, Pending, RequiresFulfillment, Success};
        for (status, reported, expected) in [
            (LinkStatus::Unclaimed, Pending, RequiresFulfillment),
            (LinkStatus::Claimed, RequiresFulfillment, RequiresFulfillment),
            // The claim was passed unseen.
            (LinkStatus::Claimed, Success, Pending),
            (LinkStatus::Processing, Success, Pending),
            (LinkStatus::Succeeded, Success, Success),
            (LinkStatus::PayoutFailed, Ineligible, Ineligible),
            (LinkStatus::PayoutFailed, Pending, Failed),
            (LinkStatus::Expired, PayoutStatus::Cancelled, Expired),
        ] {
            assert_eq!(status.payout_status(reported), expected, "{status} {}", reported.as_str());
        }
    }
}
