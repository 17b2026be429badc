//! Sends webhooks of version 2 to an endpoint that subscribed to `PayoutLinkCreated`, `PayoutLinkStateChanged` and
//! `TransactionStateChanged`.

use aws_lc_rs::hmac::HMAC_SHA256;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::link::Change;
use super::super::webhooks::{Message, Webhooks};
use super::reply::timestamp;
use crate::announce::{Headers, Signable, hmac_hex};

pub(super) static WEBHOOKS: Webhooks = Webhooks { events, body, headers };

const CREATED: &str = "PayoutLinkCreated";
const LINK: &str = "PayoutLinkStateChanged";
const TRANSACTION: &str = "TransactionStateChanged";

fn events(before: Option<&Change>, change: &Change) -> Vec<&'static str> {
    let Some(before) = before else { return vec![CREATED] };
    let mut events = Vec::new();
    if before.status != change.status {
        events.push(LINK);
    }
    if before.payout_status.is_some() && before.payout_status != change.payout_status {
        events.push(TRANSACTION);
    }
    events
}

fn body(message: &Message<'_>) -> Value {
    let Message { event, link, before, change, at, .. } = message;
    let data = match *event {
        TRANSACTION => json!({
            "id": link.payout().map(|transaction| &transaction.id),
            // This field is not documented for links, so it is not the link's `request_id`.
            "request_id": Uuid::new_v4(),
            "old_state": before.and_then(|before| before.payout_status.as_ref()),
            "new_state": change.payout_status,
        }),
        CREATED => json!({ "id": link.id, "state": change.status, "request_id": link.reference }),
        _ => json!({
            "id": link.id,
            "request_id": link.reference,
            "old_state": before.map(|before| &before.status),
            "new_state": change.status,
        }),
    };
    json!({ "event": event, "timestamp": timestamp(*at), "data": data })
}

/// Signs `v1`, the time of this delivery in milliseconds and the body, joined by dots. Each secret makes one
/// signature.
fn headers(signable: &Signable<'_>) -> Headers {
    let timestamp = (signable.at.unix_timestamp_nanos() / 1_000_000).to_string();
    let sign = |secret: &String| {
        let signed: [&[u8]; 4] = [b"v1.", timestamp.as_bytes(), b".", signable.body];
        format!("v1={}", hmac_hex(HMAC_SHA256, secret, &signed))
    };
    let signatures: Vec<String> = signable.secrets.iter().map(sign).collect();
    Headers {
        proof: vec![("revolut-signature", signatures.join(","))],
        plain: vec![("revolut-request-timestamp", timestamp)],
    }
}
