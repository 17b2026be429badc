//! The states of Revolut's payout links.

use crate::domain::PayoutStatus;

/// Returns the status that a state of Revolut means; `None` for a state that this version does not know.
///
/// Every known state of a link that is not over counts as one to be claimed. Only an `active` link has a URL: before it
/// the amount is not blocked, or somebody has to approve in the app; after it the link was claimed, which is no failure.
pub(super) fn status(state: &str) -> Option<PayoutStatus> {
    Some(match state {
        "created" | "awaiting" | "active" | "processing" | "processed" => PayoutStatus::RequiresFulfillment,
        "expired" => PayoutStatus::Expired,
        "cancelled" => PayoutStatus::Cancelled,
        "failed" => PayoutStatus::Failed,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_its_status() {
        for (state, expected) in [
            ("created", Some(PayoutStatus::RequiresFulfillment)),
            ("awaiting", Some(PayoutStatus::RequiresFulfillment)),
            ("active", Some(PayoutStatus::RequiresFulfillment)),
            ("processing", Some(PayoutStatus::RequiresFulfillment)),
            ("processed", Some(PayoutStatus::RequiresFulfillment)),
            ("expired", Some(PayoutStatus::Expired)),
            ("cancelled", Some(PayoutStatus::Cancelled)),
            ("failed", Some(PayoutStatus::Failed)),
            ("frozen", None),
        ] {
            assert_eq!(status(state), expected, "{state}");
        }
    }
}
