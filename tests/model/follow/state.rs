//! Holds the state of the model: one link, because links are independent of each other.

use payout_link_worker::domain::{LinkStatus, follow::CancelReason};

use super::worker::Worker;

/// The number of a claim, not of a worker. [`System::number_claims`] renumbers the claims after each step, so that
/// states that differ only in these numbers are equal.
pub type ClaimId = u8;

/// A claim that this step made.
pub const NEW: ClaimId = 50;
/// The holder of a row whose worker is gone.
const DEAD: ClaimId = 60;
/// The claim of a worker whose row was claimed again since.
const STALE: ClaimId = 70;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct System {
    pub creation: Creation,
    pub ledger: Ledger,
    pub row: Row,
    /// Rows of the outbox, in the order of their writing. An event's id is its position.
    pub events: Vec<Event>,
    /// Messages that request a cancel.
    pub requests: Vec<Request>,
    /// Answers that the requesters have received, each with its request's number.
    pub answers: Vec<(u8, Answer)>,
    /// Webhooks that the merchant has received: the sequence numbers of their events, in the order of first arrival.
    pub arrivals: Vec<u8>,
    /// Results that arrived at a queue, likewise.
    pub results: Vec<u8>,
    pub workers: Vec<Worker>,
    pub outbox: Outbox,
    /// Somebody requested a cancel whose request is still valid. No column stores this.
    pub is_cancel_asked: bool,
    pub faults: Faults,
}

/// The number of faults and changes that may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Faults {
    /// The recipient or the provider changes the link.
    pub changes: u8,
    /// A worker dies.
    pub crashes: u8,
    /// A lease expires under a live worker.
    pub pauses: u8,
    /// A call, a webhook, or an answer is lost.
    pub losses: u8,
    /// The provider sends a webhook once more.
    pub repeats: u8,
    /// A message requests a cancel.
    pub messages: u8,
    /// The `cancel` command requests a cancel.
    pub commands: u8,
    /// The link expires by the worker's clock.
    pub ends: u8,
    /// The merchant accepts a webhook no more: 410, or the last attempt failed.
    pub abandons: u8,
    /// The recipient is paid although the link is cancelled or expired.
    pub late: u8,
    /// A request becomes older than `retry.max_age_seconds`.
    pub give_ups: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Creation {
    /// The record waits for its first call.
    Uncalled,
    UnderWay,
    /// The outcome is unknown and may still be resolved.
    Unresolved,
    Created,
    Failed,
    /// The outcome stays unknown.
    Unknown,
    /// The record was cancelled before its first call.
    Cancelled,
}

/// The provider's own records.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ledger {
    /// Every status since the link was created; empty before.
    pub history: Vec<LinkStatus>,
    /// Webhooks under way, each as the position of its change in the history.
    pub announcements: Vec<u8>,
    /// A change was not announced, or its webhook is lost.
    pub is_silent: bool,
    /// Calls that cancel the link and are carried out after their worker has stopped waiting.
    pub cancels: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Row {
    pub status: LinkStatus,
    pub sequence: u8,
    pub newest_event: Option<u8>,
    pub cancel_is_requested: bool,
    pub cancelled: Option<Cancelled>,
    /// The link's time is over.
    pub is_over: bool,
    pub follow_due: Due,
    pub follow_holder: Option<ClaimId>,
    pub asks_again: bool,
    /// Stored webhooks of the provider.
    pub stored: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cancelled {
    pub is_for_expiry: bool,
    /// The cancel is old enough to count.
    pub is_confirmed: bool,
}

impl Cancelled {
    pub fn reason(self) -> CancelReason {
        if self.is_for_expiry { CancelReason::Expiry } else { CancelReason::Request }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Due {
    Never,
    /// Due later: by the schedule, by a retry, or at the end of a lease.
    Later,
    Now,
}

/// Names the part of the outbox that a run has. The result and the webhook of an event have nothing in common but the lease,
/// so most runs have one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outbox {
    /// The result counts as published from the start.
    Webhooks,
    /// No event has a webhook.
    Results,
    Both,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Event {
    pub sequence: u8,
    pub status: LinkStatus,
    pub previous: Option<u8>,
    pub next: Option<u8>,
    /// Its result counts as published.
    pub is_published: bool,
    /// Its webhook is neither delivered nor abandoned.
    pub is_pending: bool,
    /// Its webhook waits for the webhook of the previous event.
    pub waits: bool,
    pub due: Due,
    pub holder: Option<ClaimId>,
}

/// A row of `link_requests`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request {
    pub number: u8,
    pub due: Due,
    /// The request is older than `retry.max_age_seconds`.
    pub is_too_old: bool,
    pub holder: Option<ClaimId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    Cancelled,
    /// The link cannot be cancelled. The number counts the events so far; the last of them is the reason.
    Over(u8),
    NotCreated,
    GivenUp,
}

/// `LinkStatus`, with an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status(pub u8);

impl Status {
    pub fn of(status: LinkStatus) -> Self {
        let place = LinkStatus::ALL.into_iter().position(|other| other == status).unwrap();
        Self(u8::try_from(place).unwrap())
    }

    pub fn link_status(self) -> LinkStatus {
        LinkStatus::ALL[usize::from(self.0)]
    }
}

/// The row as a claim read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seen {
    pub status: Status,
    pub cancel_is_requested: bool,
    pub cancelled: Option<Cancelled>,
    pub is_over: bool,
}

impl Row {
    pub fn seen(&self) -> Seen {
        Seen {
            status: Status::of(self.status),
            cancel_is_requested: self.cancel_is_requested,
            cancelled: self.cancelled,
            is_over: self.is_over,
        }
    }
}

impl System {
    pub fn new(creation: Creation, workers: usize, announces: bool, outbox: Outbox, faults: Faults) -> Self {
        let mut system = Self {
            creation,
            ledger: Ledger {
                history: Vec::new(),
                announcements: Vec::new(),
                is_silent: !announces,
                cancels: 0,
            },
            row: Row {
                status: LinkStatus::Unclaimed,
                sequence: 0,
                newest_event: None,
                cancel_is_requested: false,
                cancelled: None,
                is_over: false,
                follow_due: Due::Never,
                follow_holder: None,
                asks_again: false,
                stored: Vec::new(),
            },
            events: Vec::new(),
            requests: Vec::new(),
            answers: Vec::new(),
            arrivals: Vec::new(),
            results: Vec::new(),
            workers: vec![Worker::Idle; workers],
            outbox,
            is_cancel_asked: false,
            faults,
        };
        if creation == Creation::Created {
            system.ledger.history.push(LinkStatus::Unclaimed);
            system.conclude(Creation::Created);
        }
        system
    }

    /// Ends the creation and writes its event. The other model has the steps of the creation.
    pub fn conclude(&mut self, creation: Creation) {
        self.creation = creation;
        self.row.sequence = 1;
        if creation == Creation::Created {
            self.row.follow_due = Due::Later;
        } else {
            self.row.cancel_is_requested = false;
        }
        if creation == Creation::Cancelled {
            self.row.status = LinkStatus::Cancelled;
        }
        self.events.push(Event {
            sequence: 1,
            status: self.row.status,
            previous: None,
            next: None,
            is_published: self.outbox == Outbox::Webhooks,
            is_pending: self.outbox != Outbox::Results,
            waits: false,
            due: Due::Now,
            holder: None,
        });
    }

    pub fn number_claims(&mut self) {
        let events = self.events.iter_mut().map(|event| &mut event.holder);
        let requests = self.requests.iter_mut().map(|request| &mut request.holder);
        let holders = std::iter::once(&mut self.row.follow_holder).chain(events).chain(requests);
        let mut numbers = Vec::new();
        for (holder, number) in holders.zip(1..) {
            if let Some(claim) = holder {
                let is_live = self.workers.iter().any(|worker| worker.claim() == Some(*claim));
                if is_live {
                    numbers.push((*claim, number));
                }
                *claim = if is_live { number } else { DEAD };
            }
        }
        for worker in &mut self.workers {
            if let Some(claim) = worker.claim_mut() {
                let number = numbers.iter().find(|(old, _)| old == claim);
                *claim = number.map_or(STALE, |(_, number)| *number);
            }
        }
    }

    /// Returns the provider's status of the link, if it exists.
    pub fn provider_status(&self) -> Option<LinkStatus> {
        self.ledger.history.last().copied()
    }

    /// Changes the link at the provider and sends the webhooks.
    pub fn change(&mut self, statuses: &[LinkStatus], announces: bool) {
        for status in statuses {
            self.ledger.history.push(*status);
            if announces {
                self.ledger.announcements.push(u8::try_from(self.ledger.history.len() - 1).unwrap());
            }
        }
    }

    /// Says whether a live worker has this claim.
    pub fn has_live_worker(&self, holder: ClaimId) -> bool {
        self.workers.iter().any(|worker| worker.claim() == Some(holder))
    }

    /// Returns whether the event's result waits for that of the previous event.
    pub fn result_waits(&self, event: &Event) -> bool {
        let is_unpublished = |previous: u8| !self.events[usize::from(previous)].is_published;
        !event.is_published && event.previous.is_some_and(is_unpublished)
    }

    pub fn is_open(&self) -> bool {
        matches!(self.creation, Creation::Uncalled | Creation::UnderWay | Creation::Unresolved)
    }

    /// Says whether nothing is left to do.
    pub fn is_quiet(&self) -> bool {
        self.workers.iter().all(|worker| *worker == Worker::Idle)
            && !self.is_open()
            && self.requests.is_empty()
            && self.row.follow_holder.is_none()
            && self
                .events
                .iter()
                .all(|event| event.is_published && !event.is_pending && event.holder.is_none())
    }
}
