//! Applies the steps that deliver webhooks to the state.

#![expect(clippy::unused_self, reason = "all steps have the same form")]

use super::{
    flaws::FollowFlaw,
    protocol::{FollowProtocol, Step},
    state::{Due, NEW, Posted, System, Worker},
};

impl FollowProtocol {
    pub fn claim_event(&self, system: &mut System, worker: usize, place: usize) {
        let claim = NEW;
        let previous_is_pending = system.events[place]
            .previous
            .is_some_and(|previous| system.events[usize::from(previous)].is_pending);
        let event = &mut system.events[place];
        (event.holder, event.due) = (Some(claim), Due::Later);
        let waits = event.waits && previous_is_pending;
        let event = u8::try_from(place).unwrap();
        system.workers[worker] = Worker::Posting { event, claim, waits, is_lease_over: false };
    }

    pub fn post(&self, system: &mut System, step: Step) {
        let (Step::Post(worker)
        | Step::PostInVain(worker)
        | Step::PostAnswerLost(worker)
        | Step::Abandon(worker)) = step
        else {
            return;
        };
        let Worker::Posting { event, claim, waits, is_lease_over } = system.workers[worker] else { return };
        let is_late = is_lease_over && !self.is(FollowFlaw::LeaseNotChecked);
        let last_outcome = match step {
            _ if waits || is_late => Posted::Nothing,
            Step::Post(_) => Posted::Delivered,
            Step::Abandon(_) => Posted::Abandoned,
            _ => Posted::Failed,
        };
        match step {
            Step::PostInVain(_) | Step::PostAnswerLost(_) => system.faults.losses -= 1,
            Step::Abandon(_) => system.faults.abandons -= 1,
            _ => {}
        }
        let sequence = system.events[usize::from(event)].sequence;
        let arrives = last_outcome == Posted::Delivered || matches!(step, Step::PostAnswerLost(_));
        if arrives && !system.arrivals.contains(&sequence) {
            system.arrivals.push(sequence);
        }
        system.workers[worker] = Worker::Posted { event, claim, waits, last_outcome };
    }

    pub fn delivered(&self, system: &mut System, worker: usize) {
        let Worker::Posted { event: place, claim, waits, last_outcome } = system.workers[worker] else {
            return;
        };
        system.workers[worker] = Worker::Idle;
        let event = &mut system.events[usize::from(place)];
        if event.holder != Some(claim) {
            return;
        }
        // The row's current value counts: the previous webhook may have finished since the claim.
        event.waits &= waits;
        event.holder = None;
        event.due = match last_outcome {
            Posted::Nothing if event.waits => Due::Never,
            Posted::Nothing => Due::Now,
            Posted::Failed => Due::Later,
            Posted::Delivered | Posted::Abandoned => {
                event.is_pending = false;
                Due::Never
            }
        };
        let is_finished =
            !(event.is_pending || last_outcome == Posted::Abandoned && self.is(FollowFlaw::AbandonedBlocks));
        let next = event.next.filter(|_| is_finished && !self.is(FollowFlaw::NextNotWoken));
        match next {
            Some(next) if self.is(FollowFlaw::NextWokenApart) => {
                system.workers[worker] = Worker::Waking { next };
            }
            Some(next) => system.wake(next),
            None => {}
        }
    }
}

impl System {
    /// Makes an event's webhook due that waited for the previous one.
    pub fn wake(&mut self, event: u8) {
        let event = &mut self.events[usize::from(event)];
        if event.waits && event.is_pending {
            event.waits = false;
            if event.holder.is_none() {
                event.due = Due::Now;
            }
        }
    }
}
