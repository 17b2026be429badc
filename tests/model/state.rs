//! The state of the model: one key, since keys are independent of each other.
//!
//! Time goes in ticks. A tick is as long as a call's timeout. It is always [`NOW`]: what happened is ever longer ago,
//! what is due comes nearer, and so systems that differ in their age alone are one.

use std::time::Duration;

use time::OffsetDateTime;

use crate::known::{CameTo, Known};

pub type Tick = u8;

/// Longer than anything lasts.
pub const NOW: Tick = 24;
pub const TICK: Duration = Duration::from_secs(30);
/// A call is carried out, if ever, within this from its sending; its caller waits no longer.
pub const TIMEOUT: Tick = 1;
/// A lease outlasts a call: `Config::problems` sees to it.
pub const LEASE: Tick = 3;
/// The rate limit lets one call through in so much time where other jobs wait ahead. It is longer than a lease.
pub const PACE: Tick = LEASE + 1;

pub fn at(tick: Tick) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + TICK * tick.into()
}

pub fn ticks(duration: Duration) -> Tick {
    Tick::try_from(duration.as_secs().div_ceil(TICK.as_secs())).unwrap()
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct System {
    pub message: Message,
    pub row: Option<Row>,
    /// On their way to the connector.
    pub requests: Vec<Request>,
    /// Made at the connector. Their place is their number.
    pub links: Vec<Link>,
    /// Ids of the results that the broker has.
    pub results: Vec<Hold>,
    pub workers: Vec<Worker>,
    /// Claims so far.
    pub holds: Hold,
    /// When the rate limit lets the next call through; never in the past.
    pub let_through_at: Tick,
    /// Whoever reads the message from now on finds a reason to reject it: a configuration that changed, or poison.
    pub has_reason: bool,
    /// A rejection is written down under the key.
    pub mark: bool,
    /// The rejection is published.
    pub is_rejected: bool,
    /// A worker gave up an answer that it had, of a record that was still its own.
    pub gave_up: bool,
    pub faults: Faults,
}

/// What may go wrong still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Faults {
    /// Workers die.
    pub crashes: u8,
    /// Leases run out under workers that live.
    pub pauses: u8,
    /// Requests, answers, and answers of the database and the broker are lost.
    pub losses: u8,
    /// The connector refuses, or asks to try later.
    pub noes: u8,
    /// Sessions of a consumer end: what they delivered is delivered again.
    pub breaks: u8,
    /// A worker's presence is seen gone, while it is dead or while it still calls.
    pub takeovers: u8,
    /// Other jobs take a permit.
    pub others: u8,
    /// Other jobs reserve the rate limit. Where this is 0 there is no limit.
    pub waits: u8,
    /// Readers find a reason to reject the message.
    pub reasons: u8,
    /// Workers restart with a configuration that names another account.
    pub moves: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Message {
    Ready,
    /// And not acknowledged.
    Delivered,
    Gone,
}

/// A holder is a claim's own number, not a worker's.
pub type Hold = u8;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Row {
    pub state: State,
    pub attempts: u8,
    pub first_called_at: Option<Tick>,
    pub last_called_at: Option<Tick>,
    pub is_in_doubt: bool,
    /// The account that was called last.
    pub account: Option<Account>,
    pub holder: Option<Hold>,
    /// The claim that has begun no call.
    pub uncalled_holder: Option<Hold>,
    pub due_at: Option<Tick>,
    pub event: Option<Event>,
    /// No column. A call was let through, and no holder has written down that nothing came of it.
    pub is_unsettled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    Open,
    Created { link: u8 },
    Failed,
    Unknown { is_justified: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Event {
    pub id: Hold,
    pub is_published: bool,
    pub holder: Option<Hold>,
    pub due_at: Option<Tick>,
}

/// An account at the provider. Each knows its own links and keys alone.
pub type Account = u8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Link {
    pub key: u8,
    pub account: Account,
    pub made_at: Tick,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Request {
    pub of: Call,
    pub key: u8,
    pub account: Account,
    pub sent_at: Tick,
}

/// Whose call it is, and which of theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Call {
    pub hold: Hold,
    pub attempt: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Worker {
    pub doing: Doing,
    /// The account that its configuration names.
    pub account: Account,
    /// It has a delivery to acknowledge.
    pub acknowledges: bool,
    /// The session that brought that delivery goes on.
    pub has_delivery: bool,
    /// Of the worker's one permit for the connector, apart from the record that is its own.
    pub permit: Permit,
    /// It acknowledges another job's delivery of a session that has ended.
    pub acknowledges_stale: bool,
    /// Only where nothing wakes a session: it reads no more deliveries.
    pub is_deaf: bool,
}

/// Who has a permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permit {
    Free,
    /// Another job's.
    Other,
    /// Only where permits are not given back.
    Lost,
}

impl Worker {
    pub const IDLE: Self = Self {
        doing: Doing::Nothing,
        account: 0,
        acknowledges: false,
        has_delivery: false,
        permit: Permit::Free,
        acknowledges_stale: false,
        is_deaf: false,
    };

    /// Nothing is left to be done for the job here.
    fn is_idle(&self) -> bool {
        self.doing == Doing::Nothing && !self.acknowledges
    }

    /// Whether another job may take its permit.
    pub fn has_permit(&self) -> bool {
        let is_its_own = matches!(
            self.doing,
            Doing::Accepting { is_admitted: true } | Doing::Holding { .. } | Doing::Calling { .. }
        );
        self.permit == Permit::Free && !is_its_own
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Doing {
    Nothing,
    /// A delivery waits for a permit and a reservation.
    Waiting,
    /// A delivery is to be written down: with its first call, or parked.
    Accepting {
        is_admitted: bool,
    },
    /// A rejection is to be published.
    Rejecting,
    /// A repeat of a finished job is to be answered.
    Replaying {
        event: Hold,
    },
    /// A row is its own, or was.
    Holding {
        hold: Hold,
        granted_at: Tick,
        known: Known,
        next: Prepared,
    },
    Calling {
        hold: Hold,
        granted_at: Tick,
        known: Known,
        sent_at: Tick,
        answer: Option<Answer>,
    },
    /// Only where a conclusion is one write and its event another.
    Recording {
        hold: Hold,
    },
    /// An event is its own to tell, or was.
    EventProgress {
        event: Hold,
        hold: Hold,
        tried: Option<bool>,
    },
}

/// How far the next step is prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Prepared {
    Nothing,
    /// Claimed, and let through.
    LetThrough,
    /// The row came with its first call counted.
    FirstCall,
    /// Decided, and not yet on disk.
    CallDecided,
    LookUpDecided,
    /// On disk.
    Call,
    LookUp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    Link(u8),
    Refused,
    TryLater,
}

impl Row {
    pub fn write_down(&mut self, known: &Known) {
        self.attempts = known.attempts;
        self.first_called_at = known.first_called_at;
        self.last_called_at = known.last_called_at.max(self.last_called_at);
        self.is_in_doubt = known.is_in_doubt;
        self.account = known.account;
    }
}

impl Event {
    /// A fresh event is held under its own id.
    pub fn held_by(id: Hold) -> Self {
        Self { id, is_published: false, holder: Some(id), due_at: Some(NOW + LEASE) }
    }
}

impl System {
    /// A job in the queue, and nothing done.
    pub fn new(workers: usize, faults: Faults) -> Self {
        Self {
            message: Message::Ready,
            row: None,
            requests: Vec::new(),
            links: Vec::new(),
            results: Vec::new(),
            workers: vec![Worker::IDLE; workers],
            holds: 0,
            let_through_at: NOW,
            has_reason: false,
            mark: false,
            is_rejected: false,
            gave_up: false,
            faults,
        }
    }

    /// Nothing is left to be done for the job.
    pub fn is_quiet(&self) -> bool {
        self.message == Message::Gone
            && self.workers.iter().all(Worker::is_idle)
            && self.row.as_ref().map_or(self.is_rejected, |row| {
                row.state != State::Open
                    && row.holder.is_none()
                    && row.event.is_some_and(|event| event.is_published && event.due_at.is_none())
            })
    }

    pub fn next_hold(&mut self) -> Hold {
        self.holds += 1;
        self.holds
    }

    /// So many ticks later.
    pub fn pass(&mut self, ticks: Tick) {
        let later = |tick: &mut Tick| *tick = tick.saturating_sub(ticks);
        // How long something has been due, or out of use, is no difference.
        let until = |end: Tick| move |tick: &mut Tick| *tick = tick.saturating_sub(ticks).max(end);
        until(NOW)(&mut self.let_through_at);
        if let Some(row) = &mut self.row {
            [&mut row.first_called_at, &mut row.last_called_at].into_iter().flatten().for_each(later);
            let event = row.event.iter_mut().flat_map(|event| &mut event.due_at);
            row.due_at.iter_mut().chain(event).for_each(until(NOW));
        }
        self.requests.iter_mut().for_each(|request| later(&mut request.sent_at));
        self.links.iter_mut().for_each(|link| later(&mut link.made_at));
        for worker in &mut self.workers {
            if let Doing::Holding { granted_at, known, .. } | Doing::Calling { granted_at, known, .. } =
                &mut worker.doing
            {
                until(NOW - LEASE)(granted_at);
                [&mut known.first_called_at, &mut known.last_called_at].into_iter().flatten().for_each(later);
            }
            if let Doing::Calling { sent_at, .. } = &mut worker.doing {
                until(NOW - TIMEOUT)(sent_at);
            }
        }
    }

    /// A worker dies, and another one starts in its place.
    pub fn restart(&mut self, number: usize, account: Account) {
        let started = Worker { account, ..Worker::IDLE };
        if std::mem::replace(&mut self.workers[number], started).has_delivery {
            self.message = Message::Ready;
        }
    }

    pub fn hear_result(&mut self, id: Hold) {
        if !self.results.contains(&id) {
            self.results.push(id);
        }
    }

    /// The connector's answer reaches whoever waits for it still.
    pub fn answer(&mut self, of: Call, answered: Answer) {
        for worker in &mut self.workers {
            if let Doing::Calling { hold, known, answer, .. } = &mut worker.doing
                && (Call { hold: *hold, attempt: known.attempts }) == of
            {
                *answer = Some(answered);
            }
        }
    }

    /// A record waits for a worker.
    pub fn has_due_work(&self) -> bool {
        self.row.as_ref().is_some_and(|row| row.due_at.is_some_and(|due_at| due_at <= NOW))
    }

    pub fn is_let_through(&self) -> bool {
        self.let_through_at <= NOW
    }

    /// A link that a worker has in its hands and has not written down yet.
    pub fn has_link_of(&self, claim: Hold) -> bool {
        self.workers.iter().any(|worker| {
            matches!(worker.doing, Doing::Holding { hold, known, .. }
                if hold == claim && matches!(known.came_to, CameTo::Link(_)))
        })
    }

    /// The holds that workers believe in.
    pub fn holds_of_the_living(&self) -> impl Iterator<Item = Hold> {
        self.workers.iter().filter_map(|worker| match worker.doing {
            Doing::Holding { hold, .. } | Doing::Calling { hold, .. } | Doing::EventProgress { hold, .. } => {
                Some(hold)
            }
            Doing::Nothing
            | Doing::Waiting
            | Doing::Accepting { .. }
            | Doing::Rejecting
            | Doing::Replaying { .. }
            | Doing::Recording { .. } => None,
        })
    }
}
