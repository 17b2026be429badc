//! Deliveries of the current session that nobody has taken yet.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use super::Delivery;

/// Bounded by the prefetch: what an ended session delivered is dropped, and the broker delivers it again.
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

    /// Drops what a session delivered that has ended.
    pub(super) fn clear(&self) {
        self.deliveries().clear();
    }

    /// Returns how many there are, and how long the first has waited.
    pub(super) fn waiting(&self) -> (usize, Duration) {
        let deliveries = self.deliveries();
        let first = deliveries.front().map(|first| first.received_at.elapsed());
        (deliveries.len(), first.unwrap_or_default())
    }

    fn deliveries(&self) -> MutexGuard<'_, VecDeque<Box<Delivery>>> {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
