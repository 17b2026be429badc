//! The statuses of RazorpayX's payout links.

use crate::domain::PayoutStatus;

/// Returns the status that a word of RazorpayX means; `None` for a word that this version does not know. `has_expired`:
/// the link has the time at which it expired.
pub(super) fn status(word: &str, has_expired: bool) -> Option<PayoutStatus> {
    Some(match word {
        "pending" => PayoutStatus::RequiresConfirmation,
        // Also after a payout that failed: the recipient tries again.
        "issued" => PayoutStatus::RequiresFulfillment,
        "processing" | "queued" => PayoutStatus::Pending,
        "processed" => PayoutStatus::Success,
        // One word for both.
        "cancelled" if has_expired => PayoutStatus::Expired,
        "cancelled" => PayoutStatus::Cancelled,
        "expired" => PayoutStatus::Expired,
        "rejected" => PayoutStatus::Failed,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_has_its_status() {
        for (word, has_expired, expected) in [
            ("pending", false, Some(PayoutStatus::RequiresConfirmation)),
            ("issued", false, Some(PayoutStatus::RequiresFulfillment)),
            ("processing", false, Some(PayoutStatus::Pending)),
            ("queued", false, Some(PayoutStatus::Pending)),
            ("processed", false, Some(PayoutStatus::Success)),
            ("cancelled", false, Some(PayoutStatus::Cancelled)),
            ("cancelled", true, Some(PayoutStatus::Expired)),
            ("expired", true, Some(PayoutStatus::Expired)),
            ("rejected", false, Some(PayoutStatus::Failed)),
            ("frozen", true, None),
        ] {
            assert_eq!(status(word, has_expired), expected, "{word}");
        }
    }
}
