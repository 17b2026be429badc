//! What the model knows of the world: one key, since keys have nothing to do with each other.
//!
//! Time goes in ticks. A tick is as long as a call's timeout. It is always [`NOW`]: what happened is ever longer ago,
//! what is due comes nearer, and so worlds that differ in their age alone are one.

use std::time::Duration;

use payout_link_worker::domain::{ConnectorError, CreatedLink, PayoutStatus, Progress, retry::Last};
use time::OffsetDateTime;

pub type Tick = u8;

/// Longer than anything lasts.
pub const NOW: Tick = 24;
pub const TICK: Duration = Duration::from_secs(30);
/// A call is carried out, if ever, within this from its sending; its caller waits no longer.
pub const TIMEOUT: Tick = 1;
/// A lease outlasts a call: `Config::problems` sees to it.
pub const LEASE: Tick = 3;

pub fn at(tick: Tick) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + TICK * tick.into()
}

pub fn ticks(duration: Duration) -> Tick {
    Tick::try_from(duration.as_secs().div_ceil(TICK.as_secs())).unwrap()
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub message: Message,
    pub row: Option<Row>,
    /// On their way to the connector.
    pub requests: Vec<Request>,
    /// Made at the connector: under which key, and when. Their place is their number.
    pub links: Vec<(u8, Tick)>,
    /// Ids of the results that the broker has.
    pub results: Vec<Hold>,
    pub workers: Vec<Worker>,
    /// Claims so far.
    pub holds: Hold,
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
    /// The broker delivers what it has delivered.
    pub redeliveries: u8,
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
    pub holder: Option<Hold>,
    pub due_at: Option<Tick>,
    pub event: Option<Event>,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Request {
    pub of: Call,
    pub key: u8,
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
    /// It has a delivery to acknowledge.
    pub acknowledges: bool,
    /// The broker knows of that delivery still.
    pub has_delivery: bool,
}

impl Worker {
    pub const IDLE: Self = Self { doing: Doing::Nothing, acknowledges: false, has_delivery: false };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Doing {
    Nothing,
    /// A delivery is to be written down.
    Accepting,
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
    Telling {
        event: Hold,
        hold: Hold,
        tried: Option<bool>,
    },
}

/// How far the next step is prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Prepared {
    Nothing,
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

/// `domain::Progress`, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Known {
    pub attempts: u8,
    pub first_called_at: Option<Tick>,
    pub last_called_at: Option<Tick>,
    pub is_in_doubt: bool,
    pub look_ups: u8,
    pub came_to: CameTo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CameTo {
    NothingYet,
    Link(u8),
    Refused,
    NoLink,
    NotThere,
}

impl Known {
    pub fn progress(&self) -> Progress {
        let error = || ConnectorError::unanswered("");
        Progress {
            attempts: self.attempts.into(),
            first_called_at: self.first_called_at.map(at),
            last_called_at: self.last_called_at.map(at),
            in_doubt_since: self.is_in_doubt.then(|| at(0)),
            look_ups: self.look_ups.into(),
            last: match self.came_to {
                CameTo::NothingYet => None,
                CameTo::Link(number) => Some(Last::Link(link(number))),
                CameTo::Refused => Some(Last::Refused(error())),
                CameTo::NoLink => Some(Last::NoLink { error: error(), retry_after: None }),
                CameTo::NotThere => Some(Last::NotThere),
            },
            ..Progress::new(at(NOW))
        }
    }

    /// Takes over what the real `Progress` made of an answer.
    pub fn learn(&mut self, progress: &Progress) {
        self.is_in_doubt = progress.in_doubt_since.is_some();
        self.first_called_at = progress.first_called_at.and(self.first_called_at);
        self.look_ups = u8::try_from(progress.look_ups).unwrap();
        self.came_to = match &progress.last {
            None => CameTo::NothingYet,
            Some(Last::Link(link)) => CameTo::Link(number(link)),
            Some(Last::Refused(_) | Last::AlreadyThere(_) | Last::Ended { .. }) => CameTo::Refused,
            Some(Last::NoLink { .. }) => CameTo::NoLink,
            Some(Last::NotThere) => CameTo::NotThere,
        };
    }
}

/// The connector's `number`-th link.
pub fn link(number: u8) -> CreatedLink {
    CreatedLink {
        connector_payout_id: number.to_string(),
        payout_status: PayoutStatus::RequiresFulfillment,
        url: String::new().into(),
        expires_at: None,
        status_code: 201,
    }
}

pub fn number(link: &CreatedLink) -> u8 {
    link.connector_payout_id.parse().unwrap()
}

impl Row {
    pub fn write_down(&mut self, known: &Known) {
        self.attempts = known.attempts;
        self.first_called_at = known.first_called_at;
        self.last_called_at = known.last_called_at.max(self.last_called_at);
        self.is_in_doubt = known.is_in_doubt;
    }
}

impl Event {
    /// A fresh event is held under its own id.
    pub fn held_by(id: Hold) -> Self {
        Self { id, is_published: false, holder: Some(id), due_at: Some(NOW + LEASE) }
    }
}

impl World {
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
            faults,
        }
    }

    /// Nothing is left to be done for the job.
    pub fn is_quiet(&self) -> bool {
        self.message == Message::Gone
            && self.workers.iter().all(|worker| *worker == Worker::IDLE)
            && self.row.as_ref().is_some_and(|row| {
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
        if let Some(row) = &mut self.row {
            let event = row.event.iter_mut().flat_map(|event| &mut event.due_at);
            [&mut row.first_called_at, &mut row.last_called_at, &mut row.due_at]
                .into_iter()
                .flatten()
                .chain(event)
                .for_each(later);
        }
        self.requests.iter_mut().for_each(|request| later(&mut request.sent_at));
        self.links.iter_mut().for_each(|(_, made_at)| later(made_at));
        for worker in &mut self.workers {
            if let Doing::Holding { granted_at, known, .. } | Doing::Calling { granted_at, known, .. } =
                &mut worker.doing
            {
                later(granted_at);
                [&mut known.first_called_at, &mut known.last_called_at].into_iter().flatten().for_each(later);
            }
            if let Doing::Calling { sent_at, .. } = &mut worker.doing {
                later(sent_at);
            }
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

    /// The holds that workers believe in.
    pub fn holds_of_the_living(&self) -> impl Iterator<Item = Hold> {
        self.workers.iter().filter_map(|worker| match worker.doing {
            Doing::Holding { hold, .. } | Doing::Calling { hold, .. } | Doing::Telling { hold, .. } => {
                Some(hold)
            }
            Doing::Nothing | Doing::Accepting | Doing::Replaying { .. } | Doing::Recording { .. } => None,
        })
    }
}
