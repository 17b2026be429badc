//! Derives from the seed which faults are injected, when, and for how long. The same seed gives the same plan.

use std::{fmt, time::Duration};

use provider_simulators::sandbox::{Fault as SimulatorFault, FaultRule, Garbage};

use crate::{
    cluster::NODES,
    connectors::CONNECTORS,
    proxy::Mode,
    random::Random,
    saturation::{self, Overload, Variant},
    workers::WORKERS,
};

pub const MERCHANTS: usize = 3;

/// A fault to inject. Numbers count workers, nodes, connectors and merchants from 0.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// Sends SIGKILL.
    KillWorker(usize),
    /// Sends SIGSTOP for longer than a lease, then SIGCONT.
    PauseWorker(usize),
    /// Sends SIGTERM, waits for the end, and starts a new process.
    RestartWorker(usize),
    /// Restarts one worker after the other.
    RollingRestart,
    KillPostgres,
    KillNode(usize),
    /// Stops the node cleanly and starts it again.
    RestartNode(usize),
    /// Kills the node that leads the jobs queue.
    KillLeader,
    /// Kills two of three nodes, so there is no majority until one is back.
    KillMajority(usize),
    /// Sets a memory alarm, which blocks all publishers.
    Alarm(usize),
    /// Disturbs the connections from one worker to a service.
    Connection(usize, Service, ConnectionFault),
    Connector(usize, ProviderFault),
    Merchant(usize, MerchantFault),
    /// Injects a fault of the saturated mode.
    Overload(Overload),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Postgres,
    RabbitMq,
    Connector(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionFault {
    /// Resets all connections once.
    Cut,
    Refused,
    Silent,
    AnswersLost,
    Slow,
}

/// A fault that a provider injects into every create call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderFault {
    /// Carries out the call and resets the connection.
    AnswersLost,
    Fails,
    TooMany,
    Garbage,
    /// Answers later than any caller waits, but long before the settle time.
    Late,
    /// No worker can reach the provider.
    Outage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MerchantFault {
    Hangs,
    Refuses,
    Redirects,
    Gone,
    Fails,
}

impl ConnectionFault {
    /// Returns the proxy's mode. A cut needs none, because it is over at once.
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

impl ProviderFault {
    pub fn fault_rule(self) -> Option<FaultRule> {
        Some(match self {
            Self::AnswersLost => FaultRule::new(SimulatorFault::Reset).after_the_work(),
            Self::Fails => FaultRule::new(SimulatorFault::status(500)),
            Self::TooMany => FaultRule::new(SimulatorFault::status_with_retry_after(429, "2")),
            Self::Garbage => FaultRule::new(SimulatorFault::Garbage(Garbage::NotJson)).after_the_work(),
            Self::Late => FaultRule::new(SimulatorFault::Slow { milliseconds: 4500 }),
            Self::Outage => return None,
        })
    }
}

impl MerchantFault {
    pub fn fault_rule(self) -> Option<FaultRule> {
        Some(match self {
            Self::Hangs => FaultRule::new(SimulatorFault::Slow { milliseconds: 8000 }),
            Self::Redirects => {
                FaultRule::new(SimulatorFault::Redirect { location: "/elsewhere".parse().ok() })
            }
            Self::Gone => FaultRule::new(SimulatorFault::status(410)),
            Self::Fails => FaultRule::new(SimulatorFault::status(500)),
            Self::Refuses => return None,
        })
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Planned {
    pub at: Duration,
    pub fault: Fault,
    /// The time until the fault is healed, or the killed process is started again.
    pub lasts: Duration,
}

/// A part of the system that a fault affects. Two faults never affect the same part at once, because healing one
/// would heal the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Worker(usize),
    Postgres,
    /// The cluster: at most one fault at a time.
    Nodes,
    Connection(usize, usize),
    Connector(usize),
    Merchant(usize),
    Replies,
    Results,
    Crowd,
    Roaming,
}

impl Fault {
    fn targets(self) -> Vec<Target> {
        match self {
            Self::KillWorker(worker) | Self::PauseWorker(worker) | Self::RestartWorker(worker) => {
                vec![Target::Worker(worker)]
            }
            Self::RollingRestart => (0..WORKERS).map(Target::Worker).collect(),
            Self::KillPostgres => vec![Target::Postgres],
            Self::KillNode(_)
            | Self::RestartNode(_)
            | Self::KillLeader
            | Self::KillMajority(_)
            | Self::Alarm(_) => vec![Target::Nodes],
            Self::Connection(worker, service, _) => vec![Target::Connection(worker, service.place())],
            // An outage affects every worker's connection to the provider.
            Self::Connector(connector, ProviderFault::Outage) => {
                let service = Service::Connector(connector).place();
                (0..WORKERS).map(|worker| Target::Connection(worker, service)).collect()
            }
            Self::Connector(connector, _) => vec![Target::Connector(connector)],
            Self::Merchant(merchant, _) => vec![Target::Merchant(merchant)],
            Self::Overload(overload) => overload.targets(),
        }
    }

    /// Returns, in seconds, the minimum and maximum duration, and the pause until the next fault of the same part.
    fn seconds(self) -> (u64, u64, u64) {
        match self {
            Self::KillWorker(_) => (1, 4, 3),
            // A pause is longer than a lease (8 s) and shorter than the settle time (25 s).
            Self::PauseWorker(_) => (10, 15, 3),
            Self::RestartWorker(_) => (0, 1, 14),
            Self::RollingRestart => (0, 1, 40),
            Self::KillPostgres => (1, 8, 6),
            Self::KillNode(_) | Self::KillLeader => (1, 10, 20),
            Self::RestartNode(_) => (1, 5, 25),
            Self::KillMajority(_) => (3, 10, 30),
            Self::Alarm(_) => (5, 15, 6),
            Self::Connection(_, _, ConnectionFault::Cut) => (0, 1, 2),
            Self::Connection(_, _, ConnectionFault::Slow) => (5, 20, 2),
            Self::Connection(..) => (3, 20, 2),
            Self::Connector(_, ProviderFault::Outage) => (10, 120, 5),
            Self::Connector(..) => (3, 20, 5),
            Self::Merchant(_, MerchantFault::Gone) => (1, 3, 2),
            Self::Merchant(..) => (5, 30, 2),
            Self::Overload(overload) => overload.seconds(),
        }
    }

    /// Names the fault in the table.
    pub fn kind(self) -> String {
        match self {
            Self::KillWorker(_) => "worker: SIGKILL".into(),
            Self::PauseWorker(_) => "worker: paused past its lease".into(),
            Self::RestartWorker(_) => "worker: SIGTERM".into(),
            Self::RollingRestart => "workers: rolling restart".into(),
            Self::KillPostgres => "PostgreSQL: SIGKILL".into(),
            Self::KillNode(_) => "RabbitMQ: a node, SIGKILL".into(),
            Self::RestartNode(_) => "RabbitMQ: a node, restarted".into(),
            Self::KillLeader => "RabbitMQ: the leader, SIGKILL".into(),
            Self::KillMajority(_) => "RabbitMQ: two nodes, SIGKILL".into(),
            Self::Alarm(_) => "RabbitMQ: memory alarm".into(),
            Self::Connection(_, service, fault) => {
                format!("connection to {}: {}", service.name(), fault.name())
            }
            Self::Connector(_, fault) => format!("provider: {}", fault.name()),
            Self::Merchant(_, fault) => format!("merchant: {}", fault.name()),
            Self::Overload(overload) => overload.kind().into(),
        }
    }
}

impl Overload {
    fn targets(self) -> Vec<Target> {
        let workers = || (0..WORKERS).map(Target::Worker);
        match self {
            Self::Breaks(_) => {
                (0..WORKERS).map(|worker| Target::Connection(worker, Service::RabbitMq.place())).collect()
            }
            Self::Closes(_) | Self::ConsumerTimeout | Self::Unreadable => vec![Target::Nodes],
            Self::Kills | Self::Stops => workers().collect(),
            Self::FreezePostgres | Self::PostgresAway => vec![Target::Postgres],
            Self::FullReplies => vec![Target::Replies],
            Self::FullResults => vec![Target::Results],
            Self::CrowdHangs => vec![Target::Crowd],
            Self::Rename => workers().chain([Target::Roaming]).collect(),
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
            Self::Postgres => "PostgreSQL",
            Self::RabbitMq => "RabbitMQ",
            Self::Connector(_) => "a provider",
        }
    }
}

impl ConnectionFault {
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

impl ProviderFault {
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

impl MerchantFault {
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

/// Seconds without faults: at the beginning for the first jobs, and at the end so that every fault can end.
const QUIET_BEFORE: u64 = 6;
const QUIET_AFTER: u64 = 20;
/// The minimum and maximum time between two faults, in milliseconds.
const GAP: (u64, u64) = (1500, 7000);

/// Plans the faults of a run of so many seconds.
///
/// `only` holds parts of the names of wanted faults; if it is empty, all are wanted.
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
    let mut busy: Vec<(Target, Duration)> = Vec::new();
    let mut at = Duration::from_secs(QUIET_BEFORE);
    let end = Duration::from_secs(seconds.saturating_sub(QUIET_AFTER));
    while at < end {
        if deck.is_empty() {
            deck = new_deck(&mut random);
        }
        busy.retain(|(_, until)| *until > at);
        // Takes the first fault in the deck whose parts have no other fault.
        let is_free = |fault: &Fault| !busy.iter().any(|(target, _)| fault.targets().contains(target));
        if let Some(place) = deck.iter().position(is_free) {
            let fault = deck.remove(place);
            let (least, most, after) = fault.seconds();
            // Limits an outage to the length of a short run.
            let most = most.min(least + seconds / 6 + 1).max(least + 1);
            let lasts = Duration::from_millis(random.between(least * 1000, most * 1000));
            let until = at + lasts + Duration::from_secs(after);
            busy.extend(fault.targets().into_iter().map(|target| (target, until)));
            planned.push(Planned { at, fault, lasts });
        }
        at += Duration::from_millis(random.between(GAP.0, GAP.1));
    }
    planned
}

/// Builds a shuffled deck with every kind of fault, some of them several times. So every kind recurs soon.
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
    for fault in [
        ConnectionFault::Cut,
        ConnectionFault::Refused,
        ConnectionFault::Silent,
        ConnectionFault::AnswersLost,
        ConnectionFault::Slow,
    ] {
        let mut proxy = |service| deck.push(Connection(random.index(WORKERS), service, fault));
        proxy(Service::Postgres);
        proxy(Service::RabbitMq);
        let connector = random.index(CONNECTORS.len());
        deck.push(Connection(random.index(WORKERS), Service::Connector(connector), fault));
    }
    for fault in [
        ProviderFault::AnswersLost,
        ProviderFault::Fails,
        ProviderFault::TooMany,
        ProviderFault::Garbage,
        ProviderFault::Late,
        ProviderFault::Outage,
    ] {
        deck.push(Connector(random.index(CONNECTORS.len()), fault));
    }
    for fault in [
        MerchantFault::Hangs,
        MerchantFault::Refuses,
        MerchantFault::Redirects,
        MerchantFault::Gone,
        MerchantFault::Fails,
    ] {
        deck.push(Merchant(random.index(MERCHANTS), fault));
    }
    random.shuffle(&mut deck);
    deck
}
