//! The statuses of Xendit's payouts, in the words of the dialects that its pages have.

use crate::{
    connectors::question::Meaning,
    domain::{LinkStatus, PayoutStatus},
};

/// The facts that decide between several meanings of one word of Xendit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Circumstances {
    /// The end of the link has passed.
    pub(super) is_over: bool,
    /// The worker voided it.
    pub(super) is_voided: bool,
    /// A recipient claimed it.
    pub(super) is_claimed: bool,
}

/// Returns the meaning of a word of Xendit; `None` for a word that this version does not know.
pub(super) fn status(word: &str, circumstances: Circumstances) -> Option<Meaning> {
    let Circumstances { is_over, is_voided: by_worker, is_claimed } = circumstances;
    Some(match word {
        "PENDING" | "ISSUED" | "ACTIVE" => (LinkStatus::Unclaimed, PayoutStatus::RequiresFulfillment),
        "CLAIMED" | "DISBURSING" => (LinkStatus::Processing, PayoutStatus::Pending),
        "COMPLETED" | "SUCCEEDED" => (LinkStatus::Succeeded, PayoutStatus::Success),
        "EXPIRED" => (LinkStatus::Expired, PayoutStatus::Expired),
        "REVERSED" => (LinkStatus::Reversed, PayoutStatus::Reversed),
        // One word for two things: nobody claimed it in time, or it failed.
        "FAILED" if is_over && !is_claimed => (LinkStatus::Expired, PayoutStatus::Expired),
        "FAILED" | "LOCKED" => (LinkStatus::PayoutFailed, PayoutStatus::Failed),
        // And again: nobody claimed it in time, or it was voided.
        _ if is_voided(word) && is_over && !by_worker => (LinkStatus::Expired, PayoutStatus::Expired),
        _ if is_voided(word) => (LinkStatus::Cancelled, PayoutStatus::Cancelled),
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
        use PayoutStatus::{Cancelled, Expired, Failed, Pending, RequiresFulfillment, Reversed, Success};
        for (word, (link, payout), (over_link, over_payout)) in [
            (
                "PENDING",
                (LinkStatus::Unclaimed, RequiresFulfillment),
                (LinkStatus::Unclaimed, RequiresFulfillment),
            ),
            (
                "ISSUED",
                (LinkStatus::Unclaimed, RequiresFulfillment),
                (LinkStatus::Unclaimed, RequiresFulfillment),
            ),
            (
                "ACTIVE",
                (LinkStatus::Unclaimed, RequiresFulfillment),
                (LinkStatus::Unclaimed, RequiresFulfillment),
            ),
            ("CLAIMED", (LinkStatus::Processing, Pending), (LinkStatus::Processing, Pending)),
            ("DISBURSING", (LinkStatus::Processing, Pending), (LinkStatus::Processing, Pending)),
            ("COMPLETED", (LinkStatus::Succeeded, Success), (LinkStatus::Succeeded, Success)),
            ("SUCCEEDED", (LinkStatus::Succeeded, Success), (LinkStatus::Succeeded, Success)),
            ("EXPIRED", (LinkStatus::Expired, Expired), (LinkStatus::Expired, Expired)),
            ("REVERSED", (LinkStatus::Reversed, Reversed), (LinkStatus::Reversed, Reversed)),
            ("FAILED", (LinkStatus::PayoutFailed, Failed), (LinkStatus::Expired, Expired)),
            ("LOCKED", (LinkStatus::PayoutFailed, Failed), (LinkStatus::PayoutFailed, Failed)),
            ("VOIDED", (LinkStatus::Cancelled, Cancelled), (LinkStatus::Expired, Expired)),
            ("VOID", (LinkStatus::Cancelled, Cancelled), (LinkStatus::Expired, Expired)),
            ("CANCELED", (LinkStatus::Cancelled, Cancelled), (LinkStatus::Expired, Expired)),
            ("CANCELLED", (LinkStatus::Cancelled, Cancelled), (LinkStatus::Expired, Expired)),
        ] {
            let over = Circumstances { is_over: true, ..Circumstances::default() };
            assert_eq!(status(word, Circumstances::default()), Some((link, payout)), "{word}");
            assert_eq!(status(word, over), Some((over_link, over_payout)), "{word}");
        }
        assert_eq!(status("FROZEN", Circumstances::default()), None);
    }

    #[test]
    fn a_word_of_two_meanings_is_read_by_what_is_known_of_the_link() {
        let over = Circumstances { is_over: true, ..Circumstances::default() };
        for (word, circumstances, expected) in [
            ("FAILED", Circumstances { is_claimed: true, ..over }, LinkStatus::PayoutFailed),
            ("FAILED", Circumstances { is_voided: true, ..over }, LinkStatus::Expired),
            ("VOIDED", Circumstances { is_voided: true, ..over }, LinkStatus::Cancelled),
            ("CANCELED", Circumstances { is_voided: true, ..over }, LinkStatus::Cancelled),
        ] {
            let (link_status, _) = status(word, circumstances).unwrap();
            assert_eq!(link_status, expected, "{word} {circumstances:?}");
        }
    }
}
