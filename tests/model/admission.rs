//! Models how a job becomes a record and how a worker claims a record.

use payout_link_worker::domain::ReplayRule;

use crate::{
    flaws::Flaw,
    known::{Known, LastOutcome},
    protocol::Protocol,
    state::{Account, Doing, LEASE, Message, NOW, Prepared, Row, State, System, Worker},
};

impl Protocol {
    pub fn take(&self, system: &mut System, number: usize) {
        system.message = Message::Delivered;
        let worker = &mut system.workers[number];
        (worker.acknowledges, worker.has_delivery) = (false, true);
        if worker.reads_nothing {
            return;
        }
        worker.doing = Doing::Waiting;
        if self.is(Flaw::AcknowledgedBeforeCommit) {
            worker.has_delivery = false;
            system.message = Message::Gone;
        }
    }

    pub fn admit(&self, system: &mut System, worker: usize) {
        system.workers[worker].doing = Doing::Accepting { is_admitted: true };
        if !self.is(Flaw::LeasedBeforeLetThrough) {
            self.reserve(system);
        }
    }

    /// Reserves the rate limit. It lets one call through per tick, if there is a limit.
    pub fn reserve(&self, system: &mut System) {
        if self.faults.waits > 0 {
            system.let_through_at = NOW + 1;
        }
    }

    pub fn accept(&self, system: &mut System, worker: usize) {
        let Doing::Accepting { is_admitted } = system.workers[worker].doing else { return };
        system.workers[worker].acknowledges = true;
        system.workers[worker].doing = match &system.row {
            None if system.mark => Doing::Nothing,
            None if is_admitted => self.accept_for_call(system, worker),
            None => {
                system.row = Some(Row { due_at: Some(NOW), ..Row::NEW });
                Doing::Nothing
            }
            Some(Row { event: Some(event), .. }) => {
                system.workers[worker].acknowledges = false;
                Doing::Replaying { event: event.id }
            }
            Some(_) => Doing::Nothing,
        };
    }

    /// Begins the first call with the same write, unless a lost outcome of that call could never be resolved.
    fn accept_for_call(&self, system: &mut System, worker: usize) -> Doing {
        let (claim, now) = (system.next_claim(), Some(NOW));
        let leased = Row { holder: Some(claim), due_at: Some(NOW + LEASE), ..Row::NEW };
        let is_called_later = self.rule == ReplayRule::Never && !self.is(Flaw::LeasedBeforeLetThrough);
        if is_called_later && !self.is(Flaw::AcceptedAsCalled) {
            system.row = Some(Row { uncalled_holder: Some(claim), ..leased });
            let next =
                if self.is(Flaw::FirstCallNotRecorded) { Prepared::FirstCall } else { Prepared::LetThrough };
            return Doing::Claimed { claim, granted_at: NOW, known: Known::NOTHING, next };
        }
        system.row = Some(Row {
            attempts: 1,
            first_called_at: now,
            last_called_at: now,
            account: self.stored_account(system.workers[worker].account),
            is_unsettled: !self.is(Flaw::LeasedBeforeLetThrough) && !is_called_later,
            ..leased
        });
        Doing::Claimed { claim, granted_at: NOW, known: Known::NOTHING, next: Prepared::FirstCall }
    }

    pub fn stored_account(&self, account: Account) -> Option<Account> {
        (!self.is(Flaw::AccountNotStored)).then_some(account)
    }

    /// Searches for a record of the key and, if there is none, stores the rejection, in one statement.
    pub fn reject(&self, system: &mut System, worker: usize) {
        let is_known = system.row.is_some() && !self.is(Flaw::RejectedWithoutSearch);
        system.workers[worker].doing =
            if is_known { Doing::Accepting { is_admitted: false } } else { Doing::Rejecting };
        system.mark =
            !is_known && !self.is(Flaw::RejectedWithoutSearch) && !self.is(Flaw::RejectedBesideAWrite);
    }

    /// Drops a delivery that waits. An acceptance that has begun goes on.
    pub fn end_session(&self, system: &mut System, number: usize) {
        system.faults.breaks -= 1;
        let worker = &mut system.workers[number];
        if std::mem::take(&mut worker.has_delivery) {
            system.message = Message::Ready;
        }
        if worker.doing == Doing::Waiting {
            worker.doing = Doing::Nothing;
            worker.reads_nothing = self.is(Flaw::SessionNotWoken);
        }
        worker.acknowledges_stale = true;
    }

    /// Settles a delivery of an ended session. Each session counts its delivery tags from the beginning.
    pub fn acknowledge_stale(&self, system: &mut System, number: usize) {
        let Worker { acknowledges_stale, has_delivery, .. } = &mut system.workers[number];
        *acknowledges_stale = false;
        if self.is(Flaw::StaleAcknowledgement) && std::mem::take(has_delivery) {
            system.message = Message::Gone;
        }
    }

    pub fn claim(&self, system: &mut System, worker: usize) {
        self.reserve(system);
        let mut claim = system.next_claim();
        let Some(row) = &mut system.row else { return };
        let may_have_called = row.attempts > 0 && row.holder != row.uncalled_holder;
        row.is_in_doubt |= row.holder.is_some()
            && (may_have_called || self.is(Flaw::EveryClaimMakesUnknown))
            && !self.is(Flaw::ExpiredLeaseIgnored);
        if self.is(Flaw::TakenOverUnderTheSameClaim) {
            claim = row.holder.unwrap_or(claim);
        }
        (row.holder, row.uncalled_holder, row.due_at) = (Some(claim), Some(claim), Some(NOW + LEASE));
        let known = Known {
            attempts: row.attempts,
            first_called_at: row.first_called_at,
            last_called_at: row.last_called_at,
            is_in_doubt: row.is_in_doubt,
            account: row.account,
            ..Known::NOTHING
        };
        system.workers[worker].doing =
            Doing::Claimed { claim, granted_at: NOW, known, next: Prepared::LetThrough };
    }

    /// Makes the row due without changing its holder, so the next claim treats the row like one whose lease expired.
    pub fn take_over(&self, system: &mut System) {
        system.faults.takeovers -= 1;
        let Some(row) = &mut system.row else { return };
        row.due_at = Some(NOW);
        if self.is(Flaw::TakeoverClearsHolder) {
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
        account: None,
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
        account: None,
        look_ups: 0,
        last_outcome: LastOutcome::NothingYet,
    };
}
