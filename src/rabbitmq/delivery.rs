//! One delivery: what it says, how it is settled, and the dead letter that it may become.

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

use super::{Message, acks::Settle, connection::FRAME, publisher::PERSISTENT};

/// The header of a dead letter that says when its message was rejected: RFC 3339, UTC.
pub const REJECTED_AT: &str = "x-rejected-at";

/// One delivery of a job. Dropped without being settled it stays the broker's.
pub struct Delivery {
    /// Empty where it was withheld.
    pub body: Bytes,
    /// A body that is too large to be held.
    pub withheld: Option<Withheld>,
    /// Empty where they could not be read.
    pub properties: BasicProperties,
    pub is_unreadable: bool,
    pub is_redelivered: bool,
    pub received_at: Instant,
    pub(super) _held_bytes: Option<HeldBytes>,
    pub(super) is_settled: AtomicBool,
    pub(super) tag: u64,
    pub(super) settle: mpsc::UnboundedSender<(u64, Settle)>,
}

/// What is known of a body that was not held.
#[derive(Debug)]
pub struct Withheld {
    pub bytes: usize,
    pub sha256: [u8; 32],
}

/// Counts bytes for as long as it lives.
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
    /// Its body and headers may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("tag", &self.tag)
            .field("message_id", &self.message_id())
            .finish_non_exhaustive()
    }
}

impl Delivery {
    /// Says whether its session has ended: the broker delivers it again, and it cannot be settled any more.
    pub fn is_stale(&self) -> bool {
        self.settle.is_closed()
    }

    /// SHA-256 of the body.
    pub fn body_sha256(&self) -> [u8; 32] {
        if let Some(withheld) = &self.withheld {
            return withheld.sha256;
        }
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest::digest(&digest::SHA256, &self.body).as_ref());
        sha256
    }

    /// To be called once the job is accounted for, and never before.
    pub fn acknowledge(&self) {
        self.settle(Settle::Acknowledge);
    }

    /// Gives it back to the queue, which counts that: for what cannot be accounted for here, and is no reason to
    /// wait. Never a way to retry.
    pub fn give_back(&self) {
        self.settle(Settle::GiveBack);
    }

    /// Leaves it to the broker to make a dead letter of it as it is.
    pub fn reject(&self) {
        self.settle(Settle::Reject);
    }

    /// Says whether it was acknowledged, rejected or given back.
    pub fn is_settled(&self) -> bool {
        self.is_settled.load(Ordering::Relaxed)
    }

    /// Once: the broker closes the channel of whoever settles a delivery twice.
    fn settle(&self, settle: Settle) {
        if !self.is_settled.swap(true, Ordering::Relaxed) {
            // A session that has ended has given its deliveries back: this one comes again.
            let _ = self.settle.send((self.tag, settle));
        }
    }

    /// Whether a header is there that is not one text: its name in two spellings, or a value of another type.
    pub fn is_unclear(&self, name: &str) -> bool {
        let headers = self.properties.headers().iter().flat_map(|headers| headers.inner());
        let mut values =
            headers.filter(|(key, _)| key.as_str().eq_ignore_ascii_case(name)).map(|(_, value)| value);
        let (first, another) = (values.next(), values.next());
        another.is_some() || (self.header(name).is_none() && !matches!(first, None | Some(AMQPValue::Void)))
    }

    /// A header that is a string.
    pub fn header(&self, name: &str) -> Option<&str> {
        let value = self
            .properties
            .headers()
            .as_ref()?
            .inner()
            .iter()
            .find(|(key, _)| key.as_str().eq_ignore_ascii_case(name))?;
        match value.1 {
            AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
            AMQPValue::ShortString(text) => Some(text.as_str()),
            _ => None,
        }
    }

    pub fn message_id(&self) -> Option<&str> {
        self.properties.message_id().as_ref().map(ShortString::as_str)
    }

    pub fn correlation_id(&self) -> Option<&str> {
        self.properties.correlation_id().as_ref().map(ShortString::as_str)
    }

    pub fn reply_to(&self) -> Option<&str> {
        self.properties.reply_to().as_ref().map(ShortString::as_str)
    }

    pub fn content_encoding(&self) -> Option<&str> {
        self.properties.content_encoding().as_ref().map(ShortString::as_str)
    }

    /// When it was published, as the publisher says.
    pub fn timestamp(&self) -> Option<OffsetDateTime> {
        let seconds = i64::try_from((*self.properties.timestamp())?).ok()?;
        OffsetDateTime::from_unix_timestamp(seconds).ok()
    }

    pub fn content_type(&self) -> Option<&str> {
        self.properties.content_type().as_ref().map(ShortString::as_str)
    }

    /// The same message for the dead letters: body and properties untouched, with headers that say why and when.
    ///
    /// As the broker itself does when it dead-letters, its expiration is taken off: it would be deleted by it.
    /// `user_id` becomes a header, since only that user may publish it.
    ///
    /// `None` where it cannot be published again as it was, and the broker has to make the dead letter: its headers leave
    /// no room for more (they all go in one frame), its properties could not be read, or its body was not held.
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
        // It also tells a dead letter that was moved back from the message that was rejected.
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

    /// Returns how often the broker says that it delivered the message before.
    ///
    /// Only of a redelivery: the broker writes over the header then, and what a publisher wrote into it is not believed.
    /// RabbitMQ 4.3 counts what was given back in a header of its own.
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

/// What an AMQP 1.0 sender's reply-to is left as: RabbitMQ closes the channel of whoever publishes it and has no consumer
/// there.
fn is_own_pseudo_queue(reply_to: &ShortString) -> bool {
    reply_to.as_str() == "amq.rabbitmq.reply-to"
}

/// They go in one frame; the rest of it is for the other properties and for ours.
const MAX_HEADER_BYTES: usize = FRAME as usize - 8 * 1024;

/// Bytes that a header takes up.
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

/// Every property but those that are not to be published again: there is no taking one off.
fn republishable(properties: BasicProperties) -> BasicProperties {
    let mut kept = BasicProperties::default();
    macro_rules! keep {
        ($($property:ident $with:ident),*) => {
            $(if let Some(value) = properties.$property().clone() {
                kept = kept.$with(value);
            })*
        };
    }
    keep!(
        content_type with_content_type, content_encoding with_content_encoding, priority with_priority,
        correlation_id with_correlation_id, message_id with_message_id, timestamp with_timestamp,
        kind with_type, app_id with_app_id, cluster_id with_cluster_id
    );
    if let Some(reply_to) = properties.reply_to().clone().filter(|reply_to| !is_own_pseudo_queue(reply_to)) {
        kept = kept.with_reply_to(reply_to);
    }
    kept
}
