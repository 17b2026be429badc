//! The state of a simulator: its ledger of calls and links.

use std::collections::VecDeque;

use serde::Serialize;
use serde_json::{Map, Value};
use time::{Duration, OffsetDateTime};

use crate::fault_server::Operation;

/// The maximum number of calls in the ledger. The oldest calls are dropped first; links are never dropped.
const MAX_CALLS: usize = 200_000;

/// Every call and every link, oldest first.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Ledger {
    pub calls: VecDeque<Call>,
    pub links: Vec<Link>,
}

impl Ledger {
    pub fn calls_of(&self, operation: Operation) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(move |call| call.operation == operation)
    }

    pub fn creates(&self) -> impl Iterator<Item = &Call> {
        self.calls_of(Operation::Create)
    }

    /// How the creates called their links, in the order in which they came.
    pub fn references_seen(&self) -> Vec<&str> {
        self.creates().filter_map(|call| call.reference.as_deref()).collect()
    }

    pub fn links_of(&self, reference: &str) -> Vec<&Link> {
        self.links.iter().filter(|link| link.reference == reference).collect()
    }
}

/// One call of the provider's API, from the moment it arrives.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// Counted from 1.
    pub number: u64,
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    pub operation: Operation,
    pub reference: Option<String>,
    /// What it was answered; nothing before the answer, and for a call that got none.
    pub status: Option<u16>,
    pub fault: Option<&'static str>,
    /// As it came: with personal data, so for tests in the same process alone.
    #[serde(skip)]
    pub body: bytes::Bytes,
}

/// A payout link.
#[derive(Clone, Debug, Serialize)]
pub struct Link {
    pub id: String,
    /// The client's reference, which the provider uses as an idempotency key.
    pub reference: String,
    pub status: String,
    /// As it was sent.
    pub amount: String,
    pub currency: String,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub changed_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// A secret: it is neither logged nor in the ledger's JSON.
    #[serde(skip)]
    pub url: String,
    /// All that was asked for, with defaults: personal data too.
    #[serde(skip)]
    pub request: Map<String, Value>,
    #[serde(skip)]
    upcoming: VecDeque<String>,
}

/// The statuses of a provider's links.
pub(super) struct Words {
    /// The states that a new link passes through: the first at its creation, the next at each look.
    pub(super) stages: &'static [&'static str],
    pub(super) all: &'static [&'static str],
    /// Those of a link that can still be claimed: it may be cancelled, and expires.
    pub(super) open: &'static [&'static str],
    pub(super) cancelled: &'static str,
    pub(super) expired: &'static str,
}

/// What a new link is made of.
pub(super) struct NewLink {
    pub(super) id: String,
    pub(super) reference: String,
    pub(super) amount: String,
    pub(super) currency: String,
    pub(super) lifetime: Option<Duration>,
    pub(super) url: String,
    pub(super) request: Map<String, Value>,
}

/// There is no such link, or no such status.
#[derive(Debug, thiserror::Error)]
#[error("there is no such link, or the provider has no such status")]
pub struct UnknownLink;

pub(super) struct ProviderState {
    pub(super) ledger: Ledger,
    words: &'static Words,
    stages: Vec<String>,
    calls_ever: u64,
}

impl ProviderState {
    pub(super) fn new(words: &'static Words) -> Self {
        Self {
            ledger: Ledger::default(),
            words,
            stages: words.stages.iter().map(ToString::to_string).collect(),
            calls_ever: 0,
        }
    }

    /// Enters a call; its number is its handle from now on.
    pub(super) fn arrive(&mut self, operation: Operation, body: bytes::Bytes) -> u64 {
        self.calls_ever += 1;
        if self.ledger.calls.len() == MAX_CALLS {
            self.ledger.calls.pop_front();
        }
        self.ledger.calls.push_back(Call {
            number: self.calls_ever,
            at: OffsetDateTime::now_utc(),
            operation,
            reference: None,
            status: None,
            fault: None,
            body,
        });
        self.calls_ever
    }

    /// The call, unless so many came after it that it is forgotten.
    pub(super) fn call(&mut self, number: u64) -> Option<&mut Call> {
        let newer = usize::try_from(self.calls_ever - number).ok()?;
        let index = self.ledger.calls.len().checked_sub(newer + 1)?;
        self.ledger.calls.get_mut(index)
    }

    pub(super) fn issue(&mut self, new: NewLink) -> &Link {
        let now = OffsetDateTime::now_utc();
        let mut upcoming: VecDeque<String> = self.stages.iter().cloned().collect();
        let status = upcoming.pop_front().unwrap_or_default();
        self.ledger.links.push(Link {
            id: new.id,
            reference: new.reference,
            status,
            amount: new.amount,
            currency: new.currency,
            created_at: now,
            changed_at: now,
            expires_at: new.lifetime.map(|lifetime| now + lifetime),
            url: new.url,
            request: new.request,
            upcoming,
        });
        &self.ledger.links[self.ledger.links.len() - 1]
    }

    pub(super) fn is_taken(&self, reference: &str) -> bool {
        self.ledger.links.iter().any(|link| link.reference == reference)
    }

    pub(super) fn reference_of(&self, id: &str) -> Option<String> {
        Some(self.ledger.links.iter().find(|link| link.id == id)?.reference.clone())
    }

    /// Looks at a link, which brings it to its next stage.
    pub(super) fn look(&mut self, id: &str) -> Option<&Link> {
        let link = self.ledger.links.iter_mut().find(|link| link.id == id)?;
        link.go_on(self.words);
        Some(link)
    }

    /// Looks at those that are wanted, the newest first.
    pub(super) fn look_at_all(&mut self, wanted: impl Fn(&Link) -> bool) -> Vec<&Link> {
        let words = self.words;
        let found = self.ledger.links.iter_mut().rev().filter(|link| wanted(link));
        found
            .map(|link| {
                link.go_on(words);
                &*link
            })
            .collect()
    }

    /// Cancels a link that can still be claimed: the link as it is now, and whether this call did it.
    pub(super) fn cancel(&mut self, id: &str) -> Option<(&Link, bool)> {
        let words = self.words;
        let link = self.ledger.links.iter_mut().find(|link| link.id == id)?;
        let open = words.open.contains(&link.status.as_str());
        if open {
            link.turn(words.cancelled);
            link.upcoming.clear();
        }
        Some((link, open))
    }

    /// A word that begins with `new_` stands for a status that the provider adds one day.
    fn knows(&self, status: &str) -> bool {
        self.words.all.contains(&status) || status.to_ascii_lowercase().starts_with("new_")
    }

    pub(super) fn set_stages(&mut self, stages: Vec<String>) -> Result<(), UnknownLink> {
        if stages.is_empty() || !stages.iter().all(|stage| self.knows(stage)) {
            return Err(UnknownLink);
        }
        self.stages = stages;
        Ok(())
    }

    pub(super) fn set_status(&mut self, link: &str, status: &str) -> Result<(), UnknownLink> {
        let known = self.knows(status);
        let mut links = self.ledger.links.iter_mut();
        let link = links
            .find(|known| known.id == link || known.reference == link)
            .filter(|_| known)
            .ok_or(UnknownLink)?;
        link.turn(status);
        link.upcoming.clear();
        Ok(())
    }
}

impl Link {
    fn go_on(&mut self, words: &Words) {
        if let Some(next) = self.upcoming.pop_front() {
            self.turn(&next);
        }
        let over = self.expires_at.is_some_and(|expires_at| expires_at <= OffsetDateTime::now_utc());
        if over && words.open.contains(&self.status.as_str()) {
            self.turn(words.expired);
        }
    }

    fn turn(&mut self, status: &str) {
        self.status = status.to_owned();
        self.changed_at = OffsetDateTime::now_utc();
    }
}
