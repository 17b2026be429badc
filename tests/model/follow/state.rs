//! The state of the model: one link, since links are independent of each other.

use payout_link_worker::domain::{LinkStatus, follow::CancelReason};

/// A holder is a claim's own number, not a worker's. [`System::number_holds`] numbers them anew after each step, so that
/// systems that differ in their numbers alone are one.
pub type Hold = u8;

/// A claim of this step.
pub const NEW: Hold = 50;
/// The holder of a row whose worker is gone.
const DEAD: Hold = 60;
/// A worker's claim of a row that belongs to another one since then.
const STALE: Hold = 70;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct System {
    pub creation: Creation,
    pub ledger: Ledger,
    pub row: Row,
    /// Rows of the outbox, in the order of their writing. Their place is their id.
    pub events: Vec<Event>,
    /// Messages that ask for a cancel.
    pub requests: Vec<Request>,
    /// Answers that the requesters have, each with its request's number.
    pub answers: Vec<(u8, Answer)>,
    /// Webhooks that the merchant has, by the sequence of their events, in the order of their first arrival.
    pub arrivals: Vec<u8>,
    pub workers: Vec<Worker>,
    /// No column: somebody asked for a cancel, and nobody gave it up.
    pub is_cancel_asked: bool,
    pub faults: Faults,
}

/// The events that are still possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Faults {
    /// The recipient or the provider changes the link.
    pub changes: u8,
    /// Workers die.
    pub crashes: u8,
    /// Leases run out under workers that live.
    pub pauses: u8,
    /// Calls, answers, webhooks, and answers of the database are lost.
    pub losses: u8,
    /// The provider sends a webhook once more.
    pub repeats: u8,
    /// Messages ask for a cancel.
    pub messages: u8,
    /// The `cancel` command asks for one.
    pub commands: u8,
    /// The link's time runs out by the worker's clock.
    pub ends: u8,
    /// The merchant accepts a webhook no more: 410, or the last attempt failed.
    pub abandons: u8,
    /// The recipient is paid although the link is cancelled or expired.
    pub late: u8,
    /// A request is older than `retry.max_age_seconds`.
    pub give_ups: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Creation {
    /// A record that waits for its first call.
    Uncalled,
    UnderWay,
    /// Its outcome is unknown, and may be resolved.
    Unresolved,
    Created,
    Failed,
    /// Its outcome is unknown for good.
    Unknown,
    /// Cancelled before its first call.
    Cancelled,
}

/// The provider's own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ledger {
    /// Every status since the link was made; empty before.
    pub history: Vec<LinkStatus>,
    /// Webhooks on their way: the changes that they announce, by their places in the history.
    pub announcements: Vec<u8>,
    /// A change was not announced, or its webhook is lost.
    pub is_silent: bool,
    /// Calls that cancel the link and are carried out after nobody waits for them any more.
    pub cancels: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Row {
    pub status: LinkStatus,
    pub sequence: u8,
    pub newest_event: Option<u8>,
    pub cancel_is_requested: bool,
    pub cancelled: Option<Cancelled>,
    /// The end of the link is over.
    pub is_over: bool,
    pub follow_due: Due,
    pub follow_holder: Option<Hold>,
    pub asks_again: bool,
    /// Webhooks of the provider that are stored.
    pub stored: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cancelled {
    pub is_for_expiry: bool,
    /// So long ago that it counts.
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
    /// At its time: of the schedule, of a retry, or at the end of a lease.
    Later,
    Now,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Event {
    pub sequence: u8,
    pub status: LinkStatus,
    pub previous: Option<u8>,
    pub next: Option<u8>,
    /// Its webhook is neither delivered nor abandoned.
    pub is_pending: bool,
    /// It waits for the webhook of the previous event.
    pub waits: bool,
    pub due: Due,
    pub holder: Option<Hold>,
}

/// `link_requests`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request {
    pub number: u8,
    pub due: Due,
    /// Older than `retry.max_age_seconds`.
    pub is_too_old: bool,
    pub holder: Option<Hold>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    Cancelled,
    /// Not cancellable: so many events were announced, and the last of them is the reason.
    Over(u8),
    NotCreated,
    GivenUp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Worker {
    Idle,
    /// A link is its own to ask about, or was. `cancels`: so many in this claim.
    Asking {
        hold: Hold,
        seen: Seen,
        cancels: u8,
    },
    /// With the provider's answer; `None`: it did not answer.
    Answered {
        hold: Hold,
        seen: Seen,
        cancels: u8,
        status: Option<Status>,
    },
    /// The cancel is written down, and the provider is to be called.
    Cancelling {
        hold: Hold,
        seen: Seen,
        cancels: u8,
    },
    /// Only where the status is one write and its event another.
    RecordingEvent {
        hold: Hold,
        status: Status,
    },
    /// An event is its own to deliver, or was. `waits`: as the claim saw it.
    Posting {
        event: u8,
        hold: Hold,
        waits: bool,
        is_lease_over: bool,
    },
    Posted {
        event: u8,
        hold: Hold,
        waits: bool,
        came_to: Posted,
    },
    /// A request is to be answered, or to be deleted after its answer.
    Answering {
        request: u8,
        hold: Hold,
        answer: Answer,
    },
    Finishing {
        request: u8,
        hold: Hold,
        is_given_up: bool,
    },
    /// Only where a request is deleted before it is answered.
    AnsweringLate {
        request: u8,
        hold: Hold,
        answer: Answer,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Posted {
    Nothing,
    Delivered,
    Failed,
    Abandoned,
}

/// `LinkStatus`, in an order.
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
    pub fn new(creation: Creation, workers: usize, announces: bool, faults: Faults) -> Self {
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
            workers: vec![Worker::Idle; workers],
            is_cancel_asked: false,
            faults,
        };
        if creation == Creation::Created {
            system.ledger.history.push(LinkStatus::Unclaimed);
            system.conclude(Creation::Created);
        }
        system
    }

    /// The end of a creation, with its event. Its own steps are the other model's.
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
            is_pending: true,
            waits: false,
            due: Due::Now,
            holder: None,
        });
    }

    pub fn number_holds(&mut self) {
        let events = self.events.iter_mut().map(|event| &mut event.holder);
        let requests = self.requests.iter_mut().map(|request| &mut request.holder);
        let holders = std::iter::once(&mut self.row.follow_holder).chain(events).chain(requests);
        let mut numbers = Vec::new();
        for (holder, number) in holders.zip(1..) {
            if let Some(hold) = holder {
                let is_living = self.workers.iter().any(|worker| worker.hold() == Some(*hold));
                if is_living {
                    numbers.push((*hold, number));
                }
                *hold = if is_living { number } else { DEAD };
            }
        }
        for worker in &mut self.workers {
            if let Some(hold) = worker.hold_mut() {
                let number = numbers.iter().find(|(old, _)| old == hold);
                *hold = number.map_or(STALE, |(_, number)| *number);
            }
        }
    }

    /// The provider's status of the link, where there is one.
    pub fn provider_status(&self) -> Option<LinkStatus> {
        self.ledger.history.last().copied()
    }

    /// A change at the provider, and its webhook.
    pub fn change(&mut self, statuses: &[LinkStatus], announces: bool) {
        for status in statuses {
            self.ledger.history.push(*status);
            if announces {
                self.ledger.announcements.push(u8::try_from(self.ledger.history.len() - 1).unwrap());
            }
        }
    }

    /// Whether a worker lives that has this claim.
    pub fn is_of_the_living(&self, holder: Hold) -> bool {
        self.workers.iter().any(|worker| worker.hold() == Some(holder))
    }

    pub fn is_open(&self) -> bool {
        matches!(self.creation, Creation::Uncalled | Creation::UnderWay | Creation::Unresolved)
    }

    /// Nothing is left to be done.
    pub fn is_quiet(&self) -> bool {
        self.workers.iter().all(|worker| *worker == Worker::Idle)
            && !self.is_open()
            && self.requests.is_empty()
            && self.row.follow_holder.is_none()
            && self.events.iter().all(|event| !event.is_pending && event.holder.is_none())
    }
}

impl Worker {
    pub fn hold(mut self) -> Option<Hold> {
        self.hold_mut().copied()
    }

    fn hold_mut(&mut self) -> Option<&mut Hold> {
        match self {
            Self::Idle => None,
            Self::Asking { hold, .. }
            | Self::Answered { hold, .. }
            | Self::Cancelling { hold, .. }
            | Self::RecordingEvent { hold, .. }
            | Self::Posting { hold, .. }
            | Self::Posted { hold, .. }
            | Self::Answering { hold, .. }
            | Self::Finishing { hold, .. }
            | Self::AnsweringLate { hold, .. } => Some(hold),
        }
    }
}
