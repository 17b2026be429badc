//! Sends outgoing webhooks (`crates/router/src/core/webhooks/outgoing.rs`): the payout as GET returns it, signed by
//! HMAC-SHA512.
//!
//! Nothing is sent for a claim, for `pending`, or for the end of a link.

use aws_lc_rs::hmac::HMAC_SHA512;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use super::super::link::Change;
use super::super::webhooks::{Message, Webhooks};
use super::MERCHANT;
use super::reply::view;
use crate::announce::{Headers, Signable, hmac_hex};

pub(super) static WEBHOOKS: Webhooks = Webhooks { events, body, headers };

fn events(before: Option<&Change>, change: &Change) -> Vec<&'static str> {
    let event = match change.status.as_str() {
        "initiated" => "payout_initiated",
        "success" => "payout_success",
        "failed" => "payout_failed",
        "cancelled" => "payout_cancelled",
        "expired" => "payout_expired",
        "reversed" => "payout_reversed",
        _ => return Vec::new(),
    };
    if before.is_some() { vec![event] } else { Vec::new() }
}

fn body(message: &Message<'_>) -> Value {
    json!({
        "merchant_id": MERCHANT,
        "event_id": format!("evt_{}", message.event_id),
        "event_type": message.event,
        "content": { "type": "payout_details", "object": view(message.link) },
        "timestamp": message.at.format(&Rfc3339).unwrap_or_default(),
        "processor_merchant_id": MERCHANT,
    })
}

/// Signs the bytes of the body. No time is signed.
fn headers(signable: &Signable<'_>) -> Headers {
    let signature = hmac_hex(HMAC_SHA512, signable.secret(), &[signable.body]);
    Headers {
        plain: vec![
            ("user-agent", "Hyperswitch-Backend-Server".to_owned()),
            ("via", "HyperSwitch".to_owned()),
        ],
        proof: vec![("x-webhook-signature-512", signature)],
    }
}
