//! Which faults, when and for how long: from the seed alone, so that a run can be had again.

use std::{fmt, time::Duration};

use provider_simulators::sandbox::{Fault as Trouble, FaultRule, Garbage};

use crate::{
    cluster::NODES,
    connectors::CONNECTORS,
    proxy::Mode,
    random::Random,
    saturation::{self, Overload, Variant},
    workers::WORKERS,
};

pub const MERCHANTS: usize = 3;

/// Something that goes wrong. Numbers count workers, nodes, connectors and merchants from 0.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// SIGKILL.
    KillWorker(usize),
    /// SIGSTOP for longer than a lease, then SIGCONT.
    PauseWorker(usize),
    /// SIGTERM, its end, a new one.
    RestartWorker(usize),
    /// The same, one worker after the other.
    RollingRestart,
    KillPostgres,
    KillNode(usize),
    /// A clean stop.
    RestartNode(usize),
    /// The node that leads the jobs queue, wherever that is.
    KillLeader,
    /// Two nodes of three: no majority until one is back.
    KillMajority(usize),
    /// A memory alarm: whoever publishes is blocked.
    Alarm(usize),
    /// On the way from one worker to a service.
    Way(usize, Service, Harm),
    Connector(usize, Ill),
    Merchant(usize, Mood),
    /// Of a system that is full.
    Overload(Overload),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Postgres,
    RabbitMq,
    Connector(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// All connections reset, once.
    Cut,
    Refused,
    Silent,
    AnswersLost,
    Slow,
}

/// What a connector does to every create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ill {
    /// Does the work and resets the connection.
    AnswersLost,
    Fails,
    TooMany,
    Garbage,
    /// Answers later than anybody waits, long before the settle time.
    Late,
    /// Cannot be reached by any worker.
    Outage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Hangs,
    Refuses,
    Redirects,
    Gone,
    Fails,
}

impl Harm {
    /// What becomes of the connections; a cut is over at once.
    pub fn mode(self) -> Option<Mode> {
        match self {
            Self::Cut => None,
            Self::Refused => Some(Mode::Refuse),
            Self::Silent => Some(Mode::Silent),
            Self::AnswersLost => Some(Mode::AnswersLost),
            Self::Slow => Some(Mode::Slow(Duration::from_millis(150))),
        }
    }
}

impl Ill {
    pub fn order(self) -> Option<FaultRule> {
        Some(match self {
            Self::AnswersLost => FaultRule::new(Trouble::Reset).after_the_work(),
            Self::Fails => FaultRule::new(Trouble::status(500)),
            Self::TooMany => FaultRule::new(Trouble::status_with_retry_after(429, "2")),
            Self::Garbage => FaultRule::new(Trouble::Garbage(Garbage::NotJson)).after_the_work(),
            Self::Late => FaultRule::new(Trouble::Slow { milliseconds: 4500 }),
            Self::Outage => return None,
        })
    }
}

impl Mood {
    pub fn order(self) -> Option<FaultRule> {
        Some(match self {
            Self::Hangs => FaultRule::new(Trouble::Slow { milliseconds: 8000 }),
            Self::Redirects => FaultRule::new(Trouble::Redirect { location: "/elsewhere".parse().ok() }),
            Self::Gone => FaultRule::new(Trouble::status(410)),
            Self::Fails => FaultRule::new(Trouble::status(500)),
            Self::Refuses => return None,
        })
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Planned {
    pub at: Duration,
    pub fault: Fault,
    /// Until it is healed, or what was killed is started again.
    pub lasts: Duration,
}

/// What a fault holds: two faults of one thing are never under way at once, or the second would heal the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thing {
    Worker(usize),
    Postgres,
    /// One node at a time, or two on purpose.
    Nodes,
    Way(usize, usize),
    Connector(usize),
    Merchant(usize),
    Replies,
    Results,
    Crowd,
    Roaming,
}

impl Fault {
    fn things(self) -> Vec<Thing> {
        match self {
            Self::KillWorker(worker) | Self::PauseWorker(worker) | Self::RestartWorker(worker) => {
                vec![Thing::Worker(worker)]
            }
            Self::RollingRestart => (0..WORKERS).map(Thing::Worker).collect(),
            Self::KillPostgres => vec![Thing::Postgres],
            Self::KillNode(_)
            | Self::RestartNode(_)
            | Self::KillLeader
            | Self::KillMajority(_)
            | Self::Alarm(_) => vec![Thing::Nodes],
            Self::Way(worker, service, _) => vec![Thing::Way(worker, service.place())],
            // An outage is on every worker's way to it.
            Self::Connector(connector, Ill::Outage) => {
                let service = Service::Connector(connector).place();
                (0..WORKERS).map(|worker| Thing::Way(worker, service)).collect()
            }
            Self::Connector(connector, _) => vec![Thing::Connector(connector)],
            Self::Merchant(merchant, _) => vec![Thing::Merchant(merchant)],
            Self::Overload(overload) => overload.things(),
        }
    }

    /// Seconds: how long it lasts at least and at most, and how long it then takes until the next may hit the same.
    fn seconds(self) -> (u64, u64, u64) {
        match self {
            Self::KillWorker(_) => (1, 4, 3),
            // Longer than a lease (8 s), shorter than the settle time (25 s).
            Self::PauseWorker(_) => (10, 15, 3),
            Self::RestartWorker(_) => (0, 1, 14),
            Self::RollingRestart => (0, 1, 40),
            Self::KillPostgres => (1, 8, 6),
            Self::KillNode(_) | Self::KillLeader => (1, 10, 20),
            Self::RestartNode(_) => (1, 5, 25),
            Self::KillMajority(_) => (3, 10, 30),
            Self::Alarm(_) => (5, 15, 6),
            Self::Way(_, _, Harm::Cut) => (0, 1, 2),
            Self::Way(_, _, Harm::Slow) => (5, 20, 2),
            Self::Way(..) => (3, 20, 2),
            Self::Connector(_, Ill::Outage) => (10, 120, 5),
            Self::Connector(..) => (3, 20, 5),
            Self::Merchant(_, Mood::Gone) => (1, 3, 2),
            Self::Merchant(..) => (5, 30, 2),
            Self::Overload(overload) => overload.seconds(),
        }
    }

    /// The name under which the table counts it.
    pub fn kind(self) -> String {
        match self {
            Self::KillWorker(_) => "worker: SIGKILL".into(),
            Self::PauseWorker(_) => "worker: paused past its lease".into(),
            Self::RestartWorker(_) => "worker: SIGTERM".into(),
            Self::RollingRestart => "workers: rolling restart".into(),
            Self::KillPostgres => "Postgres: SIGKILL".into(),
            Self::KillNode(_) => "RabbitMQ: a node, SIGKILL".into(),
            Self::RestartNode(_) => "RabbitMQ: a node, restarted".into(),
            Self::KillLeader => "RabbitMQ: the leader, SIGKILL".into(),
            Self::KillMajority(_) => "RabbitMQ: two nodes, SIGKILL".into(),
            Self::Alarm(_) => "RabbitMQ: memory alarm".into(),
            Self::Way(_, service, harm) => format!("way to {}: {}", service.name(), harm.name()),
            Self::Connector(_, ill) => format!("connector: {}", ill.name()),
            Self::Merchant(_, mood) => format!("merchant: {}", mood.name()),
            Self::Overload(overload) => overload.kind().into(),
        }
    }
}

impl Overload {
    fn things(self) -> Vec<Thing> {
        let workers = || (0..WORKERS).map(Thing::Worker);
        match self {
            Self::Breaks(_) => {
                (0..WORKERS).map(|worker| Thing::Way(worker, Service::RabbitMq.place())).collect()
            }
            Self::Closes(_) | Self::ConsumerTimeout | Self::Unreadable => vec![Thing::Nodes],
            Self::Kills | Self::Stops => workers().collect(),
            Self::FreezePostgres | Self::PostgresAway => vec![Thing::Postgres],
            Self::FullReplies => vec![Thing::Replies],
            Self::FullResults => vec![Thing::Results],
            Self::CrowdHangs => vec![Thing::Crowd],
            Self::Rename => workers().chain([Thing::Roaming]).collect(),
        }
    }
}

impl Service {
    fn place(self) -> usize {
        match self {
            Self::Postgres => 0,
            Self::RabbitMq => 1,
            Self::Connector(connector) => 2 + connector,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Postgres => "Postgres",
            Self::RabbitMq => "RabbitMQ",
            Self::Connector(_) => "a connector",
        }
    }
}

impl Harm {
    fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Refused => "refused",
            Self::Silent => "silent",
            Self::AnswersLost => "answers lost",
            Self::Slow => "slow",
        }
    }
}

impl Ill {
    fn name(self) -> &'static str {
        match self {
            Self::AnswersLost => "answers lost after the work",
            Self::Fails => "500",
            Self::TooMany => "429 with Retry-After",
            Self::Garbage => "garbage",
            Self::Late => "late",
            Self::Outage => "outage",
        }
    }
}

impl Mood {
    fn name(self) -> &'static str {
        match self {
            Self::Hangs => "hangs",
            Self::Refuses => "refuses",
            Self::Redirects => "redirects",
            Self::Gone => "410",
            Self::Fails => "500",
        }
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, fault, lasts } = self;
        write!(f, "{:>7.1} s  {fault:?}, for {:.1} s", at.as_secs_f32(), lasts.as_secs_f32())
    }
}

/// No faults before the first jobs are through, and none that the end would cut short.
const QUIET_BEFORE: u64 = 6;
const QUIET_AFTER: u64 = 20;
/// Milliseconds between two faults.
const GAP: (u64, u64) = (1500, 7000);

/// The faults of a run of so many seconds.
///
/// `only`: parts of the names of those that are wanted; empty for all.
pub fn plan(seed: u64, seconds: u64, variant: Option<Variant>, only: &[String]) -> Vec<Planned> {
    let is_wanted =
        |fault: &Fault| only.is_empty() || only.iter().any(|name| fault.kind().contains(name.as_str()));
    let new_deck = |random: &mut Random| {
        let mut deck = match variant {
            Some(variant) => saturation::deck(random, variant),
            None => ordinary_deck(random),
        };
        deck.retain(is_wanted);
        deck
    };
    let mut random = Random::new(seed, 1);
    let (mut planned, mut deck): (Vec<Planned>, Vec<Fault>) = (Vec::new(), Vec::new());
    let mut busy: Vec<(Thing, Duration)> = Vec::new();
    let mut at = Duration::from_secs(QUIET_BEFORE);
    let end = Duration::from_secs(seconds.saturating_sub(QUIET_AFTER));
    while at < end {
        if deck.is_empty() {
            deck = new_deck(&mut random);
        }
        busy.retain(|(_, until)| *until > at);
        // The first of the deck that hits nothing that is being hit.
        let is_free = |fault: &Fault| !busy.iter().any(|(thing, _)| fault.things().contains(thing));
        if let Some(place) = deck.iter().position(is_free) {
            let fault = deck.remove(place);
            let (least, most, after) = fault.seconds();
            // A short run has no outage that is longer than itself.
            let most = most.min(least + seconds / 6 + 1).max(least + 1);
            let lasts = Duration::from_millis(random.between(least * 1000, most * 1000));
            let until = at + lasts + Duration::from_secs(after);
            busy.extend(fault.things().into_iter().map(|thing| (thing, until)));
            planned.push(Planned { at, fault, lasts });
        }
        at += Duration::from_millis(random.between(GAP.0, GAP.1));
    }
    planned
}

/// Every kind, some more often, in any order: none is forgotten for long.
fn ordinary_deck(random: &mut Random) -> Vec<Fault> {
    #[expect(clippy::enum_glob_use, reason = "every kind")]
    use Fault::*;
    let mut deck = Vec::new();
    for _ in 0..3 {
        deck.push(KillWorker(random.index(WORKERS)));
    }
    for _ in 0..2 {
        deck.push(PauseWorker(random.index(WORKERS)));
        deck.push(RestartWorker(random.index(WORKERS)));
        deck.push(KillPostgres);
    }
    deck.push(RollingRestart);
    deck.push(KillLeader);
    deck.push(Alarm(random.index(NODES)));
    let node = random.index(NODES);
    deck.push(random.pick(&[KillNode(node), RestartNode(node), KillMajority(node)]));
    for harm in [Harm::Cut, Harm::Refused, Harm::Silent, Harm::AnswersLost, Harm::Slow] {
        let mut way = |service| deck.push(Way(random.index(WORKERS), service, harm));
        way(Service::Postgres);
        way(Service::RabbitMq);
        let connector = random.index(CONNECTORS.len());
        deck.push(Way(random.index(WORKERS), Service::Connector(connector), harm));
    }
    for ill in [Ill::AnswersLost, Ill::Fails, Ill::TooMany, Ill::Garbage, Ill::Late, Ill::Outage] {
        deck.push(Connector(random.index(CONNECTORS.len()), ill));
    }
    for mood in [Mood::Hangs, Mood::Refuses, Mood::Redirects, Mood::Gone, Mood::Fails] {
        deck.push(Merchant(random.index(MERCHANTS), mood));
    }
    random.shuffle(&mut deck);
    deck
}
