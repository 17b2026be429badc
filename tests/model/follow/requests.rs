//! Applies the steps that cancel by message and by command to the state.

#![expect(clippy::unused_self, reason = "all steps have the same form")]

use payout_link_worker::domain::LinkStatus;

use super::{
    flaws::FollowFlaw,
    protocol::FollowProtocol,
    state::{Answer, Creation, Due, NEW, Request, System},
    worker::Worker,
};

impl FollowProtocol {
    pub fn accept_message(&self, system: &mut System) {
        let number = self.faults.messages - system.faults.messages;
        system.faults.messages -= 1;
        system.is_cancel_asked = true;
        let is_settled = !system.is_open();
        if self.is(FollowFlaw::CancelDoesNotWait) && !is_settled {
            system.answers.push((number, Answer::NotCreated));
            return;
        }
        system.requests.push(Request { number, due: Due::Now, is_too_old: false, holder: None });
    }

    pub fn command(&self, system: &mut System) {
        system.faults.commands -= 1;
        if system.row.status == LinkStatus::Unclaimed && !system.row.cancel_is_requested {
            system.is_cancel_asked = true;
            self.request_cancel(system);
        }
    }

    pub fn carry_out_requests(&self, system: &mut System) {
        match system.creation {
            // The sweeper ends the record: `src/domain/retry/mod.rs`.
            Creation::Uncalled => system.row.cancel_is_requested = true,
            Creation::UnderWay => system.conclude(Creation::Cancelled),
            _ => self.request_cancel(system),
        }
    }

    /// Requests a cancel. A worker that asks the provider at this moment does not know of the request, so its answer is dropped.
    fn request_cancel(&self, system: &mut System) {
        let row = &mut system.row;
        (row.cancel_is_requested, row.follow_due, row.follow_holder) = (true, Due::Now, None);
    }

    /// Returns the answer to a request, if there is one yet.
    pub fn answer(&self, system: &System, request: Request) -> Option<Answer> {
        let announced = u8::try_from(system.events.len()).unwrap();
        match (system.creation, system.row.status) {
            (Creation::Failed, _) => Some(Answer::NotCreated),
            (Creation::Created | Creation::Cancelled, LinkStatus::Cancelled) => Some(Answer::Cancelled),
            (Creation::Created, LinkStatus::Unclaimed)
                if self.is(FollowFlaw::AnsweredEarly) && system.row.cancelled.is_some() =>
            {
                Some(Answer::Cancelled)
            }
            (Creation::Created, LinkStatus::Unclaimed)
            // An operator may resolve an unknown record.
            | (Creation::Uncalled | Creation::UnderWay | Creation::Unresolved | Creation::Unknown, _) => {
                request.is_too_old.then_some(Answer::GivenUp)
            }
            (Creation::Created | Creation::Cancelled, _) => Some(Answer::Over(announced)),
        }
    }

    pub fn claim_answer(&self, system: &mut System, worker: usize, place: usize) {
        let Some(answer) = self.answer(system, system.requests[place]) else { return };
        let claim = NEW;
        let request = &mut system.requests[place];
        (request.holder, request.due) = (Some(claim), Due::Later);
        let number = request.number;
        system.workers[worker] = if self.is(FollowFlaw::DeletedBeforeItsAnswer) {
            system.requests.remove(place);
            Worker::AnsweringLate { request: number, claim, answer }
        } else {
            Worker::Answering { request: number, claim, answer }
        };
    }

    pub fn reply(&self, system: &mut System, worker: usize) {
        let (Worker::Answering { request, answer, .. } | Worker::AnsweringLate { request, answer, .. }) =
            system.workers[worker]
        else {
            return;
        };
        if !system.answers.contains(&(request, answer)) {
            system.answers.push((request, answer));
            system.answers.sort_unstable();
        }
        system.workers[worker] = match system.workers[worker] {
            Worker::Answering { claim, .. } => {
                Worker::Finishing { request, claim, is_given_up: answer == Answer::GivenUp }
            }
            _ => Worker::Idle,
        };
    }

    /// Deletes the request. The write needs no holder: only the worker that answered deletes.
    pub fn finish(&self, system: &mut System, worker: usize) {
        let Worker::Finishing { request, is_given_up, .. } = system.workers[worker] else { return };
        system.workers[worker] = Worker::Idle;
        let Some(place) = system.requests.iter().position(|stored| stored.number == request) else { return };
        system.requests.remove(place);
        if is_given_up && system.requests.is_empty() {
            (system.row.cancel_is_requested, system.row.cancelled) = (false, None);
            system.is_cancel_asked = false;
        }
    }
}
