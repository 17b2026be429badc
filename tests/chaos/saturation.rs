//! Saturation: connectors that take less than arrives, few permits, rate limits, a backlog, and the faults that only
//! show then. `overload.rs` carries the faults out.

use std::time::Duration;

use crate::{
    cluster::NODES,
    connectors::{CONNECTORS, Connector, ROAMING},
    plan::Fault,
    random::Random,
    workers::WORKERS,
};

/// Jobs that are published before anything else happens.
pub const BACKLOG: u64 = 20_000;
/// New payouts a second: more than the connectors take.
pub const RATE: u64 = 60;
/// How late each provider is, in each direction.
const DELAY: Duration = Duration::from_millis(150);
const SOLE_DELAY: Duration = Duration::from_millis(300);
/// Merchants of their own address each.
pub const CROWD: usize = 200;
/// Takes eight replies and no more until it is emptied. Nobody reads it.
pub const FULL_REPLIES: &str = "chaos.full.replies";
pub const FULL_RESULTS: &str = "chaos.full.results";

/// A fault of a system that is full. Numbers count nodes from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overload {
    /// The workers' connections to RabbitMQ are cut so many times, one soon after the other, while all providers are
    /// late.
    Breaks(u32),
    /// The same by the broker, which closes everybody's.
    Closes(u32),
    /// RabbitMQ closes channels that hold a delivery for five seconds.
    ConsumerTimeout,
    /// One worker after the other is killed, and started again at once.
    Kills,
    /// The same with SIGTERM.
    Stops,
    /// SIGSTOP, for longer than a lease and than the consumer timeout.
    FreezePostgres,
    /// SIGKILL, and away for as long.
    PostgresAway,
    /// A queue that many jobs name in `reply_to` rejects what is published to it.
    FullReplies,
    /// A queue that is bound to the results exchange rejects what is published to it.
    FullResults,
    /// All merchants of the crowd take connections and say nothing.
    CrowdHangs,
    /// Messages whose properties no client library can read.
    Unreadable,
    /// A connector section has another name for a while.
    Rename,
}

impl Overload {
    pub fn kind(self) -> &'static str {
        match self {
            Self::Breaks(_) => "RabbitMQ: several breaks in a row",
            Self::Closes(_) => "RabbitMQ: all connections closed, several times",
            Self::ConsumerTimeout => "RabbitMQ: consumer timeout of 5 s",
            Self::Kills => "workers: SIGKILL every few seconds",
            Self::Stops => "workers: SIGTERM every few seconds",
            Self::FreezePostgres => "Postgres: frozen",
            Self::PostgresAway => "Postgres: away past the consumer timeout",
            Self::FullReplies => "a reply queue is full",
            Self::FullResults => "a results queue is full",
            Self::CrowdHangs => "merchants: hundreds hang",
            Self::Unreadable => "unreadable and oversized messages",
            Self::Rename => "a connector section is renamed",
        }
    }

    /// Seconds, as [`Fault::seconds`] has them.
    pub fn seconds(self) -> (u64, u64, u64) {
        match self {
            Self::Breaks(_) | Self::Closes(_) => (0, 1, 6),
            Self::ConsumerTimeout => (12, 25, 4),
            Self::Kills | Self::Stops => (10, 16, 4),
            Self::FreezePostgres | Self::PostgresAway => (14, 25, 20),
            Self::FullReplies => (20, 40, 3),
            Self::FullResults => (6, 15, 10),
            Self::CrowdHangs => (15, 40, 5),
            Self::Unreadable => (6, 12, 10),
            Self::Rename => (6, 12, 20),
        }
    }

    pub fn workers(self) -> Vec<usize> {
        match self {
            Self::CrowdHangs | Self::FullReplies | Self::FullResults => Vec::new(),
            _ => (0..WORKERS).collect(),
        }
    }
}

/// What differs from run to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant {
    pub prefetch: u16,
    pub jobs_in_flight: usize,
    /// One connector is configured, a slow one. Jobs wait for its permits and are not put off, as they are where there
    /// are several: deliveries pile up in the worker.
    pub is_sole: bool,
}

pub fn variant(seed: u64) -> Variant {
    let (prefetch, jobs_in_flight, is_sole) =
        Random::new(seed, 3).pick(&[(16, 32, false), (64, 128, true), (512, 256, false), (64, 128, true)]);
    Variant { prefetch, jobs_in_flight, is_sole }
}

impl Variant {
    pub fn delay(self) -> Duration {
        if self.is_sole { SOLE_DELAY } else { DELAY }
    }

    pub fn connectors(self) -> &'static [Connector] {
        if self.is_sole { &CONNECTORS[..1] } else { &CONNECTORS }
    }

    /// Limits of a connector's calls: `[connectors.NAME.calls]`.
    pub fn calls(self, connector: &str) -> String {
        let (concurrency, per_minute) = self.limits(connector);
        let pace = per_minute.map_or(String::new(), |limit| format!(", requests_per_minute = {limit}"));
        // Above what a call takes while providers are late, and 2 below the lease.
        let timeout = 6;
        format!(
            "timeout_seconds = {timeout}, connect_timeout_seconds = 2, breaker_pause_seconds = 3, concurrency = {concurrency}{pace}"
        )
    }

    /// Calls under way at once, and calls a minute, of each worker.
    fn limits(self, connector: &str) -> (u64, Option<u64>) {
        match connector {
            "keyed" if self.is_sole => (64, None),
            // Waits for its pace for longer than a lease.
            "mute" => (64, Some(180)),
            "asked" => (8, Some(600)),
            "keyed" => (6, None),
            "roaming" => (2, Some(300)),
            "steady" => (16, None),
            _ => (4, Some(600)),
        }
    }

    /// Calls a second that all workers together may make.
    pub fn capacity(self, connector: &str) -> u64 {
        let (concurrency, per_minute) = self.limits(connector);
        let by_permits = concurrency * 1000 / (2 * self.delay().as_millis() as u64);
        let each = per_minute.map_or(by_permits, |limit| by_permits.min(limit / 60));
        each.max(1) * WORKERS as u64
    }

    /// Of a case: most jobs go where they pile up.
    pub fn connector(self, random: &mut Random) -> &'static Connector {
        const PLACES: [usize; 15] = [0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 3, 4, 5, 6, 7];
        let place = PLACES[random.index(PLACES.len())];
        if self.is_sole { &CONNECTORS[0] } else { CONNECTORS.get(place).unwrap_or(&ROAMING) }
    }
}

/// Each overload once, and the ordinary faults that mean more when everything is full; breaks come in groups.
pub fn deck(random: &mut Random, variant: Variant) -> Vec<Fault> {
    let mut deck = vec![
        Overload::Breaks(2),
        Overload::Breaks(3),
        Overload::Breaks(random.between(4, 18) as u32),
        Overload::Closes(2),
        Overload::ConsumerTimeout,
        Overload::Kills,
        Overload::Stops,
        Overload::FreezePostgres,
        Overload::PostgresAway,
        Overload::FullReplies,
        Overload::FullResults,
        Overload::CrowdHangs,
        Overload::Unreadable,
        Overload::Rename,
    ];
    // There is no connector to rename beside the one that all jobs name.
    deck.retain(|overload| !variant.is_sole || *overload != Overload::Rename);
    random.shuffle(&mut deck);
    let mut deck: Vec<Fault> = deck.into_iter().map(Fault::Overload).collect();
    for fault in [
        Fault::KillLeader,
        Fault::RestartNode(random.index(NODES)),
        Fault::KillMajority(random.index(NODES)),
        Fault::PauseWorker(random.index(WORKERS)),
        Fault::KillWorker(random.index(WORKERS)),
    ] {
        let place = random.index(deck.len() + 1);
        deck.insert(place, fault);
    }
    deck
}
