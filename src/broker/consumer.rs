//! Deliveries in, within the prefetch. Each is acknowledged by whoever took it, after its row is committed;
//! acknowledgements leave in bulk.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, future::OptionFuture};
use lapin::{
    BasicProperties, Channel, Event,
    options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    BrokerError, BrokerSettings, Message,
    connection::{KeepUp, channel, connect, within},
    publisher::PERSISTENT,
};

/// One delivery of a job. Dropped without an acknowledgement it stays the broker's.
#[derive(Debug)]
pub struct Delivery {
    pub body: Vec<u8>,
    pub properties: BasicProperties,
    tag: u64,
    settle: mpsc::UnboundedSender<(u64, Settle)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settle {
    Acknowledge,
    GiveBack,
    Reject,
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
    pub fn dead_letter(&self, exchange: &str, code: &str, reason: &str) -> Option<Message> {
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
        Some(Message {
            exchange: exchange.into(),
            routing_key: String::new(),
            properties,
            body: Bytes::copy_from_slice(&self.body),
        })
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

/// A frame is 128 KiB at RabbitMQ, unless it is told otherwise; the rest is for the other properties and for ours.
const MOST_HEADERS: usize = 120 * 1024;

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

pub struct Consumer {
    deliveries: mpsc::Receiver<Delivery>,
    up: watch::Receiver<bool>,
    stop: Arc<watch::Sender<Stop>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Stop {
    No,
    /// Take nothing new; what was taken is still acknowledged.
    Cancel,
    /// Close: what is unacknowledged goes back to the queue.
    Close,
}

/// Stops a consumer from outside its loop.
#[derive(Clone)]
pub struct Stopper(Arc<watch::Sender<Stop>>);

impl Stopper {
    pub fn cancel(&self) {
        self.0.send_replace(Stop::Cancel);
    }

    pub fn close(&self) {
        self.0.send_replace(Stop::Close);
    }
}

impl Consumer {
    /// The consumer and the task that keeps it up; the task ends after [`Stopper::close`], or with what does not
    /// pass by waiting.
    pub fn start(settings: BrokerSettings) -> (Self, tokio::task::JoinHandle<Result<(), BrokerError>>) {
        let (sender, deliveries) = mpsc::channel(settings.prefetch.into());
        let (up_sender, up) = watch::channel(false);
        let (stop, stopped) = watch::channel(Stop::No);
        let task = tokio::spawn(async move {
            let mut keep_up = KeepUp::new("consume", up_sender);
            let mut caution = None;
            while *stopped.borrow() == Stop::No {
                let ended = session(&settings, caution, &sender, keep_up.up(), stopped.clone()).await;
                match ended {
                    Err(BrokerError::Unreadable(_)) => caution = Some(Caution(settings.prefetch)),
                    Ok(()) if *stopped.borrow() == Stop::No => {
                        caution = None;
                        continue;
                    }
                    // Only a session that got through ends the caution.
                    Ok(()) | Err(_) => {}
                }
                if let Some(end) = keep_up.after(ended).await {
                    return end;
                }
            }
            Ok(())
        });
        (Self { deliveries, up, stop: Arc::new(stop) }, task)
    }

    pub fn stopper(&self) -> Stopper {
        Stopper(self.stop.clone())
    }

    pub fn is_up(&self) -> watch::Receiver<bool> {
        self.up.clone()
    }

    /// The next delivery; `None` after it was stopped.
    pub async fn next(&mut self) -> Option<Delivery> {
        let mut stop = self.stop.subscribe();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop > Stop::No) => None,
            delivery = self.deliveries.recv() => delivery,
        }
    }
}

/// After a message that cannot be taken apart broke a connection off: so many deliveries are taken one at a time.
///
/// Every unacknowledged delivery goes back with that message, and the broker counts that. With a whole prefetch at
/// every try innocent jobs would be taken for poison before it is; so it is delivered alone until the broker's own
/// limit makes a dead letter of it.
#[derive(Debug, Clone, Copy)]
struct Caution(u16);

async fn session(
    settings: &BrokerSettings,
    caution: Option<Caution>,
    deliveries: &mpsc::Sender<Delivery>,
    up: &watch::Sender<bool>,
    mut stop: watch::Receiver<Stop>,
) -> Result<(), BrokerError> {
    let connection = connect(settings, "consume").await?;
    let mut events = Box::pin(connection.events_listener());
    let channel = channel(&connection).await?;
    // Per consumer; without it an unread consumer would take the whole queue into memory.
    let prefetch = if caution.is_some() { 1 } else { settings.prefetch };
    within(channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
    let queue = settings.names.jobs_queue.as_str();
    let consuming =
        channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = within(consuming).await?;
    up.send_replace(true);
    tracing::info!(connection.purpose = "consume", queue, "connected to RabbitMQ, consuming");

    let (settle, mut settled) = mpsc::unbounded_channel();
    let mut acks = Acks::new(channel.clone());
    let (mut tags, mut taking) = (Vec::new(), true);
    loop {
        tokio::select! {
            delivery = consumer.next(), if taking && deliveries.capacity() > 0 => match delivery {
                Some(Ok(delivery)) => {
                    let delivery = Delivery {
                        body: delivery.data,
                        properties: delivery.properties,
                        tag: delivery.delivery_tag,
                        settle: settle.clone(),
                    };
                    // Full or closed: it stays unacknowledged and comes again.
                    let _ = deliveries.try_send(delivery);
                }
                Some(Err(error)) => return Err(error.into()),
                None => return Err(BrokerError::Lost("the broker cancelled the consumer".into())),
            },
            _ = settled.recv_many(&mut tags, usize::MAX) => {
                acks.settle(&mut tags).await?;
                if caution.is_some_and(|Caution(deliveries)| acks.upto >= deliveries.into()) {
                    acks.tell_all().await?;
                    within(channel.close(200, "done".into())).await?;
                    return within(connection.close(200, "done".into())).await;
                }
            }
            Some(()) = OptionFuture::from(acks.due().map(sleep_until)) => acks.tell_due().await?,
            Some(Event::Error(error)) = events.next() => return Err(error.into()),
            _ = stop.changed() => {
                let wanted = *stop.borrow_and_update();
                if wanted >= Stop::Cancel && taking {
                    taking = false;
                    within(channel.basic_cancel(consumer.tag(), BasicCancelOptions::default())).await?;
                }
                if wanted == Stop::Close {
                    while let Ok(tag) = settled.try_recv() {
                        tags.push(tag);
                    }
                    acks.settle(&mut tags).await?;
                    acks.tell_all().await?;
                    within(channel.close(200, "done".into())).await?;
                    return within(connection.close(200, "done".into())).await;
                }
            }
        }
    }
}

/// What may be acknowledged. Every frame is an entry in the log of a quorum queue: what is settled without a gap goes
/// with one frame for many, what lies behind a gap after a moment by itself.
struct Acks {
    channel: Channel,
    /// Everything up to here is settled.
    upto: u64,
    /// Settled without a gap, and the broker not told yet: the last of them, how many, and since when.
    ready: Option<Ready>,
    /// Beyond `upto`: since when, or `None` where the broker has been told already.
    beyond: BTreeMap<u64, Option<Instant>>,
    /// The earliest of those times, or earlier.
    gap_since: Option<Instant>,
}

struct Ready {
    last: u64,
    count: usize,
    since: Instant,
}

/// Acknowledged with one frame, or after [`PATIENCE`].
const BULK: usize = 128;

/// How long an acknowledgement waits for others: nobody but the broker waits for it.
const PATIENCE: Duration = Duration::from_millis(10);

/// How long an acknowledgement waits for the ones before it.
const GAP: Duration = Duration::from_millis(50);

impl Acks {
    fn new(channel: Channel) -> Self {
        Self { channel, upto: 0, ready: None, beyond: BTreeMap::new(), gap_since: None }
    }

    async fn settle(&mut self, tags: &mut Vec<(u64, Settle)>) -> Result<(), BrokerError> {
        let now = Instant::now();
        for (tag, settle) in tags.drain(..) {
            if settle != Settle::Acknowledge {
                let requeue = BasicNackOptions { multiple: false, requeue: settle == Settle::GiveBack };
                within(self.channel.basic_nack(tag, requeue)).await?;
            }
            self.beyond.insert(tag, (settle == Settle::Acknowledge).then_some(now));
        }
        while let Some(entry) = self.beyond.first_entry()
            && *entry.key() == self.upto + 1
        {
            self.upto += 1;
            // The broker refuses a tag that is acknowledged already, also as the end of a range.
            if entry.remove().is_some() {
                let ready = self.ready.get_or_insert(Ready { last: 0, count: 0, since: now });
                ready.last = self.upto;
                ready.count += 1;
            }
        }
        if !self.beyond.is_empty() {
            self.gap_since.get_or_insert(now);
        }
        if self.ready.as_ref().is_some_and(|ready| ready.count >= BULK) {
            self.tell_ready().await?;
        }
        Ok(())
    }

    /// When the broker is to be told at the latest.
    fn due(&self) -> Option<Instant> {
        let ready = self.ready.as_ref().map(|ready| ready.since + PATIENCE);
        let gap = self.gap_since.map(|since| since + GAP);
        ready.into_iter().chain(gap).min()
    }

    async fn tell_due(&mut self) -> Result<(), BrokerError> {
        let now = Instant::now();
        if self.ready.as_ref().is_some_and(|ready| ready.since + PATIENCE <= now) {
            self.tell_ready().await?;
        }
        if self.gap_since.is_some_and(|since| since + GAP <= now) {
            self.tell_beyond(now - GAP).await?;
        }
        Ok(())
    }

    async fn tell_all(&mut self) -> Result<(), BrokerError> {
        self.tell_ready().await?;
        self.tell_beyond(Instant::now()).await
    }

    async fn tell_ready(&mut self) -> Result<(), BrokerError> {
        match self.ready.take() {
            Some(ready) => self.ack(ready.last, true).await,
            None => Ok(()),
        }
    }

    /// Those that have waited since `upto` or longer, each by itself.
    async fn tell_beyond(&mut self, upto: Instant) -> Result<(), BrokerError> {
        let waiting: Vec<u64> = self
            .beyond
            .iter()
            .filter(|(_, since)| since.is_some_and(|since| since <= upto))
            .map(|(tag, _)| *tag)
            .collect();
        for tag in waiting {
            self.ack(tag, false).await?;
            self.beyond.insert(tag, None);
        }
        self.gap_since = self.beyond.values().flatten().min().copied();
        Ok(())
    }

    async fn ack(&self, tag: u64, multiple: bool) -> Result<(), BrokerError> {
        within(self.channel.basic_ack(tag, BasicAckOptions { multiple })).await
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
