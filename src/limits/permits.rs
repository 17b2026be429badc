//! The permits of one connector account: the number of concurrent calls, and their order.
//!
//! New work takes permits in order of arrival, and only while no due work waits for one. Due work (unknown outcomes,
//! retries, records that were parked) takes permits through the sweeper, which claims no more rows than it has permits.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::{Notify, oneshot};

use crate::lock::lock;

/// A number of permits, shared by new work and due work.
#[derive(Debug, Clone)]
pub struct Permits(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    all: usize,
    state: Mutex<State>,
    /// Wakes the sweeper when a permit is free and due work waits for one.
    free_for_due: Notify,
}

#[derive(Debug)]
struct State {
    free: usize,
    due_waits: bool,
    /// There was more due work than permits for it.
    has_backlog: bool,
    /// New work, in order of arrival. A sender whose receiver is gone has stopped waiting.
    new_work: VecDeque<oneshot::Sender<Permit>>,
}

/// One permit. Dropping it gives it back.
#[derive(Debug)]
pub struct Permit {
    of: Option<Arc<Inner>>,
}

impl Permits {
    /// Creates `all` permits.
    pub fn new(all: usize) -> Self {
        let state = State { free: all, due_waits: false, has_backlog: false, new_work: VecDeque::new() };
        Self(Arc::new(Inner { all, state: Mutex::new(state), free_for_due: Notify::new() }))
    }

    /// Takes a permit for new work if one is free and nobody waits for it.
    pub fn try_take(&self) -> Option<Permit> {
        let mut state = self.0.state();
        if state.free == 0 || state.due_waits || !state.new_work.is_empty() {
            return None;
        }
        state.free -= 1;
        Some(self.permit())
    }

    /// Waits for a permit for new work, behind due work and in order of arrival.
    pub async fn take(&self) -> Permit {
        loop {
            if let Some(permit) = self.try_take() {
                return permit;
            }
            let (sender, receiver) = oneshot::channel();
            self.0.state().new_work.push_back(sender);
            // A permit may have been given back between the two locks.
            self.0.grant();
            // An error means that the queue was dropped with all its permits, which this handle prevents.
            if let Ok(permit) = receiver.await {
                return permit;
            }
        }
    }

    /// Takes up to `limit` free permits for due work.
    pub fn take_for_due(&self, limit: usize) -> Vec<Permit> {
        let mut state = self.0.state();
        let taken = limit.min(state.free);
        state.free -= taken;
        (0..taken).map(|_| self.permit()).collect()
    }

    /// Says whether due work waits for permits. While it does, new work gets none.
    pub fn set_due_waits(&self, due_waits: bool) {
        self.0.state().due_waits = due_waits;
        if !due_waits {
            self.0.grant();
        }
    }

    /// Waits until a permit is free while due work waits for one.
    pub async fn free_for_due(&self) {
        self.0.free_for_due.notified().await;
    }

    /// Returns the number of all permits.
    pub fn all(&self) -> usize {
        self.0.all
    }

    /// Returns the number of permits that are in use.
    pub fn taken(&self) -> usize {
        self.0.all - self.0.state().free
    }

    /// Says whether due work waits.
    pub fn due_waits(&self) -> bool {
        self.0.state().due_waits
    }

    /// Says whether there was more due work than permits for it, when it was last looked for.
    pub fn set_backlog(&self, has_backlog: bool) {
        self.0.state().has_backlog = has_backlog;
    }

    /// Says whether new work would wait behind a backlog of due work.
    pub fn is_saturated(&self) -> bool {
        let state = self.0.state();
        state.due_waits && state.has_backlog
    }

    fn permit(&self) -> Permit {
        Permit { of: Some(self.0.clone()) }
    }
}

impl Inner {
    /// Hands free permits to new work, unless due work waits.
    fn grant(self: &Arc<Self>) {
        loop {
            let sender = {
                let mut state = self.state();
                if state.free == 0 || state.due_waits {
                    return;
                }
                let Some(sender) = state.new_work.pop_front() else { return };
                state.free -= 1;
                sender
            };
            // A receiver that stopped waiting leaves its permit to the next one.
            if let Err(mut unwanted) = sender.send(Permit { of: Some(self.clone()) }) {
                unwanted.of = None;
                self.state().free += 1;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(of) = self.of.take() else { return };
        let due_waits = {
            let mut state = of.state();
            state.free += 1;
            state.due_waits
        };
        if due_waits {
            of.free_for_due.notify_one();
        } else {
            of.grant();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn new_work_is_served_in_order_of_arrival() {
        let permits = Permits::new(1);
        let held = permits.try_take().unwrap();
        let (mut first, mut second) = (Box::pin(permits.take()), Box::pin(permits.take()));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        drop(held);
        assert!((&mut second).now_or_never().is_none());
        drop(first.now_or_never().unwrap());
        assert!(second.now_or_never().is_some());
    }

    #[test]
    fn due_work_goes_before_new_work() {
        let permits = Permits::new(2);
        permits.set_due_waits(true);
        assert!(permits.try_take().is_none());
        let mut new_work = Box::pin(permits.take());
        assert!((&mut new_work).now_or_never().is_none());
        let due = permits.take_for_due(5);
        assert_eq!(due.len(), 2);
        drop(due);
        // A permit that due work gave back is still not for new work.
        assert!((&mut new_work).now_or_never().is_none());
        permits.set_due_waits(false);
        assert!(new_work.now_or_never().is_some());
        assert_eq!(permits.taken(), 0);
    }

    #[test]
    fn a_permit_for_work_that_stopped_waiting_goes_to_the_next() {
        let permits = Permits::new(1);
        let held = permits.try_take().unwrap();
        let mut gone = Box::pin(permits.take());
        assert!((&mut gone).now_or_never().is_none());
        let mut next = Box::pin(permits.take());
        assert!((&mut next).now_or_never().is_none());
        drop(gone);
        drop(held);
        assert!(next.now_or_never().is_some());
        assert!(permits.try_take().is_some());
    }

    #[test]
    fn a_permit_that_was_granted_and_never_fetched_is_given_back() {
        let permits = Permits::new(1);
        let held = permits.try_take().unwrap();
        let mut waits = Box::pin(permits.take());
        assert!((&mut waits).now_or_never().is_none());
        drop(held);
        drop(waits);
        assert!(permits.try_take().is_some());
    }
}
