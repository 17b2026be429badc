//! One delivery: what it says, how it is settled, and the dead letter that it may become.

use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, ShortString},
};
use tokio::sync::mpsc;

use super::{Message, acks::Settle, connection::FRAME, publisher::PERSISTENT};

/// One delivery of a job. Dropped without an acknowledgement it stays the broker's.
#[derive(Debug)]
pub struct Delivery {
    pub body: Vec<u8>,
    pub properties: BasicProperties,
    pub(super) tag: u64,
    pub(super) settle: mpsc::UnboundedSender<(u64, Settle)>,
}

impl Delivery {
    /// To be called once the job is accounted for, and never before.
    pub fn acknowledge(&self) {
        // A session that has ended has given its deliveries back: this one comes again.
        let _ = self.settle.send((self.tag, Settle::Acknowledge));
    }

    /// Gives it back to the queue, which counts that: for what cannot be accounted for here, and is no reason to
    /// wait. Never a way to retry.
    pub fn give_back(&self) {
        let _ = self.settle.send((self.tag, Settle::GiveBack));
    }

    /// Leaves it to the broker to make a dead letter of it as it is.
    pub fn reject(&self) {
        let _ = self.settle.send((self.tag, Settle::Reject));
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

    pub fn content_type(&self) -> Option<&str> {
        self.properties.content_type().as_ref().map(ShortString::as_str)
    }

    /// The same message for the dead letters: body and properties untouched, with two headers that say why.
    ///
    /// As the broker itself does when it dead-letters, its expiration is taken off: it would be deleted by it.
    /// `user_id` becomes a header, since only that user may publish it.
    ///
    /// `None` where its headers leave no room for two more: they all go in one frame.
    pub fn dead_letter(&self, exchange: &str, code: &str, reason: &str) -> Option<Box<Message>> {
        if self.properties.headers().iter().flat_map(|headers| headers.inner()).map(sized).sum::<usize>()
            > MOST_HEADERS
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
        for (name, value) in [
            ("x-original-expiration", self.properties.expiration()),
            ("x-original-user-id", self.properties.user_id()),
        ] {
            if let Some(value) = value {
                add(name, value.as_str());
            }
        }
        properties =
            without_expiration_and_user(properties).with_headers(headers).with_delivery_mode(PERSISTENT);
        Some(Box::new(Message {
            exchange: exchange.into(),
            routing_key: String::new(),
            properties,
            body: Bytes::copy_from_slice(&self.body),
        }))
    }

    /// How often it was delivered before, as far as the broker says.
    pub fn redeliveries(&self) -> u64 {
        let count =
            self.properties.headers().as_ref().and_then(|headers| headers.inner().get("x-delivery-count"));
        match count {
            Some(AMQPValue::LongLongInt(count)) => u64::try_from(*count).unwrap_or_default(),
            Some(AMQPValue::LongInt(count)) => u64::try_from(*count).unwrap_or_default(),
            _ => 0,
        }
    }
}

/// They go in one frame; the rest of it is for the other properties and for ours.
const MOST_HEADERS: usize = FRAME as usize - 8 * 1024;

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

/// Every property but those two: there is no taking one off.
fn without_expiration_and_user(properties: BasicProperties) -> BasicProperties {
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
        correlation_id with_correlation_id, reply_to with_reply_to, message_id with_message_id,
        timestamp with_timestamp, kind with_type, app_id with_app_id, cluster_id with_cluster_id
    );
    kept
}
