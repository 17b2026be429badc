//! Declares the exchanges and queues at every connection. They are durable, and declaring them is idempotent.
//!
//! The results exchange has no arguments, so that a consumer may declare it as in the contract. A result without a
//! queue is returned to the publisher, which publishes it to the unrouted queue. The arguments of the jobs queue, and
//! of the queues of cancel and status messages, mean the same from RabbitMQ 3.10 to 4.x.

use lapin::{
    Channel, Connection, ErrorKind, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::{AMQPValue, FieldTable},
};

use super::{
    BrokerSettings,
    deadline::{channel, within},
    error::BrokerError,
};

pub(super) async fn declare(connection: &Connection, settings: &BrokerSettings) -> Result<(), BrokerError> {
    let names = &settings.names;
    // An error closes the channel, and the connection ends anyway.
    let channel = &channel(connection).await?;
    exchange(channel, &names.dead_exchange, ExchangeKind::Fanout).await?;
    exchange(channel, &names.unrouted_exchange, ExchangeKind::Fanout).await?;
    exchange(channel, &names.results_exchange, ExchangeKind::Topic).await?;
    exchange(channel, &names.jobs_exchange, ExchangeKind::Direct).await?;

    let mut letters = vec![("x-queue-type", text("quorum"))];
    // Without it, RabbitMQ 4 deletes a dead letter that was read and requeued more than twenty times.
    if settings.letter_delivery_limit > 0 {
        letters.push(("x-delivery-limit", number(settings.letter_delivery_limit)));
    }
    queue(channel, &names.dead_queue, &letters).await?;
    letters.push(("x-max-length", number(settings.unrouted_limit)));
    queue(channel, &names.unrouted_queue, &letters).await?;
    let jobs = [
        ("x-queue-type", text("quorum")),
        ("x-dead-letter-exchange", text(&names.dead_exchange)),
        ("x-dead-letter-strategy", text("at-least-once")),
        // Without it, at-least-once dead-lettering silently becomes at-most-once.
        ("x-overflow", text("reject-publish")),
        ("x-delivery-limit", number(settings.delivery_limit)),
    ];
    queue(channel, &names.jobs_queue, &jobs).await?;
    queue(channel, &names.cancel_queue(), &jobs).await?;
    queue(channel, &names.status_queue(), &jobs).await?;

    bind(channel, &names.dead_queue, &names.dead_exchange, "").await?;
    bind(channel, &names.unrouted_queue, &names.unrouted_exchange, "").await?;
    bind(channel, &names.jobs_queue, &names.jobs_exchange, &names.jobs_routing_key).await?;
    bind(channel, &names.cancel_queue(), &names.jobs_exchange, &names.cancel_routing_key).await?;
    bind(channel, &names.status_queue(), &names.jobs_exchange, &names.status_routing_key).await?;
    within(channel.close(200, "declared".into())).await
}

async fn exchange(channel: &Channel, name: &str, kind: ExchangeKind) -> Result<(), BrokerError> {
    let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
    let declared = within(async {
        let declared = channel.exchange_declare(name.into(), kind, options, FieldTable::default()).await;
        Ok(declared.map_err(|error| explain("exchange", name, error)))
    });
    declared.await?
}

async fn queue(
    channel: &Channel,
    name: &str,
    arguments: &[(&'static str, AMQPValue)],
) -> Result<(), BrokerError> {
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    let mut table = FieldTable::default();
    for (key, value) in arguments {
        table.insert((*key).into(), value.clone());
    }
    let declared = within(async {
        let declared = channel.queue_declare(name.into(), options, table).await;
        Ok(declared.map_err(|error| explain("queue", name, error)))
    });
    declared.await?.map(drop)
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) -> Result<(), BrokerError> {
    let options = QueueBindOptions::default();
    within(channel.queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default()))
        .await
}

/// Explains `PRECONDITION_FAILED`: names the queue or exchange, and the argument in the broker's words.
fn explain(what: &str, name: &str, error: lapin::Error) -> BrokerError {
    match error.kind() {
        ErrorKind::ProtocolError(error_frame)
            if matches!(error_frame.kind(), AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED)) =>
        {
            let said = error_frame.get_message().to_string();
            BrokerError::Mismatch { what: format!("{what} {name:?}"), said }
        }
        _ => error.into(),
    }
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn number(value: u32) -> AMQPValue {
    AMQPValue::LongLongInt(value.into())
}
