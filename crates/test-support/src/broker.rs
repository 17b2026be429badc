//! Acts as the upstream: publishes jobs and receives results.

use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions,
        ConfirmSelectOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions,
        QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use payout_link_worker::rabbitmq::Names;
use serde_json::Value;

use super::{Job, eventually};

/// A message received from the results exchange, a reply queue or the dead-letter queue.
#[derive(Debug, Clone)]
pub struct ReceivedMessage {
    /// The body as it arrived.
    pub body: Vec<u8>,
    /// The properties as they arrived.
    pub properties: BasicProperties,
}

impl ReceivedMessage {
    /// Returns the body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Returns the `message_id`.
    pub fn id(&self) -> String {
        self.properties.message_id().as_ref().unwrap().to_string()
    }

    /// Returns the `type`.
    pub fn kind(&self) -> String {
        self.properties.kind().as_ref().unwrap().to_string()
    }

    /// Returns the `correlation_id`.
    pub fn correlation_id(&self) -> Option<String> {
        self.properties.correlation_id().as_ref().map(ToString::to_string)
    }

    /// Returns a header that is a string.
    pub fn header(&self, name: &str) -> Option<String> {
        match self.properties.headers().as_ref()?.inner().get(name)? {
            AMQPValue::LongString(text) => Some(text.to_string()),
            other => Some(format!("{other:?}")),
        }
    }

    /// Returns the code of the error in the body.
    pub fn error_code(&self) -> Option<String> {
        self.json()["error"]["unified_details"]["code"].as_str().map(str::to_owned)
    }

    /// Returns the field that the error in the body names.
    pub fn field(&self) -> Option<String> {
        self.json()["error"]["unified_details"]["description"].as_str().map(str::to_owned)
    }
}

pub(super) struct Upstream {
    url: String,
    connection: Connection,
    /// A connection for `take`. A missing queue closes the channel, and a race in lapin can then close the
    /// connection.
    taker: tokio::sync::Mutex<Option<Connection>>,
    channel: Channel,
    names: Names,
    received: Arc<Mutex<Vec<ReceivedMessage>>>,
}

impl Upstream {
    /// Declares the queues that the contract leaves to an upstream, and receives every result.
    pub(super) async fn connect(url: &str, names: Names, listens: bool) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let exchange = names.results_exchange.as_str();
        channel
            .exchange_declare(exchange.into(), ExchangeKind::Topic, durable, FieldTable::default())
            .await
            .unwrap();
        let (url, taker) = (url.to_owned(), tokio::sync::Mutex::default());
        let upstream = Self { url, connection, taker, channel, names, received: Arc::default() };
        if listens {
            let queue = upstream.reply_queue().await;
            upstream.bind_to_results(&queue).await;
            upstream.listen(&queue, upstream.received.clone()).await;
        }
        upstream
    }

    pub(super) async fn bind_to_results(&self, queue: &str) {
        let (exchange, options) = (self.names.results_exchange.as_str(), QueueBindOptions::default());
        let binding = self.channel.queue_bind(
            queue.into(),
            exchange.into(),
            "#".into(),
            options,
            FieldTable::default(),
        );
        binding.await.unwrap();
    }

    pub(super) fn received(&self) -> Vec<ReceivedMessage> {
        self.received.lock().unwrap().clone()
    }

    /// Declares a reply queue of this connection.
    pub(super) async fn reply_queue(&self) -> String {
        let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
        let queue = self.channel.queue_declare("".into(), options, FieldTable::default()).await.unwrap();
        queue.name().to_string()
    }

    /// Declares a queue of this connection that is full.
    pub(super) async fn full_queue(&self) -> String {
        let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
        let mut limits = FieldTable::default();
        limits.insert("x-max-length".into(), AMQPValue::LongInt(1));
        limits.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
        let queue = self.channel.queue_declare("".into(), options, limits).await.unwrap();
        let name = queue.name().as_str();
        eventually("the queue is full", async || {
            let (exchange, options) = ("".into(), BasicPublishOptions::default());
            let confirm = self.channel.basic_publish(
                exchange,
                name.into(),
                options,
                b"full",
                BasicProperties::default(),
            );
            confirm.await.unwrap().await.unwrap().is_nack().then_some(())
        })
        .await;
        name.to_owned()
    }

    pub(super) async fn listen(&self, queue: &str, into: Arc<Mutex<Vec<ReceivedMessage>>>) {
        let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
        let mut consumer = self
            .channel
            .basic_consume(queue.into(), "".into(), options, FieldTable::default())
            .await
            .unwrap();
        tokio::spawn(async move {
            while let Some(Ok(delivery)) = consumer.next().await {
                into.lock()
                    .unwrap()
                    .push(ReceivedMessage { body: delivery.data, properties: delivery.properties });
            }
        });
    }

    /// Publishes into the jobs queue, and waits for the broker's confirm.
    pub(super) async fn publish(&self, job: &Job) {
        self.publish_to("", &self.names.jobs_queue, job).await;
    }

    /// Publishes to an exchange, and waits for the broker's confirm.
    pub(super) async fn publish_to(&self, exchange: &str, routing_key: &str, job: &Job) {
        let mut headers = job.table.clone();
        for (name, value) in &job.headers {
            headers.insert(name.as_str().into(), AMQPValue::LongString(value.as_str().into()));
        }
        let mut properties = job.properties.clone().with_delivery_mode(2).with_headers(headers);
        if let Some(id) = &job.message_id {
            properties = properties.with_message_id(id.as_str().into());
        }
        if let Some(id) = &job.correlation_id {
            properties = properties.with_correlation_id(id.as_str().into());
        }
        if let Some(queue) = &job.reply_to {
            properties = properties.with_reply_to(queue.as_str().into());
        }
        if let Some(kind) = &job.content_type {
            properties = properties.with_content_type(kind.as_str().into());
        }
        if let Some(expiration) = &job.expiration {
            properties = properties.with_expiration(expiration.as_str().into());
        }
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let confirm = self
            .channel
            .basic_publish(exchange.into(), routing_key.into(), options, &job.body, properties)
            .await
            .unwrap();
        let confirmation = confirm.await.unwrap();
        assert!(confirmation.is_ack() && confirmation.take_message().is_none(), "the job was not queued");
    }

    /// Takes one message out of a queue, if there is one.
    pub(super) async fn take(&self, queue: &str) -> Option<ReceivedMessage> {
        let mut taker = self.taker.lock().await;
        let connection = match taker.take().filter(|connection| connection.status().connected()) {
            Some(connection) => connection,
            None => Connection::connect(&self.url, ConnectionProperties::default()).await.unwrap(),
        };
        let channel = connection.create_channel().await.ok()?;
        // A missing queue counts as empty.
        let got = channel.basic_get(queue.into(), BasicGetOptions::default()).await.ok()?;
        if let Some(got) = &got {
            got.delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
        }
        channel.close(200, "".into()).await.unwrap();
        *taker = Some(connection);
        got.map(|got| ReceivedMessage { body: got.delivery.data, properties: got.delivery.properties })
    }

    /// Delivers the first message of a queue and returns it to the queue, if there is one.
    pub(super) async fn give_back(&self, queue: &str) -> Option<()> {
        let channel = self.connection.create_channel().await.unwrap();
        let got = channel.basic_get(queue.into(), BasicGetOptions::default()).await.unwrap()?;
        got.delivery.acker.nack(BasicNackOptions { requeue: true, multiple: false }).await.unwrap();
        channel.close(200, "".into()).await.unwrap();
        Some(())
    }

    /// Delivers this many messages of a queue and returns all of them, like a session that ends.
    pub(super) async fn give_all_back(&self, queue: &str, count: usize) {
        let channel = self.connection.create_channel().await.unwrap();
        for _ in 0..count {
            channel.basic_get(queue.into(), BasicGetOptions::default()).await.unwrap();
        }
        channel.close(200, "".into()).await.unwrap();
    }

    /// Counts the messages that are ready in a queue. RabbitMQ also answers 0 if a quorum queue's leader takes longer
    /// than a quarter of a second (`rabbit_quorum_queue:stat/2`). So 0 counts only after several answers.
    pub(super) async fn ready(&self, queue: &str) -> u32 {
        let channel = self.connection.create_channel().await.unwrap();
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let mut ready = 0;
        for _ in 0..5 {
            let queue = channel.queue_declare(queue.into(), options, FieldTable::default()).await.unwrap();
            ready = queue.message_count();
            if ready > 0 {
                break;
            }
        }
        channel.close(200, "".into()).await.unwrap();
        ready
    }

    pub(super) async fn delete_queue(&self, queue: &str) {
        self.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    }

    pub(super) async fn delete_topology(&self) {
        let names = &self.names;
        let (cancel, status) = (names.cancel_queue(), names.status_queue());
        for queue in [&names.jobs_queue, &names.dead_queue, &names.unrouted_queue, &*cancel, &*status] {
            let _ = self.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await;
        }
        for exchange in
            [&names.jobs_exchange, &names.results_exchange, &names.dead_exchange, &names.unrouted_exchange]
        {
            let _ = self
                .channel
                .exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default())
                .await;
        }
    }
}
