//! Reads the worker's own queues for an operator: dead letters, and results without a queue.
//!
//! Every message that is read stays unsettled until it is removed or given back, so that nothing is read twice. If the
//! program ends before that, the broker gives all of them back.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use lapin::{
    BasicProperties, Channel,
    options::{
        BasicAckOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions, ConfirmSelectOptions,
        QueueDeclareOptions,
    },
    types::FieldTable,
};
use time::OffsetDateTime;

use super::{
    BrokerError, BrokerSettings, Letter, Names, Route, Source,
    connection::{Held, connect},
    deadline::{channel, within},
    screen,
};

/// A reader of one queue.
pub struct Letters {
    reading: Held,
    channel: Channel,
    queue: String,
    /// The delivery tags of the letters that were read and not removed, oldest first.
    unsettled: BTreeSet<u64>,
    settings: BrokerSettings,
    /// A connection of its own: an alarm at the broker blocks a connection that publishes, its acknowledgements
    /// included.
    publishing: Option<(Held, Channel)>,
}

/// So many letters are returned at once. RabbitMQ sends the returns of a channel to a quorum queue in order as long as fewer
/// than 32 of them are not carried out. Further ones wait in a map, and its order is another one.
const IN_ORDER: usize = 16;
/// Limit of the wait until the queue has returned letters: another program may take them at once.
const RETURN: Duration = Duration::from_secs(1);

/// Returns the number of messages that are ready.
async fn ready(channel: &Channel, queue: &str) -> Result<u32, BrokerError> {
    let passive = QueueDeclareOptions { passive: true, ..Default::default() };
    let declared = within(channel.queue_declare(queue.into(), passive, FieldTable::default()));
    Ok(declared.await?.message_count())
}

impl Names {
    /// Returns the queue of a kind of message.
    pub fn queue(&self, source: Source) -> std::borrow::Cow<'_, str> {
        match source {
            Source::Jobs => self.jobs_queue.as_str().into(),
            Source::Cancel => self.cancel_queue(),
            Source::Status => self.status_queue(),
        }
    }

    /// Returns the routing key of a kind of message.
    pub fn routing_key(&self, source: Source) -> &str {
        match source {
            Source::Jobs => &self.jobs_routing_key,
            Source::Cancel => &self.cancel_routing_key,
            Source::Status => &self.status_routing_key,
        }
    }
}

impl Letters {
    /// Connects, and declares the topology.
    ///
    /// # Errors
    ///
    /// Any [`BrokerError`].
    pub async fn open(settings: &BrokerSettings, queue: &str) -> Result<Self, BrokerError> {
        let reading = connect(settings, "letters").await?;
        let channel = channel(&reading).await?;
        Ok(Self {
            reading,
            channel,
            queue: queue.to_owned(),
            unsettled: BTreeSet::new(),
            settings: settings.clone(),
            publishing: None,
        })
    }

    /// Reads the next message; `None` at the end of the queue.
    ///
    /// # Errors
    ///
    /// Any [`BrokerError`].
    pub async fn next(&mut self) -> Result<Option<Letter>, BrokerError> {
        let got = within(self.channel.basic_get(self.queue.as_str().into(), BasicGetOptions::default()));
        let Some(got) = got.await? else { return Ok(None) };
        let message = got.delivery;
        self.unsettled.insert(message.delivery_tag);
        let is_unreadable = screen::is_marked(&message.properties, self.reading.mark);
        let properties = if is_unreadable { BasicProperties::default() } else { message.properties };
        Ok(Some(Letter { body: message.data, properties, is_unreadable, tag: message.delivery_tag }))
    }

    /// Publishes a message again, with another body if one is given, and waits for the broker's confirm. The message
    /// itself stays in its queue: remove it afterwards.
    ///
    /// # Errors
    ///
    /// Any [`BrokerError`]: the broker may or may not have it.
    pub async fn publish_again(
        &mut self,
        letter: &Letter,
        body: Option<&[u8]>,
        actor: &str,
        (exchange, routing_key): (&str, &str),
    ) -> Result<Route, BrokerError> {
        let unreadable = || BrokerError::Lost("the properties of the message cannot be read".into());
        let properties =
            letter.requeued_properties(actor, OffsetDateTime::now_utc()).ok_or_else(unreadable)?;
        let channel = self.publishing_channel().await?;
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let body = body.unwrap_or(&letter.body);
        let publishing =
            channel.basic_publish(exchange.into(), routing_key.into(), options, body, properties);
        // One message at a time: only then a return belongs to its own confirm.
        let confirmation = within(within(publishing).await?).await?;
        if !confirmation.is_ack() {
            return Err(BrokerError::Lost("a queue refused the message".into()));
        }
        Ok(if confirmation.take_message().is_some() { Route::Returned } else { Route::Queued })
    }

    async fn publishing_channel(&mut self) -> Result<&Channel, BrokerError> {
        if self.publishing.is_none() {
            let connection = connect(&self.settings, "letters publish").await?;
            let channel = channel(&connection).await?;
            within(channel.confirm_select(ConfirmSelectOptions::default())).await?;
            self.publishing = Some((connection, channel));
        }
        let lost = || BrokerError::Lost("the connection is gone".into());
        self.publishing.as_ref().map(|(_, channel)| channel).ok_or_else(lost)
    }

    /// Removes a message from its queue for good.
    ///
    /// # Errors
    ///
    /// Any [`BrokerError`].
    pub async fn remove(&mut self, letter: &Letter) -> Result<(), BrokerError> {
        within(self.channel.basic_ack(letter.tag, BasicAckOptions::default())).await?;
        self.unsettled.remove(&letter.tag);
        Ok(())
    }

    /// Gives back every message that was read and not removed, in their order, and waits until the broker has done both.
    ///
    /// # Errors
    ///
    /// Any [`BrokerError`]: then the broker gives them back when it notices that the connection is gone.
    pub async fn give_back(self) -> Result<(), BrokerError> {
        let tags: Vec<u64> = self.unsettled.into_iter().collect();
        let multiple = BasicNackOptions { multiple: true, requeue: true };
        let mut expected = ready(&self.channel, &self.queue).await?;
        let mut are_seen = true;
        for chunk in tags.chunks(IN_ORDER) {
            let Some(&last) = chunk.last() else { break };
            within(self.channel.basic_nack(last, multiple)).await?;
            expected += u32::try_from(chunk.len()).unwrap_or(u32::MAX);
            let returned = Instant::now();
            while are_seen && ready(&self.channel, &self.queue).await? < expected {
                are_seen = returned.elapsed() < RETURN;
            }
        }
        // The broker carries out the frames of a channel in their order, and confirms the last one.
        within(self.channel.close(200, "done".into())).await?;
        within(self.reading.close(200, "done".into())).await
    }
}
