//! What is told of a payout link, and to whom.

use time::OffsetDateTime;
use uuid::Uuid;

/// The type of an event: the routing key of its result and the `type` of its webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    Created,
    /// The connector said no, or was never reached until retries ran out.
    Failed,
    /// The outcome is not known.
    Pending,
    /// The job itself was refused; the connector was never called.
    Rejected,
}

impl EventType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "payout_link.created",
            Self::Failed => "payout_link.failed",
            Self::Pending => "payout_link.pending",
            Self::Rejected => "payout_link.rejected",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        [Self::Created, Self::Failed, Self::Pending, Self::Rejected].into_iter().find(|t| t.as_str() == name)
    }
}

/// The time of an event is the time in its UUIDv7: the same in every repeat, in whatever process.
pub fn event_time(id: Uuid) -> OffsetDateTime {
    let (seconds, nanoseconds) = id.get_timestamp().map_or((0, 0), |timestamp| timestamp.to_unix());
    let seconds = i64::try_from(seconds).unwrap_or_default();
    let whole = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    whole + time::Duration::nanoseconds(nanoseconds.into())
}
