//! Acts as the upstream: publishes each job until it is confirmed, and receives every result, through the nodes that
//! faults kill.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use history_checker::{DeadLetter, Published, Secrets};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
    },
    types::{AMQPValue, FieldTable},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    sync::{Mutex as AsyncMutex, watch},
    time::{sleep, timeout},
};

use crate::{
    connectors::ROAMING,
    inbox::Inbox,
    jobs::{Message, REPLIES},
    raw, services,
};

pub const RESULTS: &str = "chaos.results";
const EXCHANGE: &str = "payout_links.results";
pub const JOBS: &str = "payout_links.create";
/// The queue of results that no queue accepted. The worker publishes a replay or a rejection there after five
/// seconds.
const UNROUTED: &str = "payout_links.results.unrouted";
const DEAD: &str = "payout_links.create.dead";
const PATIENCE: Duration = Duration::from_secs(30);
/// A consumer without a delivery for this time is replaced.
const FORGOTTEN: Duration = Duration::from_secs(20);

pub struct Upstream {
    nodes: Vec<SocketAddr>,
    channel: AsyncMutex<(u64, Option<Channel>)>,
    pub inbox: Arc<Mutex<Inbox>>,
    published: Mutex<Vec<Published>>,
    repeats: Mutex<u64>,
    /// Messages for the renamed connector that may be in the queue twice, so one copy may be rejected and one
    /// accepted.
    ambiguous: Mutex<HashSet<String>>,
    stop: watch::Sender<bool>,
}

impl Upstream {
    /// Declares the queues of the upstream before any job is published, and starts to consume them. The workers
    /// declare their own.
    /// With `takes_letters`, dead letters are taken all the time, otherwise only by [`Upstream::take_letters`].
    pub async fn start(
        nodes: Vec<SocketAddr>,
        secrets: Secrets,
        takes_letters: bool,
    ) -> Result<Arc<Self>, String> {
        let upstream = Arc::new(Self {
            nodes,
            channel: AsyncMutex::default(),
            inbox: Arc::default(),
            published: Mutex::default(),
            repeats: Mutex::default(),
            ambiguous: Mutex::default(),
            stop: watch::Sender::new(false),
        });
        upstream.declare().await.map_err(|error| format!("declaring: {error}"))?;
        for queue in [RESULTS, UNROUTED, REPLIES].into_iter().chain(takes_letters.then_some(DEAD)) {
            tokio::spawn(upstream.clone().listen(queue, secrets.clone()));
        }
        Ok(upstream)
    }

    async fn declare(&self) -> Result<(), lapin::Error> {
        let connection = self.connect(0).await?;
        let channel = connection.create_channel().await?;
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        channel
            .exchange_declare(EXCHANGE.into(), ExchangeKind::Topic, durable, FieldTable::default())
            .await?;
        for queue in [RESULTS, REPLIES] {
            let mut arguments = FieldTable::default();
            arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
            let durable = QueueDeclareOptions { durable: true, ..Default::default() };
            channel.queue_declare(queue.into(), durable, arguments).await?;
        }
        let all = QueueBindOptions::default();
        channel.queue_bind(RESULTS.into(), EXCHANGE.into(), "#".into(), all, FieldTable::default()).await?;
        connection.close(200, "declared".into()).await
    }

    /// Connects to the first node that accepts, beginning at `first`.
    async fn connect(&self, first: usize) -> Result<Connection, lapin::Error> {
        let mut result = None;
        for place in 0..self.nodes.len() {
            let address = self.nodes[(first + place) % self.nodes.len()];
            let url = format!("amqp://guest:guest@{address}/%2f?heartbeat=5&connection_timeout=3000");
            let connecting = Connection::connect(&url, ConnectionProperties::default());
            match timeout(Duration::from_secs(10), connecting).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => result = Some(error),
                Err(_) => {}
            }
        }
        Err(result.unwrap_or_else(|| {
            lapin::ErrorKind::IOError(Arc::new(std::io::ErrorKind::TimedOut.into())).into()
        }))
    }

    /// Publishes a message under one id until the broker confirms it, and only then counts it as published. The
    /// message may arrive more than once.
    pub async fn publish(&self, message: Message) {
        let mut known = message.known.clone();
        // A result of the key came before this message is sent, so the message needs a replay.
        known.came_late = self.inbox.lock().unwrap().concluded.contains_key(&known.key);
        while let Err(channel) = self.try_publish(&message).await {
            *self.repeats.lock().unwrap() += 1;
            if message.connector == ROAMING.name {
                self.ambiguous.lock().unwrap().insert(message.known.message_id.clone());
            }
            self.close_channel(channel).await;
            sleep(Duration::from_millis(300)).await;
        }
        self.published.lock().unwrap().push(known);
    }

    async fn try_publish(&self, message: &Message) -> Result<(), u64> {
        let mut headers = FieldTable::default();
        headers.insert("x-connector".into(), AMQPValue::LongString(message.connector.into()));
        headers.insert("x-merchant-id".into(), AMQPValue::LongString(message.merchant_id.into()));
        let mut properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/json".into())
            .with_message_id(message.known.message_id.as_str().into())
            .with_headers(headers);
        if let Some(queue) = message.reply_to {
            properties = properties.with_reply_to(queue.into());
        }
        self.try_publish_to(("payout_links", "create"), &message.body, properties).await
    }

    async fn try_publish_to(
        &self,
        (exchange, routing_key): (&str, &str),
        body: &[u8],
        properties: BasicProperties,
    ) -> Result<(), u64> {
        let Some((number, channel)) = self.channel().await else { return Err(0) };
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let confirmed = async {
            let confirm =
                channel.basic_publish(exchange.into(), routing_key.into(), options, body, properties).await?;
            confirm.await
        };
        let Ok(Ok(confirmation)) = timeout(Duration::from_secs(20), confirmed).await else {
            return Err(number);
        };
        let is_queued = confirmation.is_ack() && confirmation.take_message().is_none();
        if is_queued { Ok(()) } else { Err(number) }
    }

    /// Returns the open channel, or opens one.
    async fn channel(&self) -> Option<(u64, Channel)> {
        let mut current = self.channel.lock().await;
        if current.1.as_ref().is_none_or(|channel| !channel.status().connected()) {
            current.0 += 1;
            current.1 = self.open(current.0 as usize).await.ok();
        }
        Some((current.0, current.1.clone()?))
    }

    async fn open(&self, first: usize) -> Result<Channel, lapin::Error> {
        let connection = self.connect(first).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    }

    /// Closes the `number`th channel after a failure.
    async fn close_channel(&self, number: u64) {
        let mut current = self.channel.lock().await;
        if current.0 == number
            && let Some(channel) = current.1.take()
        {
            // The close is not waited for, because it may hang as well.
            tokio::spawn(async move { channel.close(200, "of no use".into()).await });
        }
    }

    async fn listen(self: Arc<Self>, queue: &'static str, secrets: Secrets) {
        let mut tries = 0;
        while !*self.stop.borrow() {
            tries += 1;
            if queue == DEAD {
                // A lost connection may leave messages in the queue. The next round takes them.
                let _ = self.take_dead_letters(tries).await;
            } else {
                let _ = self.listen_once(queue, tries, &secrets).await;
            }
            sleep(Duration::from_millis(300)).await;
        }
    }

    /// Takes dead letters with `raw`, because an unreadable one stops every consumer of a client library.
    async fn take_dead_letters(self: &Arc<Self>, first: usize) -> std::io::Result<()> {
        let (node, upstream) = (self.nodes[first % self.nodes.len()], self.clone());
        let taken = tokio::task::spawn_blocking(move || {
            raw::take_all(node, DEAD, |message_id, has_reason| {
                let message_id = Some(message_id);
                upstream.inbox.lock().unwrap().dead.push(DeadLetter { message_id, has_reason });
            })
        });
        taken.await.unwrap()
    }

    /// Takes all dead letters out of their queue, after the workers have stopped.
    pub async fn take_letters(self: &Arc<Self>) -> Result<(), String> {
        let mut tries = 0;
        let take = async || {
            tries += 1;
            self.take_dead_letters(tries).await.is_ok()
        };
        services::until("the dead letters", Duration::from_mins(5), take).await
    }

    /// Publishes a dead letter until the broker confirms it. It may arrive more than once.
    pub async fn publish_letter(&self, message_id: &str, rejected_at: OffsetDateTime) {
        let mut headers = FieldTable::default();
        let rejected_at = rejected_at.format(&Rfc3339).unwrap();
        headers.insert("x-rejected-at".into(), AMQPValue::LongString(rejected_at.into()));
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_message_id(message_id.into())
            .with_headers(headers);
        while let Err(channel) = self.try_publish_to(("", DEAD), b"{}", properties.clone()).await {
            self.close_channel(channel).await;
            sleep(Duration::from_millis(300)).await;
        }
    }

    /// Publishes a message that no client library can read.
    pub async fn publish_unreadable(&self) -> Result<(), String> {
        let node = self.nodes[self.repeats() as usize % self.nodes.len()];
        let published =
            tokio::task::spawn_blocking(move || raw::publish_unreadable(node, JOBS)).await.unwrap();
        published.map_err(|error| error.to_string())
    }

    /// Declares a queue that accepts `limit` messages and rejects more. With `results`, it is bound to the results
    /// exchange.
    pub async fn declare_full(&self, queue: &str, limit: i64, results: bool) -> Result<(), String> {
        let declared = async {
            let connection = self.connect(0).await?;
            let channel = connection.create_channel().await?;
            let mut arguments = FieldTable::default();
            arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
            arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(limit));
            arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
            let durable = QueueDeclareOptions { durable: true, ..Default::default() };
            channel.queue_declare(queue.into(), durable, arguments).await?;
            if results {
                let (all, none) = (QueueBindOptions::default(), FieldTable::default());
                channel.queue_bind(queue.into(), EXCHANGE.into(), "#".into(), all, none).await?;
            }
            connection.close(200, "declared".into()).await
        };
        timeout(PATIENCE, declared).await.map_err(|_| "declaring took too long")?.map_err(|e| e.to_string())
    }

    /// Empties or deletes a queue that was full.
    pub async fn empty(&self, queue: &str, deletes: bool) -> Result<(), String> {
        let emptied = async {
            let connection = self.connect(0).await?;
            let channel = connection.create_channel().await?;
            if deletes {
                channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?;
            } else {
                channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await?;
            }
            connection.close(200, "emptied".into()).await
        };
        timeout(PATIENCE, emptied).await.map_err(|_| "emptying took too long")?.map_err(|e| e.to_string())
    }

    async fn listen_once(&self, queue: &str, first: usize, secrets: &Secrets) -> Result<(), lapin::Error> {
        let connection = self.connect(first).await?;
        let consuming = async {
            let channel = connection.create_channel().await?;
            channel.basic_qos(200, BasicQosOptions::default()).await?;
            let options = BasicConsumeOptions::default();
            channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await
        };
        let Ok(consumer) = timeout(PATIENCE, consuming).await else { return Ok(()) };
        let mut consumer = consumer?;
        let mut stop = self.stop.subscribe();
        loop {
            // RabbitMQ 3.10 forgets a consumer now and then when the queue's leader dies. A new one gets its messages.
            let delivery = tokio::select! {
                delivery = timeout(FORGOTTEN, consumer.next()) => delivery,
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            };
            let Ok(Some(delivery)) = delivery else { return Ok(()) };
            let delivery = delivery?;
            self.inbox.lock().unwrap().record(queue, &delivery, secrets);
            match timeout(PATIENCE, delivery.acker.ack(BasicAckOptions::default())).await {
                Ok(acknowledged) => acknowledged?,
                Err(_) => return Ok(()),
            };
        }
    }

    /// Returns the number of messages that are ready for the workers, or `None` if no node answers.
    pub async fn waiting(&self) -> Option<u32> {
        self.ready(JOBS).await
    }

    /// Returns whether every result and reply has been received, as far as RabbitMQ says.
    pub async fn has_received_all(&self) -> bool {
        self.ready(RESULTS).await == Some(0) && self.ready(REPLIES).await == Some(0)
    }

    /// Returns the number of ready messages of a queue.
    async fn ready(&self, queue: &str) -> Option<u32> {
        let count = async {
            let connection = self.connect(0).await.ok()?;
            let channel = connection.create_channel().await.ok()?;
            let options = QueueDeclareOptions { passive: true, ..Default::default() };
            let queue = channel.queue_declare(queue.into(), options, FieldTable::default()).await.ok()?;
            let _ = connection.close(200, "counted".into()).await;
            Some(queue.message_count())
        };
        timeout(Duration::from_secs(10), count).await.ok()?
    }

    /// Waits until a result of the key is received, or until `end`.
    pub async fn concluded(&self, key: &str, end: Instant) -> bool {
        let is_concluded = || self.inbox.lock().unwrap().concluded.contains_key(key);
        while !is_concluded() && Instant::now() < end {
            sleep(Duration::from_millis(500)).await;
        }
        is_concluded()
    }

    pub fn published(&self) -> Vec<Published> {
        self.published.lock().unwrap().clone()
    }

    /// Counts the jobs without a result and without a rejection.
    pub fn unanswered(&self) -> usize {
        let (published, inbox) = (self.published.lock().unwrap(), self.inbox.lock().unwrap());
        let is_answered = |job: &&Published| {
            inbox.rejected.contains(&job.message_id)
                || (job.is_valid && inbox.concluded.contains_key(&job.key))
        };
        published.len() - published.iter().filter(is_answered).count()
    }

    pub fn count(&self) -> usize {
        self.published.lock().unwrap().len()
    }

    /// Counts the repeated publications of messages that were not confirmed.
    pub fn repeats(&self) -> u64 {
        *self.repeats.lock().unwrap()
    }

    pub fn ambiguous(&self) -> HashSet<String> {
        self.ambiguous.lock().unwrap().clone()
    }

    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}
