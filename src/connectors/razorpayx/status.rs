//! The statuses of RazorpayX's payout links, and of the payouts behind them.

use crate::{
    connectors::question::Meaning,
    domain::{LinkStatus, PayoutStatus},
};

/// Returns the meaning of a link's status; `None` for a word that this version does not know. `has_expired`: the link
/// has the time at which it expired.
pub(super) fn status(word: &str, has_expired: bool) -> Option<Meaning> {
    Some(match word {
        "pending" => (LinkStatus::Unclaimed, PayoutStatus::RequiresConfirmation),
        // Also after a payout that failed: the recipient tries again.
        "issued" => (LinkStatus::Unclaimed, PayoutStatus::RequiresFulfillment),
        "processing" | "queued" => (LinkStatus::Processing, PayoutStatus::Pending),
        "processed" => (LinkStatus::Succeeded, PayoutStatus::Success),
        // One word for both.
        "cancelled" if has_expired => (LinkStatus::Expired, PayoutStatus::Expired),
        "cancelled" => (LinkStatus::Cancelled, PayoutStatus::Cancelled),
        "expired" => (LinkStatus::Expired, PayoutStatus::Expired),
        "rejected" => (LinkStatus::PayoutFailed, PayoutStatus::Failed),
        _ => return None,
    })
}

/// Returns the meaning for a processed link of the status of its payout; `None` for a word that this version does not
/// know.
///
/// The link stays `processed`: only the payout shows that the money came back.
pub(super) fn status_of_payout(word: &str) -> Option<Meaning> {
    Some(match word {
        "processed" => (LinkStatus::Succeeded, PayoutStatus::Success),
        "reversed" => (LinkStatus::Reversed, PayoutStatus::Reversed),
        "scheduled" | "on_hold" | "pending" | "queued" | "processing" => {
            (LinkStatus::Processing, PayoutStatus::Pending)
        }
        "failed" | "rejected" | "cancelled" => (LinkStatus::PayoutFailed, PayoutStatus::Failed),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_has_its_status() {
        for (word, has_expired, link, payout) in [
            ("pending", false, LinkStatus::Unclaimed, PayoutStatus::RequiresConfirmation),
            ("issued", false, LinkStatus::Unclaimed, PayoutStatus::RequiresFulfillment),
            ("processing", false, LinkStatus::Processing, PayoutStatus::Pending),
            ("queued", false, LinkStatus::Processing, PayoutStatus::Pending),
            ("processed", false, LinkStatus::Succeeded, PayoutStatus::Success),
            ("cancelled", false, LinkStatus::Cancelled, PayoutStatus::Cancelled),
            ("cancelled", true, LinkStatus::Expired, PayoutStatus::Expired),
            ("expired", true, LinkStatus::Expired, PayoutStatus::Expired),
            ("rejected", false, LinkStatus::PayoutFailed, PayoutStatus::Failed),
        ] {
            assert_eq!(status(word, has_expired), Some((link, payout)), "{word}");
        }
        assert_eq!(status("frozen", true), None);
    }

    #[test]
    fn every_word_of_a_payout_has_its_status() {
        for (word, link, payout) in [
            ("scheduled", LinkStatus::Processing, PayoutStatus::Pending),
            ("on_hold", LinkStatus::Processing, PayoutStatus::Pending),
            ("pending", LinkStatus::Processing, PayoutStatus::Pending),
            ("queued", LinkStatus::Processing, PayoutStatus::Pending),
            ("processing", LinkStatus::Processing, PayoutStatus::Pending),
            ("processed", LinkStatus::Succeeded, PayoutStatus::Success),
            ("reversed", LinkStatus::Reversed, PayoutStatus::Reversed),
            ("failed", LinkStatus::PayoutFailed, PayoutStatus::Failed),
            ("rejected", LinkStatus::PayoutFailed, PayoutStatus::Failed),
            ("cancelled", LinkStatus::PayoutFailed, PayoutStatus::Failed),
        ] {
            assert_eq!(status_of_payout(word), Some((link, payout)), "{word}");
        }
        assert_eq!(status_of_payout("frozen"), None);
    }
}
