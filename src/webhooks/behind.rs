//! Slows down the intake of new jobs a little while webhooks to a quick host fall behind.
//!
//! The links of a backlog are created faster than one host takes their webhooks. A webhook without a place in memory becomes due
//! again later, which costs a claim and a write. A host that is slow or hangs slows down no jobs, and results of accepted jobs
//! never wait.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

/// The longest pause of the intake at once.
const PAUSE: Duration = Duration::from_millis(20);
/// After a pause, none for so many times its length: pauses take at most a quarter of the time.
const TIMES: u32 = 3;

/// The hosts that answer quickly and have many webhooks that wait.
#[derive(Debug, Default)]
pub(super) struct Behind {
    hosts: AtomicUsize,
    none_left: Notify,
}

impl Behind {
    pub(super) fn add(&self) {
        self.hosts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn remove(&self) {
        if self.hosts.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.none_left.notify_waiters();
        }
    }

    /// Returns whether there is any.
    pub(super) fn is_any(&self) -> bool {
        self.hosts.load(Ordering::Relaxed) > 0
    }
}

/// The pauses of one intake.
#[derive(Debug, Default)]
pub struct IntakePauses {
    not_before: Option<Instant>,
}

impl IntakePauses {
    /// Waits while a host is behind, and no longer than the limits above.
    pub(super) async fn pause(&mut self, behind: &Behind) {
        if !behind.is_any() {
            return;
        }
        let started = Instant::now();
        if self.not_before.is_some_and(|not_before| started < not_before) {
            return;
        }
        let none_left = behind.none_left.notified();
        if behind.is_any() {
            let _ = timeout_at(started + PAUSE, none_left).await;
        }
        let now = Instant::now();
        self.not_before = Some(now + (now - started) * TIMES);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_intake_pauses_while_a_host_is_behind_and_not_again_at_once() {
        let (behind, mut pauses) = (Behind::default(), IntakePauses::default());
        assert!(pauses.pause(&behind).now_or_never().is_some());
        behind.add();
        assert!(pauses.pause(&behind).now_or_never().is_none());
        pauses.pause(&behind).await;
        let not_before = pauses.not_before.expect("there was a pause");
        assert!(not_before > Instant::now());
        // It does not catch up: the intake goes on all the same.
        assert!(pauses.pause(&behind).now_or_never().is_some());
        pauses.not_before = Some(Instant::now());
        assert!(pauses.pause(&behind).now_or_never().is_none());
    }

    #[tokio::test]
    async fn the_intake_goes_on_once_the_last_host_has_caught_up() {
        let (behind, mut pauses) = (Behind::default(), IntakePauses::default());
        behind.add();
        behind.add();
        let mut pause = Box::pin(pauses.pause(&behind));
        assert!((&mut pause).now_or_never().is_none());
        behind.remove();
        assert!((&mut pause).now_or_never().is_none());
        behind.remove();
        assert!((&mut pause).now_or_never().is_some());
    }
}
