//! The statuses of Xendit's payouts, in the words of the dialects that its pages have.

use crate::domain::PayoutStatus;

/// Returns the status that a word of Xendit means; `None` for a word that this version does not know. `is_over`: the
/// payout's link has expired.
pub(super) fn status(word: &str, is_over: bool) -> Option<PayoutStatus> {
    Some(match word {
        "PENDING" | "ISSUED" | "ACTIVE" => PayoutStatus::RequiresFulfillment,
        "CLAIMED" | "DISBURSING" => PayoutStatus::Pending,
        "COMPLETED" | "SUCCEEDED" => PayoutStatus::Success,
        "EXPIRED" => PayoutStatus::Expired,
        "REVERSED" => PayoutStatus::Reversed,
        // One word for two things: nobody claimed it in time, or it failed.
        "FAILED" if is_over => PayoutStatus::Expired,
        "FAILED" | "LOCKED" => PayoutStatus::Failed,
        _ if is_voided(word) && is_over => PayoutStatus::Expired,
        _ if is_voided(word) => PayoutStatus::Cancelled,
        _ => return None,
    })
}

/// Returns whether a word means that the payout is voided.
pub(super) fn is_voided(word: &str) -> bool {
    matches!(word, "VOIDED" | "VOID" | "CANCELED" | "CANCELLED")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_has_its_status() {
        for (word, open, over) in [
            ("PENDING", PayoutStatus::RequiresFulfillment, PayoutStatus::RequiresFulfillment),
            ("ISSUED", PayoutStatus::RequiresFulfillment, PayoutStatus::RequiresFulfillment),
            ("ACTIVE", PayoutStatus::RequiresFulfillment, PayoutStatus::RequiresFulfillment),
            ("CLAIMED", PayoutStatus::Pending, PayoutStatus::Pending),
            ("DISBURSING", PayoutStatus::Pending, PayoutStatus::Pending),
            ("COMPLETED", PayoutStatus::Success, PayoutStatus::Success),
            ("SUCCEEDED", PayoutStatus::Success, PayoutStatus::Success),
            ("EXPIRED", PayoutStatus::Expired, PayoutStatus::Expired),
            ("REVERSED", PayoutStatus::Reversed, PayoutStatus::Reversed),
            ("FAILED", PayoutStatus::Failed, PayoutStatus::Expired),
            ("LOCKED", PayoutStatus::Failed, PayoutStatus::Failed),
            ("VOIDED", PayoutStatus::Cancelled, PayoutStatus::Expired),
            ("CANCELLED", PayoutStatus::Cancelled, PayoutStatus::Expired),
        ] {
            assert_eq!((status(word, false), status(word, true)), (Some(open), Some(over)), "{word}");
        }
        assert_eq!(status("FROZEN", true), None);
    }
}
