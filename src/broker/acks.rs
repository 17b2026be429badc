//! Acknowledgements leave in bulk.

use std::{collections::BTreeMap, time::Duration};

use lapin::{
    Channel,
    options::{BasicAckOptions, BasicNackOptions},
};
use tokio::time::Instant;

use super::{BrokerError, connection::within};

/// How a delivery is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settle {
    Acknowledge,
    GiveBack,
    Reject,
}

/// What may be acknowledged. Every frame is an entry in the log of a quorum queue: what is settled without a gap goes
/// with one frame for many, what lies behind a gap after a moment by itself.
pub(super) struct Acks {
    channel: Channel,
    /// Everything up to here is settled.
    pub(super) upto: u64,
    /// Settled without a gap, and the broker not told yet: the last of them, how many, and since when.
    ready: Option<Ready>,
    /// Beyond `upto`: since when, or `None` where the broker has been told already.
    beyond: BTreeMap<u64, Option<Instant>>,
    /// The earliest of those times, or earlier.
    gap_since: Option<Instant>,
}

struct Ready {
    last: u64,
    count: usize,
    since: Instant,
}

/// Acknowledged with one frame, or after [`PATIENCE`].
const BULK: usize = 128;

/// How long an acknowledgement waits for others: nobody but the broker waits for it.
const PATIENCE: Duration = Duration::from_millis(10);

/// How long an acknowledgement waits for the ones before it.
const GAP: Duration = Duration::from_millis(50);

impl Acks {
    pub(super) fn new(channel: Channel) -> Self {
        Self { channel, upto: 0, ready: None, beyond: BTreeMap::new(), gap_since: None }
    }

    pub(super) async fn settle(&mut self, tags: &mut Vec<(u64, Settle)>) -> Result<(), BrokerError> {
        let now = Instant::now();
        for (tag, settle) in tags.drain(..) {
            if settle != Settle::Acknowledge {
                let requeue = BasicNackOptions { multiple: false, requeue: settle == Settle::GiveBack };
                within(self.channel.basic_nack(tag, requeue)).await?;
            }
            self.beyond.insert(tag, (settle == Settle::Acknowledge).then_some(now));
        }
        while let Some(entry) = self.beyond.first_entry()
            && *entry.key() == self.upto + 1
        {
            self.upto += 1;
            // The broker refuses a tag that is acknowledged already, also as the end of a range.
            if entry.remove().is_some() {
                let ready = self.ready.get_or_insert(Ready { last: 0, count: 0, since: now });
                ready.last = self.upto;
                ready.count += 1;
            }
        }
        if !self.beyond.is_empty() {
            self.gap_since.get_or_insert(now);
        }
        if self.ready.as_ref().is_some_and(|ready| ready.count >= BULK) {
            self.tell_ready().await?;
        }
        Ok(())
    }

    /// When the broker is to be told at the latest.
    pub(super) fn due(&self) -> Option<Instant> {
        let ready = self.ready.as_ref().map(|ready| ready.since + PATIENCE);
        let gap = self.gap_since.map(|since| since + GAP);
        ready.into_iter().chain(gap).min()
    }

    pub(super) async fn tell_due(&mut self) -> Result<(), BrokerError> {
        let now = Instant::now();
        if self.ready.as_ref().is_some_and(|ready| ready.since + PATIENCE <= now) {
            self.tell_ready().await?;
        }
        if self.gap_since.is_some_and(|since| since + GAP <= now) {
            self.tell_beyond(now - GAP).await?;
        }
        Ok(())
    }

    pub(super) async fn tell_all(&mut self) -> Result<(), BrokerError> {
        self.tell_ready().await?;
        self.tell_beyond(Instant::now()).await
    }

    async fn tell_ready(&mut self) -> Result<(), BrokerError> {
        match self.ready.take() {
            Some(ready) => self.ack(ready.last, true).await,
            None => Ok(()),
        }
    }

    /// Those that have waited since `upto` or longer, each by itself.
    async fn tell_beyond(&mut self, upto: Instant) -> Result<(), BrokerError> {
        let waiting: Vec<u64> = self
            .beyond
            .iter()
            .filter(|(_, since)| since.is_some_and(|since| since <= upto))
            .map(|(tag, _)| *tag)
            .collect();
        for tag in waiting {
            self.ack(tag, false).await?;
            self.beyond.insert(tag, None);
        }
        self.gap_since = self.beyond.values().flatten().min().copied();
        Ok(())
    }

    async fn ack(&self, tag: u64, multiple: bool) -> Result<(), BrokerError> {
        within(self.channel.basic_ack(tag, BasicAckOptions { multiple })).await
    }
}
