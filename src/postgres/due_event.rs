//! An event that is due, and how far its delivery has come.

use std::{fmt, time::Duration};

use bytes::Bytes;
use url::Url;
use uuid::Uuid;

use crate::domain::{Attempt, EventType, Lease, TraceContext};

/// A claimed event; this worker may deliver it while its lease runs.
pub struct DueEvent {
    /// UUIDv7: `message_id` of the result and `webhook-id`.
    pub id: Uuid,
    /// The record that the event is of.
    pub payout_link_id: Uuid,
    /// The type of the event.
    pub event_type: EventType,
    /// `x-merchant-id` of the job; empty if it has none.
    pub merchant_id: String,
    /// The name of the connector account.
    pub connector: String,
    /// The merchant's identifier of the payout.
    pub merchant_payout_id: String,
    /// 1 for the event of the conclusion, then without gaps.
    pub sequence: u32,
    /// JSON, identical in every publication. It holds the link, which is a secret.
    pub result: Bytes,
    /// The queue that the requester wants the result in.
    pub reply_to: Option<String>,
    /// Returned to the requester unchanged.
    pub correlation_id: Option<String>,
    /// The trace of the job, continued in results, calls and webhooks.
    pub trace: TraceContext,
    /// Whether the result is published.
    pub published: bool,
    /// The reply is not published yet, because the requester's queue has rejected it so far.
    pub reply_due: bool,
    /// Publications that failed so far.
    pub publish_attempts: u32,
    /// Time until the next publication; the webhook may be due earlier.
    pub publish_due_in: Duration,
    /// The result of the record's previous event is not published yet, and goes first.
    pub result_waits: bool,
    /// The state of the webhook.
    pub webhook: WebhookState,
    /// The URL of the webhook, if the job has one.
    pub webhook_url: Option<Url>,
    /// Whether the next webhook attempt is due; publishing may be due earlier.
    pub webhook_is_due: bool,
    /// Time until the next webhook attempt.
    pub webhook_due_in: Duration,
    /// The webhook of the record's previous event is not delivered yet, and goes first.
    pub webhook_waits: bool,
    /// Webhook attempts so far.
    pub webhook_attempts: u32,
    /// Those of them before the last redelivery by an operator: the schedule began anew after them.
    pub redelivered_after: u32,
    /// How long this worker may act on it.
    pub lease: Lease,
}

impl fmt::Debug for DueEvent {
    /// Omits the result, which holds the link, and the webhook's URL, which may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DueEvent")
            .field("id", &self.id)
            .field("type", &self.event_type)
            .finish_non_exhaustive()
    }
}

/// State of an event's webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookState {
    /// The job has no `webhook_url`.
    None,
    /// It is not delivered yet.
    Pending,
    /// The merchant answered with a 2xx status.
    Delivered,
    /// The merchant answered 410, or the schedule is exhausted. The payout link's state is not affected.
    Abandoned,
}

impl WebhookState {
    /// Returns the name in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Abandoned => "abandoned",
        }
    }
}

/// How far the delivery of an event has come.
#[derive(Debug)]
pub struct EventProgress {
    /// Whether the result is published.
    pub published: bool,
    /// See [`DueEvent::reply_due`].
    pub reply_due: bool,
    /// Publications that failed so far.
    pub publish_attempts: u32,
    /// The webhook is still being delivered under the event's lease: only the publication is stored.
    pub keeps_lease: bool,
    /// The state of the webhook afterwards.
    pub webhook: WebhookState,
    /// Webhook attempts so far.
    pub webhook_attempts: u32,
    /// Webhook attempts since the last write.
    pub webhook_calls: Vec<Attempt>,
    /// Time until the next publication, if the result is not published or a reply is due.
    pub publish_after: Option<Duration>,
    /// Time until the next webhook attempt, if the webhook is pending.
    pub webhook_after: Option<Duration>,
    /// The webhook was not attempted, because the previous one goes first.
    pub webhook_waits: bool,
    /// The result was not published, because the previous one goes first.
    pub result_waits: bool,
}
