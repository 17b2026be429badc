//! Counts the messages of queues, and changes nothing at the broker.

use lapin::{options::QueueDeclareOptions, types::FieldTable};

use super::{
    BrokerSettings,
    connection::connect_only,
    deadline::{channel, within},
    error::BrokerError,
};

/// Messages that wait in the worker's queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueCounts {
    /// Jobs that no worker has received.
    pub jobs: u32,
    /// Messages in the dead-letter queue.
    pub dead_letters: u32,
    /// Results that no queue was bound for.
    pub unrouted: u32,
}

/// Asks the broker how many messages wait. Messages that a consumer has not settled are not counted.
///
/// # Errors
///
/// Any [`BrokerError`], also if a queue does not exist yet.
pub async fn queue_counts(settings: &BrokerSettings) -> Result<QueueCounts, BrokerError> {
    let connection = connect_only(settings, "status").await?;
    let channel = channel(&connection).await?;
    let count = async |queue: &str| {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let declared = within(channel.queue_declare(queue.into(), options, FieldTable::default())).await?;
        Ok::<_, BrokerError>(declared.message_count())
    };
    let names = &settings.names;
    Ok(QueueCounts {
        jobs: count(&names.jobs_queue).await?,
        dead_letters: count(&names.dead_queue).await?,
        unrouted: count(&names.unrouted_queue).await?,
    })
}
