//! Queues deliveries of the current session until they are taken.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tokio::sync::Notify;

use super::Delivery;
use crate::lock::lock;

/// The queue, bounded by the prefetch. Deliveries of an ended session are dropped, and the broker delivers them again.
#[derive(Debug, Default)]
pub(super) struct Unread {
    deliveries: Mutex<VecDeque<Box<Delivery>>>,
    arrived: Notify,
}

impl Unread {
    pub(super) fn push(&self, delivery: Box<Delivery>) {
        self.deliveries().push_back(delivery);
        self.arrived.notify_one();
    }

    /// Waits for the next delivery.
    pub(super) async fn next(&self) -> Box<Delivery> {
        loop {
            if let Some(delivery) = self.deliveries().pop_front() {
                return delivery;
            }
            self.arrived.notified().await;
        }
    }

    /// Drops the deliveries of an ended session.
    pub(super) fn clear(&self) {
        self.deliveries().clear();
    }

    /// Returns the number of deliveries, and how long the first has waited.
    pub(super) fn waiting(&self) -> (usize, Duration) {
        let deliveries = self.deliveries();
        let first = deliveries.front().map(|first| first.received_at.elapsed());
        (deliveries.len(), first.unwrap_or_default())
    }

    fn deliveries(&self) -> MutexGuard<'_, VecDeque<Box<Delivery>>> {
        lock(&self.deliveries)
    }
}
