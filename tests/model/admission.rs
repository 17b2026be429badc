//! How a job becomes a record, and how a record becomes a worker's.

use crate::{
    flaws::Flaw,
    known::{CameTo, Known},
    protocol::Protocol,
    state::{Doing, LEASE, Message, NOW, Prepared, Row, State, Worker, World},
};

impl Protocol {
    pub fn take(&self, world: &mut World, number: usize) {
        world.message = Message::Delivered;
        let worker = &mut world.workers[number];
        (worker.acknowledges, worker.has_delivery) = (false, true);
        if worker.is_deaf {
            return;
        }
        worker.doing = Doing::Waiting;
        if self.is(Flaw::AcknowledgedBeforeCommit) {
            worker.has_delivery = false;
            world.message = Message::Gone;
        }
    }

    pub fn admit(&self, world: &mut World, worker: usize) {
        world.workers[worker].doing = Doing::Accepting { is_admitted: true };
        if !self.is(Flaw::LeasedBeforeLetThrough) {
            self.reserve(world);
        }
    }

    /// One call a tick at most, where there is a limit.
    pub fn reserve(&self, world: &mut World) {
        if self.faults.waits > 0 {
            world.let_through_at = NOW + 1;
        }
    }

    pub fn accept(&self, world: &mut World, worker: usize) {
        let Doing::Accepting { is_admitted } = world.workers[worker].doing else { return };
        world.workers[worker].acknowledges = true;
        world.workers[worker].doing = match &world.row {
            None if world.mark => Doing::Nothing,
            None if is_admitted => self.accept_for_call(world),
            None => {
                world.row = Some(Row { due_at: Some(NOW), ..Row::NEW });
                Doing::Nothing
            }
            Some(Row { event: Some(event), .. }) => {
                world.workers[worker].acknowledges = false;
                Doing::Replaying { event: event.id }
            }
            Some(_) => Doing::Nothing,
        };
    }

    fn accept_for_call(&self, world: &mut World) -> Doing {
        let (hold, now) = (world.next_hold(), Some(NOW));
        world.row = Some(Row {
            attempts: 1,
            first_called_at: now,
            last_called_at: now,
            holder: Some(hold),
            due_at: Some(NOW + LEASE),
            is_unsettled: !self.is(Flaw::LeasedBeforeLetThrough),
            ..Row::NEW
        });
        Doing::Holding { hold, granted_at: NOW, known: Known::NOTHING, next: Prepared::FirstCall }
    }

    /// In one statement: a record of the key is looked for, and where there is none the rejection is written down.
    pub fn reject(&self, world: &mut World, worker: usize) {
        let is_known = world.row.is_some() && !self.is(Flaw::RejectedUnseen);
        world.workers[worker].doing =
            if is_known { Doing::Accepting { is_admitted: false } } else { Doing::Rejecting };
        world.mark = !is_known && !self.is(Flaw::RejectedUnseen) && !self.is(Flaw::RejectedBesideAWrite);
    }

    /// What was delivered and is not being written down yet is dropped. What is being written down goes on.
    pub fn end_session(&self, world: &mut World, number: usize) {
        world.faults.breaks -= 1;
        let worker = &mut world.workers[number];
        if std::mem::take(&mut worker.has_delivery) {
            world.message = Message::Ready;
        }
        if worker.doing == Doing::Waiting {
            worker.doing = Doing::Nothing;
            worker.is_deaf = self.is(Flaw::NothingWakesTheSession);
        }
        worker.acknowledges_stale = true;
    }

    /// Delivery tags are counted anew in every session.
    pub fn acknowledge_stale(&self, world: &mut World, number: usize) {
        let Worker { acknowledges_stale, has_delivery, .. } = &mut world.workers[number];
        *acknowledges_stale = false;
        if self.is(Flaw::StaleAcknowledgement) && std::mem::take(has_delivery) {
            world.message = Message::Gone;
        }
    }

    pub fn claim(&self, world: &mut World, worker: usize) {
        self.reserve(world);
        let mut hold = world.next_hold();
        let Some(row) = &mut world.row else { return };
        let may_have_called = row.attempts > 0 && row.holder != row.uncalled_holder;
        row.is_in_doubt |= row.holder.is_some()
            && (may_have_called || self.is(Flaw::EveryClaimDoubts))
            && !self.is(Flaw::DoubtForgotten);
        if self.is(Flaw::TakenOverUnderTheSameClaim) {
            hold = row.holder.unwrap_or(hold);
        }
        (row.holder, row.uncalled_holder, row.due_at) = (Some(hold), Some(hold), Some(NOW + LEASE));
        let known = Known {
            attempts: row.attempts,
            first_called_at: row.first_called_at,
            last_called_at: row.last_called_at,
            is_in_doubt: row.is_in_doubt,
            ..Known::NOTHING
        };
        world.workers[worker].doing =
            Doing::Holding { hold, granted_at: NOW, known, next: Prepared::LetThrough };
    }

    /// Its holder stays: the replay rule and the fences are those of a lease that ran out.
    pub fn take_over(&self, world: &mut World) {
        world.faults.takeovers -= 1;
        let Some(row) = &mut world.row else { return };
        row.due_at = Some(NOW);
        if self.is(Flaw::TakenOverWithoutDoubt) {
            row.holder = None;
        }
        if self.is(Flaw::TakenOverAsSettled) {
            row.last_called_at = Some(NOW - LEASE);
        }
    }
}

impl Row {
    const NEW: Self = Self {
        state: State::Open,
        attempts: 0,
        first_called_at: None,
        last_called_at: None,
        is_in_doubt: false,
        holder: None,
        uncalled_holder: None,
        due_at: None,
        event: None,
        is_unsettled: false,
    };
}

impl Known {
    const NOTHING: Self = Self {
        attempts: 0,
        first_called_at: None,
        last_called_at: None,
        is_in_doubt: false,
        look_ups: 0,
        came_to: CameTo::NothingYet,
    };
}
