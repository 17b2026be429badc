//! Messages to publish. A result has the same properties in every publication.

use std::sync::Arc;

use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use uuid::Uuid;

use crate::domain::{EventType, TraceContext};

/// A message to publish, mandatory and persistent.
#[derive(Clone)]
pub struct Message {
    /// `""`: the default exchange, whose routing keys are queues.
    pub exchange: Arc<str>,
    /// The event type, or the name of a queue.
    pub routing_key: String,
    /// Has a `message_id` that is unique among the unconfirmed messages of this exchange.
    pub properties: BasicProperties,
    /// JSON.
    pub body: Bytes,
}

/// A result to publish: of an event, of a replay, of a rejection, or the answer to a link request.
pub struct ResultMessage<'a> {
    /// `message_id`: the event's id, the same in each publication.
    pub id: Uuid,
    /// `type`
    pub event_type: EventType,
    /// Unix seconds.
    pub timestamp: i64,
    /// JSON.
    pub body: Bytes,
    /// The queue that the requester wants the result in.
    pub reply_to: Option<&'a str>,
    /// Returned to the requester unchanged.
    pub correlation_id: Option<&'a str>,
    /// `x-merchant-id`; empty if the job has none.
    pub merchant_id: &'a str,
    /// `x-connector`
    pub connector: Option<&'a str>,
    /// The trace of the job.
    pub trace: &'a TraceContext,
    /// `x-replayed`: the result was published before.
    pub replayed: bool,
}

impl ResultMessage<'_> {
    /// Makes the message for an exchange and a routing key. Headers without a value are omitted.
    pub fn for_route(&self, exchange: &str, routing_key: &str) -> Box<Message> {
        let mut headers = FieldTable::default();
        for (name, value) in [
            ("x-merchant-id", (!self.merchant_id.is_empty()).then_some(self.merchant_id)),
            ("x-connector", self.connector),
            ("x-replayed", self.replayed.then_some("true")),
            ("traceparent", self.trace.traceparent.as_deref()),
            ("tracestate", self.trace.tracestate.as_deref()),
        ] {
            if let Some(value) = value {
                headers.insert(name.into(), AMQPValue::LongString(value.into()));
            }
        }
        let mut properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(PERSISTENT)
            .with_message_id(self.id.to_string().into())
            .with_type(self.event_type.as_str().into())
            .with_timestamp(u64::try_from(self.timestamp).unwrap_or_default())
            .with_headers(headers);
        if let Some(correlation_id) = self.correlation_id {
            properties = properties.with_correlation_id(correlation_id.into());
        }
        let (routing_key, body) = (routing_key.to_owned(), self.body.clone());
        Box::new(Message { exchange: exchange.into(), routing_key, properties, body })
    }
}

/// The delivery mode of a message that survives a restart of the broker.
pub(super) const PERSISTENT: u8 = 2;
