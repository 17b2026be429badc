//! Lists the statuses of payouts and their changes (`crates/router/src/core/payouts.rs`).

use time::OffsetDateTime;

use super::super::link::{Effect, Link, Words, no_payout_ids, nothing_behind};
use crate::link_change::LinkChange;

pub(super) static WORDS: Words = Words {
    stages: &["requires_payout_method_data"],
    all: &[
        "success",
        "failed",
        "cancelled",
        "initiated",
        "expired",
        "reversed",
        "pending",
        "ineligible",
        "not_permitted",
        "requires_creation",
        "requires_confirmation",
        "requires_payout_method_data",
        "requires_fulfillment",
        "requires_vendor_account_creation",
    ],
    // Hyperswitch never writes the link's end to the payout: `expired` is a status of the processor.
    open: &[],
    expired: "expired",
    effect,
    late_submit,
    behind: nothing_behind,
    payout_ids: no_payout_ids,
};

const OPEN: &str = "requires_payout_method_data";

fn effect(link: &Link, change: LinkChange) -> Result<Effect, &'static str> {
    let status = link.status.as_str();
    let submitted = matches!(
        status,
        "requires_confirmation"
            | "requires_creation"
            | "requires_fulfillment"
            | "requires_vendor_account_creation"
    );
    let at_processor = matches!(status, "initiated" | "pending");
    match change {
        LinkChange::Claim if status == OPEN && link.is_over(OffsetDateTime::now_utc()) => {
            Err("its page shows that the link has expired; a page that was opened before submits late")
        }
        LinkChange::Claim if status == OPEN => Ok(Effect::to("requires_creation")),
        LinkChange::Claim => Err("confirm wants requires_payout_method_data"),
        LinkChange::Process if submitted => Ok(Effect::to("initiated")),
        LinkChange::Process if status == "initiated" => Ok(Effect::to("pending")),
        LinkChange::Process => Err("only a submitted payout goes to the processor"),
        LinkChange::Pay if submitted || at_processor => Ok(Effect::to("success")),
        LinkChange::Fail if submitted || at_processor => Ok(Effect::to("failed")),
        LinkChange::Pay | LinkChange::Fail => Err("only a submitted payout is paid or fails"),
        LinkChange::Reopen => Err("a payout that failed cannot be claimed again"),
        // The link ends, but nothing is written to the payout.
        LinkChange::Expire if status == OPEN => Ok(Effect::default()),
        LinkChange::Expire if at_processor => Ok(Effect::to("expired")),
        LinkChange::Expire => Err("only an open link, or a payout at the processor, expires"),
        LinkChange::Cancel if status == OPEN || submitted => Ok(Effect::to("cancelled")),
        // The processor declines the cancel.
        LinkChange::Cancel if at_processor => Ok(Effect::to("failed")),
        LinkChange::Cancel => Err("the payout is over"),
        // After success only an administrator writes this status.
        LinkChange::Reverse if at_processor || status == "success" => Ok(Effect::to("reversed")),
        LinkChange::Reverse => Err("no money went out"),
    }
}

/// Submits a form after the end. Neither confirm nor cancel takes a lock, and confirm does not check the link's end.
/// So a submission under way may overwrite `cancelled`.
fn late_submit(link: &Link) -> Result<Effect, &'static str> {
    match link.status.as_str() {
        OPEN | "cancelled" => Ok(Effect::to("initiated")),
        _ => Err("only an open or cancelled payout takes a late submission"),
    }
}
