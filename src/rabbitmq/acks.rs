//! Sends acknowledgements in bulk.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use lapin::{
    Channel,
    options::{BasicAckOptions, BasicNackOptions},
};
use tokio::time::Instant;

use super::{deadline::within, error::BrokerError};

/// How a delivery is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settle {
    Acknowledge,
    GiveBack,
    Reject,
}

/// Tracks and sends acknowledgements. Every frame is an entry in the log of a quorum queue, so one frame acknowledges
/// all deliveries that are settled without a gap. Deliveries behind a gap are acknowledged one by one, after [`GAP`].
pub(super) struct Acks {
    channel: Channel,
    tracker: AckTracker,
}

/// Acknowledgements in one frame; fewer are sent after [`PATIENCE`].
const BULK: usize = 128;

/// Limit of an acknowledgement's wait for others. Only the broker waits for it.
const PATIENCE: Duration = Duration::from_millis(10);

/// Limit of an acknowledgement's wait for earlier deliveries.
const GAP: Duration = Duration::from_millis(50);

impl Acks {
    pub(super) fn new(channel: Channel) -> Self {
        Self { channel, tracker: AckTracker::default() }
    }

    pub(super) async fn settle(&mut self, tags: &mut Vec<(u64, Settle)>) -> Result<(), BrokerError> {
        let now = Instant::now();
        for (tag, settle) in tags.drain(..) {
            if settle == Settle::Acknowledge {
                self.tracker.acknowledge(tag, now);
            } else {
                let requeue = BasicNackOptions { multiple: false, requeue: settle == Settle::GiveBack };
                within(self.channel.basic_nack(tag, requeue)).await?;
                self.tracker.settled(tag);
            }
        }
        if self.tracker.is_bulk_ready() { self.send_ready().await } else { Ok(()) }
    }

    /// Returns the latest time for the next frame.
    pub(super) fn due(&self) -> Option<Instant> {
        let since = self.tracker.oldest()?;
        Some(since + if self.tracker.is_any_ready() { PATIENCE } else { GAP })
    }

    pub(super) async fn send_due(&mut self) -> Result<(), BrokerError> {
        let now = Instant::now();
        if self.tracker.is_any_ready() {
            self.send_ready().await?;
        }
        while self.tracker.oldest().is_some_and(|since| since + GAP <= now) {
            let Some(tag) = self.tracker.take_oldest() else { break };
            self.ack(tag, false).await?;
        }
        Ok(())
    }

    pub(super) async fn send_all(&mut self) -> Result<(), BrokerError> {
        self.send_ready().await?;
        while let Some(tag) = self.tracker.take_oldest() {
            self.ack(tag, false).await?;
        }
        Ok(())
    }

    async fn send_ready(&mut self) -> Result<(), BrokerError> {
        match self.tracker.take_ready() {
            Some(last) => self.ack(last, true).await,
            None => Ok(()),
        }
    }

    async fn ack(&self, tag: u64, multiple: bool) -> Result<(), BrokerError> {
        within(self.channel.basic_ack(tag, BasicAckOptions { multiple })).await
    }
}

/// Tracks which delivery tags are settled, and which acknowledgements are not sent yet.
///
/// Its size depends on the gaps and the unsent acknowledgements, not on the number of deliveries: millions of
/// deliveries behind one late one are one range.
#[derive(Debug, Default)]
struct AckTracker {
    /// Settled tags as ranges that do not touch: first tag to last tag.
    settled: BTreeMap<u64, u64>,
    /// Acknowledgements that are not sent, with their time.
    unsent: BTreeMap<u64, Instant>,
    /// The same, the oldest first. Some may be sent by now.
    order: VecDeque<(Instant, u64)>,
}

impl AckTracker {
    fn acknowledge(&mut self, tag: u64, now: Instant) {
        self.settled(tag);
        self.unsent.insert(tag, now);
        self.order.push_back((now, tag));
    }

    fn settled(&mut self, tag: u64) {
        let (mut first, mut last) = (tag, tag);
        if let Some((&before, &its_last)) = self.settled.range(..tag).next_back()
            && its_last + 1 >= tag
        {
            first = before;
            last = last.max(its_last);
        }
        if let Some(its_last) = self.settled.remove(&(tag + 1)) {
            last = its_last;
        }
        self.settled.insert(first, last);
    }

    /// Returns the tag up to which everything is settled.
    fn upto(&self) -> u64 {
        self.settled.first_key_value().map_or(0, |(&first, &last)| if first == 1 { last } else { 0 })
    }

    /// Returns whether one frame can acknowledge any delivery.
    fn is_any_ready(&self) -> bool {
        self.unsent.first_key_value().is_some_and(|(&first, _)| first <= self.upto())
    }

    /// Returns whether one frame can acknowledge [`BULK`] deliveries.
    fn is_bulk_ready(&self) -> bool {
        // Nothing is counted before there can be so many: this runs for every delivery.
        self.unsent.len() >= BULK && self.unsent.range(..=self.upto()).nth(BULK - 1).is_some()
    }

    /// Takes the last of those. The broker rejects a tag that is already acknowledged, also as the end of a range.
    fn take_ready(&mut self) -> Option<u64> {
        let upto = self.upto();
        let last = *self.unsent.range(..=upto).next_back()?.0;
        self.unsent = self.unsent.split_off(&(upto + 1));
        self.forget_sent();
        Some(last)
    }

    fn oldest(&self) -> Option<Instant> {
        self.order.front().map(|(since, _)| *since)
    }

    fn take_oldest(&mut self) -> Option<u64> {
        let (_, tag) = self.order.pop_front()?;
        self.unsent.remove(&tag);
        self.forget_sent();
        Some(tag)
    }

    /// Restores the invariant that the first entry of the order is unsent.
    fn forget_sent(&mut self) {
        while self.order.front().is_some_and(|(_, tag)| !self.unsent.contains_key(tag)) {
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledged(tags: impl IntoIterator<Item = u64>) -> AckTracker {
        let mut tracker = AckTracker::default();
        tags.into_iter().for_each(|tag| tracker.acknowledge(tag, Instant::now()));
        tracker
    }

    #[test]
    fn what_has_no_gap_goes_with_one_frame() {
        let mut tracker = acknowledged([2, 1, 3, 5]);
        assert_eq!((tracker.is_any_ready(), tracker.take_ready()), (true, Some(3)));
        assert_eq!(
            (tracker.is_any_ready(), tracker.take_ready(), tracker.take_oldest()),
            (false, None, Some(5))
        );
        assert_eq!(tracker.oldest(), None);
        // The gap is closed: nothing before it is acknowledged again.
        tracker.acknowledge(4, Instant::now());
        assert_eq!((tracker.upto(), tracker.take_ready()), (5, Some(4)));
    }

    #[test]
    fn a_tag_that_was_settled_otherwise_is_not_the_end_of_a_range() {
        let mut tracker = acknowledged([1, 2]);
        tracker.settled(3);
        assert_eq!((tracker.upto(), tracker.take_ready()), (3, Some(2)));
    }

    #[test]
    fn a_bulk_is_ready_without_a_gap_only() {
        let bulk = BULK as u64;
        assert!(!acknowledged(1..bulk).is_bulk_ready());
        assert!(acknowledged(1..=bulk).is_bulk_ready());
        assert!(!acknowledged(2..=bulk + 1).is_bulk_ready());
    }

    #[test]
    fn tracking_does_not_grow_behind_a_gap() {
        // Given a first delivery that is not settled, and many behind it that are, and the broker knows of them,
        let mut tracker = AckTracker::default();
        for tag in 2..200_000 {
            tracker.acknowledge(tag, Instant::now());
            assert_eq!(tracker.take_oldest(), Some(tag));
        }
        // then they are one range, and nothing else is left.
        assert_eq!((tracker.settled.len(), tracker.unsent.len(), tracker.order.len()), (1, 0, 0));
        tracker.acknowledge(1, Instant::now());
        assert_eq!((tracker.upto(), tracker.take_ready()), (199_999, Some(1)));
    }
}
