//! Applies the follower's steps and the provider's webhooks to the state.

#![expect(clippy::unused_self, reason = "all steps have the same form")]

use std::time::Duration;

use payout_link_worker::domain::{
    ConnectorError, Followed, LinkAnswer, LinkReport, LinkStatus, PayoutStatus,
    follow::{self, CancelReason, FollowPolicy, FollowStep},
};
use time::OffsetDateTime;

use super::{
    flaws::FollowFlaw,
    protocol::FollowProtocol,
    state::{Cancelled, ClaimId, Creation, Due, Event, NEW, Outbox, Seen, Status, System},
    worker::Worker,
};

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
const MINUTE: Duration = Duration::from_mins(1);
/// Limits the cancels of one claim, as `src/pipeline/follow.rs` does.
const MAX_CANCELS: u8 = 2;

/// Mirrors the part of `follow::FollowDecision` that the model needs.
pub struct Decision {
    pub status: LinkStatus,
    pub events: Vec<LinkStatus>,
    pub cancel_had_no_effect: bool,
    pub then: Then,
}

#[derive(Clone, Copy)]
pub enum Then {
    Ask,
    Cancel { is_for_expiry: bool },
    Stop,
}

impl FollowProtocol {
    /// Calls `follow::next`.
    pub fn decide(&self, seen: Seen, status: Option<LinkStatus>) -> Decision {
        let link = Followed {
            status: seen.status.link_status(),
            changed_at: NOW,
            expires_at: seen.is_over.then(|| NOW - MINUTE),
            expiring_is_announced: false,
            cancel_is_requested: seen.cancel_is_requested,
            cancelled: seen.cancelled.map(|cancelled| {
                let at = if cancelled.is_confirmed { NOW - 10 * MINUTE } else { NOW };
                (at, cancelled.reason())
            }),
            failures: 0,
        };
        let policy = FollowPolicy {
            min_interval: MINUTE,
            max_interval: MINUTE,
            expiring: None,
            cancels_expired: self.provider.never_ends,
            confirm_cancel: if self.provider.never_ends { 5 * MINUTE } else { Duration::ZERO },
            watch_reversals: 100 * MINUTE,
        };
        let decided = follow::next(&link, &answer(status), &policy, NOW);
        let event_status = |event_type| {
            LinkStatus::ALL.into_iter().find(|status| status.event_type() == event_type).unwrap()
        };
        let mut decision = Decision {
            status: decided.status,
            events: decided.events.iter().map(|event| event_status(event.event_type)).collect(),
            cancel_had_no_effect: decided.cancel_had_no_effect,
            then: match decided.then {
                FollowStep::Ask { .. } => Then::Ask,
                FollowStep::Cancel(reason) => Then::Cancel { is_for_expiry: reason == CancelReason::Expiry },
                FollowStep::Stop => Then::Stop,
            },
        };
        self.spoil(&mut decision, &link, status);
        decision
    }

    fn spoil(&self, decision: &mut Decision, link: &Followed, reported: Option<LinkStatus>) {
        let Some(reported) = reported else { return };
        let announces = (self.is(FollowFlaw::StatusNotCompared) && link.status != LinkStatus::Unclaimed)
            || (self.is(FollowFlaw::FinalChanges) && link.status != reported);
        if announces && decision.events.is_empty() {
            (decision.status, decision.events) = (reported, vec![reported]);
        }
        let is_over = link.expires_at.is_some() && link.status == LinkStatus::Unclaimed;
        if self.is(FollowFlaw::OwnClock) && is_over {
            (decision.status, decision.events) = (LinkStatus::Expired, vec![LinkStatus::Expired]);
            decision.then = Then::Stop;
        }
    }

    pub fn claim_link(&self, system: &mut System, worker: usize) {
        let claim = NEW;
        let row = &mut system.row;
        (row.follow_holder, row.follow_due, row.asks_again) = (Some(claim), Due::Later, false);
        system.workers[worker] = Worker::Asking { claim, seen: row.seen(), cancels: 0 };
    }

    pub fn ask(&self, system: &mut System, worker: usize, is_answered: bool) {
        let Worker::Asking { claim, seen, cancels } = system.workers[worker] else { return };
        let status =
            system.provider_status().filter(|_| is_answered).map(|status| self.status_read(status, seen));
        let status = status.map(Status::of);
        system.workers[worker] = Worker::Answered { claim, seen, cancels, status };
    }

    /// Reads the provider's status as the connector does.
    fn status_read(&self, status: LinkStatus, seen: Seen) -> LinkStatus {
        match status {
            LinkStatus::Expired if self.provider.has_one_word && seen.cancelled.is_some() => {
                LinkStatus::Cancelled
            }
            _ => status,
        }
    }

    pub fn decide_and_go(&self, system: &mut System, worker: usize) {
        let Worker::Answered { claim, mut seen, cancels, status } = system.workers[worker] else { return };
        let decision = self.decide(seen, status.map(Status::link_status));
        system.workers[worker] = match decision.then {
            Then::Cancel { is_for_expiry } if cancels < MAX_CANCELS => {
                // `begin_cancel` runs before the call.
                if system.row.follow_holder == Some(claim) {
                    let cancelled = Some(Cancelled { is_for_expiry, is_confirmed: false });
                    (system.row.cancelled, system.row.follow_due) = (cancelled, Due::Later);
                    seen.cancelled = cancelled;
                    Worker::Cancelling { claim, seen, cancels: cancels + 1 }
                } else {
                    Worker::Idle
                }
            }
            _ => self.record_answer(system, claim, seen, &decision),
        };
    }

    /// Calls the provider. The follower ignores a success, because only the next question shows the effect.
    pub fn cancel(&self, system: &mut System, worker: usize, arrives: bool) {
        let Worker::Cancelling { claim, mut seen, cancels } = system.workers[worker] else { return };
        let is_rejected = arrives && system.provider_status() != Some(LinkStatus::Unclaimed);
        if arrives {
            self.cancel_at_the_provider(system);
        }
        let is_on_request = seen.cancelled.is_some_and(|cancelled| !cancelled.is_for_expiry);
        if is_rejected && is_on_request && !self.is(FollowFlaw::CancelWithoutEffectStored) {
            seen.cancelled = None;
        }
        system.workers[worker] = if self.is(FollowFlaw::CancelNotVerified) {
            Worker::Answered { claim, seen, cancels, status: Some(Status::of(LinkStatus::Cancelled)) }
        } else {
            Worker::Asking { claim, seen, cancels }
        };
    }

    /// Cancels the link, unless somebody has claimed it.
    pub fn cancel_at_the_provider(&self, system: &mut System) {
        if system.provider_status() == Some(LinkStatus::Unclaimed) {
            system.change(&[LinkStatus::Cancelled], self.provider.announces);
        }
    }

    fn record_answer(&self, system: &mut System, claim: ClaimId, seen: Seen, decision: &Decision) -> Worker {
        let row = &mut system.row;
        if row.follow_holder != Some(claim) && !self.is(FollowFlaw::NoFencing) {
            return Worker::Idle;
        }
        let has_changed = decision.status != row.status;
        let is_over = matches!(decision.status, LinkStatus::Cancelled | LinkStatus::Expired);
        row.cancel_is_requested &= decision.status == LinkStatus::Unclaimed && !has_changed;
        if !self.is(FollowFlaw::CancelWithoutEffectStored)
            && ((has_changed && !is_over) || decision.cancel_had_no_effect || seen.cancelled.is_none())
        {
            row.cancelled = None;
        }
        row.status = decision.status;
        row.follow_holder = None;
        row.follow_due = match decision.then {
            _ if row.asks_again => Due::Now,
            Then::Ask => Due::Later,
            // After too many cancels in one claim the follower asks again.
            Then::Cancel { .. } => Due::Later,
            Then::Stop => Due::Never,
        };
        if self.is(FollowFlaw::EventApart)
            && let Some(status) = decision.events.last()
        {
            row.sequence += 1;
            return Worker::RecordingEvent { claim, status: Status::of(*status) };
        }
        for status in &decision.events {
            self.announce(system, *status);
        }
        Worker::Idle
    }

    pub fn record_event(&self, system: &mut System, worker: usize) {
        let Worker::RecordingEvent { status, .. } = system.workers[worker] else { return };
        system.row.sequence -= 1;
        self.announce(system, status.link_status());
        system.workers[worker] = Worker::Idle;
    }

    /// Writes the event, its number and its place in the chain, and brings earlier webhooks forward, in one
    /// statement.
    fn announce(&self, system: &mut System, status: LinkStatus) {
        let place = u8::try_from(system.events.len()).unwrap();
        let previous = place - 1;
        let before = &mut system.events[usize::from(previous)];
        if !self.is(FollowFlaw::NextNotNamed) {
            before.next = Some(place);
        }
        let waits = before.is_pending && !self.is(FollowFlaw::PreviousNotFirst);
        system.row.sequence += 1;
        for event in system.events.iter_mut().filter(|event| event.is_pending && event.holder.is_none()) {
            event.due = Due::Now;
        }
        system.events.push(Event {
            sequence: system.row.sequence,
            status,
            previous: Some(previous),
            next: None,
            is_published: system.outbox == Outbox::Webhooks,
            is_pending: system.outbox != Outbox::Results,
            waits,
            due: Due::Now,
            holder: None,
        });
    }

    /// Stores a provider's webhook once. The link is known from the conclusion on.
    pub fn record_webhook(&self, system: &mut System, change: u8) {
        if system.creation != Creation::Created {
            system.ledger.is_silent = true;
            return;
        }
        let row = &mut system.row;
        if row.stored.contains(&change) {
            return;
        }
        row.stored.push(change);
        row.stored.sort_unstable();
        if row.follow_holder.is_none() {
            (row.follow_due, row.asks_again) = (Due::Now, false);
        } else {
            row.asks_again = !self.is(FollowFlaw::WebhookDuringAQuestionIgnored);
        }
    }
}

fn answer(status: Option<LinkStatus>) -> LinkAnswer {
    let Some(status) = status else {
        return LinkAnswer::Unanswered { error: ConnectorError::unanswered(""), retry_after: None };
    };
    LinkAnswer::Reported(LinkReport {
        status: Some(status),
        provider_status: String::new(),
        payout_status: PayoutStatus::Pending,
        occurred_at: None,
        expires_at: None,
        provider_payout_id: None,
        error: None,
        status_code: 200,
    })
}
