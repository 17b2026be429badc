//! Limits every wait for the broker.

use std::time::Duration;

use lapin::{Channel, Connection};
use tokio::time::timeout;

use super::error::BrokerError;

/// Limit of every wait for the broker.
const DEADLINE: Duration = Duration::from_secs(10);

/// Awaits the broker's answer to one operation.
pub(super) async fn within<T>(
    operation: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, BrokerError> {
    timeout(DEADLINE, operation)
        .await
        .map_err(|_| BrokerError::Lost("the broker does not answer".into()))?
        .map_err(Into::into)
}

/// Opens a channel.
pub(super) async fn channel(connection: &Connection) -> Result<Channel, BrokerError> {
    within(connection.create_channel()).await
}
