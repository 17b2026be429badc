//! Lists the statuses of payout links and of the payouts behind them, and their changes.

use uuid::Uuid;

use super::super::link::{Behind, Effect, Link, Words, no_late_submit};
use crate::link_change::LinkChange;

pub(super) static WORDS: Words = Words {
    stages: &["issued"],
    all: &["pending", "issued", "processing", "queued", "processed", "cancelled", "expired", "rejected"],
    open: &["issued"],
    expired: "expired",
    effect,
    late_submit: no_late_submit,
    behind,
    payout_ids: || {
        let random = Uuid::new_v4().simple().to_string();
        (format!("pout_{}", &random[..14]), format!("fa_{}", &random[14..28]))
    },
};

fn effect(link: &Link, change: LinkChange) -> Result<Effect, &'static str> {
    let status = link.status.as_str();
    let under_way = matches!(status, "processing" | "queued");
    match change {
        LinkChange::Claim if status == "issued" => Ok(Effect::to("processing")),
        LinkChange::Claim => Err("only an issued link can be claimed"),
        LinkChange::Process => Err("RazorpayX has one status for claimed and under way: claim leads to it"),
        LinkChange::Pay if under_way => Ok(Effect::to("processed")),
        LinkChange::Pay => Err("only a link under way is paid"),
        // The approver rejects the payout.
        LinkChange::Fail if status == "pending" => Ok(Effect::to("rejected")),
        LinkChange::Fail => Err("a payout that fails opens its link again: reopen"),
        LinkChange::Reopen if under_way => Ok(Effect::to("issued")),
        LinkChange::Reopen => Err("no payout is under way"),
        LinkChange::Expire if status == "issued" => Ok(Effect::to("expired")),
        LinkChange::Expire => Err("only an issued link expires"),
        LinkChange::Cancel if status == "issued" => Ok(Effect::to("cancelled")),
        LinkChange::Cancel => Err("only an issued link can be cancelled"),
        // The link stays processed. Only the payout shows that the money came back.
        LinkChange::Reverse if link.payout().is_some_and(|payout| payout.status == "processed") => {
            Ok(Effect { status: None, payout: Some("reversed") })
        }
        LinkChange::Reverse => Err("it has no processed payout"),
    }
}

/// Returns the state of the payout.
fn behind(status: &str) -> Option<Behind> {
    match status {
        "processing" | "queued" => Some(Behind { status: "processing", is_live: true, begins: true }),
        "processed" => Some(Behind { status: "processed", is_live: false, begins: true }),
        // The link is open again after a claim.
        "issued" => Some(Behind { status: "failed", is_live: false, begins: false }),
        _ => None,
    }
}
