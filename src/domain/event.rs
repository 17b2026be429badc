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
    /// The recipient submitted their details.
    Claimed,
    /// The money is on its way.
    Processing,
    /// The recipient was paid.
    Succeeded,
    /// The link was claimed, and the payout failed for good.
    PayoutFailed,
    /// The payout failed, and the link can be claimed again.
    Reopened,
    /// The link ends soon and is not claimed. Only where it is configured.
    Expiring,
    /// The link was not claimed in time.
    Expired,
    /// The link was taken back.
    Cancelled,
    /// The recipient was paid, and the money came back.
    Reversed,
}

impl EventType {
    /// Every type.
    pub const ALL: [Self; 13] = [
        Self::Created,
        Self::Failed,
        Self::Pending,
        Self::Rejected,
        Self::Claimed,
        Self::Processing,
        Self::Succeeded,
        Self::PayoutFailed,
        Self::Reopened,
        Self::Expiring,
        Self::Expired,
        Self::Cancelled,
        Self::Reversed,
    ];

    /// Returns the type as it is written on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "payout_link.created",
            Self::Failed => "payout_link.failed",
            Self::Pending => "payout_link.pending",
            Self::Rejected => "payout_link.rejected",
            Self::Claimed => "payout_link.claimed",
            Self::Processing => "payout_link.processing",
            Self::Succeeded => "payout_link.succeeded",
            Self::PayoutFailed => "payout_link.payout_failed",
            Self::Reopened => "payout_link.reopened",
            Self::Expiring => "payout_link.expiring",
            Self::Expired => "payout_link.expired",
            Self::Cancelled => "payout_link.cancelled",
            Self::Reversed => "payout_link.reversed",
        }
    }

    /// Parses a type as it is written on the wire.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event_type| event_type.as_str() == name)
    }
}

/// Returns the time of an event, read from its UUIDv7. It is the same in every replay.
pub fn event_time(id: Uuid) -> OffsetDateTime {
    let (seconds, nanoseconds) = id.get_timestamp().map_or((0, 0), |timestamp| timestamp.to_unix());
    let seconds = i64::try_from(seconds).unwrap_or_default();
    let whole = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    whole + time::Duration::nanoseconds(nanoseconds.into())
}
