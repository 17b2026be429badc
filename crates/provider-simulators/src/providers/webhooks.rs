//! Describes a provider's webhooks: the announced changes, their form and their proof.

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::link::{Change, Link};
use crate::announce::{Announcement, Headers, Signable};

/// The functions that write the webhooks of a provider.
pub(super) struct Webhooks {
    /// Returns the events of a change. Without an entry before it, the change is a new link. Most changes have one
    /// event or none.
    pub(super) events: fn(Option<&Change>, &Change) -> Vec<&'static str>,
    pub(super) body: fn(&Message<'_>) -> Value,
    pub(super) headers: fn(&Signable<'_>) -> Headers,
}

/// The values of a body.
pub(super) struct Message<'a> {
    pub(super) event: &'static str,
    pub(super) event_id: &'a str,
    /// The link, with the statuses that the body shows.
    pub(super) link: &'a Link,
    pub(super) before: Option<&'a Change>,
    pub(super) change: &'a Change,
    pub(super) at: OffsetDateTime,
}

impl Webhooks {
    /// Returns the announcements of one entry of a link's history.
    pub(super) fn announcements(&self, link: &Link, place: usize) -> Vec<Announcement> {
        let Some(change) = link.history.get(place) else { return Vec::new() };
        let before = place.checked_sub(1).map(|place| &link.history[place]);
        let now_shown = link.as_of(change);
        // A new link has no stale status.
        let stale_change = before.unwrap_or(change);
        let before_shown = link.as_of(stale_change);
        let one = |event| {
            let event_id = Uuid::new_v4().simple().to_string();
            let message =
                Message { event, event_id: &event_id, link: &now_shown, before, change, at: change.at };
            let stale = Message { link: &before_shown, change: stale_change, ..message };
            Announcement {
                event: event.to_owned(),
                link_id: link.id.clone(),
                reference: link.reference.clone(),
                link_status: change.status.clone(),
                body: (self.body)(&message).to_string(),
                stale_body: (self.body)(&stale).to_string(),
                event_id,
            }
        };
        (self.events)(before, change).into_iter().map(one).collect()
    }
}
