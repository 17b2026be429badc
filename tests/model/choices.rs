//! Which steps there are in a state.

use crate::{
    flaws::Flaw,
    protocol::{Protocol, Step},
    state::{Doing, Hold, Message, NOW, Permit, Prepared, State, TIMEOUT, Tick, World},
};
use payout_link_worker::domain::{ReplayRule, retry::Next};

impl Protocol {
    pub fn choices(&self, world: &World, steps: &mut Vec<Step>) {
        for worker in 0..world.workers.len() {
            // Of workers that are alike one stands for all.
            if world.workers[..worker].contains(&world.workers[worker]) {
                continue;
            }
            self.steps_of(world, worker, steps);
        }
        for place in 0..world.requests.len() {
            steps.push(Step::CarryOut(place));
            if world.faults.noes > 0 {
                steps.extend([Step::Refuse(place), Step::TryLater(place)]);
            }
            if world.faults.losses > 0 {
                steps.push(Step::Lose(place));
            }
        }
        if world.faults.waits > 0 && self.may_new_work(world) && !world.is_quiet() {
            steps.push(Step::OtherReserves);
        }
        if world.faults.takeovers > 0 && self.may_take_over(world) {
            steps.push(Step::TakeOver);
        }
        if world.faults.reasons > 0 && world.message != Message::Gone {
            steps.push(Step::ReasonAppears);
        }
        if self.may_time_pass(world).is_some() {
            steps.push(Step::TimePasses);
        }
        if world.faults.pauses > 0
            && world.requests.is_empty()
            && world.holds_of_the_living().next().is_some()
        {
            steps.push(Step::EverybodySleeps);
        }
    }

    /// New work gets no permit and no reservation while due work waits.
    fn may_new_work(&self, world: &World) -> bool {
        !world.has_due_work() || self.is(Flaw::NewWorkFirst)
    }

    /// Nobody takes over where an unknown outcome cannot be resolved: the holder may still get its answer.
    fn may_take_over(&self, world: &World) -> bool {
        let is_leased = world.row.as_ref().is_some_and(|row| {
            row.state == State::Open && row.holder.is_some() && row.due_at.is_some_and(|due_at| due_at > NOW)
        });
        is_leased && (self.rule != ReplayRule::Never || self.is(Flaw::TakenOverWithoutReplay))
    }

    /// What other jobs do with this worker's permit and session.
    fn steps_of_others(&self, world: &World, number: usize, steps: &mut Vec<Step>) {
        let worker = world.workers[number];
        if worker.acknowledges_stale {
            steps.push(Step::AcknowledgeStale(number));
        }
        if world.faults.breaks > 0 && (worker.has_delivery || world.message == Message::Ready) {
            steps.push(Step::SessionBreaks(number));
        }
        // Where new work goes first, others wait for the permit in line, and the next of them has it at once.
        if worker.permit == Permit::Other && !self.is(Flaw::NewWorkFirst) {
            steps.push(Step::OtherEnds(number));
        }
        if world.faults.others > 0 && worker.has_permit() && self.may_new_work(world) && !world.is_quiet() {
            steps.push(Step::OtherTakes(number));
        }
    }

    fn steps_of(&self, world: &World, number: usize, steps: &mut Vec<Step>) {
        let worker = world.workers[number];
        let lossy = world.faults.losses > 0;
        if worker.acknowledges {
            steps.push(Step::Acknowledge(number));
        }
        self.steps_of_others(world, number, steps);
        if world.faults.crashes > 0 && (worker.doing != Doing::Nothing || worker.acknowledges) {
            steps.push(Step::Crash(number));
        }
        match worker.doing {
            Doing::Nothing => {
                if world.message == Message::Ready {
                    steps.push(Step::Take(number));
                }
                if world.has_due_work() && worker.has_permit() && world.is_let_through() {
                    steps.push(Step::Claim(number));
                }
                let event = world.row.as_ref().and_then(|row| row.event);
                if event.is_some_and(|event| event.due_at.is_some_and(|due_at| due_at <= NOW)) {
                    steps.push(Step::ClaimEvent(number));
                }
            }
            Doing::Waiting if world.has_reason => steps.push(Step::Reject(number)),
            Doing::Waiting => {
                let is_let_through = world.is_let_through() || self.is(Flaw::LeasedBeforeLetThrough);
                let is_admitted = worker.has_permit() && is_let_through && self.may_new_work(world);
                steps.push(if is_admitted { Step::Admit(number) } else { Step::Park(number) });
            }
            Doing::Accepting { .. } => steps.push(Step::Accept(number)),
            Doing::Rejecting => steps.push(Step::PublishRejection(number)),
            Doing::Replaying { .. } => steps.push(Step::Replay(number)),
            Doing::Holding { next: Prepared::CallDecided, .. } => steps.push(Step::RenewForCall(number)),
            Doing::Holding { next: Prepared::LookUpDecided, .. } => steps.push(Step::RenewForLookUp(number)),
            Doing::Holding { next: Prepared::Call, .. } => steps.push(Step::Send(number)),
            Doing::Holding { next: Prepared::LookUp, .. } => steps.push(Step::LookUp(number)),
            Doing::Holding { next: Prepared::FirstCall, granted_at, .. } => {
                if !self.is_covered(granted_at) {
                    steps.push(Step::Decide(number));
                } else if world.is_let_through() || !self.is(Flaw::LeasedBeforeLetThrough) {
                    steps.push(Step::Send(number));
                }
            }
            Doing::Holding { next: Prepared::Nothing | Prepared::LetThrough, ref known, .. } => {
                steps.push(Step::Decide(number));
                if lossy && matches!(self.decide(known), Next::Conclude(_)) {
                    steps.push(Step::ConcludeUnheard(number));
                }
            }
            Doing::Calling { answer: Some(_), .. } => steps.push(Step::HearAnswer(number)),
            Doing::Calling { sent_at, answer: None, .. } => {
                if lossy || NOW >= sent_at + TIMEOUT {
                    steps.push(Step::BreakOff(number));
                }
            }
            Doing::Recording { .. } => steps.push(Step::RecordEvent(number)),
            Doing::EventProgress { tried: None, .. } => {
                steps.push(Step::Publish(number));
                if lossy {
                    steps.extend([Step::PublishInVain(number), Step::PublishUnheard(number)]);
                }
            }
            Doing::EventProgress { tried: Some(_), .. } => steps.push(Step::Delivered(number)),
        }
    }

    /// Time passes only where something waits for it; a request is never on its way for longer than its timeout;
    /// and a lease that runs out under a living worker is a fault.
    pub fn may_time_pass(&self, world: &World) -> Option<u8> {
        let is_ahead = |due_at: Option<Tick>| due_at.is_some_and(|due_at| due_at > NOW);
        let (row, event) = (world.row.as_ref(), world.row.as_ref().and_then(|row| row.event));
        let is_awaited = row.is_some_and(|row| is_ahead(row.due_at))
            || event.is_some_and(|event| is_ahead(event.due_at))
            || (world.let_through_at > NOW && world.has_due_work())
            || !world.requests.is_empty()
            || world.workers.iter().any(|worker| {
                matches!(worker.doing, Doing::Calling { sent_at, answer: None, .. } if NOW < sent_at + TIMEOUT)
            });
        if !is_awaited || world.requests.iter().any(|request| NOW >= request.sent_at + TIMEOUT) {
            return None;
        }
        let runs_out = |holder: Option<Hold>, due_at: Option<Tick>| {
            due_at == Some(NOW + 1)
                && holder.is_some_and(|holder| world.holds_of_the_living().any(|hold| hold == holder))
        };
        // Nor does a worker wait between writing a call down and sending it until it may not send it any more.
        let is_too_late = world.workers.iter().any(|worker| {
            matches!(worker.doing, Doing::Holding { next: Prepared::Call, granted_at, .. }
                if self.is_covered(granted_at) && !self.is_covered(granted_at.saturating_sub(1)))
        });
        let run_out = is_too_late
            || row.is_some_and(|row| runs_out(row.holder, row.due_at))
            || event.is_some_and(|event| runs_out(event.holder, event.due_at));
        (!run_out || world.faults.pauses > 0).then(|| run_out.into())
    }
}
