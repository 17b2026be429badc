//! Lists the steps of the protocol. Each names the function that it stands for.

use payout_link_worker::domain::LinkStatus;
use stateright::{Model, Property};

use super::{
    flaws::FollowFlaw,
    rules,
    state::{Creation, Due, Faults, Outbox, System},
    worker::Worker,
};

/// A protocol to check: the real one, or one with a flaw.
#[derive(Clone)]
pub struct FollowProtocol {
    /// The state of the creation when the run begins.
    pub creation: Creation,
    pub provider: Provider,
    pub workers: usize,
    pub outbox: Outbox,
    pub faults: Faults,
    pub flaw: Option<FollowFlaw>,
}

/// A provider's ways to end links and to announce changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provider {
    /// The provider sends webhooks.
    pub announces: bool,
    /// The provider never ends a link: the worker cancels it, and asks again some minutes later.
    pub never_ends: bool,
    /// The provider has one word for cancelled and expired. The connector reads it as cancelled if the worker has
    /// begun to cancel the link.
    pub has_one_word: bool,
}

impl Provider {
    pub const ANNOUNCES: Self = Self { announces: true, never_ends: false, has_one_word: false };
    pub const SILENT: Self = Self { announces: false, ..Self::ANNOUNCES };
    pub const NEVER_ENDS: Self = Self { never_ends: true, ..Self::ANNOUNCES };
    pub const ONE_WORD: Self = Self { has_one_word: true, ..Self::SILENT };
}

/// A step. A number is a worker, or else a position in its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `src/postgres/follow.rs::claim_followed`
    ClaimLink(usize),
    /// `src/pipeline/follow.rs::ask`
    Ask(usize),
    /// The same, but no answer arrives.
    AskAnswerLost(usize),
    /// `src/domain/follow/mod.rs::next`, and the write that follows at once:
    /// `src/postgres/link_status.rs::record_answer` or `src/postgres/follow.rs::begin_cancel`
    Decide(usize),
    /// The same, but the answer to the commit is lost, so the worker repeats the write.
    DecideAnswerLost(usize),
    /// `src/pipeline/follow.rs::cancel`
    Cancel(usize),
    /// The same, but the call never arrives.
    CancelInVain(usize),
    /// The same, but the provider carries out the call after its worker has stopped waiting.
    CancelLate(usize),
    /// Possible only if the status and its event are two writes.
    RecordEvent(usize),

    /// `src/postgres/claim_events.rs::claim_events`
    ClaimEvent(usize, usize),
    /// `src/pipeline/outbox.rs::publish_event`
    Publish(usize),
    /// The same, but RabbitMQ rejects or never gets the result.
    PublishInVain(usize),
    /// The same, but the confirm is lost.
    PublishUnconfirmed(usize),
    /// `src/pipeline/outbox.rs::post_event`
    Post(usize),
    /// The same, but the webhook is lost.
    PostInVain(usize),
    /// The same, but the merchant's answer is lost.
    PostAnswerLost(usize),
    /// `src/webhooks/mod.rs::then`: no more attempts, or 410
    Abandon(usize),
    /// `src/postgres/outbox.rs::delivered`, whose statement also wakes the next webhook
    Delivered(usize),
    /// Possible only if the next webhook is woken by a write of its own.
    Wake(usize),

    /// `src/postgres/link_requests.rs::accept_link_request`
    Message,
    /// `src/postgres/cancel.rs::request_cancel`
    Command,
    /// `src/postgres/link_requests.rs::carry_out_link_requests`
    CarryOut,
    /// `src/postgres/link_requests.rs::claim_link_answers` and `src/domain/link_request.rs::link_request_answer`
    ClaimAnswer(usize, usize),
    /// `src/pipeline/link_requests.rs::answer_request`
    Reply(usize),
    /// The same, but the reply is lost.
    ReplyInVain(usize),
    /// `src/postgres/link_requests.rs::finish_link_request`
    Finish(usize),
    /// A request becomes older than `retry.max_age_seconds`.
    GrowsOld(usize),

    /// These steps stand for the model of the creation.
    BeginCall,
    Make,
    Conclude(Creation),
    /// The recipient or the provider changes the link.
    Change(LinkStatus),
    /// The provider pays although the link is cancelled or expired.
    PaidLate,
    /// A call arrives whose worker no longer waits for it.
    CarryOutCancel,
    EndPasses,
    /// `src/postgres/provider_webhooks.rs::record_webhook`
    Announce(usize),
    /// The same, but the provider sends the webhook once more.
    AnnounceAgain(usize),
    /// No listener is there, or it does not answer, and the provider gives up.
    LoseAnnouncement(usize),
    /// SIGKILL of a worker. Another one starts in its place.
    Crash(usize),
    /// Time passes until the link, an event or a request is due. A lease that expires under a live worker costs a
    /// pause.
    LinkFallsDue,
    EventFallsDue(usize),
    RequestFallsDue(usize),
}

impl FollowProtocol {
    pub fn is(&self, flaw: FollowFlaw) -> bool {
        self.flaw == Some(flaw)
    }
}

impl Model for FollowProtocol {
    type State = System;
    type Action = Step;

    fn init_states(&self) -> Vec<System> {
        vec![System::new(self.creation, self.workers, self.provider.announces, self.outbox, self.faults)]
    }

    fn actions(&self, system: &System, steps: &mut Vec<Step>) {
        self.choices(system, steps);
    }

    fn next_state(&self, before: &System, step: Step) -> Option<System> {
        let mut next = before.clone();
        let system = &mut next;
        match step {
            Step::ClaimLink(worker) => self.claim_link(system, worker),
            Step::Ask(worker) => self.ask(system, worker, true),
            Step::AskAnswerLost(worker) => {
                system.faults.losses -= 1;
                self.ask(system, worker, false);
            }
            Step::Decide(worker) => self.decide_and_go(system, worker),
            Step::DecideAnswerLost(worker) => {
                system.faults.losses -= 1;
                let doing = system.workers[worker];
                self.decide_and_go(system, worker);
                system.workers[worker] = doing;
            }
            Step::Cancel(worker) => self.cancel(system, worker, true),
            Step::CancelInVain(worker) => {
                system.faults.losses -= 1;
                self.cancel(system, worker, false);
            }
            Step::CancelLate(worker) => {
                system.faults.losses -= 1;
                system.ledger.cancels += 1;
                self.cancel(system, worker, false);
            }
            Step::RecordEvent(worker) => self.record_event(system, worker),
            Step::ClaimEvent(worker, place) => self.claim_event(system, worker, place),
            Step::Publish(_) | Step::PublishInVain(_) | Step::PublishUnconfirmed(_) => {
                self.publish(system, step);
            }
            Step::Post(_) | Step::PostInVain(_) | Step::PostAnswerLost(_) | Step::Abandon(_) => {
                self.post(system, step);
            }
            Step::Delivered(worker) => self.delivered(system, worker),
            Step::Wake(worker) => {
                if let Worker::Waking { next } = system.workers[worker] {
                    system.wake(next);
                }
                system.workers[worker] = Worker::Idle;
            }
            Step::Message => self.accept_message(system),
            Step::Command => self.command(system),
            Step::CarryOut => self.carry_out_requests(system),
            Step::ClaimAnswer(worker, place) => self.claim_answer(system, worker, place),
            Step::Reply(worker) => self.reply(system, worker),
            Step::ReplyInVain(worker) => {
                system.faults.losses -= 1;
                system.workers[worker] = Worker::Idle;
            }
            Step::Finish(worker) => self.finish(system, worker),
            Step::GrowsOld(place) => {
                system.faults.give_ups = system.faults.give_ups.saturating_sub(1);
                system.requests[place].is_too_old = true;
            }
            Step::BeginCall => system.creation = Creation::UnderWay,
            Step::Make => system.ledger.history.push(LinkStatus::Unclaimed),
            Step::Conclude(creation @ Creation::Unresolved) => system.creation = creation,
            Step::Conclude(creation) => system.conclude(creation),
            Step::Change(status) => {
                system.faults.changes -= 1;
                system.change(&[status], self.provider.announces);
            }
            Step::PaidLate => {
                system.faults.late -= 1;
                system.change(&[LinkStatus::Claimed, LinkStatus::Succeeded], self.provider.announces);
            }
            Step::CarryOutCancel => {
                system.ledger.cancels -= 1;
                self.cancel_at_the_provider(system);
            }
            Step::EndPasses => {
                system.faults.ends -= 1;
                system.row.is_over = true;
            }
            Step::Announce(place) => {
                let change = system.ledger.announcements.remove(place);
                self.record_webhook(system, change);
            }
            Step::AnnounceAgain(place) => {
                system.faults.repeats -= 1;
                self.record_webhook(system, system.ledger.announcements[place]);
            }
            Step::LoseAnnouncement(place) => {
                system.faults.losses -= 1;
                system.ledger.announcements.remove(place);
                system.ledger.is_silent = true;
            }
            Step::Crash(worker) => {
                system.faults.crashes -= 1;
                system.workers[worker] = Worker::Idle;
            }
            Step::LinkFallsDue => {
                system.faults.pauses -= is_live(system, system.row.follow_holder);
                system.row.follow_due = Due::Now;
                system.row.cancelled.iter_mut().for_each(|cancelled| cancelled.is_confirmed = true);
            }
            Step::EventFallsDue(place) => {
                let holder = system.events[place].holder;
                system.faults.pauses -= is_live(system, holder);
                system.events[place].due = Due::Now;
                for worker in &mut system.workers {
                    if let Worker::Posting { claim, is_lease_over, .. } = worker {
                        *is_lease_over |= Some(*claim) == holder;
                    }
                }
            }
            Step::RequestFallsDue(place) => {
                system.faults.pauses -= is_live(system, system.requests[place].holder);
                system.requests[place].due = Due::Now;
            }
        }
        next.number_claims();
        // Equal workers are interchangeable, so their order does not matter.
        next.workers.sort_unstable();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        rules::ALL.map(|(name, holds)| Property::always(name, holds)).to_vec()
    }
}

fn is_live(system: &System, holder: Option<u8>) -> u8 {
    holder.is_some_and(|holder| system.has_live_worker(holder)).into()
}
