//! The webhooks of a provider: which changes it announces, in which form, with which proof.

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::link::{Change, Link};
use crate::announce::{Announcement, Headers, Signable};

/// How a provider announces changes.
pub(super) struct Webhooks {
    /// The events of a change, which is a new link if there is nothing before it. Most changes have one or none.
    pub(super) events: fn(Option<&Change>, &Change) -> Vec<&'static str>,
    pub(super) body: fn(&Message<'_>) -> Value,
    pub(super) headers: fn(&Signable<'_>) -> Headers,
}

/// The values of a body.
pub(super) struct Message<'a> {
    pub(super) event: &'static str,
    pub(super) event_id: &'a str,
    /// With the statuses that the body shows.
    pub(super) link: &'a Link,
    pub(super) before: Option<&'a Change>,
    pub(super) change: &'a Change,
    pub(super) at: OffsetDateTime,
}

impl Webhooks {
    /// The announcements of one entry of a link's history.
    pub(super) fn announcements(&self, link: &Link, place: usize) -> Vec<Announcement> {
        let Some(change) = link.history.get(place) else { return Vec::new() };
        let before = place.checked_sub(1).map(|place| &link.history[place]);
        let now_shown = link.as_of(change);
        // Without anything before it there is nothing stale either.
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
