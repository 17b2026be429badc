//! The states of Revolut's payout links, and of the transactions behind them.

use crate::{
    connectors::question::Meaning,
    domain::{LinkStatus, PayoutStatus},
};

/// Returns the meaning of a link's state; `None` for a state that this version does not know.
pub(super) fn status(state: &str) -> Option<Meaning> {
    Some(match state {
        // The amount is not blocked yet.
        "created" => (LinkStatus::Unclaimed, PayoutStatus::Initiated),
        // Somebody has to approve it in the app.
        "awaiting" => (LinkStatus::Unclaimed, PayoutStatus::RequiresConfirmation),
        "active" => (LinkStatus::Unclaimed, PayoutStatus::RequiresFulfillment),
        "processing" => (LinkStatus::Processing, PayoutStatus::Pending),
        "processed" => (LinkStatus::Succeeded, PayoutStatus::Success),
        "expired" => (LinkStatus::Expired, PayoutStatus::Expired),
        "cancelled" => (LinkStatus::Cancelled, PayoutStatus::Cancelled),
        "failed" => (LinkStatus::PayoutFailed, PayoutStatus::Failed),
        _ => return None,
    })
}

/// Returns the status of a payout at its creation.
///
/// Every known state of a link that is not over counts as one to be claimed. Only an `active` link has a URL: before it
/// the link is not ready; after it the link was claimed, which is no failure.
pub(super) fn status_at_creation(state: &str) -> Option<PayoutStatus> {
    let (_, payout_status) = status(state)?;
    Some(if payout_status.has_no_link() { payout_status } else { PayoutStatus::RequiresFulfillment })
}

/// Returns the meaning for a processed link of the state of its transaction; `None` for a state that this version does
/// not know.
///
/// No state of the link says that the money came back.
pub(super) fn status_of_transaction(state: &str) -> Option<Meaning> {
    Some(match state {
        "created" | "pending" => (LinkStatus::Processing, PayoutStatus::Pending),
        "completed" => (LinkStatus::Succeeded, PayoutStatus::Success),
        "reverted" => (LinkStatus::Reversed, PayoutStatus::Reversed),
        "declined" | "failed" => (LinkStatus::PayoutFailed, PayoutStatus::Failed),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_its_status() {
        use PayoutStatus::RequiresFulfillment;
        for (state, link, payout, at_creation) in [
            ("created", LinkStatus::Unclaimed, PayoutStatus::Initiated, RequiresFulfillment),
            ("awaiting", LinkStatus::Unclaimed, PayoutStatus::RequiresConfirmation, RequiresFulfillment),
            ("active", LinkStatus::Unclaimed, RequiresFulfillment, RequiresFulfillment),
            ("processing", LinkStatus::Processing, PayoutStatus::Pending, RequiresFulfillment),
            ("processed", LinkStatus::Succeeded, PayoutStatus::Success, RequiresFulfillment),
            ("expired", LinkStatus::Expired, PayoutStatus::Expired, PayoutStatus::Expired),
            ("cancelled", LinkStatus::Cancelled, PayoutStatus::Cancelled, PayoutStatus::Cancelled),
            ("failed", LinkStatus::PayoutFailed, PayoutStatus::Failed, PayoutStatus::Failed),
        ] {
            assert_eq!(status(state), Some((link, payout)), "{state}");
            assert_eq!(status_at_creation(state), Some(at_creation), "{state}");
        }
        assert_eq!((status("frozen"), status_at_creation("frozen")), (None, None));
    }

    #[test]
    fn every_state_of_a_transaction_has_its_status() {
        for (state, link, payout) in [
            ("created", LinkStatus::Processing, PayoutStatus::Pending),
            ("pending", LinkStatus::Processing, PayoutStatus::Pending),
            ("completed", LinkStatus::Succeeded, PayoutStatus::Success),
            ("reverted", LinkStatus::Reversed, PayoutStatus::Reversed),
            ("declined", LinkStatus::PayoutFailed, PayoutStatus::Failed),
            ("failed", LinkStatus::PayoutFailed, PayoutStatus::Failed),
        ] {
            assert_eq!(status_of_transaction(state), Some((link, payout)), "{state}");
        }
        assert_eq!(status_of_transaction("frozen"), None);
    }
}
