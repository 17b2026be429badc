//! Holds the state of a simulator: its ledger of calls and links.

use std::collections::VecDeque;

use serde::Serialize;
use time::OffsetDateTime;

use super::link::{Link, NewLink, Payout, Words};
use crate::announce::Announced;
use crate::fault_server::Operation;
use crate::link_change::LinkChange;

/// The maximum number of calls, and of announcements, in the ledger. The oldest are dropped first; links are never
/// dropped.
const MAX_CALLS: usize = 200_000;

/// Every call and every link, oldest first.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ProviderLedger {
    /// The calls, oldest first.
    pub calls: VecDeque<Call>,
    /// The links, oldest first.
    pub links: Vec<Link>,
    /// The webhooks that were sent, oldest first.
    pub announcements: VecDeque<Announced>,
}

impl ProviderLedger {
    /// Returns the calls of one operation.
    pub fn calls_of(&self, operation: Operation) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(move |call| call.operation == operation)
    }

    /// Returns the calls that create a link.
    pub fn creates(&self) -> impl Iterator<Item = &Call> {
        self.calls_of(Operation::Create)
    }

    /// Returns the references of the creates, in the order in which they came.
    pub fn references_seen(&self) -> Vec<&str> {
        self.creates().filter_map(|call| call.reference.as_deref()).collect()
    }

    /// Returns the links of one reference. More than one is an error.
    pub fn links_of(&self, reference: &str) -> Vec<&Link> {
        self.links.iter().filter(|link| link.reference == reference).collect()
    }
}

/// A call of the provider's API, recorded when it arrives.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// The number, counted from 1.
    pub number: u64,
    /// The time when it arrived.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The operation that was called.
    pub operation: Operation,
    /// The client's reference, if the call has one.
    pub reference: Option<String>,
    /// The status of the answer; `None` before the answer, and for a call without one.
    pub status: Option<u16>,
    /// The name of the injected fault.
    pub fault: Option<&'static str>,
    /// The body as it came. It has personal data, so only tests in the same process see it.
    #[serde(skip)]
    pub body: bytes::Bytes,
}

/// The error that there is no such link or no such status.
#[derive(Debug, thiserror::Error)]
#[error("there is no such link, or the provider has no such status")]
pub struct UnknownLink;

pub(super) struct ProviderState {
    pub(super) ledger: ProviderLedger,
    words: &'static Words,
    stages: Vec<String>,
    /// Entries of links' histories that are not announced yet: the positions of the link and of the entry.
    pub(super) entered: Vec<(usize, usize)>,
    calls_ever: u64,
}

impl ProviderState {
    pub(super) fn new(words: &'static Words) -> Self {
        Self {
            ledger: ProviderLedger::default(),
            words,
            stages: words.stages.iter().map(ToString::to_string).collect(),
            entered: Vec::new(),
            calls_ever: 0,
        }
    }

    /// Records a call, and returns its number.
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

    /// Returns the call, unless it was dropped from the ledger.
    pub(super) fn call(&mut self, number: u64) -> Option<&mut Call> {
        let newer = usize::try_from(self.calls_ever - number).ok()?;
        let index = self.ledger.calls.len().checked_sub(newer + 1)?;
        self.ledger.calls.get_mut(index)
    }

    pub(super) fn issue(&mut self, new: NewLink) -> &Link {
        let place = self.ledger.links.len();
        self.ledger.links.push(Link::new(new, &self.stages, self.words));
        self.entered.push((place, 0));
        &self.ledger.links[place]
    }

    /// Changes a link, and notes the new entries of its history.
    fn alter<T>(&mut self, place: usize, alter: impl FnOnce(&mut Link, &Words) -> T) -> T {
        let link = &mut self.ledger.links[place];
        let entered = link.history.len();
        let result = alter(link, self.words);
        self.entered.extend((entered..link.history.len()).map(|entry| (place, entry)));
        result
    }

    pub(super) fn announced(&mut self, announced: Announced) {
        if self.ledger.announcements.len() == MAX_CALLS {
            self.ledger.announcements.pop_front();
        }
        self.ledger.announcements.push_back(announced);
    }

    pub(super) fn is_taken(&self, reference: &str) -> bool {
        self.ledger.links.iter().any(|link| link.reference == reference)
    }

    pub(super) fn reference_of(&self, id: &str) -> Option<String> {
        Some(self.ledger.links.iter().find(|link| link.id == id)?.reference.clone())
    }

    /// Looks a link up, which moves it to its next stage.
    pub(super) fn look(&mut self, id: &str) -> Option<&Link> {
        let place = self.place_of(id)?;
        self.alter(place, Link::go_on);
        Some(&self.ledger.links[place])
    }

    /// Looks up all matching links, the newest first. Links that no longer match afterwards are left out.
    pub(super) fn look_at_all(&mut self, wanted: impl Fn(&Link) -> bool) -> Vec<&Link> {
        let mut found = Vec::new();
        for place in (0..self.ledger.links.len()).rev() {
            if wanted(&self.ledger.links[place]) {
                self.alter(place, Link::go_on);
                found.push(place);
            }
        }
        let links = found.into_iter().map(|place| &self.ledger.links[place]);
        links.filter(|link| wanted(link)).collect()
    }

    /// Returns a payout with its link.
    pub(super) fn payout(&self, id: &str) -> Option<(&Link, &Payout)> {
        let mut links = self.ledger.links.iter();
        links.find_map(|link| Some((link, link.payouts.iter().find(|payout| payout.id == id)?)))
    }

    /// Cancels a link if the provider can. Returns the link as it is now, and whether this call changed it.
    pub(super) fn cancel(&mut self, id: &str) -> Option<(&Link, bool)> {
        let place = self.place_of(id)?;
        let changed = self.alter(place, |link, words| link.change(LinkChange::Cancel, words)).is_ok();
        Some((&self.ledger.links[place], changed))
    }

    /// Changes a link, or returns why the provider cannot.
    pub(super) fn change_link(&mut self, link: &str, change: LinkChange) -> Result<(), String> {
        let place = self.find(link)?;
        self.alter(place, |link, words| link.change(change, words))
    }

    /// Submits a form that was opened in time and comes too late.
    pub(super) fn late_submit(&mut self, link: &str) -> Result<(), String> {
        let place = self.find(link)?;
        self.alter(place, Link::late_submit)
    }

    fn find(&self, link: &str) -> Result<usize, String> {
        self.place(link).ok_or_else(|| format!("there is no link {link}"))
    }

    /// Returns the position of a link by its id, or of the newest one by its reference.
    pub(super) fn place(&self, link: &str) -> Option<usize> {
        let by_reference = || self.ledger.links.iter().rposition(|known| known.reference == link);
        self.place_of(link).or_else(by_reference)
    }

    fn place_of(&self, id: &str) -> Option<usize> {
        self.ledger.links.iter().position(|known| known.id == id)
    }

    /// Says whether a status exists. A name that begins with `new_` is a status that the provider may add later.
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
        let mut links = self.ledger.links.iter();
        let place = links.position(|known| known.id == link || known.reference == link);
        let place = place.filter(|_| known).ok_or(UnknownLink)?;
        self.alter(place, |link, words| link.set(status, words));
        Ok(())
    }
}
