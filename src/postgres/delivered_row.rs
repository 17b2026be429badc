//! The rows that `delivered` stores and returns.

use uuid::Uuid;

use super::due_event::{EventProgress, WebhookState};
use crate::domain::Attempt;

/// Holds an event and how far its delivery has come.
pub(super) struct DeliveredRow {
    pub(super) id: Uuid,
    pub(super) payout_link_id: Uuid,
    pub(super) holder: Uuid,
    pub(super) progress: EventProgress,
}

impl DeliveredRow {
    /// Returns the only webhook attempt, if the event itself describes it completely.
    pub(super) fn first_webhook_call(&self) -> Option<&Attempt> {
        match &self.progress.webhook_calls[..] {
            [only] if self.is_clean(only) => Some(only),
            _ => None,
        }
    }

    /// Returns whether an attempt has no detail beyond the event's columns.
    fn is_clean(&self, post: &Attempt) -> bool {
        post.number == 1 && self.progress.webhook == WebhookState::Delivered && post.detail.is_none()
    }
}

/// An event whose progress was stored, and that has news; `id` is `None` in the row that says that others were not stored.
pub(super) struct Written {
    pub(super) id: Option<Uuid>,
    pub(super) holder: Option<Uuid>,
    /// The next event of the record, if this one's webhook is finished.
    pub(super) next_event_id: Option<Uuid>,
    /// The same, if this one's result is published.
    pub(super) next_result_id: Option<Uuid>,
    /// The previous webhook, which this one waited for, is finished.
    pub(super) previous_is_finished: bool,
}
