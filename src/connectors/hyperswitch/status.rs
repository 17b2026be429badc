//! The statuses of Hyperswitch's payouts: the contract's, in lower case.

use crate::{
    connectors::question::Meaning,
    domain::{LinkStatus, PayoutStatus},
};

/// Returns the meaning of a word of Hyperswitch; `None` for a word that this version does not know.
pub(super) fn status(word: &str) -> Option<Meaning> {
    let payout_status = PayoutStatus::new(&word.to_uppercase())?;
    let link_status = match payout_status {
        PayoutStatus::RequiresPayoutMethodData => LinkStatus::Unclaimed,
        // The recipient submitted their details, and the payout is set up or waits for its release.
        PayoutStatus::RequiresCreation
        | PayoutStatus::RequiresConfirmation
        | PayoutStatus::RequiresVendorAccountCreation
        | PayoutStatus::RequiresFulfillment => LinkStatus::Claimed,
        PayoutStatus::Initiated | PayoutStatus::Pending => LinkStatus::Processing,
        PayoutStatus::Success => LinkStatus::Succeeded,
        // Each of them is final: the page refuses another claim.
        PayoutStatus::Failed | PayoutStatus::Ineligible | PayoutStatus::NotPermitted => {
            LinkStatus::PayoutFailed
        }
        PayoutStatus::Cancelled => LinkStatus::Cancelled,
        PayoutStatus::Expired => LinkStatus::Expired,
        PayoutStatus::Reversed => LinkStatus::Reversed,
    };
    Some((link_status, payout_status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_has_its_status() {
        for (word, link, payout) in [
            ("requires_payout_method_data", LinkStatus::Unclaimed, PayoutStatus::RequiresPayoutMethodData),
            ("requires_creation", LinkStatus::Claimed, PayoutStatus::RequiresCreation),
            ("requires_confirmation", LinkStatus::Claimed, PayoutStatus::RequiresConfirmation),
            (
                "requires_vendor_account_creation",
                LinkStatus::Claimed,
                PayoutStatus::RequiresVendorAccountCreation,
            ),
            ("requires_fulfillment", LinkStatus::Claimed, PayoutStatus::RequiresFulfillment),
            ("initiated", LinkStatus::Processing, PayoutStatus::Initiated),
            ("pending", LinkStatus::Processing, PayoutStatus::Pending),
            ("success", LinkStatus::Succeeded, PayoutStatus::Success),
            ("failed", LinkStatus::PayoutFailed, PayoutStatus::Failed),
            ("ineligible", LinkStatus::PayoutFailed, PayoutStatus::Ineligible),
            ("not_permitted", LinkStatus::PayoutFailed, PayoutStatus::NotPermitted),
            ("cancelled", LinkStatus::Cancelled, PayoutStatus::Cancelled),
            ("expired", LinkStatus::Expired, PayoutStatus::Expired),
            ("reversed", LinkStatus::Reversed, PayoutStatus::Reversed),
        ] {
            assert_eq!(status(word), Some((link, payout)), "{word}");
        }
        assert_eq!(status("frozen"), None);
    }
}
