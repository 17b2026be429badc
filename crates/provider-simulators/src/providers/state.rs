//! The state of a simulator: its ledger of calls and links.

use std::collections::VecDeque;

use serde::Serialize;
use time::OffsetDateTime;

use super::link::{Link, NewLink, Payout, Words};
use crate::fault_server::Operation;
use crate::link_change::LinkChange;

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
        self.ledger.links.push(Link::new(new, &self.stages, self.words));
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

    /// Looks at those that are wanted, the newest first. Those that are wanted no more after the look are left out.
    pub(super) fn look_at_all(&mut self, wanted: impl Fn(&Link) -> bool) -> Vec<&Link> {
        let words = self.words;
        let found = self.ledger.links.iter_mut().rev().filter(|link| wanted(link));
        found
            .map(|link| {
                link.go_on(words);
                &*link
            })
            .filter(|link| wanted(link))
            .collect()
    }

    /// A payout with its link.
    pub(super) fn payout(&self, id: &str) -> Option<(&Link, &Payout)> {
        let mut links = self.ledger.links.iter();
        links.find_map(|link| Some((link, link.payouts.iter().find(|payout| payout.id == id)?)))
    }

    /// Cancels a link, if the provider can: the link as it is now, and whether this call changed it.
    pub(super) fn cancel(&mut self, id: &str) -> Option<(&Link, bool)> {
        let words = self.words;
        let link = self.ledger.links.iter_mut().find(|link| link.id == id)?;
        let changed = link.change(LinkChange::Cancel, words).is_ok();
        Some((link, changed))
    }

    /// Changes a link, or says why the provider cannot.
    pub(super) fn change_link(&mut self, link: &str, change: LinkChange) -> Result<(), String> {
        let words = self.words;
        self.find(link)?.change(change, words)
    }

    /// Submits a form that was opened in time and comes too late.
    pub(super) fn late_submit(&mut self, link: &str) -> Result<(), String> {
        let words = self.words;
        self.find(link)?.late_submit(words)
    }

    /// By its id, or the newest of its reference.
    fn find(&mut self, link: &str) -> Result<&mut Link, String> {
        let place = self.place(link).ok_or_else(|| format!("there is no link {link}"))?;
        Ok(&mut self.ledger.links[place])
    }

    pub(super) fn place(&self, link: &str) -> Option<usize> {
        let links = &self.ledger.links;
        let by_reference = || links.iter().rposition(|known| known.reference == link);
        links.iter().position(|known| known.id == link).or_else(by_reference)
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
        let words = self.words;
        let mut links = self.ledger.links.iter_mut();
        let link = links
            .find(|known| known.id == link || known.reference == link)
            .filter(|_| known)
            .ok_or(UnknownLink)?;
        link.set(status, words);
        Ok(())
    }
}
