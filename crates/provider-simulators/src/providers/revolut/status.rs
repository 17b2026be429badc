//! Lists the states of payout links and of the transactions behind them, and their changes.

use uuid::Uuid;

use super::super::link::{Behind, Effect, Link, Words, no_late_submit};
use crate::link_change::LinkChange;

pub(super) static WORDS: Words = words(&["created", "active"]);
pub(super) static WORDS_AT_ONCE: Words = words(&["active"]);

const fn words(stages: &'static [&'static str]) -> Words {
    Words {
        stages,
        all: &["created", "awaiting", "active", "processing", "processed", "expired", "cancelled", "failed"],
        open: &["created", "awaiting", "active"],
        expired: "expired",
        effect,
        late_submit: no_late_submit,
        behind,
        payout_ids: || (Uuid::new_v4().to_string(), Uuid::new_v4().to_string()),
    }
}

fn effect(link: &Link, change: LinkChange) -> Result<Effect, &'static str> {
    let status = link.status.as_str();
    let unclaimed = WORDS.open.contains(&status);
    match change {
        LinkChange::Claim if status == "active" => Ok(Effect::to("processing")),
        LinkChange::Claim => Err("only an active link can be claimed"),
        LinkChange::Process => Err("Revolut has one state for claimed and under way: claim leads to it"),
        // The official example goes from active to processed directly.
        LinkChange::Pay if matches!(status, "active" | "processing") => Ok(Effect::to("processed")),
        LinkChange::Pay => Err("only an active link, or one under way, is paid"),
        LinkChange::Fail if unclaimed || status == "processing" => Ok(Effect::to("failed")),
        LinkChange::Fail => Err("it is over"),
        LinkChange::Reopen => Err("Revolut does not open a link again"),
        LinkChange::Expire if unclaimed => Ok(Effect::to("expired")),
        LinkChange::Expire => Err("only an unclaimed link expires"),
        LinkChange::Cancel if unclaimed => Ok(Effect::to("cancelled")),
        LinkChange::Cancel => Err("a link that is claimed or over cannot be cancelled"),
        // No state of a link shows that the money came back. The transaction does.
        LinkChange::Reverse if link.payout().is_some_and(|transaction| transaction.status == "completed") => {
            Ok(Effect { status: None, payout: Some("reverted") })
        }
        LinkChange::Reverse => Err("it has no completed transaction"),
    }
}

/// Returns the state of the transaction.
fn behind(state: &str) -> Option<Behind> {
    match state {
        "processing" => Some(Behind { status: "pending", is_live: true, begins: true }),
        "processed" => Some(Behind { status: "completed", is_live: false, begins: true }),
        "failed" => Some(Behind { status: "failed", is_live: false, begins: false }),
        _ => None,
    }
}
