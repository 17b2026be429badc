//! Sends webhooks of the events `payout_link.*` and `payout.reversed`, signed by HMAC-SHA256.

use aws_lc_rs::hmac::HMAC_SHA256;
use serde_json::{Value, json};

use super::super::link::Change;
use super::super::webhooks::{Message, Webhooks};
use super::reply::{payout_view, view};
use crate::announce::{Headers, Signable, hmac_hex};

pub(super) static WEBHOOKS: Webhooks = Webhooks { events, body, headers };

const EXPIRED: &str = "payout_link.expired";
const REVERSED: &str = "payout.reversed";

fn events(before: Option<&Change>, change: &Change) -> Vec<&'static str> {
    let status_before = before.map(|before| before.status.as_str());
    if status_before == Some(change.status.as_str()) {
        let reversed = change.payout_status.as_deref() == Some("reversed");
        return if reversed { vec![REVERSED] } else { Vec::new() };
    }
    let event = match change.status.as_str() {
        "pending" => "payout_link.pending",
        // The link is open again, because the payout failed.
        "issued" if matches!(status_before, Some("processing" | "queued")) => "payout_link.attempted",
        "issued" => "payout_link.issued",
        "processing" => "payout_link.processing",
        "processed" => "payout_link.processed",
        "cancelled" => "payout_link.cancelled",
        "rejected" => "payout_link.rejected",
        "expired" => EXPIRED,
        _ => return Vec::new(),
    };
    vec![event]
}

fn body(message: &Message<'_>) -> Value {
    let link = message.link;
    let (kind, entity) = match (message.event, link.payout()) {
        (REVERSED, Some(payout)) => ("payout", payout_view(link, payout)),
        _ => ("payout_link", link_entity(message)),
    };
    json!({
        "entity": "event",
        "account_id": "acc_Simulator0001",
        "event": message.event,
        "contains": [kind],
        "payload": { (kind): { "entity": entity } },
        "created_at": message.at.unix_timestamp(),
    })
}

/// Writes the link as in the samples: without `payout_id`, and `cancelled` if the link expired.
fn link_entity(message: &Message<'_>) -> Value {
    let mut entity = view(message.link);
    if let Some(fields) = entity.as_object_mut() {
        fields.remove("payout_id");
    }
    if message.event == EXPIRED && entity["status"] == "expired" {
        entity["status"] = "cancelled".into();
    }
    entity
}

/// Signs the bytes of the body. No time is signed.
fn headers(signable: &Signable<'_>) -> Headers {
    let signature = hmac_hex(HMAC_SHA256, signable.secret(), &[signable.body]);
    Headers {
        plain: vec![("x-razorpay-event-id", signable.event_id.to_owned())],
        proof: vec![("x-razorpay-signature", signature)],
    }
}
