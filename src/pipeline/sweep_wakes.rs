//! Wakes the sweeper early.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::sleep};

/// The least time between two planned sweeps.
pub(super) const MIN_INTERVAL: Duration = Duration::from_millis(200);

/// Wakes the sweeper early: at once, or when an event is due that was postponed for a short time.
#[derive(Clone, Default)]
pub(super) struct SweepWakes {
    notify: Arc<Notify>,
    is_planned: Arc<AtomicBool>,
}

impl SweepWakes {
    /// Wakes the sweeper. If it does not wait at that moment, it sweeps once more before it does.
    pub(super) fn wake(&self) {
        self.notify.notify_one();
    }

    /// Wakes the sweeper after a time. One plan at a time is enough: a sweep finds what is due and when the next event is.
    pub(super) fn wake_after(&self, time: Duration) {
        if self.is_planned.swap(true, Ordering::Relaxed) {
            return;
        }
        let wakes = self.clone();
        tokio::spawn(async move {
            sleep(time.max(MIN_INTERVAL)).await;
            wakes.is_planned.store(false, Ordering::Relaxed);
            wakes.wake();
        });
    }

    /// Waits until the sweeper is woken.
    pub(super) async fn woken(&self) {
        self.notify.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn several_plans_wake_the_sweeper_once_and_not_too_early() {
        let (wakes, started) = (SweepWakes::default(), Instant::now());
        (0..3).for_each(|_| wakes.wake_after(Duration::from_millis(1)));
        wakes.woken().await;
        assert!(started.elapsed() >= MIN_INTERVAL);
        assert!(wakes.woken().now_or_never().is_none());
        // The next one can be planned.
        wakes.wake_after(Duration::from_millis(1));
        wakes.woken().await;
    }
}
