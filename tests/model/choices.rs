//! Lists the steps that are possible in a state.

use crate::{
    flaws::Flaw,
    protocol::{Protocol, Step},
    state::{ClaimId, Doing, Message, NOW, Permit, Prepared, State, System, TIMEOUT, Tick},
};
use payout_link_worker::domain::{ReplayRule, retry::Next};

impl Protocol {
    pub fn choices(&self, system: &System, steps: &mut Vec<Step>) {
        for worker in 0..system.workers.len() {
            // Equal workers have the same steps, so one of them is enough.
            if system.workers[..worker].contains(&system.workers[worker]) {
                continue;
            }
            self.steps_of(system, worker, steps);
        }
        for place in 0..system.requests.len() {
            steps.push(Step::CarryOut(place));
            if system.faults.provider_errors > 0 {
                steps.extend([Step::Decline(place), Step::TryLater(place)]);
            }
            if system.faults.losses > 0 {
                steps.push(Step::Lose(place));
            }
        }
        if system.faults.waits > 0 && self.may_new_work(system) && !system.is_quiet() {
            steps.push(Step::OtherReserves);
        }
        if system.faults.takeovers > 0 && self.may_take_over(system) {
            steps.push(Step::TakeOver);
        }
        if system.faults.reasons > 0 && system.message != Message::Gone {
            steps.push(Step::ReasonAppears);
        }
        if self.may_time_pass(system).is_some() {
            steps.push(Step::TimePasses);
        }
        if system.faults.pauses > 0
            && system.requests.is_empty()
            && system.claims_of_live_workers().next().is_some()
        {
            steps.push(Step::AllPause);
        }
    }

    /// Says whether new work may get a permit or a reservation. It may not while due work waits.
    fn may_new_work(&self, system: &System) -> bool {
        !system.has_due_work() || self.is(Flaw::NewWorkFirst)
    }

    /// Says whether the record may be taken over. If an unknown outcome cannot be resolved, only a record without a
    /// begun call may: the holder of any other may still receive its answer.
    fn may_take_over(&self, system: &System) -> bool {
        system.row.as_ref().is_some_and(|row| {
            let is_leased = row.state == State::Open
                && row.holder.is_some()
                && row.due_at.is_some_and(|due_at| due_at > NOW);
            let is_resolvable = self.rule != ReplayRule::Never || row.holder == row.uncalled_holder;
            is_leased && (is_resolvable || self.is(Flaw::TakenOverWithoutReplay))
        })
    }

    /// Lists the steps of other jobs with this worker's permit and session.
    fn steps_of_others(&self, system: &System, number: usize, steps: &mut Vec<Step>) {
        let worker = system.workers[number];
        if worker.acknowledges_stale {
            steps.push(Step::AcknowledgeStale(number));
        }
        if system.faults.breaks > 0 && (worker.has_delivery || system.message == Message::Ready) {
            steps.push(Step::SessionBreaks(number));
        }
        // If new work goes first, other jobs queue for the permit, and the next one gets it at once.
        if worker.permit == Permit::Other && !self.is(Flaw::NewWorkFirst) {
            steps.push(Step::OtherEnds(number));
        }
        if system.faults.others > 0 && worker.has_permit() && self.may_new_work(system) && !system.is_quiet()
        {
            steps.push(Step::OtherTakes(number));
        }
    }

    fn steps_of(&self, system: &System, number: usize, steps: &mut Vec<Step>) {
        let worker = system.workers[number];
        let lossy = system.faults.losses > 0;
        if worker.acknowledges {
            steps.push(Step::Acknowledge(number));
        }
        self.steps_of_others(system, number, steps);
        if system.faults.crashes > 0 && (worker.doing != Doing::Nothing || worker.acknowledges) {
            steps.push(Step::Crash(number));
        }
        if system.faults.moves > 0 && worker.account == 0 && !system.is_quiet() {
            steps.push(Step::Move(number));
        }
        match worker.doing {
            Doing::Nothing => {
                if system.message == Message::Ready {
                    steps.push(Step::Take(number));
                }
                if system.has_due_work() && worker.has_permit() && system.is_let_through() {
                    steps.push(Step::Claim(number));
                }
                let event = system.row.as_ref().and_then(|row| row.event);
                if event.is_some_and(|event| event.due_at.is_some_and(|due_at| due_at <= NOW)) {
                    steps.push(Step::ClaimEvent(number));
                }
            }
            Doing::Waiting if system.has_reason => steps.push(Step::Reject(number)),
            Doing::Waiting => {
                let is_let_through = system.is_let_through() || self.is(Flaw::LeasedBeforeLetThrough);
                let is_admitted = worker.has_permit() && is_let_through && self.may_new_work(system);
                steps.push(if is_admitted { Step::Admit(number) } else { Step::Park(number) });
            }
            Doing::Accepting { .. } => steps.push(Step::Accept(number)),
            Doing::Rejecting => steps.push(Step::PublishRejection(number)),
            Doing::Replaying { .. } => steps.push(Step::Replay(number)),
            Doing::Claimed { next: Prepared::CallDecided, .. } => steps.push(Step::RenewForCall(number)),
            Doing::Claimed { next: Prepared::LookUpDecided, .. } => steps.push(Step::RenewForLookUp(number)),
            Doing::Claimed { next: Prepared::Call, .. } => steps.push(Step::Send(number)),
            Doing::Claimed { next: Prepared::LookUp, .. } => steps.push(Step::LookUp(number)),
            Doing::Claimed { next: Prepared::FirstCall, granted_at, .. } => {
                if !self.is_covered(granted_at) {
                    steps.push(Step::Decide(number));
                } else if system.is_let_through() || !self.is(Flaw::LeasedBeforeLetThrough) {
                    steps.push(Step::Send(number));
                }
            }
            Doing::Claimed { next: Prepared::Nothing | Prepared::LetThrough, ref known, .. } => {
                steps.push(Step::Decide(number));
                if lossy && matches!(self.decide(known, worker.account), Next::Conclude(_)) {
                    steps.push(Step::ConcludeAnswerLost(number));
                }
            }
            Doing::Calling { answer: Some(_), .. } => steps.push(Step::RecordAnswer(number)),
            Doing::Calling { sent_at, answer: None, .. } => {
                if lossy || NOW >= sent_at + TIMEOUT {
                    steps.push(Step::BreakOff(number));
                }
            }
            Doing::Recording { .. } => steps.push(Step::RecordEvent(number)),
            Doing::EventProgress { tried: None, .. } => {
                steps.push(Step::Publish(number));
                if lossy {
                    steps.extend([Step::PublishInVain(number), Step::PublishConfirmLost(number)]);
                }
            }
            Doing::EventProgress { tried: Some(_), .. } => steps.push(Step::Delivered(number)),
        }
    }

    /// Returns the pauses that a tick costs, or `None` if no time may pass. Time passes only if something waits for
    /// it. No request stays under way longer than its timeout. A lease that expires under a live worker costs a
    /// pause.
    pub fn may_time_pass(&self, system: &System) -> Option<u8> {
        let is_ahead = |due_at: Option<Tick>| due_at.is_some_and(|due_at| due_at > NOW);
        let (row, event) = (system.row.as_ref(), system.row.as_ref().and_then(|row| row.event));
        let is_awaited = row.is_some_and(|row| is_ahead(row.due_at))
            || event.is_some_and(|event| is_ahead(event.due_at))
            || (system.let_through_at > NOW && system.has_due_work())
            || !system.requests.is_empty()
            || system.workers.iter().any(|worker| {
                matches!(worker.doing, Doing::Calling { sent_at, answer: None, .. } if NOW < sent_at + TIMEOUT)
            });
        if !is_awaited || system.requests.iter().any(|request| NOW >= request.sent_at + TIMEOUT) {
            return None;
        }
        let runs_out = |holder: Option<ClaimId>, due_at: Option<Tick>| {
            due_at == Some(NOW + 1)
                && holder.is_some_and(|holder| system.claims_of_live_workers().any(|claim| claim == holder))
        };
        // A worker that waits so long between recording a call and sending it that it may no longer send it costs a
        // pause too.
        let is_too_late = system.workers.iter().any(|worker| {
            matches!(worker.doing, Doing::Claimed { next: Prepared::Call, granted_at, .. }
                if self.is_covered(granted_at) && !self.is_covered(granted_at.saturating_sub(1)))
        });
        let run_out = is_too_late
            || row.is_some_and(|row| runs_out(row.holder, row.due_at))
            || event.is_some_and(|event| runs_out(event.holder, event.due_at));
        (!run_out || system.faults.pauses > 0).then(|| run_out.into())
    }
}
