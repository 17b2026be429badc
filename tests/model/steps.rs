//! Applies each step to the state.

use payout_link_worker::domain::{Conclusion, ConnectorError, Finding, Outcome, ReplayRule, retry::Next};

use crate::{
    flaws::Flaw,
    known::{Known, LastOutcome, link, number},
    protocol::{Protocol, circumstances},
    state::{
        Account, Answer, Call, Doing, Event, LEASE, Link, NOW, Permit, Prepared, Request, Row, State, System,
        Tick, Worker, at, ticks,
    },
};

impl Protocol {
    pub fn decide_and_go(&self, system: &mut System, worker: usize, is_answered: bool) {
        let Doing::Claimed { claim, granted_at, known, next } = system.workers[worker].doing else { return };
        let decided = |next| Doing::Claimed { claim, granted_at, known, next };
        let is_let_through = matches!(next, Prepared::LetThrough | Prepared::FirstCall);
        let waits_until = if is_let_through { NOW } else { system.let_through_at };
        let account = system.workers[worker].account;
        let decision = self.decide(&known, account);
        if let Next::Call { after } | Next::LookUp { after } = decision {
            let due_at = waits_until.max(NOW + ticks(after));
            if due_at > NOW {
                return self.postpone(system, worker, due_at);
            }
            if !is_let_through {
                self.reserve(system);
            }
        }
        system.workers[worker].doing = match decision {
            Next::Call { .. } => decided(Prepared::CallDecided),
            Next::LookUp { .. } => decided(Prepared::LookUpDecided),
            Next::Conclude(_) if self.is(Flaw::ConclusionGivenUp) && granted_at + LEASE <= NOW => {
                Doing::Nothing
            }
            Next::Conclude(conclusion) => {
                let after = self.conclude(system, worker, &conclusion);
                if is_answered { after } else { decided(Prepared::Nothing) }
            }
        };
    }

    /// Postpones the record, at any time, if the claim still holds it.
    fn postpone(&self, system: &mut System, worker: usize, due_at: Tick) {
        let Doing::Claimed { claim, known, .. } = system.workers[worker].doing else { return };
        if let Some(row) = system.row.as_mut().filter(|row| self.is_held(row, claim)) {
            row.copy_from(&known);
            row.is_unsettled = known.is_in_doubt;
            (row.holder, row.uncalled_holder, row.due_at) = (None, None, Some(due_at));
        }
        system.workers[worker].doing = Doing::Nothing;
        if self.is(Flaw::PermitNotReturned) {
            system.workers[worker].permit = Permit::Lost;
        }
    }

    fn conclude(&self, system: &mut System, worker: usize, conclusion: &Conclusion) -> Doing {
        let Worker { doing: Doing::Claimed { claim, known, .. }, account, .. } = system.workers[worker]
        else {
            return Doing::Nothing;
        };
        let Some(row) = system.row.as_mut() else { return Doing::Nothing };
        if !self.is_held(row, claim) {
            // If the row carries our own event, an earlier write was committed and its answer lost.
            let is_ours = row.event.is_some_and(|event| event.id == claim);
            return if is_ours {
                Doing::EventProgress { event: claim, claim, tried: None }
            } else {
                Doing::Nothing
            };
        }
        row.state = match conclusion {
            Conclusion::Created(link) => State::Created { link: number(link) },
            Conclusion::Declined { .. }
            | Conclusion::Unavailable(_)
            | Conclusion::NotCreated
            | Conclusion::Cancelled => State::Failed,
            Conclusion::Unknown(_) => State::Unknown { is_justified: self.is_unknowable(&known, account) },
        };
        (row.holder, row.uncalled_holder, row.due_at) = (None, None, None);
        if self.is(Flaw::EventApart) {
            return Doing::Recording { claim };
        }
        row.event = Some(Event::held_by(claim));
        Doing::EventProgress { event: claim, claim, tried: None }
    }

    /// Says whether the replay rule leaves no way to resolve the outcome.
    fn is_unknowable(&self, known: &Known, account: Account) -> bool {
        let is_elsewhere = known.account.is_some_and(|called| called != account);
        known.is_in_doubt
            && match self.rule {
                _ if is_elsewhere => true,
                ReplayRule::Never => true,
                ReplayRule::LookUp(_) | ReplayRule::SameKey { look_up: Some(_), .. } => false,
                ReplayRule::SameKey { window, look_up: None } => {
                    let ends = known.first_called_at.unwrap_or(NOW) + ticks(window) - 2 * LEASE;
                    known.last_outcome == LastOutcome::Declined || NOW >= ends
                }
            }
    }

    pub fn renew(&self, system: &mut System, worker: usize, next: Prepared) {
        let Worker { doing: Doing::Claimed { claim, mut known, .. }, account, .. } = system.workers[worker]
        else {
            return;
        };
        let row = system.row.as_mut().filter(|row| self.is_held(row, claim));
        // A call begins only under a lease that has not expired: the decision to call may be old.
        let is_stale = |row: &&mut Row| {
            next == Prepared::Call && row.due_at <= Some(NOW) && !self.is(Flaw::StaleDecision)
        };
        system.workers[worker].doing = match row.filter(|row| !is_stale(row)) {
            None => Doing::Nothing,
            Some(row) => {
                if next == Prepared::Call {
                    known.attempts += 1;
                    known.first_called_at.get_or_insert(NOW);
                    known.last_called_at = Some(NOW);
                    known.account = self.stored_account(account);
                }
                row.copy_from(&known);
                if next == Prepared::Call {
                    row.is_unsettled = true;
                    if !self.is(Flaw::CallNotRecorded) {
                        row.uncalled_holder = None;
                    }
                }
                row.due_at = Some(NOW + LEASE);
                Doing::Claimed { claim, granted_at: NOW, known, next }
            }
        };
    }

    pub fn send(&self, system: &mut System, worker: usize) {
        let Worker { doing: Doing::Claimed { claim, granted_at, mut known, next }, account, .. } =
            system.workers[worker]
        else {
            return;
        };
        if !self.is_covered(granted_at) {
            system.workers[worker].doing = Doing::Nothing;
            return;
        }
        if next == Prepared::FirstCall {
            if self.is(Flaw::LeasedBeforeLetThrough) {
                self.reserve(system);
            }
            if self.is(Flaw::LeasedBeforeLetThrough) || self.is(Flaw::AcceptedAsCalled) {
                let row = system.row.as_mut().filter(|row| self.is_held(row, claim));
                if let Some(row) = row {
                    row.is_unsettled = true;
                }
            }
            known.attempts += 1;
            known.first_called_at.get_or_insert(granted_at);
            known.last_called_at = Some(granted_at);
            known.account = self.stored_account(account);
        }
        let key = if self.is(Flaw::NewKeyPerAttempt) { known.attempts } else { 0 };
        let of = Call { claim, attempt: known.attempts };
        system.requests.push(Request { of, key, account, sent_at: NOW });
        system.workers[worker].doing =
            Doing::Calling { claim, granted_at, known, sent_at: NOW, answer: None };
    }

    pub fn look_up(&self, system: &mut System, worker: usize) {
        let Doing::Claimed { claim, granted_at, mut known, .. } = system.workers[worker].doing else {
            return;
        };
        let account = system.workers[worker].account;
        let finding = match system.links.iter().position(|link| link.account == account) {
            None => Finding::NotFound { status_code: 200 },
            Some(number) => Finding::Found(link(u8::try_from(number).unwrap())),
        };
        let mut progress = known.progress();
        progress.record_finding(finding, self.rule, &circumstances(account));
        known.copy_changes(&progress);
        system.workers[worker].doing = Doing::Claimed { claim, granted_at, known, next: Prepared::Nothing };
    }

    #[expect(clippy::unused_self, reason = "all steps have the same form")]
    pub fn record_answer(&self, system: &mut System, worker: usize) {
        let Doing::Calling { claim, granted_at, mut known, answer, .. } = system.workers[worker].doing else {
            return;
        };
        let error = || ConnectorError::unanswered("");
        let outcome = match answer {
            Some(Answer::Link(number)) => Outcome::Created(link(number)),
            Some(Answer::Declined) => Outcome::Declined(error()),
            Some(Answer::TryLater) => Outcome::TryLater { error: error(), retry_after: None },
            None => Outcome::Unknown(error()),
        };
        let mut progress = known.progress();
        progress.record(outcome, at(NOW));
        known.copy_changes(&progress);
        system.workers[worker].doing = Doing::Claimed { claim, granted_at, known, next: Prepared::Nothing };
    }

    /// Carries out a request. A key counts for the window, from the first link that was made with it.
    pub fn carry_out(&self, system: &mut System, place: usize) {
        let Request { of, key, account, .. } = system.requests.remove(place);
        let known = match self.rule {
            ReplayRule::SameKey { window, .. } => system.links.iter().position(|link| {
                (link.key, link.account) == (key, account) && NOW < link.made_at + ticks(window)
            }),
            ReplayRule::LookUp(_) | ReplayRule::Never => None,
        };
        let number = known.unwrap_or(system.links.len());
        if known.is_none() {
            system.links.push(Link { key, account, made_at: NOW });
        }
        system.answer(of, Answer::Link(u8::try_from(number).unwrap()));
    }

    pub fn publish(&self, system: &mut System, worker: usize, arrives: bool, is_answered: bool) {
        let Doing::EventProgress { event, claim, .. } = system.workers[worker].doing else { return };
        if arrives {
            let id = if self.is(Flaw::NewEventId) { 100 + claim } else { event };
            system.receive_result(id);
        }
        let tried = Some(is_answered || self.is(Flaw::PublishedUnconfirmed));
        system.workers[worker].doing = Doing::EventProgress { event, claim, tried };
    }

    #[expect(clippy::unused_self, reason = "all steps have the same form")]
    pub fn delivered(&self, system: &mut System, worker: usize) {
        let Doing::EventProgress { claim, tried, .. } = system.workers[worker].doing else { return };
        let event = system.row.as_mut().and_then(|row| row.event.as_mut());
        if let Some(event) = event.filter(|event| event.holder == Some(claim)) {
            event.is_published |= tried == Some(true);
            event.holder = None;
            event.due_at = (!event.is_published).then_some(NOW);
        }
        system.workers[worker].doing = Doing::Nothing;
    }
}
