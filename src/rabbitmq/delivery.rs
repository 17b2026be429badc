//! One delivery: reads its properties, settles it, and makes its dead letter.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use aws_lc_rs::digest;
use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, ShortString},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::mpsc;

use super::{
    Message,
    acks::Settle,
    connection::FRAME,
    message::PERSISTENT,
    properties::{header, is_own_pseudo_queue, republishable},
};

/// The header of a dead letter with the time of its rejection: RFC 3339, UTC.
pub const REJECTED_AT: &str = "x-rejected-at";
/// The header of a dead letter with the [`Source`] of the message.
pub(super) const REJECTED_FROM: &str = "x-rejected-from";

/// The queue that a delivery came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Jobs.
    Jobs,
    /// Messages that cancel a link.
    Cancel,
    /// Messages that ask for the status of a link.
    Status,
}

impl Source {
    /// Every source.
    pub const ALL: [Self; 3] = [Self::Jobs, Self::Cancel, Self::Status];

    /// Returns the name in headers and on the command line. It is the routing key of the contract, whatever the
    /// configuration names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Jobs => "create",
            Self::Cancel => "cancel",
            Self::Status => "status",
        }
    }

    /// Returns the source of a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.as_str() == name)
    }
}

/// One delivery of a message. If it is dropped unsettled, it stays with the broker.
pub struct Delivery {
    /// The queue that it came from.
    pub source: Source,
    /// The body; empty if it was withheld.
    pub body: Bytes,
    /// The size and digest of a body that is too large to hold.
    pub withheld: Option<Withheld>,
    /// The properties; empty if they could not be read.
    pub properties: BasicProperties,
    /// Whether the properties could not be read.
    pub is_unreadable: bool,
    /// Whether RabbitMQ has delivered it before.
    pub is_redelivered: bool,
    /// When it arrived, by this process's clock.
    pub received_at: Instant,
    pub(super) _held_bytes: Option<HeldBytes>,
    pub(super) is_settled: AtomicBool,
    pub(super) tag: u64,
    pub(super) settle: mpsc::UnboundedSender<(u64, Settle)>,
}

/// Size and digest of a body that was not held.
#[derive(Debug)]
pub struct Withheld {
    pub bytes: usize,
    pub sha256: [u8; 32],
}

/// Counts bytes until it is dropped.
#[derive(Debug)]
pub(super) struct HeldBytes {
    pub(super) of: Arc<AtomicUsize>,
    pub(super) bytes: usize,
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl fmt::Debug for Delivery {
    /// Omits body and headers, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("tag", &self.tag)
            .field("message_id", &self.message_id())
            .finish_non_exhaustive()
    }
}

impl Delivery {
    /// Returns whether its session has ended: it cannot be settled any more, and the broker delivers it again.
    pub fn is_stale(&self) -> bool {
        self.settle.is_closed()
    }

    /// Returns the SHA-256 of the body.
    pub fn body_sha256(&self) -> [u8; 32] {
        if let Some(withheld) = &self.withheld {
            return withheld.sha256;
        }
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest::digest(&digest::SHA256, &self.body).as_ref());
        sha256
    }

    /// Acknowledges the delivery. Call it only after the job is accounted for.
    pub fn acknowledge(&self) {
        self.settle(Settle::Acknowledge);
    }

    /// Returns the delivery to the queue, which counts that. Only for a delivery that cannot be accounted for here;
    /// it is not a way to retry.
    pub fn give_back(&self) {
        self.settle(Settle::GiveBack);
    }

    /// Rejects the delivery, so that the broker dead-letters it unchanged.
    pub fn reject(&self) {
        self.settle(Settle::Reject);
    }

    /// Returns whether it was acknowledged, rejected or returned.
    pub fn is_settled(&self) -> bool {
        self.is_settled.load(Ordering::Relaxed)
    }

    /// Settles once: the broker closes a channel that settles a delivery twice.
    fn settle(&self, settle: Settle) {
        if !self.is_settled.swap(true, Ordering::Relaxed) {
            // The session has ended, so the broker delivers this one again.
            let _ = self.settle.send((self.tag, settle));
        }
    }

    /// Returns whether a header is ambiguous: in two spellings, or with a value that is not a string.
    pub fn is_unclear(&self, name: &str) -> bool {
        let headers = self.properties.headers().iter().flat_map(|headers| headers.inner());
        let mut values =
            headers.filter(|(key, _)| key.as_str().eq_ignore_ascii_case(name)).map(|(_, value)| value);
        let (first, another) = (values.next(), values.next());
        another.is_some() || (self.header(name).is_none() && !matches!(first, None | Some(AMQPValue::Void)))
    }

    /// Returns a header that is a string.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.properties, name)
    }

    /// Returns the `message_id` property.
    pub fn message_id(&self) -> Option<&str> {
        self.properties.message_id().as_ref().map(ShortString::as_str)
    }

    /// Returns the `correlation_id` property.
    pub fn correlation_id(&self) -> Option<&str> {
        self.properties.correlation_id().as_ref().map(ShortString::as_str)
    }

    /// Returns the `reply_to` property.
    pub fn reply_to(&self) -> Option<&str> {
        self.properties.reply_to().as_ref().map(ShortString::as_str)
    }

    /// Returns the `content_encoding` property.
    pub fn content_encoding(&self) -> Option<&str> {
        self.properties.content_encoding().as_ref().map(ShortString::as_str)
    }

    /// Returns the publisher's `timestamp` property.
    pub fn timestamp(&self) -> Option<OffsetDateTime> {
        let seconds = i64::try_from((*self.properties.timestamp())?).ok()?;
        OffsetDateTime::from_unix_timestamp(seconds).ok()
    }

    /// Returns the `content_type` property.
    pub fn content_type(&self) -> Option<&str> {
        self.properties.content_type().as_ref().map(ShortString::as_str)
    }

    /// Makes the dead letter: the same body and properties, with headers for the reason and the time.
    ///
    /// The expiration is removed, as the broker does when it dead-letters, because the letter would expire. `user_id`
    /// becomes a header, because only that user may publish it.
    ///
    /// Returns `None` if the message cannot be published again unchanged, so that the broker has to dead-letter it:
    /// its headers leave no space in the frame, its properties could not be read, or its body was not held.
    pub fn dead_letter(&self, exchange: &str, code: &str, reason: &str) -> Option<Box<Message>> {
        if self.is_unreadable
            || self.withheld.is_some()
            || self.properties.headers().iter().flat_map(|headers| headers.inner()).map(sized).sum::<usize>()
                > MAX_HEADER_BYTES
        {
            return None;
        }
        let mut properties = self.properties.clone();
        let mut headers = properties.headers().clone().unwrap_or_default();
        let mut add = |name: &str, value: &str| {
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
        };
        add("x-rejected-code", code);
        add("x-rejected-reason", reason);
        add(REJECTED_FROM, self.source.as_str());
        // It also distinguishes a dead letter that was moved back from the rejected message.
        let now = OffsetDateTime::now_utc();
        add(REJECTED_AT, &now.format(&Rfc3339).unwrap_or_default());
        for (name, value) in [
            ("x-original-expiration", self.properties.expiration().as_ref()),
            ("x-original-user-id", self.properties.user_id().as_ref()),
            ("x-original-reply-to", self.properties.reply_to().as_ref().filter(|to| is_own_pseudo_queue(to))),
        ] {
            if let Some(value) = value {
                add(name, value.as_str());
            }
        }
        properties = republishable(properties).with_headers(headers).with_delivery_mode(PERSISTENT);
        Some(Box::new(Message {
            exchange: exchange.into(),
            routing_key: String::new(),
            properties,
            body: self.body.clone(),
        }))
    }

    /// Returns how often the broker delivered the message before.
    ///
    /// Only for a redelivery: the broker then overwrites the header, and a publisher's own value is ignored. RabbitMQ
    /// 4.3 counts requeued messages in a header of its own.
    pub fn deliveries_before(&self) -> u64 {
        if !self.is_redelivered {
            return 0;
        }
        let headers = self.properties.headers();
        let count = |name| match headers.as_ref().and_then(|headers| headers.inner().get(name)) {
            Some(AMQPValue::LongLongInt(count)) => u64::try_from(*count).unwrap_or_default(),
            Some(AMQPValue::LongInt(count)) => u64::try_from(*count).unwrap_or_default(),
            _ => 0,
        };
        count("x-delivery-count").max(count("x-acquired-count"))
    }
}

/// Maximum size of the headers, which go in one frame with the other properties and ours.
const MAX_HEADER_BYTES: usize = FRAME as usize - 8 * 1024;

/// Returns the size of a header in bytes.
fn sized((name, value): (&ShortString, &AMQPValue)) -> usize {
    1 + name.as_str().len() + size(value)
}

fn size(value: &AMQPValue) -> usize {
    1 + match value {
        AMQPValue::LongString(text) => 4 + text.as_bytes().len(),
        AMQPValue::ByteArray(bytes) => 4 + bytes.as_slice().len(),
        AMQPValue::ShortString(text) => 1 + text.as_str().len(),
        AMQPValue::FieldArray(values) => 4 + values.as_slice().iter().map(size).sum::<usize>(),
        AMQPValue::FieldTable(table) => 4 + table.inner().iter().map(sized).sum::<usize>(),
        _ => 8,
    }
}
