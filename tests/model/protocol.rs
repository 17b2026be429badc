//! Lists the steps of the protocol. Each names the function that it stands for. `retry::next` decides between them.

use std::time::Duration;

use payout_link_worker::domain::{
    Circumstances, LookUp, ReplayRule, Steady,
    retry::{self, Next, RetryPolicy},
};
use stateright::{Model, Property};

use crate::{
    flaws::Flaw,
    known::{Known, account_id},
    rules,
    state::{
        Account, Answer, ClaimId, Doing, Event, Faults, LEASE, Message, NOW, PACE, Permit, Prepared, Row,
        State, System, TICK, TIMEOUT, Tick, at,
    },
};

/// A protocol to check: the real one, or one with a flaw.
pub struct Protocol {
    pub rule: ReplayRule,
    pub workers: usize,
    pub faults: Faults,
    pub flaw: Option<Flaw>,
}

/// A step. A number is a worker or the position of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `src/pipeline/mod.rs::take_jobs`
    Take(usize),
    /// `src/pipeline/intake.rs::admit`: a permit, and `src/limits/rate.rs::reserve`
    Admit(usize),
    /// `src/pipeline/intake.rs::admit`: no permit, or the rate limit lets nothing through
    Park(usize),
    /// `src/postgres/accept.rs::accept`
    Accept(usize),
    /// `src/pipeline/reject.rs::reject_unless_accepted`
    Reject(usize),
    /// `src/pipeline/reject.rs::reject`
    PublishRejection(usize),
    /// `src/rabbitmq/delivery.rs::acknowledge`
    Acknowledge(usize),
    /// `src/rabbitmq/acks.rs::settle`, of another job that an ended session delivered
    AcknowledgeStale(usize),
    /// `src/pipeline/intake.rs::replay`
    Replay(usize),
    /// `src/pipeline/sweeper.rs::sweep_account`: a permit and a reservation, and `src/postgres/claim.rs::claim`
    Claim(usize),
    /// `src/postgres/claim_events.rs::claim_events`
    ClaimEvent(usize),
    /// `src/domain/retry/mod.rs::next`, and the write that follows at once: `src/postgres/renew.rs::postpone` or
    /// `src/postgres/conclude.rs::conclude`
    Decide(usize),
    /// `src/postgres/conclude.rs::conclude`, committed, but its answer is lost, so the worker repeats it
    ConcludeAnswerLost(usize),
    /// `src/postgres/renew.rs::renew_for_call`
    RenewForCall(usize),
    /// `src/postgres/renew.rs::renew_for_look_up`
    RenewForLookUp(usize),
    /// `src/pipeline/create_link.rs::is_covered`, and the request of `src/pipeline/create_link.rs::call`
    Send(usize),
    /// `src/pipeline/create_link.rs::look_up`
    LookUp(usize),
    /// `src/domain/retry/progress.rs::record`
    RecordAnswer(usize),
    /// `src/http_client/mod.rs::exchange`: the connection broke, or no answer came in time
    BreakOff(usize),
    /// Possible only if a conclusion and its event are two writes.
    RecordEvent(usize),
    /// `src/pipeline/outbox.rs::publish_event`
    Publish(usize),
    /// The same, but the message is lost.
    PublishInVain(usize),
    /// The same, but the confirm is lost.
    PublishConfirmLost(usize),
    /// `src/postgres/outbox.rs::delivered`
    Delivered(usize),

    /// The connector carries out the request.
    CarryOut(usize),
    Decline(usize),
    TryLater(usize),
    /// A request never arrives.
    Lose(usize),
    /// SIGKILL of a worker. Another one starts in its place.
    Crash(usize),
    /// A restart with a configuration that names another account: `src/domain/retry/progress.rs::is_elsewhere`
    Move(usize),
    /// `src/rabbitmq/consumer.rs::run` ends: the connection broke, or the broker restarted.
    SessionBreaks(usize),
    /// `src/limits/permits.rs::take`, by another job
    OtherTakes(usize),
    OtherEnds(usize),
    /// `src/limits/rate.rs::reserve`, by another job
    OtherReserves,
    /// The presence of the holder is missing: it is dead, or it is cut off and still calls.
    TakeOver,
    /// The configuration changes, or the message turns out to be poison.
    ReasonAppears,
    TimePasses,
    /// All workers pause until every lease and every request has ended.
    AllPause,
}

impl Protocol {
    pub fn decide(&self, known: &Known, account: Account) -> Next {
        let policy = RetryPolicy {
            initial: Duration::ZERO,
            max_interval: Duration::ZERO,
            max_age: TICK * 200,
            max_attempts: 50,
            // A call is carried out, if ever, within two leases of the decision to make it.
            window_margin: TICK * (2 * LEASE).into(),
            ask_before_calling_since: None,
        };
        let rule = match self.rule {
            ReplayRule::LookUp(_) if self.is(Flaw::RepeatsWithoutLookUp) => {
                ReplayRule::SameKey { window: TICK * 200, look_up: None }
            }
            rule => rule,
        };
        retry::next(&known.progress(), rule, &policy, &circumstances(account))
    }

    pub fn is(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    /// Says whether the claim holds the row. Every write that relies on a lease checks this.
    pub fn is_held(&self, row: &Row, claim: ClaimId) -> bool {
        row.state == State::Open && (row.holder == Some(claim) || self.is(Flaw::NoFencing))
    }

    pub fn is_covered(&self, granted_at: Tick) -> bool {
        self.is(Flaw::LeaseNotChecked) || (granted_at + LEASE).saturating_sub(NOW) > TIMEOUT
    }
}

impl Model for Protocol {
    type State = System;
    type Action = Step;

    fn init_states(&self) -> Vec<System> {
        vec![System::new(self.workers, self.faults)]
    }

    fn actions(&self, system: &System, steps: &mut Vec<Step>) {
        self.choices(system, steps);
    }

    fn next_state(&self, before: &System, step: Step) -> Option<System> {
        let mut next = before.clone();
        let system = &mut next;
        match step {
            Step::Take(worker) => self.take(system, worker),
            Step::Admit(worker) => self.admit(system, worker),
            Step::Park(worker) => system.workers[worker].doing = Doing::Accepting { is_admitted: false },
            Step::Reject(worker) => self.reject(system, worker),
            Step::PublishRejection(worker) => {
                system.is_rejected = true;
                (system.workers[worker].doing, system.workers[worker].acknowledges) = (Doing::Nothing, true);
            }
            Step::Accept(worker) => self.accept(system, worker),
            Step::Acknowledge(worker) => {
                let worker = &mut system.workers[worker];
                worker.acknowledges = false;
                // This does not acknowledge a delivery that came again since.
                if std::mem::take(&mut worker.has_delivery) {
                    system.message = Message::Gone;
                }
            }
            Step::AcknowledgeStale(worker) => self.acknowledge_stale(system, worker),
            Step::Replay(worker) => {
                let Doing::Replaying { event } = system.workers[worker].doing else { return None };
                system.receive_result(event);
                (system.workers[worker].doing, system.workers[worker].acknowledges) = (Doing::Nothing, true);
            }
            Step::Claim(worker) => self.claim(system, worker),
            Step::ClaimEvent(worker) => {
                let claim = system.next_claim();
                let event = system.row.as_mut()?.event.as_mut()?;
                (event.holder, event.due_at) = (Some(claim), Some(NOW + LEASE));
                system.workers[worker].doing = Doing::EventProgress { event: event.id, claim, tried: None };
            }
            Step::Decide(worker) => self.decide_and_go(system, worker, true),
            Step::ConcludeAnswerLost(worker) => {
                system.faults.losses -= 1;
                self.decide_and_go(system, worker, false);
            }
            Step::RenewForCall(worker) => self.renew(system, worker, Prepared::Call),
            Step::RenewForLookUp(worker) => self.renew(system, worker, Prepared::LookUp),
            Step::Send(worker) => self.send(system, worker),
            Step::LookUp(worker) => self.look_up(system, worker),
            Step::RecordAnswer(worker) => self.record_answer(system, worker),
            Step::BreakOff(worker) => {
                let Doing::Calling { sent_at, .. } = system.workers[worker].doing else { return None };
                if NOW < sent_at + TIMEOUT {
                    system.faults.losses -= 1;
                }
                self.record_answer(system, worker);
            }
            Step::RecordEvent(worker) => {
                let Doing::Recording { claim } = system.workers[worker].doing else { return None };
                system.row.as_mut()?.event = Some(Event::held_by(claim));
                system.workers[worker].doing = Doing::EventProgress { event: claim, claim, tried: None };
            }
            Step::Publish(worker) => self.publish(system, worker, true, true),
            Step::PublishInVain(worker) => {
                system.faults.losses -= 1;
                self.publish(system, worker, false, false);
            }
            Step::PublishConfirmLost(worker) => {
                system.faults.losses -= 1;
                self.publish(system, worker, true, false);
            }
            Step::Delivered(worker) => self.delivered(system, worker),
            Step::CarryOut(place) => self.carry_out(system, place),
            Step::Decline(place) | Step::TryLater(place) => {
                system.faults.provider_errors -= 1;
                let answer = if step == Step::Decline(place) { Answer::Declined } else { Answer::TryLater };
                let request = system.requests.remove(place);
                system.answer(request.of, answer);
            }
            Step::Lose(place) => {
                system.faults.losses -= 1;
                system.requests.remove(place);
            }
            Step::Crash(worker) => {
                system.faults.crashes -= 1;
                system.restart(worker, system.workers[worker].account);
            }
            Step::Move(worker) => {
                system.faults.moves -= 1;
                system.restart(worker, 1);
            }
            Step::SessionBreaks(worker) => self.end_session(system, worker),
            Step::OtherTakes(worker) => {
                system.faults.others -= 1;
                system.workers[worker].permit = Permit::Other;
            }
            Step::OtherEnds(worker) => system.workers[worker].permit = Permit::Free,
            Step::OtherReserves => {
                system.faults.waits -= 1;
                system.let_through_at += PACE;
            }
            Step::TakeOver => self.take_over(system),
            Step::ReasonAppears => {
                system.faults.reasons -= 1;
                system.has_reason = true;
            }
            Step::TimePasses => {
                system.faults.pauses -= self.may_time_pass(system)?;
                system.pass(1);
            }
            Step::AllPause => {
                system.faults.pauses -= 1;
                system.pass(NOW);
            }
        }
        next.discarded_an_answer |= discards_an_answer(before, &next, step);
        // Equal workers are interchangeable, so their order does not matter.
        next.workers.sort();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        rules::ALL.map(|(name, holds)| Property::always(name, holds)).to_vec()
    }
}

/// Says whether a live worker discarded an answer while it still held the record.
fn discards_an_answer(before: &System, after: &System, step: Step) -> bool {
    let open = after.row.as_ref().filter(|row| row.state == State::Open);
    open.and_then(|row| row.holder).is_some_and(|holder| {
        !matches!(step, Step::Crash(_) | Step::Move(_))
            && before.has_link_of(holder)
            && !after.has_link_of(holder)
    })
}

/// Describes a clock that always ran steadily.
pub fn circumstances(account: Account) -> Circumstances {
    Circumstances {
        now: at(NOW),
        steady: Steady { since: at(0), after_step: false, set_back: None },
        account: account_id(account),
    }
}

/// Counts "not found" only after every call of a lease must have ended.
pub fn settled() -> LookUp {
    LookUp { settle: TICK * LEASE.into() }
}
