//! Applies the steps that publish results and deliver webhooks to the state.

use super::{
    flaws::FollowFlaw,
    protocol::{FollowProtocol, Step},
    state::{Due, NEW, System},
    worker::{Posted, Publication, Worker},
};

impl FollowProtocol {
    pub fn claim_event(&self, system: &mut System, worker: usize, place: usize) {
        let claim = NEW;
        let previous_is_pending = system.events[place]
            .previous
            .is_some_and(|previous| system.events[usize::from(previous)].is_pending);
        let result_waits =
            system.result_waits(&system.events[place]) && !self.is(FollowFlaw::PreviousResultNotFirst);
        let event = &mut system.events[place];
        (event.holder, event.due) = (Some(claim), Due::Later);
        let result = if event.is_published {
            Publication::Before
        } else if result_waits {
            Publication::Waits
        } else {
            Publication::Due
        };
        let (posts, waits) = (event.is_pending, event.waits && previous_is_pending);
        let event = u8::try_from(place).unwrap();
        system.workers[worker] = Worker::Posting { event, claim, result, posts, waits, is_lease_over: false };
    }

    /// Publishes the result. In the worker this needs no lease, and does not wait for the webhook.
    pub fn publish(&self, system: &mut System, step: Step) {
        let (Step::Publish(worker) | Step::PublishInVain(worker) | Step::PublishUnconfirmed(worker)) = step
        else {
            return;
        };
        let Worker::Posting { event, result, .. } = &mut system.workers[worker] else { return };
        *result = match step {
            Step::Publish(_) => Publication::Confirmed,
            _ if self.is(FollowFlaw::ResultNotConfirmed) => Publication::Confirmed,
            _ => Publication::NotConfirmed,
        };
        let sequence = system.events[usize::from(*event)].sequence;
        if !matches!(step, Step::Publish(_)) {
            system.faults.losses -= 1;
        }
        if !matches!(step, Step::PublishInVain(_)) && !system.results.contains(&sequence) {
            system.results.push(sequence);
        }
    }

    pub fn post(&self, system: &mut System, step: Step) {
        let (Step::Post(worker)
        | Step::PostInVain(worker)
        | Step::PostAnswerLost(worker)
        | Step::Abandon(worker)) = step
        else {
            return;
        };
        let Worker::Posting { event, claim, result, posts, waits, is_lease_over } = system.workers[worker]
        else {
            return;
        };
        let is_late = is_lease_over && !self.is(FollowFlaw::LeaseNotChecked);
        let last_outcome = match step {
            _ if !posts || waits || is_late => Posted::Nothing,
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
        system.workers[worker] = Worker::Posted { event, claim, result, waits, last_outcome };
    }

    pub fn delivered(&self, system: &mut System, worker: usize) {
        let Worker::Posted { event: place, claim, result, waits, last_outcome } = system.workers[worker]
        else {
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
        event.is_published |= result == Publication::Confirmed;
        // A result that waits looks again soon.
        let result_due = if event.is_published { Due::Never } else { Due::Later };
        let webhook_due = match last_outcome {
            Posted::Nothing if event.waits || !event.is_pending => Due::Never,
            Posted::Nothing => Due::Now,
            Posted::Failed => Due::Later,
            Posted::Delivered | Posted::Abandoned => {
                event.is_pending = false;
                Due::Never
            }
        };
        event.due = result_due.max(webhook_due);
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
