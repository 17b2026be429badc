//! Ctrl-C of a command that acts on many: the command ends between two acts, and no act is left in between.

use std::pin::Pin;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::output::note;

/// The interrupts of a command.
pub(super) struct Interrupts {
    signal: Signal,
    is_seen: bool,
}

impl Interrupts {
    /// Listens from now on: an interrupt does not end the program by itself any more.
    pub(super) fn listen() -> anyhow::Result<Self> {
        Ok(Self { signal: signal(SignalKind::interrupt()).context("signals")?, is_seen: false })
    }

    /// Waits before the next act. Returns whether the command is to end instead.
    pub(super) async fn end_wait(&mut self, wait: impl Future<Output = ()>) -> bool {
        if !self.is_seen {
            tokio::select! {
                biased;
                _ = self.signal.recv() => self.is_seen = true,
                () = wait => {}
            }
        }
        self.is_seen
    }

    /// Returns whether the command is to end.
    pub(super) async fn is_seen(&mut self) -> bool {
        self.end_wait(async {}).await
    }

    /// Carries an act out to its end. Returns `None` if a second interrupt ends it at once. The act is boxed by the caller:
    /// as a value it would be in the future of the command twice.
    pub(super) async fn finish<T>(&mut self, mut act: Pin<Box<impl Future<Output = T>>>) -> Option<T> {
        loop {
            tokio::select! {
                done = &mut act => return Some(done),
                _ = self.signal.recv() => {}
            }
            if self.is_seen {
                return None;
            }
            self.is_seen = true;
            note("the act under way is finished first; Ctrl-C again ends at once");
        }
    }
}
