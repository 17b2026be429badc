//! Configures the saturated mode: connectors that accept fewer calls than arrive, few permits, rate limits, a
//! backlog, and the faults that matter only then. `overload.rs` injects these faults.

use std::time::Duration;

use crate::{
    cluster::NODES,
    connectors::{CONNECTORS, Connector, ROAMING},
    plan::Fault,
    random::Random,
    workers::WORKERS,
};

/// The number of jobs that are published before anything else happens.
pub const BACKLOG: u64 = 20_000;
/// New payouts a second: more than the connectors accept.
pub const RATE: u64 = 60;
/// The delay of each provider, in each direction.
const DELAY: Duration = Duration::from_millis(150);
const SOLE_DELAY: Duration = Duration::from_millis(300);
/// The number of merchants with an address of their own each.
pub const CROWD: usize = 200;
/// A queue that accepts eight replies, and no more until it is emptied. Nobody reads it.
pub const FULL_REPLIES: &str = "chaos.full.replies";
pub const FULL_RESULTS: &str = "chaos.full.results";

/// A fault of a full system. Numbers count nodes from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overload {
    /// Cuts the workers' connections to RabbitMQ so many times in a row, while all providers are slow.
    Breaks(u32),
    /// Makes the broker close all connections so many times.
    Closes(u32),
    /// Makes RabbitMQ close channels that have held a delivery for five seconds.
    ConsumerTimeout,
    /// Kills one worker after the other, and starts each again at once.
    Kills,
    /// Stops one worker after the other with SIGTERM, and starts each again at once.
    Stops,
    /// Sends SIGSTOP for longer than a lease and than the consumer timeout.
    FreezePostgres,
    /// Sends SIGKILL and stays away for longer than the consumer timeout.
    PostgresAway,
    /// Makes a queue that many jobs name in `reply_to` reject messages.
    FullReplies,
    /// Makes a queue that is bound to the results exchange reject messages.
    FullResults,
    /// Makes all merchants of the crowd accept connections and never answer.
    CrowdHangs,
    /// Publishes messages that no client library can read, and messages that are too large.
    Unreadable,
    /// Gives a connector section another name for a while.
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
            Self::FreezePostgres => "PostgreSQL: frozen",
            Self::PostgresAway => "PostgreSQL: away past the consumer timeout",
            Self::FullReplies => "a reply queue is full",
            Self::FullResults => "a results queue is full",
            Self::CrowdHangs => "merchants: hundreds hang",
            Self::Unreadable => "unreadable and oversized messages",
            Self::Rename => "a connector section is renamed",
        }
    }

    /// Returns the same durations as [`Fault::seconds`], in seconds.
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

/// The settings that differ between seeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant {
    pub prefetch: u16,
    pub jobs_in_flight: usize,
    /// Configures only one connector, a slow one. With several connectors a job that gets no permit is parked. With
    /// one, jobs wait for permits, so deliveries pile up in the worker.
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

    /// Writes the limits of a connector's calls: `[connectors.NAME.calls]`.
    pub fn calls(self, connector: &str) -> String {
        let (concurrency, per_minute) = self.limits(connector);
        let pace = per_minute.map_or(String::new(), |limit| format!(", requests_per_minute = {limit}"));
        // The timeout is longer than a call to a slow provider, and 2 seconds shorter than the lease.
        let timeout = 6;
        format!(
            "timeout_seconds = {timeout}, connect_timeout_seconds = 2, breaker_pause_seconds = 3, concurrency = {concurrency}{pace}"
        )
    }

    /// Returns the concurrent calls, and the calls a minute, of each worker.
    fn limits(self, connector: &str) -> (u64, Option<u64>) {
        match connector {
            "keyed" if self.is_sole => (64, None),
            // A call waits for the rate limit for longer than a lease.
            "mute" => (64, Some(180)),
            "asked" => (8, Some(600)),
            "keyed" => (6, None),
            "roaming" => (2, Some(300)),
            "steady" => (16, None),
            _ => (4, Some(600)),
        }
    }

    /// Returns the calls a second that all workers together may make.
    pub fn capacity(self, connector: &str) -> u64 {
        let (concurrency, per_minute) = self.limits(connector);
        let by_permits = concurrency * 1000 / (2 * self.delay().as_millis() as u64);
        let each = per_minute.map_or(by_permits, |limit| by_permits.min(limit / 60));
        each.max(1) * WORKERS as u64
    }

    /// Picks the connector of a case. Most jobs go to the connectors that are full.
    pub fn connector(self, random: &mut Random) -> &'static Connector {
        const PLACES: [usize; 15] = [0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 3, 4, 5, 6, 7];
        let place = PLACES[random.index(PLACES.len())];
        if self.is_sole { &CONNECTORS[0] } else { CONNECTORS.get(place).unwrap_or(&ROAMING) }
    }
}

/// Builds a deck with each overload once, and with the ordinary faults that matter more in a full system. Breaks come
/// in groups.
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
    // With a sole connector there is no other one to rename.
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
