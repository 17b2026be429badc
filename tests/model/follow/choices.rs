//! Lists the steps that are possible in a state.

use payout_link_worker::domain::LinkStatus;

use super::{
    flaws::FollowFlaw,
    follower::Then,
    protocol::{FollowProtocol, Step},
    state::{ClaimId, Creation, Due, Seen, System},
    worker::{Publication, Worker},
};

impl FollowProtocol {
    pub fn choices(&self, system: &System, steps: &mut Vec<Step>) {
        for number in 0..system.workers.len() {
            // Equal workers have the same steps, so one of them is enough.
            if !system.workers[..number].contains(&system.workers[number]) {
                self.steps_of(system, number, steps);
            }
        }
        self.steps_of_the_provider(system, steps);
        self.steps_of_requesters(system, steps);
        self.steps_of_time(system, steps);
    }

    fn steps_of(&self, system: &System, number: usize, steps: &mut Vec<Step>) {
        let worker = system.workers[number];
        let lossy = system.faults.losses > 0;
        if system.faults.crashes > 0 && worker != Worker::Idle {
            steps.push(Step::Crash(number));
        }
        match worker {
            Worker::Idle => {
                if system.row.follow_due == Due::Now {
                    steps.push(Step::ClaimLink(number));
                }
                let due = |(place, due)| (due == Due::Now).then_some(place);
                let events = system.events.iter().map(|event| event.due).enumerate().filter_map(due);
                steps.extend(events.map(|place| Step::ClaimEvent(number, place)));
                for (place, request) in system.requests.iter().enumerate() {
                    if request.due == Due::Now && self.answer(system, *request).is_some() {
                        steps.push(Step::ClaimAnswer(number, place));
                    }
                }
            }
            Worker::Asking { .. } => {
                steps.push(Step::Ask(number));
                if lossy {
                    steps.push(Step::AskAnswerLost(number));
                }
            }
            Worker::Answered { .. } => {
                steps.push(Step::Decide(number));
                if lossy {
                    steps.push(Step::DecideAnswerLost(number));
                }
            }
            Worker::Cancelling { .. } => {
                steps.push(Step::Cancel(number));
                if lossy {
                    steps.extend([Step::CancelInVain(number), Step::CancelLate(number)]);
                }
            }
            Worker::RecordingEvent { .. } => steps.push(Step::RecordEvent(number)),
            Worker::Posting { result: Publication::Due, .. } => {
                steps.push(Step::Publish(number));
                if lossy {
                    steps.extend([Step::PublishInVain(number), Step::PublishUnconfirmed(number)]);
                }
            }
            Worker::Posting { posts, waits, is_lease_over, .. } => {
                steps.push(Step::Post(number));
                let is_posted = posts && !waits && (!is_lease_over || self.is(FollowFlaw::LeaseNotChecked));
                if is_posted && lossy {
                    steps.extend([Step::PostInVain(number), Step::PostAnswerLost(number)]);
                }
                if is_posted && system.faults.abandons > 0 {
                    steps.push(Step::Abandon(number));
                }
            }
            Worker::Posted { .. } => steps.push(Step::Delivered(number)),
            Worker::Waking { .. } => steps.push(Step::Wake(number)),
            Worker::Answering { .. } => {
                steps.push(Step::Reply(number));
                if lossy {
                    steps.push(Step::ReplyInVain(number));
                }
            }
            Worker::AnsweringLate { .. } => steps.push(Step::Reply(number)),
            Worker::Finishing { .. } => steps.push(Step::Finish(number)),
        }
    }

    /// Lists the steps of the provider, of the recipient and of the creation.
    fn steps_of_the_provider(&self, system: &System, steps: &mut Vec<Step>) {
        match (system.creation, system.provider_status()) {
            // A claim and `retry::next` come next: a call, or a conclusion without one.
            (Creation::Uncalled, _) if system.row.cancel_is_requested => {
                steps.push(Step::Conclude(Creation::Cancelled));
            }
            (Creation::Uncalled, _) => steps.push(Step::BeginCall),
            (Creation::UnderWay, made) => {
                steps.push(Step::Conclude(Creation::Unresolved));
                let end = if made.is_some() { Creation::Created } else { Creation::Failed };
                steps.push(Step::Conclude(end));
                if made.is_none() {
                    steps.push(Step::Make);
                }
            }
            (Creation::Unresolved, made) => {
                let end = if made.is_some() { Creation::Created } else { Creation::Failed };
                steps.extend([Step::Conclude(end), Step::Conclude(Creation::Unknown)]);
            }
            _ => {}
        }
        if let Some(status) = system.provider_status() {
            if system.faults.changes > 0 {
                steps.extend(self.changes(status).iter().copied().map(Step::Change));
            }
            if system.faults.late > 0 && matches!(status, LinkStatus::Cancelled | LinkStatus::Expired) {
                steps.push(Step::PaidLate);
            }
            if system.faults.ends > 0 {
                steps.push(Step::EndPasses);
            }
        }
        if system.ledger.cancels > 0 {
            steps.push(Step::CarryOutCancel);
        }
        for place in 0..system.ledger.announcements.len() {
            steps.push(Step::Announce(place));
            if system.faults.repeats > 0 {
                steps.push(Step::AnnounceAgain(place));
            }
            if system.faults.losses > 0 {
                steps.push(Step::LoseAnnouncement(place));
            }
        }
    }

    /// Lists the statuses to which the provider may change a link by itself.
    fn changes(&self, status: LinkStatus) -> &'static [LinkStatus] {
        use LinkStatus::{Cancelled, Claimed, Expired, PayoutFailed, Reversed, Succeeded, Unclaimed};
        match status {
            Unclaimed if self.provider.never_ends => &[Claimed, Cancelled],
            Unclaimed => &[Claimed, Expired, Cancelled],
            Claimed => &[Succeeded, PayoutFailed, Unclaimed],
            Succeeded => &[Reversed],
            _ => &[],
        }
    }

    fn steps_of_requesters(&self, system: &System, steps: &mut Vec<Step>) {
        let faults = system.faults;
        if faults.messages > 0 {
            steps.push(Step::Message);
        }
        if faults.commands > 0 && system.creation == Creation::Created {
            steps.push(Step::Command);
        }
        if !system.requests.is_empty()
            && self.is_carried_out(system.creation)
            && system.row.status == LinkStatus::Unclaimed
            && !system.row.cancel_is_requested
        {
            steps.push(Step::CarryOut);
        }
        let not_old = system.requests.iter().enumerate().filter(|(_, request)| !request.is_too_old);
        // Nobody resolves an unknown record here, so its requests always grow old.
        if faults.give_ups > 0 || system.creation == Creation::Unknown {
            steps.extend(not_old.map(|(place, _)| Step::GrowsOld(place)));
        }
    }

    /// Says whether a cancel takes effect at this point of the creation: before the first call or after the last.
    fn is_carried_out(&self, creation: Creation) -> bool {
        match creation {
            Creation::Uncalled | Creation::Created => true,
            Creation::UnderWay => self.is(FollowFlaw::CancelDuringTheCall),
            _ => false,
        }
    }

    /// Lists the steps of time, which passes only if something waits for it.
    fn steps_of_time(&self, system: &System, steps: &mut Vec<Step>) {
        let runs_out = |due: Due, holder: Option<ClaimId>| {
            let is_live = holder.is_some_and(|holder| system.has_live_worker(holder));
            due == Due::Later && (!is_live || system.faults.pauses > 0)
        };
        let row = &system.row;
        if runs_out(row.follow_due, row.follow_holder)
            && (row.follow_holder.is_some() || self.finds_something(system))
        {
            steps.push(Step::LinkFallsDue);
        }
        for (place, event) in system.events.iter().enumerate() {
            // A look at a result that still waits has no effect.
            let finds_nothing =
                event.holder.is_none() && system.result_waits(event) && (event.waits || !event.is_pending);
            if runs_out(event.due, event.holder) && !finds_nothing {
                steps.push(Step::EventFallsDue(place));
            }
        }
        for (place, request) in system.requests.iter().enumerate() {
            if runs_out(request.due, request.holder) {
                steps.push(Step::RequestFallsDue(place));
            }
        }
    }

    /// Says whether the next scheduled question has an effect. The model leaves out other questions, so that every run ends.
    fn finds_something(&self, system: &System) -> bool {
        let mut seen: Seen = system.row.seen();
        seen.cancelled.iter_mut().for_each(|cancelled| cancelled.is_confirmed = true);
        let decision = self.decide(seen, system.provider_status());
        !decision.events.is_empty() || matches!(decision.then, Then::Cancel { .. })
    }
}
