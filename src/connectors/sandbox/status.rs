//! The statuses of the sandbox's links.

use crate::{
    connectors::question::Meaning,
    domain::{LinkStatus, PayoutStatus},
};

/// Returns the meaning of a word of the sandbox; `None` for a word that this version does not know.
pub(super) fn status(word: &str) -> Option<Meaning> {
    Some(match word {
        "issued" => (LinkStatus::Unclaimed, PayoutStatus::RequiresFulfillment),
        "claimed" => (LinkStatus::Claimed, PayoutStatus::Pending),
        "processing" => (LinkStatus::Processing, PayoutStatus::Pending),
        "paid" => (LinkStatus::Succeeded, PayoutStatus::Success),
        "failed" => (LinkStatus::PayoutFailed, PayoutStatus::Failed),
        "cancelled" => (LinkStatus::Cancelled, PayoutStatus::Cancelled),
        "expired" => (LinkStatus::Expired, PayoutStatus::Expired),
        "reversed" => (LinkStatus::Reversed, PayoutStatus::Reversed),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_has_its_status() {
        for (word, link, payout) in [
            ("issued", LinkStatus::Unclaimed, PayoutStatus::RequiresFulfillment),
            ("claimed", LinkStatus::Claimed, PayoutStatus::Pending),
            ("processing", LinkStatus::Processing, PayoutStatus::Pending),
            ("paid", LinkStatus::Succeeded, PayoutStatus::Success),
            ("failed", LinkStatus::PayoutFailed, PayoutStatus::Failed),
            ("cancelled", LinkStatus::Cancelled, PayoutStatus::Cancelled),
            ("expired", LinkStatus::Expired, PayoutStatus::Expired),
            ("reversed", LinkStatus::Reversed, PayoutStatus::Reversed),
        ] {
            assert_eq!(status(word), Some((link, payout)), "{word}");
        }
        assert_eq!(status("frozen"), None);
    }
}
