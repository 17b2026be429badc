//! Sends the callbacks of the two events that are documented for links: a fixed token, no signature and no time.
//!
//! For a claim, a void, an expiry, or money that came back nothing is documented, so nothing is sent.

use serde_json::{Value, json};

use super::super::link::Change;
use super::super::webhooks::{Message, Webhooks};
use crate::announce::{Headers, Signable};

pub(super) static WEBHOOKS: Webhooks = Webhooks { events, body, headers };

fn events(before: Option<&Change>, change: &Change) -> Vec<&'static str> {
    let was_claimed = before.is_some_and(|before| matches!(before.status.as_str(), "CLAIMED" | "DISBURSING"));
    match change.status.as_str() {
        "COMPLETED" | "SUCCEEDED" if before.is_some() => vec!["disbursement.completed"],
        // Without a claim there was no disbursement.
        "FAILED" if was_claimed => vec!["disbursement.failed"],
        _ => Vec::new(),
    }
}

/// Writes the flat form of older receivers. It does not name the event.
fn body(message: &Message<'_>) -> Value {
    let link = message.link;
    let mut body = json!({
        "id": link.id,
        "external_id": link.reference,
        "amount": link.amount.parse::<i64>().unwrap_or_default(),
        "status": link.status,
    });
    if link.status == "FAILED" {
        body["failure_code"] = "INVALID_DESTINATION".into();
    }
    body
}

fn headers(signable: &Signable<'_>) -> Headers {
    Headers {
        plain: vec![("webhook-id", signable.event_id.to_owned())],
        proof: vec![("x-callback-token", signable.secret().to_owned())],
    }
}
