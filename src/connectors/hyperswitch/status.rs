//! The statuses of Hyperswitch's payouts: the contract's, in lower case.

use crate::domain::PayoutStatus;

/// Returns the status that a word of Hyperswitch means; `None` for a word that this version does not know.
pub(super) fn status(word: &str) -> Option<PayoutStatus> {
    PayoutStatus::new(&word.to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_has_its_status() {
        for (word, expected) in [
            ("requires_fulfillment", Some(PayoutStatus::RequiresFulfillment)),
            ("success", Some(PayoutStatus::Success)),
            ("cancelled", Some(PayoutStatus::Cancelled)),
            ("not_permitted", Some(PayoutStatus::NotPermitted)),
            ("frozen", None),
        ] {
            assert_eq!(status(word), expected, "{word}");
        }
    }
}
