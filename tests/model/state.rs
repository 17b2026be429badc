//! Holds the state of the model: one key, because keys are independent of each other.
//!
//! Time passes in ticks. A tick is as long as a call's timeout. The clock always shows [`NOW`]; past times move
//! further back and due times come nearer. So states that differ only in their age are equal.

use std::time::Duration;

use time::OffsetDateTime;

use crate::known::{Known, LastOutcome};

pub type Tick = u8;

/// Is longer than any duration in the model.
pub const NOW: Tick = 24;
pub const TICK: Duration = Duration::from_secs(30);
/// Limits how long after its sending a call is carried out, and how long its caller waits.
pub const TIMEOUT: Tick = 1;
/// Is longer than a call, as `Config::problems` requires.
pub const LEASE: Tick = 3;
/// The time between two calls that the rate limit lets through while other jobs wait ahead. It is longer than a
/// lease.
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
    /// Requests under way to the connector.
    pub requests: Vec<Request>,
    /// Links at the connector. A link's number is its position.
    pub links: Vec<Link>,
    /// Ids of the results that the broker has.
    pub results: Vec<ClaimId>,
    pub workers: Vec<Worker>,
    /// The number of claims so far.
    pub claims: ClaimId,
    /// The time when the rate limit lets the next call through; never in the past.
    pub let_through_at: Tick,
    /// Every later reader of the message finds a reason to reject it: a changed configuration, or poison.
    pub has_reason: bool,
    /// The database has a rejection under the key.
    pub mark: bool,
    /// The rejection is published.
    pub is_rejected: bool,
    /// A worker discarded an answer of a record that it still held.
    pub discarded_an_answer: bool,
    pub faults: Faults,
}

/// The number of faults that may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Faults {
    /// A worker dies.
    pub crashes: u8,
    /// A lease expires under a live worker.
    pub pauses: u8,
    /// A request or an answer is lost: of the connector, the database or the broker.
    pub losses: u8,
    /// The connector declines, or asks for a later try.
    pub provider_errors: u8,
    /// A consumer's session ends, and its deliveries come again.
    pub breaks: u8,
    /// The presence of a worker is missing, because it is dead or while it still calls.
    pub takeovers: u8,
    /// Another job takes a permit.
    pub others: u8,
    /// Another job reserves the rate limit. If this is 0, there is no limit.
    pub waits: u8,
    /// A reason to reject the message appears.
    pub reasons: u8,
    /// A worker restarts with a configuration that names another account.
    pub moves: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Message {
    Ready,
    /// Delivered, but not acknowledged.
    Delivered,
    Gone,
}

/// The number of a claim, not of a worker.
pub type ClaimId = u8;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Row {
    pub state: State,
    pub attempts: u8,
    pub first_called_at: Option<Tick>,
    pub last_called_at: Option<Tick>,
    pub is_in_doubt: bool,
    /// The account that was called last.
    pub account: Option<Account>,
    pub holder: Option<ClaimId>,
    /// The holder, if its claim has begun no call.
    pub uncalled_holder: Option<ClaimId>,
    pub due_at: Option<Tick>,
    pub event: Option<Event>,
    /// A call was let through, and no holder has recorded that it had no effect. No column stores this.
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
    pub id: ClaimId,
    pub is_published: bool,
    pub holder: Option<ClaimId>,
    pub due_at: Option<Tick>,
}

/// An account at the provider. Each has its own links and keys.
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

/// A call, by its claim and its attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Call {
    pub claim: ClaimId,
    pub attempt: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Worker {
    pub doing: Doing,
    /// The account that its configuration names.
    pub account: Account,
    /// It has a delivery to acknowledge.
    pub acknowledges: bool,
    /// The session of that delivery is still open.
    pub has_delivery: bool,
    /// The worker's one permit for the connector, as far as other jobs use it.
    pub permit: Permit,
    /// It is about to acknowledge another job's delivery of an ended session.
    pub acknowledges_stale: bool,
    /// It reads no more deliveries. Possible only if nothing wakes a session.
    pub reads_nothing: bool,
}

/// The user of a permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permit {
    Free,
    /// Another job has it.
    Other,
    /// It was never returned. Possible only with that flaw.
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
        reads_nothing: false,
    };

    /// Says whether this worker has nothing left to do for the job.
    fn is_idle(&self) -> bool {
        self.doing == Doing::Nothing && !self.acknowledges
    }

    /// Says whether another job may take its permit.
    pub fn has_permit(&self) -> bool {
        let is_its_own = matches!(
            self.doing,
            Doing::Accepting { is_admitted: true } | Doing::Claimed { .. } | Doing::Calling { .. }
        );
        self.permit == Permit::Free && !is_its_own
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Doing {
    Nothing,
    /// A delivery waits for a permit and a reservation.
    Waiting,
    /// A delivery is about to be accepted: with its first call, or parked.
    Accepting {
        is_admitted: bool,
    },
    /// A rejection is about to be published.
    Rejecting,
    /// The stored result is about to be published again to a duplicate.
    Replaying {
        event: ClaimId,
    },
    /// Has claimed the row, and may have lost it since.
    Claimed {
        claim: ClaimId,
        granted_at: Tick,
        known: Known,
        next: Prepared,
    },
    Calling {
        claim: ClaimId,
        granted_at: Tick,
        known: Known,
        sent_at: Tick,
        answer: Option<Answer>,
    },
    /// Possible only if a conclusion and its event are two writes.
    Recording {
        claim: ClaimId,
    },
    /// Has claimed an event to publish, and may have lost it since.
    EventProgress {
        event: ClaimId,
        claim: ClaimId,
        tried: Option<bool>,
    },
}

/// The preparation of the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Prepared {
    Nothing,
    /// The row is claimed, and the rate limit lets the call through.
    LetThrough,
    /// The acceptance already counted the first call.
    FirstCall,
    /// Decided, but not recorded yet.
    CallDecided,
    LookUpDecided,
    /// Recorded in the database.
    Call,
    LookUp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    Link(u8),
    Declined,
    TryLater,
}

impl Row {
    pub fn copy_from(&mut self, known: &Known) {
        self.attempts = known.attempts;
        self.first_called_at = known.first_called_at;
        self.last_called_at = known.last_called_at.max(self.last_called_at);
        self.is_in_doubt = known.is_in_doubt;
        self.account = known.account;
    }
}

impl Event {
    /// Builds a new event, which its own id holds.
    pub fn held_by(id: ClaimId) -> Self {
        Self { id, is_published: false, holder: Some(id), due_at: Some(NOW + LEASE) }
    }
}

impl System {
    /// Builds the first state: a job in the queue.
    pub fn new(workers: usize, faults: Faults) -> Self {
        Self {
            message: Message::Ready,
            row: None,
            requests: Vec::new(),
            links: Vec::new(),
            results: Vec::new(),
            workers: vec![Worker::IDLE; workers],
            claims: 0,
            let_through_at: NOW,
            has_reason: false,
            mark: false,
            is_rejected: false,
            discarded_an_answer: false,
            faults,
        }
    }

    /// Says whether nothing is left to do for the job.
    pub fn is_quiet(&self) -> bool {
        self.message == Message::Gone
            && self.workers.iter().all(Worker::is_idle)
            && self.row.as_ref().map_or(self.is_rejected, |row| {
                row.state != State::Open
                    && row.holder.is_none()
                    && row.event.is_some_and(|event| event.is_published && event.due_at.is_none())
            })
    }

    pub fn next_claim(&mut self) -> ClaimId {
        self.claims += 1;
        self.claims
    }

    /// Lets so many ticks pass.
    pub fn pass(&mut self, ticks: Tick) {
        let later = |tick: &mut Tick| *tick = tick.saturating_sub(ticks);
        // It makes no difference how long something has been due or expired.
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
            if let Doing::Claimed { granted_at, known, .. } | Doing::Calling { granted_at, known, .. } =
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

    /// Kills a worker and starts another one in its place.
    pub fn restart(&mut self, number: usize, account: Account) {
        let started = Worker { account, ..Worker::IDLE };
        if std::mem::replace(&mut self.workers[number], started).has_delivery {
            self.message = Message::Ready;
        }
    }

    pub fn receive_result(&mut self, id: ClaimId) {
        if !self.results.contains(&id) {
            self.results.push(id);
        }
    }

    /// Gives the connector's answer to the worker that still waits for it.
    pub fn answer(&mut self, of: Call, answered: Answer) {
        for worker in &mut self.workers {
            if let Doing::Calling { claim, known, answer, .. } = &mut worker.doing
                && (Call { claim: *claim, attempt: known.attempts }) == of
            {
                *answer = Some(answered);
            }
        }
    }

    /// Says whether a record waits for a worker.
    pub fn has_due_work(&self) -> bool {
        self.row.as_ref().is_some_and(|row| row.due_at.is_some_and(|due_at| due_at <= NOW))
    }

    pub fn is_let_through(&self) -> bool {
        self.let_through_at <= NOW
    }

    /// Says whether a worker has a link that it has not recorded yet.
    pub fn has_link_of(&self, holder: ClaimId) -> bool {
        self.workers.iter().any(|worker| {
            matches!(worker.doing, Doing::Claimed { claim, known, .. }
                if claim == holder && matches!(known.last_outcome, LastOutcome::Link(_)))
        })
    }

    /// Lists the claims that live workers still rely on.
    pub fn claims_of_live_workers(&self) -> impl Iterator<Item = ClaimId> {
        self.workers.iter().filter_map(|worker| match worker.doing {
            Doing::Claimed { claim, .. }
            | Doing::Calling { claim, .. }
            | Doing::EventProgress { claim, .. } => Some(claim),
            Doing::Nothing
            | Doing::Waiting
            | Doing::Accepting { .. }
            | Doing::Rejecting
            | Doing::Replaying { .. }
            | Doing::Recording { .. } => None,
        })
    }
}
