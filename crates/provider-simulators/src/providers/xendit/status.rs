//! Lists the statuses of payouts, in all versions of the documentation, and their changes.

use super::super::link::{Effect, Link, Words, no_late_submit, no_payout_ids, nothing_behind};
use crate::link_change::LinkChange;

pub(super) static WORDS: Words = Words {
    stages: &["PENDING"],
    // These include the statuses of the older API, of the webhook page and of the newer documentation.
    all: &[
        "PENDING",
        "ISSUED",
        "CLAIMED",
        "DISBURSING",
        "COMPLETED",
        "SUCCEEDED",
        "FAILED",
        "LOCKED",
        "VOIDED",
        "ACTIVE",
        "CANCELED",
        "EXPIRED",
        "REVERSED",
    ],
    open: &["PENDING", "ISSUED"],
    expired: "VOIDED",
    effect,
    late_submit: no_late_submit,
    behind: nothing_behind,
    payout_ids: no_payout_ids,
};

/// Returns the effect of a change, with the statuses of the documentation of April 2026.
fn effect(link: &Link, change: LinkChange) -> Result<Effect, &'static str> {
    let status = link.status.as_str();
    let open = WORDS.open.contains(&status);
    let claimed = matches!(status, "CLAIMED" | "DISBURSING");
    match change {
        LinkChange::Claim if open => Ok(Effect::to("CLAIMED")),
        LinkChange::Claim => Err("only a pending payout can be claimed"),
        LinkChange::Process => Err("Xendit has one status for claimed and under way: claim leads to it"),
        LinkChange::Pay if claimed => Ok(Effect::to("COMPLETED")),
        LinkChange::Pay => Err("only a claimed payout is paid"),
        // The bank fails, or the recipient enters a third wrong password before a claim.
        LinkChange::Fail if open || claimed => Ok(Effect::to("FAILED")),
        LinkChange::Fail => Err("it is over"),
        LinkChange::Reopen => Err("Xendit does not open a payout again"),
        LinkChange::Expire if open => Ok(Effect::to("VOIDED")),
        LinkChange::Expire => Err("only a pending payout expires"),
        LinkChange::Cancel if open => Ok(Effect::to("VOIDED")),
        LinkChange::Cancel => Err("only a pending payout can be voided"),
        LinkChange::Reverse if matches!(status, "COMPLETED" | "SUCCEEDED") => Ok(Effect::to("REVERSED")),
        LinkChange::Reverse => Err("no money went out"),
    }
}
