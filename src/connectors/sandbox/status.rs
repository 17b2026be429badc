//! The statuses of the sandbox's links.

use crate::domain::PayoutStatus;

/// Returns the status that a word of the sandbox means; `None` for a word that this version does not know.
pub(super) fn status(word: &str) -> Option<PayoutStatus> {
    Some(match word {
        "issued" => PayoutStatus::RequiresFulfillment,
        "claimed" => PayoutStatus::Pending,
        "cancelled" => PayoutStatus::Cancelled,
        "expired" => PayoutStatus::Expired,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_has_its_status() {
        for (word, expected) in [
            ("issued", Some(PayoutStatus::RequiresFulfillment)),
            ("claimed", Some(PayoutStatus::Pending)),
            ("cancelled", Some(PayoutStatus::Cancelled)),
            ("expired", Some(PayoutStatus::Expired)),
            ("frozen", None),
        ] {
            assert_eq!(status(word), expected, "{word}");
        }
    }
}
