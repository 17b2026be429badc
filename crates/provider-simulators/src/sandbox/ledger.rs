//! Holds the sandbox's ledger of calls, links and idempotency keys.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::amounts;
use super::link::{Change, Failure, Link, LinkStatus, NewLink};
use super::request::CreateRequest;
use crate::announce::Announced;
use crate::fault_server::{ActiveFault, Operation};
use crate::link_change::LinkChange;

/// The maximum number of calls, and of announcements, in the ledger. The oldest are dropped first; links are never dropped.
const MAX_CALLS: usize = 200_000;

/// Every call and every link, oldest first.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SandboxLedger {
    /// The calls, oldest first.
    pub calls: VecDeque<Call>,
    /// The links, oldest first.
    pub links: Vec<Link>,
    /// The webhooks that were sent, oldest first.
    pub announcements: VecDeque<Announced>,
}

impl SandboxLedger {
    /// Returns the calls that create a link.
    pub fn creates(&self) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(|call| call.operation == Operation::Create)
    }

    /// Returns the idempotency keys of the creates, in the order in which they came.
    pub fn keys_seen(&self) -> Vec<&str> {
        self.creates().filter_map(|call| call.idempotency_key.as_deref()).collect()
    }

    /// Returns the links of one reference. More than one is an error.
    pub fn links_of(&self, reference: &str) -> Vec<&Link> {
        self.links.iter().filter(|link| link.request.reference == reference).collect()
    }
}

/// A call of the API, recorded when it arrives.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// The number, counted from 1.
    pub number: u64,
    /// The time when it arrived.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The operation that was called.
    pub operation: Operation,
    /// The key with which a repeated call returns the first link.
    pub idempotency_key: Option<String>,
    /// The client's reference, if the call has one.
    pub reference: Option<String>,
    /// The link of the call, once it is known.
    pub link_id: Option<String>,
    /// The status of the answer; `None` before the answer, and for a call without one.
    pub status: Option<u16>,
    /// Whether the first answer was repeated.
    pub replayed: bool,
    /// The name of the injected fault.
    pub fault: Option<&'static str>,
}

/// Whether idempotency keys count. If not, each create makes another link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Idempotency {
    /// A repeated key returns the first link.
    #[default]
    On,
    /// Each call makes a link.
    Off,
}

/// The state of a create's key.
#[derive(Debug)]
pub(super) enum Opening {
    /// The key is new. It belongs to this call until the call issues the link or releases the key.
    Fresh,
    /// The same request was carried out.
    Replay(Box<Link>),
    /// The same request is being carried out.
    InUse,
    /// The key belongs to another request.
    OtherRequest,
}

/// The ledger with its indexes.
#[derive(Default)]
pub(super) struct SandboxState {
    pub(super) ledger: SandboxLedger,
    pub(super) idempotency: Idempotency,
    pub(super) pay_after: Option<Duration>,
    /// Changes that are not announced yet.
    pub(super) entered: Vec<Entered>,
    /// The ends of the links that can still be claimed.
    ends: BTreeSet<(OffsetDateTime, usize)>,
    calls_ever: u64,
    keys: HashMap<String, KeyUse>,
    by_id: HashMap<String, usize>,
    by_token: HashMap<String, usize>,
    by_reference: HashMap<String, Vec<usize>>,
    faults_injected: HashMap<(String, i64), u32>,
}

/// A link that entered a status.
pub(super) struct Entered {
    pub(super) index: usize,
    pub(super) before: LinkStatus,
    pub(super) change: Change,
}

enum KeyUse {
    InProgress(CreateRequest),
    Issued(usize),
}

impl SandboxState {
    /// Records a call, and returns its number.
    pub(super) fn arrive(&mut self, operation: Operation, idempotency_key: Option<String>) -> u64 {
        self.calls_ever += 1;
        if self.ledger.calls.len() == MAX_CALLS {
            self.ledger.calls.pop_front();
        }
        self.ledger.calls.push_back(Call {
            number: self.calls_ever,
            at: OffsetDateTime::now_utc(),
            operation,
            idempotency_key,
            reference: None,
            link_id: None,
            status: None,
            replayed: false,
            fault: None,
        });
        self.calls_ever
    }

    /// Returns the call, unless it was dropped from the ledger.
    pub(super) fn call(&mut self, number: u64) -> Option<&mut Call> {
        let newer = usize::try_from(self.calls_ever - number).ok()?;
        let index = self.ledger.calls.len().checked_sub(newer + 1)?;
        self.ledger.calls.get_mut(index)
    }

    /// Returns the fault of the amount, until the reference has had its number of faults.
    pub(super) fn fault_by_amount(&mut self, request: &CreateRequest) -> Option<ActiveFault> {
        let minor_amount = request.amount.minor_amount;
        let (active_fault, times) = amounts::fault_of(minor_amount)?;
        let had = self.faults_injected.entry((request.reference.clone(), minor_amount)).or_default();
        if *had >= times {
            return None;
        }
        *had += 1;
        Some(active_fault)
    }

    pub(super) fn open(&mut self, key: &str, request: &CreateRequest) -> Opening {
        if self.idempotency == Idempotency::Off {
            return Opening::Fresh;
        }
        match self.keys.get(key) {
            None => {
                self.keys.insert(key.to_owned(), KeyUse::InProgress(request.clone()));
                Opening::Fresh
            }
            Some(KeyUse::InProgress(first)) if first == request => Opening::InUse,
            Some(KeyUse::Issued(index)) if self.ledger.links[*index].request == *request => {
                Opening::Replay(Box::new(self.ledger.links[*index].clone()))
            }
            Some(KeyUse::InProgress(_) | KeyUse::Issued(_)) => Opening::OtherRequest,
        }
    }

    /// Releases a key whose call created no link.
    pub(super) fn abandon(&mut self, key: &str) {
        if let Some(KeyUse::InProgress(_)) = self.keys.get(key) {
            self.keys.remove(key);
        }
    }

    pub(super) fn issue(&mut self, key: &str, request: CreateRequest, new: NewLink) -> Link {
        let index = self.ledger.links.len();
        self.by_id.insert(new.id.clone(), index);
        self.by_token.insert(new.token.clone(), index);
        self.by_reference.entry(request.reference.clone()).or_default().push(index);
        if let Some(key_use @ KeyUse::InProgress(_)) = self.keys.get_mut(key) {
            *key_use = KeyUse::Issued(index);
        }
        let link = Link::new(new, key, request);
        self.ends.insert((link.expires_at, index));
        self.ledger.links.push(link.clone());
        link
    }

    pub(super) fn link(&self, id: &str) -> Option<&Link> {
        self.by_id.get(id).map(|&index| &self.ledger.links[index])
    }

    pub(super) fn link_by_token(&self, token: &str) -> Option<&Link> {
        self.by_token.get(token).map(|&index| &self.ledger.links[index])
    }

    pub(super) fn links_of(&self, reference: &str) -> Vec<&Link> {
        let indexes = self.by_reference.get(reference).map_or(&[][..], Vec::as_slice);
        indexes.iter().map(|&index| &self.ledger.links[index]).collect()
    }

    /// Changes a link, found by its id or its reference, or returns why the change is not possible.
    pub(super) fn change_link(
        &mut self,
        link: &str,
        change: LinkChange,
        failure: Failure,
    ) -> Result<&Link, String> {
        let index = self.find(link).ok_or_else(|| format!("there is no payout link {link}"))?;
        self.alter(index, |link| link.change(change, failure, OffsetDateTime::now_utc()))?;
        Ok(&self.ledger.links[index])
    }

    /// Writes the expiry of every link whose time is over into its history. Returns the next end.
    pub(super) fn settle(&mut self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        while let Some(&(expires_at, index)) = self.ends.first() {
            if expires_at > now {
                return Some(expires_at);
            }
            self.alter(index, |link| link.settle(now));
            // This ends the loop even if the link did not expire.
            self.ends.remove(&(expires_at, index));
        }
        None
    }

    pub(super) fn next_end(&self) -> Option<OffsetDateTime> {
        self.ends.first().map(|(expires_at, _)| *expires_at)
    }

    /// Changes a link, and notes the statuses that it entered and its end.
    fn alter<T>(&mut self, index: usize, alter: impl FnOnce(&mut Link) -> T) -> T {
        let link = &mut self.ledger.links[index];
        self.ends.remove(&(link.expires_at, index));
        let entered = link.version();
        let result = alter(link);
        for step in link.entries().windows(2).skip(entered.saturating_sub(1)) {
            self.entered.push(Entered { index, before: step[0].status, change: step[1] });
        }
        if link.is_open() {
            self.ends.insert((link.expires_at, index));
        }
        result
    }

    pub(super) fn announced(&mut self, announced: Announced) {
        if self.ledger.announcements.len() == MAX_CALLS {
            self.ledger.announcements.pop_front();
        }
        self.ledger.announcements.push_back(announced);
    }

    /// Claims or cancels an issued link. Any other link stays as it is. Returns the status before.
    pub(super) fn end(&mut self, id: &str, change: LinkChange) -> Option<LinkStatus> {
        let before = self.link(id)?.status();
        if before == LinkStatus::Issued && self.change_link(id, change, Failure::ORDERED).is_err() {
            // The link expired since the caller's check.
            return Some(LinkStatus::Expired);
        }
        Some(before)
    }

    /// Moves the end of a link that is not claimed yet.
    pub(super) fn set_end(&mut self, link: &str, expires_at: OffsetDateTime) -> Result<(), String> {
        let index = self.find(link).ok_or_else(|| format!("there is no payout link {link}"))?;
        self.alter(index, |link| {
            if link.status() != LinkStatus::Issued {
                let status = link.status().name();
                return Err(format!("its end cannot be moved: payout link {} is {status}", link.id));
            }
            link.expires_at = expires_at;
            Ok(())
        })
    }

    /// Returns a link by its id, or the newest one by its reference.
    pub(super) fn find_link(&self, link: &str) -> Option<&Link> {
        self.find(link).map(|index| &self.ledger.links[index])
    }

    fn find(&self, link: &str) -> Option<usize> {
        let by_reference = || self.by_reference.get(link)?.last();
        self.by_id.get(link).or_else(by_reference).copied()
    }
}
