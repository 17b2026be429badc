//! Events: the things that happen to a payout link and that the worker publishes.

use time::OffsetDateTime;
use uuid::Uuid;

/// The type of an event: the routing key of its result and the `type` of its webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// The provider created the link.
    Created,
    /// The provider declined, or could not be reached before retries ran out.
    Failed,
    /// The outcome is unknown.
    Pending,
    /// The worker rejected the job and did not call the provider.
    Rejected,
}

impl EventType {
    /// Returns the type as it is written on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "payout_link.created",
            Self::Failed => "payout_link.failed",
            Self::Pending => "payout_link.pending",
            Self::Rejected => "payout_link.rejected",
        }
    }

    /// Parses a type as it is written on the wire.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Created, Self::Failed, Self::Pending, Self::Rejected].into_iter().find(|t| t.as_str() == name)
    }
}

/// Returns the time of an event, read from its UUIDv7. It is the same in every replay.
pub fn event_time(id: Uuid) -> OffsetDateTime {
    let (seconds, nanoseconds) = id.get_timestamp().map_or((0, 0), |timestamp| timestamp.to_unix());
    let seconds = i64::try_from(seconds).unwrap_or_default();
    let whole = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    whole + time::Duration::nanoseconds(nanoseconds.into())
}
