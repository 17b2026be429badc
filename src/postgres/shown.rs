//! The values of `show`: a record as an operator sees it.

use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use uuid::Uuid;

use super::operator_actions::OperatorAction;
use crate::domain::PayoutLinkState;

/// A record with its events, its attempts and what else happened to it. Nothing is decrypted for it.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// The id of the record.
    pub id: Uuid,
    /// `x-merchant-id` of the job; empty if it has none.
    pub merchant_id: String,
    /// The merchant's identifier of the payout.
    pub merchant_payout_id: String,
    /// The name of the connector account.
    pub connector: String,
    /// Minor units of `currency`.
    pub amount_minor: i64,
    /// ISO 4217 code of the amount.
    pub currency: String,
    /// The currency of the payout.
    pub destination_currency: String,
    /// The state of the record.
    #[serde(serialize_with = "as_text")]
    pub state: PayoutLinkState,
    /// The status of the last result, in Prism's words.
    pub payout_status: Option<String>,
    /// The provider's id of the payout, once it is known.
    pub connector_payout_id: Option<String>,
    /// HTTP status of the provider's last answer, or 0.
    pub status_code: i32,
    /// The code of the conclusion.
    pub error_code: Option<String>,
    /// `create` attempts begun.
    pub attempts: i32,
    /// Since when the outcome of a `create` call is unknown.
    #[serde(with = "time::serde::rfc3339::option")]
    pub in_doubt_since: Option<OffsetDateTime>,
    /// When any worker may claim it; `None` unless it is open.
    #[serde(with = "time::serde::rfc3339::option")]
    pub due_at: Option<OffsetDateTime>,
    /// Whether a worker has claimed it.
    pub leased: bool,
    /// The number of the worker that has claimed it, in hexadecimal. An earlier version has none.
    pub worker: Option<String>,
    /// When the first `create` call began.
    #[serde(with = "time::serde::rfc3339::option")]
    pub first_called_at: Option<OffsetDateTime>,
    /// When the last call of any kind began.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_called_at: Option<OffsetDateTime>,
    /// When a duplicate brought a fresh access token, browser information or webhook URL.
    #[serde(with = "time::serde::rfc3339::option")]
    pub refreshed_at: Option<OffsetDateTime>,
    /// When the job was accepted.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When the record was concluded.
    #[serde(with = "time::serde::rfc3339::option")]
    pub concluded_at: Option<OffsetDateTime>,
    /// When a person's data were erased from the record.
    #[serde(with = "time::serde::rfc3339::option")]
    pub erased_at: Option<OffsetDateTime>,
    /// The event of the conclusion.
    pub event: Option<ShownEvent>,
    /// The link, if one was created.
    pub link: Option<ShownLink>,
    /// The later events, in order.
    pub later_events: Vec<ShownEvent>,
    /// The attempts that retention keeps, oldest first.
    pub timeline: Vec<ShownAttempt>,
    /// Authenticated webhooks of the provider about its link, as long as retention keeps them.
    pub provider_webhooks: Vec<ShownWebhook>,
    /// Messages about its link that wait for their answer.
    pub link_requests: Vec<ShownRequest>,
    /// The acts of operators about it, oldest first.
    pub operator_actions: Vec<OperatorAction>,
}

/// A provider's webhook about the link of a [`Shown`] record.
#[derive(Debug, Serialize)]
pub struct ShownWebhook {
    pub event_type: String,
    #[serde(with = "time::serde::rfc3339")]
    pub received_at: OffsetDateTime,
}

/// A message about the link of a [`Shown`] record.
#[derive(Debug, Serialize)]
pub struct ShownRequest {
    /// `cancel` or `status`.
    pub kind: String,
    pub reason: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    pub requested_at: OffsetDateTime,
}

/// The created link of a [`Shown`] record.
#[derive(Debug, Serialize)]
pub struct ShownLink {
    /// The status that was announced last.
    pub status: String,
    /// The provider's own word.
    pub provider_status: Option<String>,
    /// The provider's id of the payout or transaction that came of the link.
    pub provider_payout_id: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// When the provider was asked last.
    #[serde(with = "time::serde::rfc3339::option")]
    pub asked_at: Option<OffsetDateTime>,
    /// When the provider is asked next; empty if it is not asked any more.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ask_at: Option<OffsetDateTime>,
    /// Questions without an answer since the last one.
    pub failures: i32,
    #[serde(with = "time::serde::rfc3339::option")]
    pub cancel_requested_at: Option<OffsetDateTime>,
    /// When a worker began to cancel it at the provider, and why.
    #[serde(with = "time::serde::rfc3339::option")]
    pub cancelled_at: Option<OffsetDateTime>,
    pub cancelled_because: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub status_changed_at: Option<OffsetDateTime>,
}

/// An event of a [`Shown`] record.
#[derive(Debug, Serialize)]
pub struct ShownEvent {
    /// `message_id` of the result and `webhook-id`.
    pub id: Uuid,
    /// Counted from 1.
    pub sequence: i32,
    /// The type: `payout_link.created`.
    pub r#type: String,
    /// When RabbitMQ confirmed the result.
    #[serde(with = "time::serde::rfc3339::option")]
    pub published_at: Option<OffsetDateTime>,
    /// `none`, `pending`, `delivered` or `abandoned`.
    pub webhook_state: String,
    /// Attempts to deliver the webhook.
    pub webhook_attempts: i32,
    /// When the next publication or attempt is due.
    #[serde(with = "time::serde::rfc3339::option")]
    pub due_at: Option<OffsetDateTime>,
}

/// One attempt of a [`Shown`] record.
#[derive(Debug, Serialize)]
pub struct ShownAttempt {
    /// `create`, `look_up`, `post` or `duplicate`. A duplicate is no call: another job with this key was received.
    pub kind: String,
    /// Counted from 1 within its kind; 0 for a duplicate.
    pub number: i32,
    /// When the request was begun.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// Milliseconds until the outcome was known.
    pub took_ms: i32,
    /// The HTTP status, or 0 if there was no answer.
    pub status_code: i32,
    /// As text: a later version may write outcomes that this one does not know, and marks those of lost claims as late.
    pub outcome: String,
    /// The error, or the provider's id of the payout, without secrets.
    pub detail: Option<String>,
    /// The number of the worker that made the call; `None` if an earlier version stored it.
    pub worker: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn as_text<S: Serializer>(state: &PayoutLinkState, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(state.as_str())
}
