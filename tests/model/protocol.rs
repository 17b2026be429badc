//! The steps of the protocol, one at a time and in every order: each names the function that it stands for. What is
//! decided between them is decided by `retry::next` itself.

use std::time::Duration;

use payout_link_worker::domain::{
    LookUp, ReplayRule,
    retry::{self, Next, RetryPolicy},
};
use stateright::{Model, Property};

use crate::{
    flaws::Flaw,
    rules,
    state::{
        Answer, Doing, Event, Faults, Hold, Known, LEASE, Message, NOW, Prepared, Row, State, TICK, TIMEOUT,
        Tick, Worker, World, at,
    },
};

/// A protocol to be gone through: the real one, or one with a flaw.
pub struct Protocol {
    pub rule: ReplayRule,
    pub workers: usize,
    pub faults: Faults,
    pub flaw: Option<Flaw>,
}

/// What happens next. A number is a worker, or a request's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `src/pipeline/mod.rs::take_jobs`
    Take(usize),
    /// `src/store/accept.rs::accept`
    Accept(usize),
    /// `src/broker/delivery.rs::acknowledge`
    Acknowledge(usize),
    /// `src/pipeline/intake.rs::replay`
    Replay(usize),
    /// `src/store/claim.rs::claim`
    Claim(usize),
    /// `src/store/outbox.rs::claim_events`
    ClaimEvent(usize),
    /// `src/domain/retry/mod.rs::next`, and what follows at once: `src/store/keep.rs::postpone`,
    /// `src/store/conclude.rs::conclude`
    Decide(usize),
    /// `src/store/conclude.rs::conclude`, committed and its answer lost: the verb is repeated
    ConcludeUnheard(usize),
    /// `src/store/keep.rs::renew_for_call`
    RenewForCall(usize),
    /// `src/store/keep.rs::renew_for_look_up`
    RenewForLookUp(usize),
    /// `src/pipeline/create_link.rs::is_covered`, and the sending in `src/pipeline/create_link.rs::call`
    Send(usize),
    /// `src/pipeline/create_link.rs::look_up`
    LookUp(usize),
    /// `src/domain/retry/mod.rs::record`
    HearAnswer(usize),
    /// `src/http/mod.rs::exchange`: the connection broke, or there was no answer in time
    BreakOff(usize),
    /// Only where a conclusion is one write and its event another.
    RecordEvent(usize),
    /// `src/pipeline/outbox.rs::publish_event`
    Publish(usize),
    /// The same, and the message is lost.
    PublishInVain(usize),
    /// The same, and the confirm is lost.
    PublishUnheard(usize),
    /// `src/store/outbox.rs::delivered`
    Delivered(usize),

    /// The connector does its work.
    CarryOut(usize),
    Refuse(usize),
    TryLater(usize),
    /// A request that never arrives.
    Lose(usize),
    /// SIGKILL, and another worker in its place.
    Crash(usize),
    /// A connection that broke, or a broker that was started again.
    Redeliver,
    TimePasses,
    /// All stand still for longer than anything lasts.
    EverybodySleeps,
}

impl Protocol {
    pub fn decide(&self, known: &Known) -> Next {
        let policy = RetryPolicy {
            initial: Duration::ZERO,
            max_interval: Duration::ZERO,
            max_age: TICK * 200,
            max_attempts: 50,
            // A call that is decided on is carried out, if ever, before two leases have run out.
            window_margin: TICK * (2 * LEASE).into(),
        };
        let rule = match self.rule {
            ReplayRule::LookUp(_) if self.is(Flaw::RepeatsUnasked) => {
                ReplayRule::SameKey { window: TICK * 200, look_up: None }
            }
            rule => rule,
        };
        retry::next(&known.progress(), rule, &policy, at(NOW))
    }

    pub fn is(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    /// Every write that relies on a lease names its holder, and looks at the rows affected.
    pub fn is_held(&self, row: &Row, hold: Hold) -> bool {
        row.state == State::Open && (row.holder == Some(hold) || self.is(Flaw::NoFencing))
    }

    pub fn is_covered(&self, granted_at: Tick) -> bool {
        self.is(Flaw::LeaseNotLookedAt) || (granted_at + LEASE).saturating_sub(NOW) > TIMEOUT
    }

    fn steps_of(&self, world: &World, number: usize, steps: &mut Vec<Step>) {
        let worker = world.workers[number];
        let lossy = world.faults.losses > 0;
        if worker.acknowledges {
            steps.push(Step::Acknowledge(number));
        }
        if world.faults.crashes > 0 && (worker.doing != Doing::Nothing || worker.acknowledges) {
            steps.push(Step::Crash(number));
        }
        match worker.doing {
            Doing::Nothing => {
                if world.message == Message::Ready {
                    steps.push(Step::Take(number));
                }
                let is_due = |due_at: Option<Tick>| due_at.is_some_and(|due_at| due_at <= NOW);
                if let Some(row) = &world.row {
                    if is_due(row.due_at) {
                        steps.push(Step::Claim(number));
                    }
                    if row.event.is_some_and(|event| is_due(event.due_at)) {
                        steps.push(Step::ClaimEvent(number));
                    }
                }
            }
            Doing::Accepting => steps.push(Step::Accept(number)),
            Doing::Replaying { .. } => steps.push(Step::Replay(number)),
            Doing::Holding { next: Prepared::CallDecided, .. } => steps.push(Step::RenewForCall(number)),
            Doing::Holding { next: Prepared::LookUpDecided, .. } => steps.push(Step::RenewForLookUp(number)),
            Doing::Holding { next: Prepared::Call, .. } => steps.push(Step::Send(number)),
            Doing::Holding { next: Prepared::LookUp, .. } => steps.push(Step::LookUp(number)),
            Doing::Holding { next: Prepared::FirstCall, granted_at, .. } => {
                let is_covered = self.is_covered(granted_at);
                steps.push(if is_covered { Step::Send(number) } else { Step::Decide(number) });
            }
            Doing::Holding { next: Prepared::Nothing, ref known, .. } => {
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
            Doing::Telling { tried: None, .. } => {
                steps.push(Step::Publish(number));
                if lossy {
                    steps.extend([Step::PublishInVain(number), Step::PublishUnheard(number)]);
                }
            }
            Doing::Telling { tried: Some(_), .. } => steps.push(Step::Delivered(number)),
        }
    }

    /// Time passes only where something waits for it; a request is never on its way for longer than its timeout;
    /// and a lease that runs out under a living worker is a fault.
    fn may_time_pass(&self, world: &World) -> Option<u8> {
        let is_ahead = |due_at: Option<Tick>| due_at.is_some_and(|due_at| due_at > NOW);
        let (row, event) = (world.row.as_ref(), world.row.as_ref().and_then(|row| row.event));
        let is_awaited = row.is_some_and(|row| is_ahead(row.due_at))
            || event.is_some_and(|event| is_ahead(event.due_at))
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

impl Model for Protocol {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.workers, self.faults)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
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
        if world.message == Message::Delivered && world.faults.redeliveries > 0 {
            steps.push(Step::Redeliver);
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

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        let world = &mut next;
        match step {
            Step::Take(worker) => self.take(world, worker),
            Step::Accept(worker) => self.accept(world, worker),
            Step::Acknowledge(worker) => {
                let worker = &mut world.workers[worker];
                worker.acknowledges = false;
                // What was delivered again meanwhile is not acknowledged by this.
                if std::mem::take(&mut worker.has_delivery) {
                    world.message = Message::Gone;
                }
            }
            Step::Replay(worker) => {
                let Doing::Replaying { event } = world.workers[worker].doing else { return None };
                world.hear_result(event);
                (world.workers[worker].doing, world.workers[worker].acknowledges) = (Doing::Nothing, true);
            }
            Step::Claim(worker) => self.claim(world, worker),
            Step::ClaimEvent(worker) => {
                let hold = world.next_hold();
                let event = world.row.as_mut()?.event.as_mut()?;
                (event.holder, event.due_at) = (Some(hold), Some(NOW + LEASE));
                world.workers[worker].doing = Doing::Telling { event: event.id, hold, tried: None };
            }
            Step::Decide(worker) => self.decide_and_go(world, worker, true),
            Step::ConcludeUnheard(worker) => {
                world.faults.losses -= 1;
                self.decide_and_go(world, worker, false);
            }
            Step::RenewForCall(worker) => self.renew(world, worker, Prepared::Call),
            Step::RenewForLookUp(worker) => self.renew(world, worker, Prepared::LookUp),
            Step::Send(worker) => self.send(world, worker),
            Step::LookUp(worker) => self.look_up(world, worker),
            Step::HearAnswer(worker) => self.hear(world, worker),
            Step::BreakOff(worker) => {
                let Doing::Calling { sent_at, .. } = world.workers[worker].doing else { return None };
                if NOW < sent_at + TIMEOUT {
                    world.faults.losses -= 1;
                }
                self.hear(world, worker);
            }
            Step::RecordEvent(worker) => {
                let Doing::Recording { hold } = world.workers[worker].doing else { return None };
                world.row.as_mut()?.event = Some(Event::held_by(hold));
                world.workers[worker].doing = Doing::Telling { event: hold, hold, tried: None };
            }
            Step::Publish(worker) => self.publish(world, worker, true, true),
            Step::PublishInVain(worker) => {
                world.faults.losses -= 1;
                self.publish(world, worker, false, false);
            }
            Step::PublishUnheard(worker) => {
                world.faults.losses -= 1;
                self.publish(world, worker, true, false);
            }
            Step::Delivered(worker) => self.delivered(world, worker),
            Step::CarryOut(place) => self.carry_out(world, place),
            Step::Refuse(place) | Step::TryLater(place) => {
                world.faults.noes -= 1;
                let answer = if step == Step::Refuse(place) { Answer::Refused } else { Answer::TryLater };
                let request = world.requests.remove(place);
                world.answer(request.of, answer);
            }
            Step::Lose(place) => {
                world.faults.losses -= 1;
                world.requests.remove(place);
            }
            Step::Crash(worker) => {
                world.faults.crashes -= 1;
                let dead = std::mem::replace(&mut world.workers[worker], Worker::IDLE);
                if dead.has_delivery {
                    world.message = Message::Ready;
                }
            }
            Step::Redeliver => {
                world.faults.redeliveries -= 1;
                world.message = Message::Ready;
                world.workers.iter_mut().for_each(|worker| worker.has_delivery = false);
            }
            Step::TimePasses => {
                world.faults.pauses -= self.may_time_pass(world)?;
                world.pass(1);
            }
            Step::EverybodySleeps => {
                world.faults.pauses -= 1;
                world.pass(NOW);
            }
        }
        // Which worker is which is no difference.
        next.workers.sort();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        rules::ALL.map(|(name, holds)| Property::always(name, holds)).to_vec()
    }
}

/// "Not there" is believed once nothing of a lease's calls can come any more.
pub fn settled() -> LookUp {
    LookUp { settle: TICK * LEASE.into() }
}
