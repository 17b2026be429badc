//! Acts as the upstream: publishes jobs and receives results.

use std::sync::Arc;

use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
        ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::FieldTable,
};
use payout_link_worker::rabbitmq::Names;

use crate::stubs::{Arrivals, number};

pub struct Upstream {
    connection: Connection,
    channel: Channel,
    names: Names,
}

/// The maximum number of unconfirmed messages.
const WINDOW: usize = 1_000;

impl Upstream {
    pub async fn connect(url: &str, names: Names) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Self { connection, channel, names }
    }

    /// Receives every result from now on.
    pub async fn listen(&self, results: Arc<Arrivals>) {
        let channel = self.connection.create_channel().await.unwrap();
        let exchange = self.names.results_exchange.as_str();
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        channel
            .exchange_declare(exchange.into(), ExchangeKind::Topic, durable, FieldTable::default())
            .await
            .unwrap();
        // The queue is a durable quorum queue, as a payment system would use for its results.
        let mut quorum = FieldTable::default();
        quorum.insert("x-queue-type".into(), lapin::types::AMQPValue::LongString("quorum".into()));
        let queue = self.received_queue();
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare(queue.as_str().into(), durable, quorum).await.unwrap();
        channel
            .queue_bind(
                queue.as_str().into(),
                exchange.into(),
                "#".into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap();
        let no_ack = BasicConsumeOptions { no_ack: true, ..Default::default() };
        let mut consumer = channel
            .basic_consume(queue.as_str().into(), "".into(), no_ack, FieldTable::default())
            .await
            .unwrap();
        tokio::spawn(async move {
            // The consumer needs the channel for as long as it reads.
            let _channel = channel;
            while let Some(Ok(delivery)) = consumer.next().await {
                // Results of another merchant are not counted.
                if let Some(job) = number(&delivery.data) {
                    results.record(job);
                }
            }
        });
    }

    /// Publishes a job and returns its confirm. An empty `merchant` sends no merchant header.
    pub async fn send(&self, merchant: &str, body: &[u8]) -> lapin::PublisherConfirm {
        let mut properties =
            BasicProperties::default().with_delivery_mode(2).with_content_type("application/json".into());
        if !merchant.is_empty() {
            let mut headers = FieldTable::default();
            headers.insert("x-merchant-id".into(), lapin::types::AMQPValue::LongString(merchant.into()));
            properties = properties.with_headers(headers);
        }
        let (exchange, key) = (self.names.jobs_exchange.as_str(), self.names.jobs_routing_key.as_str());
        self.channel
            .basic_publish(exchange.into(), key.into(), BasicPublishOptions::default(), body, properties)
            .await
            .unwrap()
    }

    /// Publishes all jobs and waits for their confirms.
    pub async fn send_all(&self, bodies: impl Iterator<Item = (&'static str, Vec<u8>)>) {
        let mut outstanding = std::collections::VecDeque::with_capacity(WINDOW);
        for (merchant, body) in bodies {
            if outstanding.len() == WINDOW {
                confirmed(outstanding.pop_front().unwrap()).await;
            }
            outstanding.push_back(self.send(merchant, &body).await);
        }
        for confirm in outstanding {
            confirmed(confirm).await;
        }
    }

    /// Returns the number of messages in the jobs queue that no consumer has taken.
    pub async fn jobs_left(&self) -> u32 {
        let passive = QueueDeclareOptions { passive: true, durable: true, ..Default::default() };
        let queue = self.names.jobs_queue.as_str();
        self.channel
            .queue_declare(queue.into(), passive, FieldTable::default())
            .await
            .unwrap()
            .message_count()
    }

    pub async fn clear_away(self) {
        let names = &self.names;
        let received = self.received_queue();
        let (cancel, status) = (names.cancel_queue(), names.status_queue());
        for queue in
            [&received, &names.jobs_queue, &names.dead_queue, &names.unrouted_queue, &*cancel, &*status]
        {
            self.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
        }
        for exchange in
            [&names.jobs_exchange, &names.results_exchange, &names.dead_exchange, &names.unrouted_exchange]
        {
            let gone =
                self.channel.exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default());
            gone.await.unwrap();
        }
        self.connection.close(200, "done".into()).await.unwrap();
    }

    fn received_queue(&self) -> String {
        format!("{}.received", self.names.results_exchange)
    }
}

pub async fn confirmed(confirm: lapin::PublisherConfirm) {
    let confirmation = confirm.await.unwrap();
    assert!(confirmation.is_ack(), "the broker did not accept a job: {confirmation:?}");
}
