//! Publishes jobs for the command line, with confirms, and collects the replies if asked to.

use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Consumer, PublisherConfirm,
    options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};

use super::{
    BrokerError, BrokerSettings,
    connection::{Held, connect},
    deadline::{channel, within},
    message::PERSISTENT,
};

/// A job to publish.
pub struct Job<'a> {
    /// JSON.
    pub body: Vec<u8>,
    /// Unique for each message.
    pub message_id: String,
    /// `x-connector`.
    pub connector: Option<&'a str>,
    /// `x-merchant-id`.
    pub merchant_id: Option<&'a str>,
}

/// A publisher of jobs.
pub struct Submitter {
    // The channel needs it.
    _connection: Held,
    channel: Channel,
    replies: Option<(String, Consumer)>,
    confirms: Vec<PublisherConfirm>,
    settings: BrokerSettings,
}

/// Maximum number of unconfirmed jobs.
const WINDOW: usize = 256;

impl Submitter {
    /// Connects, and declares a reply queue if `wants_replies`.
    ///
    /// # Errors
    ///
    /// Any [`BrokerError`].
    pub async fn connect(settings: &BrokerSettings, wants_replies: bool) -> Result<Self, BrokerError> {
        let connection = connect(settings, "submit").await?;
        let channel = channel(&connection).await?;
        within(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        let replies = if wants_replies {
            let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
            let queue = within(channel.queue_declare("".into(), options, FieldTable::default())).await?;
            let consume = BasicConsumeOptions { no_ack: true, ..Default::default() };
            let consuming =
                channel.basic_consume(queue.name().clone(), "".into(), consume, FieldTable::default());
            Some((queue.name().to_string(), within(consuming).await?))
        } else {
            None
        };
        Ok(Self {
            _connection: connection,
            channel,
            replies,
            confirms: Vec::new(),
            settings: settings.clone(),
        })
    }

    /// Publishes a job.
    ///
    /// # Errors
    ///
    /// Any [`BrokerError`].
    pub async fn submit(&mut self, job: Job<'_>) -> Result<(), BrokerError> {
        if self.confirms.len() >= WINDOW {
            self.confirmed().await?;
        }
        let mut headers = FieldTable::default();
        for (name, value) in [("x-connector", job.connector), ("x-merchant-id", job.merchant_id)] {
            if let Some(value) = value {
                headers.insert(name.into(), AMQPValue::LongString(value.into()));
            }
        }
        let mut properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(PERSISTENT)
            .with_message_id(job.message_id.into())
            .with_headers(headers);
        if let Some((queue, _)) = &self.replies {
            properties = properties.with_reply_to(queue.as_str().into());
        }
        let names = &self.settings.names;
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let publishing = self.channel.basic_publish(
            names.jobs_exchange.as_str().into(),
            names.jobs_routing_key.as_str().into(),
            options,
            &job.body,
            properties,
        );
        self.confirms.push(within(publishing).await?);
        Ok(())
    }

    /// Waits until the broker has confirmed every job.
    ///
    /// # Errors
    ///
    /// Any [`BrokerError`].
    pub async fn confirmed(&mut self) -> Result<(), BrokerError> {
        for confirm in self.confirms.drain(..) {
            let confirmation = within(confirm).await?;
            if !confirmation.is_ack() || confirmation.take_message().is_some() {
                return Err(BrokerError::Lost("the broker rejected a job".into()));
            }
        }
        Ok(())
    }

    /// Returns type and body of the next reply.
    ///
    /// # Errors
    ///
    /// If the reply queue is gone.
    pub async fn next_result(&mut self) -> Result<(String, Vec<u8>), BrokerError> {
        let gone = || BrokerError::Lost("the reply queue is gone".into());
        let (_, replies) = self.replies.as_mut().ok_or_else(gone)?;
        let delivery = replies.next().await.ok_or_else(gone)??;
        let kind = delivery.properties.kind().as_ref().map(ToString::to_string).unwrap_or_default();
        Ok((kind, delivery.data))
    }
}
