//! Models a payout link at a simulated provider, with the provider's own statuses and their changes.

use std::collections::VecDeque;

use serde::Serialize;
use serde_json::{Map, Value};
use time::{Duration, OffsetDateTime};

use crate::link_change::LinkChange;

/// A payout link.
#[derive(Clone, Debug, Serialize)]
pub struct Link {
    /// The provider's id of the link.
    pub id: String,
    /// The client's reference, which the provider uses as an idempotency key.
    pub reference: String,
    /// The status, in the provider's words.
    pub status: String,
    /// The amount as it was sent.
    pub amount: String,
    /// The ISO 4217 code.
    pub currency: String,
    /// The time of its creation.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// The time of its last change of status.
    #[serde(with = "time::serde::rfc3339")]
    pub changed_at: OffsetDateTime,
    /// The end of the time in which it can be claimed.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// The payouts of the link, oldest first: RazorpayX's payouts, one for each claim, or Revolut's transaction.
    pub payouts: Vec<Payout>,
    /// The history, oldest first. It begins with the creation.
    pub history: Vec<Change>,
    /// The URL, a secret: it is neither logged nor in the ledger's JSON.
    #[serde(skip)]
    pub url: String,
    /// The whole request with defaults. It contains personal data.
    #[serde(skip)]
    pub request: Map<String, Value>,
    #[serde(skip)]
    pub(super) upcoming: VecDeque<String>,
    /// The end was moved after the creation.
    #[serde(skip)]
    pub(super) moved_end: bool,
    /// The client cancelled the link, not the provider.
    #[serde(skip)]
    pub(super) is_taken_back: bool,
}

/// A payout or transaction that followed a claim.
#[derive(Clone, Debug, Serialize)]
pub struct Payout {
    /// The provider's id of the payout.
    pub id: String,
    /// The status, in the provider's words.
    pub status: String,
    /// The time of the claim that led to it.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// The time of its last change of status.
    #[serde(with = "time::serde::rfc3339")]
    pub changed_at: OffsetDateTime,
    /// The provider's id of the recipient: RazorpayX's fund account, Revolut's counterparty.
    #[serde(skip)]
    pub(super) recipient_id: String,
    #[serde(skip)]
    pub(super) is_live: bool,
}

/// An entry of a link's history: the statuses of the link and its payout from then on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The status of the link, in the provider's words.
    pub status: String,
    /// The status of its payout, if there is one.
    pub payout_status: Option<String>,
    /// The time when both began.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

/// The data of a new link.
pub(super) struct NewLink {
    pub(super) id: String,
    pub(super) reference: String,
    pub(super) amount: String,
    pub(super) currency: String,
    pub(super) lifetime: Option<Duration>,
    pub(super) url: String,
    pub(super) request: Map<String, Value>,
}

/// The statuses of a provider's links, and how they change.
pub(super) struct Words {
    /// The statuses that a new link passes through: the first at its creation, the next at each look-up.
    pub(super) stages: &'static [&'static str],
    pub(super) all: &'static [&'static str],
    /// The statuses in which a link expires when its time is over.
    pub(super) open: &'static [&'static str],
    pub(super) expired: &'static str,
    /// Returns the effect of a change, or why the provider cannot make it.
    pub(super) effect: fn(&Link, LinkChange) -> Result<Effect, &'static str>,
    /// Returns the effect of a form that was opened in time and submitted too late.
    pub(super) late_submit: fn(&Link) -> Result<Effect, &'static str>,
    /// Returns the state of the payout behind a link of this status.
    pub(super) behind: fn(&str) -> Option<Behind>,
    /// Creates the ids of a payout and its recipient.
    pub(super) payout_ids: fn() -> (String, String),
}

/// The effect of a change on a link.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Effect {
    /// The link's next status; `None` if the link does not show the change.
    pub(super) status: Option<&'static str>,
    /// The next status of the payout behind the link, if the link's status does not determine it.
    pub(super) payout: Option<&'static str>,
}

impl Effect {
    pub(super) fn to(status: &'static str) -> Self {
        Self { status: Some(status), payout: None }
    }
}

/// The payout behind a link of some status.
#[derive(Clone, Copy, Debug)]
pub(super) struct Behind {
    pub(super) status: &'static str,
    /// The payout goes on. Otherwise it has ended with this status.
    pub(super) is_live: bool,
    /// A payout exists in any case. Otherwise it exists only if it began before.
    pub(super) begins: bool,
}

/// Rejects a late form, for providers that close a link when it is cancelled or over.
pub(super) fn no_late_submit(_: &Link) -> Result<Effect, &'static str> {
    Err("this provider takes no late submission")
}

/// Returns no payout, for providers that show nothing behind their links.
pub(super) fn nothing_behind(_: &str) -> Option<Behind> {
    None
}

pub(super) fn no_payout_ids() -> (String, String) {
    Default::default()
}

impl Link {
    pub(super) fn new(new: NewLink, stages: &[String], words: &Words) -> Self {
        let now = OffsetDateTime::now_utc();
        let mut upcoming: VecDeque<String> = stages.iter().cloned().collect();
        let status = upcoming.pop_front().unwrap_or_default();
        let mut link = Self {
            id: new.id,
            reference: new.reference,
            status: String::new(),
            amount: new.amount,
            currency: new.currency,
            created_at: now,
            changed_at: now,
            expires_at: new.lifetime.map(|lifetime| now + lifetime),
            payouts: Vec::new(),
            history: Vec::new(),
            url: new.url,
            request: new.request,
            upcoming,
            moved_end: false,
            is_taken_back: false,
        };
        link.turn(&status, words, now);
        link
    }

    /// Returns the payout of the last claim.
    pub(super) fn payout(&self) -> Option<&Payout> {
        self.payouts.last()
    }

    pub(super) fn is_over(&self, now: OffsetDateTime) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= now)
    }

    /// Moves the link to its next stage, after a look-up.
    pub(super) fn go_on(&mut self, words: &Words) {
        let now = OffsetDateTime::now_utc();
        if let Some(next) = self.upcoming.pop_front() {
            self.turn(&next, words, now);
        }
        if self.is_over(now) && words.open.contains(&self.status.as_str()) {
            self.turn(words.expired, words, now);
        }
    }

    pub(super) fn change(&mut self, change: LinkChange, words: &Words) -> Result<(), String> {
        let effect = (words.effect)(self, change).map_err(|why| self.not_possible(change.name(), why))?;
        let now = OffsetDateTime::now_utc();
        if change == LinkChange::Expire && !self.is_over(now) {
            self.expires_at = Some(now);
            self.moved_end = true;
        }
        self.is_taken_back |= change == LinkChange::Cancel;
        self.have(effect, words, now);
        Ok(())
    }

    pub(super) fn late_submit(&mut self, words: &Words) -> Result<(), String> {
        let effect = (words.late_submit)(self).map_err(|why| self.not_possible("a late submission", why))?;
        self.have(effect, words, OffsetDateTime::now_utc());
        Ok(())
    }

    /// Returns the link as it was at an entry of its history.
    pub(super) fn as_of(&self, change: &Change) -> Self {
        let mut link = self.clone();
        link.status.clone_from(&change.status);
        link.changed_at = change.at;
        if let (Some(payout), Some(status)) = (link.payouts.last_mut(), &change.payout_status) {
            payout.status.clone_from(status);
        }
        link
    }

    /// Sets the status, whatever it was before.
    pub(super) fn set(&mut self, status: &str, words: &Words) {
        self.upcoming.clear();
        self.turn(status, words, OffsetDateTime::now_utc());
    }

    fn not_possible(&self, change: &str, why: &str) -> String {
        format!("{change} is not possible: link {} is {}: {why}", self.id, self.status)
    }

    fn have(&mut self, effect: Effect, words: &Words, now: OffsetDateTime) {
        self.upcoming.clear();
        if let (Some(status), Some(payout)) = (effect.payout, self.payouts.last_mut()) {
            status.clone_into(&mut payout.status);
            (payout.changed_at, payout.is_live) = (now, false);
            if effect.status.is_none() {
                self.enter(now);
            }
        }
        if let Some(status) = effect.status {
            self.turn(status, words, now);
        }
    }

    fn turn(&mut self, status: &str, words: &Words, now: OffsetDateTime) {
        status.clone_into(&mut self.status);
        self.changed_at = now;
        if let Some(behind) = (words.behind)(status) {
            self.turn_payout(behind, words, now);
        }
        self.enter(now);
    }

    fn turn_payout(&mut self, behind: Behind, words: &Words, now: OffsetDateTime) {
        let last = self.payouts.last_mut().filter(|last| last.is_live || last.status == behind.status);
        match last {
            Some(last) => {
                behind.status.clone_into(&mut last.status);
                (last.changed_at, last.is_live) = (now, behind.is_live);
            }
            None if behind.begins => {
                let (id, recipient_id) = (words.payout_ids)();
                self.payouts.push(Payout {
                    id,
                    status: behind.status.to_owned(),
                    created_at: now,
                    changed_at: now,
                    recipient_id,
                    is_live: behind.is_live,
                });
            }
            None => {}
        }
    }

    fn enter(&mut self, at: OffsetDateTime) {
        let payout_status = self.payout().map(|payout| payout.status.clone());
        self.history.push(Change { status: self.status.clone(), payout_status, at });
    }
}
