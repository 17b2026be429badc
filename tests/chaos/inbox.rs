//! The messages that the upstream has received.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use aws_lc_rs::digest::{SHA256, digest};
use history_checker::{DeadLetter, Leak, ReceivedMessage, Secrets, key};
use lapin::{message::Delivery, types::AMQPValue};
use serde_json::Value;

use crate::{jobs::REPLIES, upstream::RESULTS};

/// The received messages, and an index of them for the run itself.
#[derive(Default)]
pub struct Inbox {
    pub received: Vec<ReceivedMessage>,
    pub dead: Vec<DeadLetter>,
    pub leaks: Vec<Leak>,
    /// The time when each record's first result was received.
    pub concluded: HashMap<String, Instant>,
    /// The sequence and type of each record's newest event.
    pub newest: HashMap<String, (u64, String)>,
    /// Messages whose rejection was received.
    pub rejected: HashSet<String>,
    pub replayed: u64,
    pub conflicts: u64,
    pub last: Option<Instant>,
}

impl Inbox {
    pub fn record(&mut self, queue: &str, delivery: &Delivery, secrets: &Secrets) {
        let properties = &delivery.properties;
        let message_id = properties.message_id().as_ref().map(ToString::to_string);
        let header = |name: &str| {
            let value = properties.headers().as_ref()?.inner().get(name)?;
            Some(match value {
                AMQPValue::LongString(text) => text.to_string(),
                other => format!("{other:?}"),
            })
        };
        self.last = Some(Instant::now());
        let of = message_id.clone().unwrap_or_default();
        self.leaks.extend(secrets.find(&delivery.data, || format!("the result {of}")));
        let body: Value = serde_json::from_slice(&delivery.data).unwrap_or_default();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let merchant_id = header("x-merchant-id").unwrap_or_default();
        let key = key(&merchant_id, &text(&body["merchant_payout_id"]).unwrap_or_default());
        let kind = properties.kind().as_ref().map(ToString::to_string).unwrap_or_default();
        self.replayed += u64::from(header("x-replayed").is_some());
        let code = &body["error"]["unified_details"]["code"];
        self.conflicts += u64::from(queue != REPLIES && *code == "IDEMPOTENCY_CONFLICT");
        if kind == "payout_link.rejected" {
            self.rejected.extend(properties.correlation_id().as_ref().map(ToString::to_string));
        } else {
            self.concluded.entry(key.clone()).or_insert_with(Instant::now);
            let sequence = body["sequence"].as_u64().unwrap_or(1);
            let newest = self.newest.entry(key.clone()).or_default();
            if newest.0 < sequence {
                *newest = (sequence, kind.clone());
            }
        }
        self.received.push(ReceivedMessage {
            is_reply: queue == REPLIES,
            id: message_id,
            kind,
            key,
            correlation_id: properties.correlation_id().as_ref().map(ToString::to_string),
            link_url: text(&body["payout_link"]["url"]),
            sequence: body["sequence"].as_u64().and_then(|sequence| sequence.try_into().ok()),
            queue: (queue == RESULTS).then(|| queue.to_owned()),
            is_replayed: header("x-replayed").is_some(),
            is_redelivered: delivery.redelivered,
            timestamp: properties.timestamp().and_then(|seconds| seconds.try_into().ok()),
            body: digest(&SHA256, &delivery.data).as_ref().to_vec(),
        });
    }

    /// Counts the results received again under the same id.
    pub fn repeated(&self) -> usize {
        let ids: HashSet<_> =
            self.received.iter().map(|received| (received.is_reply, &received.id)).collect();
        self.received.len() - ids.len()
    }
}
