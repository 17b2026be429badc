//! Stops the pipeline: interrupts the waits, and drains the work that has begun.

use std::{pin::pin, time::Duration};

use futures_util::future::{Either, select};
use tokio::time::{sleep, timeout};

use super::{Pipeline, seals};

/// Time for a write that is under way when the pipeline is stopped.
const LAST_WORD: Duration = Duration::from_secs(5);
/// Time for abandoned work to be logged.
const LAST_LINES: Duration = Duration::from_millis(500);

impl Pipeline {
    /// Stops the pipeline: nothing new begins. Records that wait for a call are postponed.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
        self.tasks.close();
    }

    /// Waits until all work is done and the seal count is stored.
    pub async fn drained(&self) {
        self.tasks.wait().await;
        seals::at_the_end(self).await;
    }

    /// Abandons the work that the grace period was too short for. Lost conclusions are logged within [`LAST_LINES`].
    pub async fn abandon_all(&self) {
        self.abandoned.send_replace(true);
        let _ = timeout(LAST_LINES, self.drained()).await;
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    async fn stopped(&self) {
        // The sender is this pipeline's own: it cannot be gone.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    /// Sleeps until the time is over or the pipeline is stopped.
    pub(super) async fn sleep(&self, duration: Duration) {
        // The timer has a resolution of a millisecond and would wait one even for zero.
        if duration.is_zero() {
            return;
        }
        select(Box::pin(sleep(duration)), Box::pin(self.stopped())).await;
    }

    /// Awaits a future; returns `None` if the pipeline is stopped first.
    pub(super) async fn unless_stopped<T>(&self, future: impl Future<Output = T> + Unpin) -> Option<T> {
        match select(future, pin!(self.stopped())).await {
            Either::Left((value, _)) => Some(value),
            Either::Right(_) => None,
        }
    }

    /// Awaits a future; returns `None` if the grace period ends first.
    pub(super) async fn until_abandoned<T>(&self, future: impl Future<Output = T> + Unpin) -> Option<T> {
        let mut abandoned = self.abandoned.subscribe();
        // The sender is this pipeline's own: it cannot be gone.
        match select(future, pin!(abandoned.wait_for(|abandoned| *abandoned))).await {
            Either::Left((value, _)) => Some(value),
            Either::Right(_) => None,
        }
    }

    /// Awaits a future; returns `None` if the pipeline was stopped more than [`LAST_WORD`] ago. A write needs that
    /// time: if the worker missed its answer, the row would look as if a call might have begun.
    pub(super) async fn until_long_stopped<T>(&self, future: impl Future<Output = T> + Unpin) -> Option<T> {
        let long_stopped = async {
            self.stopped().await;
            sleep(LAST_WORD).await;
        };
        match select(future, pin!(long_stopped)).await {
            Either::Left((value, _)) => Some(value),
            Either::Right(_) => None,
        }
    }
}
