//! One message of the worker's own queues, as an operator sees it: a dead letter, or a result without a queue.

use std::fmt;

use aws_lc_rs::digest;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Names, Source,
    delivery::{REJECTED_AT, REJECTED_FROM},
    message::PERSISTENT,
    properties::{header, republishable, text},
};

/// A message that is read and not settled.
pub struct Letter {
    /// The body, as it was published.
    pub body: Vec<u8>,
    /// The properties; empty if they could not be read.
    pub(super) properties: BasicProperties,
    /// The properties could not be read, so that the message cannot be published again as it was.
    pub is_unreadable: bool,
    pub(super) tag: u64,
}

/// The headers that a requeue adds.
const REQUEUED_BY: &str = "x-requeued-by";
const REQUEUED_AT: &str = "x-requeued-at";
const REQUEUED_COUNT: &str = "x-requeued-count";

/// Headers that describe the rejection or the way through the broker. They are not part of the message itself.
const OF_THE_WAY: &[&str] = &[
    "x-rejected-code",
    "x-rejected-reason",
    REJECTED_FROM,
    // RabbitMQ 3.10 goes on counting in the table that a publisher sends, and drops a message that it takes for a cycle.
    "x-death",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-last-death-queue",
    "x-last-death-reason",
    "x-delivery-count",
    "x-acquired-count",
];

impl fmt::Debug for Letter {
    /// Omits body and headers, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Letter").field("message_id", &self.message_id()).finish_non_exhaustive()
    }
}

impl Letter {
    /// Returns an id of 16 hexadecimal digits. It is made of the message's content, so it is the same at every look.
    pub fn id(&self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        let parts = [
            self.message_id().unwrap_or_default().as_bytes(),
            self.header(REJECTED_AT).unwrap_or_default().as_bytes(),
            self.header(REQUEUED_AT).unwrap_or_default().as_bytes(),
            &self.body,
        ];
        for part in parts {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        context.finish().as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Returns a header that is a string.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.properties, name)
    }

    /// Returns the headers with their texts; `None` stands for a value that is no string.
    pub fn headers(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let headers = self.properties.headers().iter().flat_map(|headers| headers.inner());
        headers.map(|(name, value)| (name.as_str(), text(value)))
    }

    /// Returns how often RabbitMQ has delivered it, if it says so.
    pub fn delivery_count(&self) -> Option<String> {
        let headers = self.properties.headers().as_ref()?.inner();
        match headers.get(DELIVERY_COUNT)? {
            AMQPValue::LongLongInt(count) => Some(count.to_string()),
            AMQPValue::LongInt(count) => Some(count.to_string()),
            AMQPValue::LongUInt(count) => Some(count.to_string()),
            AMQPValue::ShortShortInt(count) => Some(count.to_string()),
            AMQPValue::ShortShortUInt(count) => Some(count.to_string()),
            AMQPValue::ShortInt(count) => Some(count.to_string()),
            AMQPValue::ShortUInt(count) => Some(count.to_string()),
            _ => None,
        }
    }

    /// Returns the properties that are strings, by their names.
    pub fn properties(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let properties = &self.properties;
        [
            ("message_id", properties.message_id()),
            ("correlation_id", properties.correlation_id()),
            ("reply_to", properties.reply_to()),
            ("type", properties.kind()),
            ("content_type", properties.content_type()),
            ("content_encoding", properties.content_encoding()),
            ("app_id", properties.app_id()),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_ref()?.as_str())))
    }

    /// Returns the `message_id` property.
    pub fn message_id(&self) -> Option<&str> {
        self.properties.message_id().as_ref().map(|id| id.as_str())
    }

    /// Returns the `type` property.
    pub fn kind(&self) -> Option<&str> {
        self.properties.kind().as_ref().map(|kind| kind.as_str())
    }

    /// Returns when it was last rejected, by the worker or by the broker; for a result, when it was published.
    pub fn at(&self) -> Option<OffsetDateTime> {
        let time = |seconds: u64| OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok();
        let by_worker = self.header(REJECTED_AT).and_then(|at| OffsetDateTime::parse(at, &Rfc3339).ok());
        // A letter that was requeued has the time of its first rejection, and the broker may have rejected it again.
        let by_broker = self.died_at().and_then(time);
        by_worker.max(by_broker).or_else(|| self.properties.timestamp().and_then(time))
    }

    /// Returns when the broker made it a dead letter.
    fn died_at(&self) -> Option<u64> {
        let death = self.properties.headers().as_ref()?.inner().get("x-death")?;
        let AMQPValue::FieldArray(deaths) = death else { return None };
        let Some(AMQPValue::FieldTable(last)) = deaths.as_slice().first() else { return None };
        match last.inner().get("time") {
            Some(AMQPValue::Timestamp(seconds)) => Some(*seconds),
            _ => None,
        }
    }

    /// Returns when an operator published it again.
    pub fn requeued_at(&self) -> Option<OffsetDateTime> {
        self.header(REQUEUED_AT).and_then(|at| OffsetDateTime::parse(at, &Rfc3339).ok())
    }

    /// Returns how often operators published it again.
    pub fn requeued_count(&self) -> u32 {
        self.header(REQUEUED_COUNT).and_then(|count| count.parse().ok()).unwrap_or_default()
    }

    /// Returns the kind of message that was rejected, if a header says so.
    pub fn source(&self, names: &Names) -> Option<Source> {
        if let Some(source) = self.header(REJECTED_FROM) {
            return Source::parse(source);
        }
        let queue = self.header("x-first-death-queue")?;
        Source::ALL.into_iter().find(|source| names.queue(*source) == queue)
    }

    /// Makes the properties under which it is published again: its own, without those of its rejection, and with who
    /// did it. `x-rejected-at` stays: it distinguishes the message from the rejected one.
    ///
    /// Returns `None` if its own properties could not be read.
    pub(super) fn requeued_properties(&self, actor: &str, now: OffsetDateTime) -> Option<BasicProperties> {
        if self.is_unreadable {
            return None;
        }
        let mut headers = FieldTable::default();
        let own = self.properties.headers().iter().flat_map(|headers| headers.inner());
        for (name, value) in own.filter(|(name, _)| !is_of_the_way(name.as_str())) {
            headers.insert(name.clone(), value.clone());
        }
        let now = now.format(&Rfc3339).unwrap_or_default();
        let rejected_at = self.at().and_then(|at| at.format(&Rfc3339).ok());
        let count = (self.requeued_count() + 1).to_string();
        let mut add = |name: &str, value: &str| {
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
        };
        add(REQUEUED_BY, actor);
        add(REQUEUED_AT, &now);
        add(REQUEUED_COUNT, &count);
        if self.header(REJECTED_AT).is_none() && self.died_at().is_some() {
            add(REJECTED_AT, &rejected_at.unwrap_or(now));
        }
        let properties = republishable(self.properties.clone());
        Some(properties.with_headers(headers).with_delivery_mode(PERSISTENT))
    }
}

/// The header in which RabbitMQ counts deliveries.
pub const DELIVERY_COUNT: &str = "x-delivery-count";

fn is_of_the_way(name: &str) -> bool {
    OF_THE_WAY.iter().any(|header| header.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(headers: &[(&str, &str)]) -> Letter {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert((*name).into(), AMQPValue::LongString((*value).into()));
        }
        let properties = BasicProperties::default()
            .with_message_id("m-1".into())
            .with_expiration("1000".into())
            .with_user_id("upstream".into())
            .with_headers(table);
        Letter { body: b"{}".to_vec(), properties, is_unreadable: false, tag: 1 }
    }

    #[test]
    fn a_requeued_letter_keeps_what_is_its_own_and_says_who_did_it() {
        let given = letter(&[
            ("x-merchant-id", "m_1"),
            ("x-rejected-code", "INVALID_JOB"),
            ("x-rejected-at", "2026-11-29T06:00:00Z"),
            ("X-Death", "as a publisher wrote it"),
            ("x-requeued-count", "2"),
        ]);
        let properties = given.requeued_properties("ada", OffsetDateTime::UNIX_EPOCH).unwrap();
        let again = Letter { properties, ..letter(&[]) };
        let headers: Vec<(&str, Option<&str>)> = again.headers().collect();
        assert_eq!(
            headers,
            [
                ("x-merchant-id", Some("m_1")),
                ("x-rejected-at", Some("2026-11-29T06:00:00Z")),
                ("x-requeued-at", Some("1970-01-01T00:00:00Z")),
                ("x-requeued-by", Some("ada")),
                ("x-requeued-count", Some("3")),
            ]
        );
        assert_eq!(again.message_id(), Some("m-1"));
        // It would expire again, and only its publisher may use its name.
        assert!(again.properties.expiration().is_none() && again.properties.user_id().is_none());
        assert_ne!(again.id(), given.id());
    }

    #[test]
    fn the_time_of_a_letter_is_that_of_its_last_rejection() {
        let at = |by_worker: Option<&str>, by_broker: Option<u64>| {
            let mut letter =
                letter(&by_worker.map(|at| ("x-rejected-at", at)).into_iter().collect::<Vec<_>>());
            let mut headers = letter.properties.headers().clone().unwrap_or_default();
            if let Some(seconds) = by_broker {
                let mut death = FieldTable::default();
                death.insert("time".into(), AMQPValue::Timestamp(seconds));
                headers.insert(
                    "x-death".into(),
                    AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death)].into()),
                );
            }
            letter.properties = letter.properties.with_headers(headers);
            letter.at().map(OffsetDateTime::unix_timestamp)
        };
        assert_eq!(at(None, None), None);
        assert_eq!(at(Some("1970-01-01T00:01:00Z"), None), Some(60));
        assert_eq!(at(None, Some(70)), Some(70));
        // It was requeued, and the broker rejected it again.
        assert_eq!(at(Some("1970-01-01T00:01:00Z"), Some(70)), Some(70));
        assert_eq!(at(Some("1970-01-01T00:01:00Z"), Some(50)), Some(60));
        assert_eq!(at(Some("yesterday"), Some(50)), Some(50));
    }

    #[test]
    fn its_queue_is_known_by_our_header_or_the_brokers() {
        let names = Names::default();
        let source = |headers: &[(&str, &str)]| letter(headers).source(&names);
        assert_eq!(source(&[("x-rejected-from", "cancel")]), Some(Source::Cancel));
        assert_eq!(source(&[("x-first-death-queue", "payout_links.status")]), Some(Source::Status));
        assert_eq!(source(&[("x-first-death-queue", "payout_links.create")]), Some(Source::Jobs));
        assert_eq!(source(&[("x-first-death-queue", "another")]), None);
        assert_eq!(source(&[]), None);
    }
}
