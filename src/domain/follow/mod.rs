//! Decides which events follow from the provider's answer about a link, and when the provider is asked again.
//!
//! [`next`] is a pure function of the record, the answer and the time. Its table of tests covers every transition.

mod schedule;
mod status;

#[cfg(test)]
mod tests;

use std::time::Duration;

use time::OffsetDateTime;

use self::schedule::{next_question, since};
pub use self::{
    schedule::{FollowPolicy, first_question},
    status::{LinkStatus, TRANSITIONS},
};
use super::{ConnectorError, EventType, PayoutStatus};

/// The record of a link that is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// The status that was announced last.
    pub status: LinkStatus,
    /// When the link was created, or its status changed.
    pub changed_at: OffsetDateTime,
    /// The end of the link, as the provider said it last.
    pub expires_at: Option<OffsetDateTime>,
    /// Whether the merchant knows that the link ends soon.
    pub expiring_is_announced: bool,
    /// A request to cancel the link that is not answered yet.
    pub cancel_is_requested: bool,
    /// When a worker began to cancel the link, and why. The cancel may have had no effect.
    pub cancelled: Option<(OffsetDateTime, CancelReason)>,
    /// Questions without an answer since the last one.
    pub failures: u32,
}

/// How a new link is followed.
#[derive(Debug, Clone, Copy)]
pub struct NewLinkStatus {
    /// The end of the link.
    pub expires_at: Option<OffsetDateTime>,
    /// Time until the first question; `None`: the account follows no links.
    pub ask_after: Option<Duration>,
}

/// Why the worker cancelled a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelReason {
    /// The link's time is over, and the provider does not end it.
    Expiry,
    /// Somebody asked for it.
    Request,
}

impl CancelReason {
    /// Returns the name in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expiry => "expiry",
            Self::Request => "request",
        }
    }

    /// Parses a name in the database.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Expiry, Self::Request].into_iter().find(|reason| reason.as_str() == name)
    }
}

/// The provider's answer to the question about a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkAnswer {
    /// The provider reported the link.
    Reported(LinkReport),
    /// The provider has no such link.
    NotFound {
        /// The HTTP status of the answer.
        status_code: u16,
    },
    /// The provider did not answer the question.
    Unanswered {
        /// Why there is no answer.
        error: ConnectorError,
        /// The wait that the provider asked for.
        retry_after: Option<Duration>,
    },
}

/// A link as the provider reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkReport {
    /// `None` for a status that this version does not know.
    pub status: Option<LinkStatus>,
    /// The provider's own word, at most 64 characters.
    pub provider_status: String,
    /// The status in Prism's words, for the event.
    pub payout_status: PayoutStatus,
    /// When the status changed, where the provider says so.
    pub occurred_at: Option<OffsetDateTime>,
    /// The end of the link, where the provider says so.
    pub expires_at: Option<OffsetDateTime>,
    /// The provider's id of the payout or transaction that came of the link.
    pub provider_payout_id: Option<String>,
    /// Why the payout failed.
    pub error: Option<ConnectorError>,
    /// The HTTP status of the answer.
    pub status_code: u16,
}

/// An event to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusEvent {
    /// The type of the event.
    pub event_type: EventType,
    /// The status in Prism's words.
    pub payout_status: PayoutStatus,
    /// When it happened: by the provider, else the time of the answer.
    pub occurred_at: OffsetDateTime,
    /// Only of a payout that failed.
    pub error: Option<ConnectorError>,
}

/// The decision after an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowDecision {
    /// The status afterwards.
    pub status: LinkStatus,
    /// The events of the change, in order.
    pub events: Vec<StatusEvent>,
    /// Whether the merchant knows then that the link ends soon.
    pub expiring_is_announced: bool,
    /// A cancel on request has begun, and the provider says that the link can still be claimed. If it ends later, that
    /// is not the cancel's effect.
    pub cancel_had_no_effect: bool,
    /// When the provider is asked again.
    pub then: FollowStep,
}

/// The next step for a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FollowStep {
    /// Ask again after this time.
    Ask {
        /// Time until the question.
        after: Duration,
    },
    /// Cancel the link, then ask again.
    Cancel(CancelReason),
    /// The link is not asked about any more.
    Stop,
}

/// Decides what follows from an answer.
///
/// A status is announced when it is entered, however often the provider repeats it. A change that [`TRANSITIONS`] does
/// not have is not announced, and the provider is asked again. No payout fails because the questions end.
pub fn next(
    link: &Followed,
    answer: &LinkAnswer,
    policy: &FollowPolicy,
    now: OffsetDateTime,
) -> FollowDecision {
    match answer {
        LinkAnswer::Reported(report) => on_report(link, report, policy, now),
        LinkAnswer::NotFound { .. } => unchanged(link, FollowStep::Ask { after: policy.max_interval }),
        LinkAnswer::Unanswered { retry_after, .. } => {
            let pause =
                policy.min_interval.saturating_mul(1 << link.failures.min(16)).min(policy.max_interval);
            let after = pause.max(retry_after.unwrap_or_default());
            unchanged(link, FollowStep::Ask { after })
        }
    }
}

fn on_report(
    link: &Followed,
    report: &LinkReport,
    policy: &FollowPolicy,
    now: OffsetDateTime,
) -> FollowDecision {
    let link = &Followed { expires_at: report.expires_at.or(link.expires_at), ..link.clone() };
    // A cancel that is not confirmed yet: a claim may have been on its way.
    if report.status == Some(LinkStatus::Cancelled)
        && let Some((cancelled_at, _)) = link.cancelled
        && let left = policy.confirm_cancel.saturating_sub(since(cancelled_at, now))
        && !left.is_zero()
        && link.status == LinkStatus::Unclaimed
    {
        return unchanged(link, FollowStep::Ask { after: left });
    }
    match report.status.map(|status| meant(status, link)) {
        Some(status) if link.status.may_become(status) => changed(link, status, report, policy, now),
        Some(status) if status == link.status => same(link, policy, now),
        // Unknown, stale, or a change that the provider never makes.
        _ => unchanged(link, ask_again(link, policy, now)),
    }
}

/// Returns the status that a report means for this link: a link that the worker cancelled at its end has expired. A cancel
/// on request may have failed before the link expired: there the provider's word counts.
fn meant(reported: LinkStatus, link: &Followed) -> LinkStatus {
    match (reported, link.cancelled.filter(|_| link.status == LinkStatus::Unclaimed)) {
        (LinkStatus::Cancelled, Some((_, CancelReason::Expiry))) => LinkStatus::Expired,
        _ => reported,
    }
}

fn changed(
    link: &Followed,
    status: LinkStatus,
    report: &LinkReport,
    policy: &FollowPolicy,
    now: OffsetDateTime,
) -> FollowDecision {
    let event = |status: LinkStatus, occurred_at| StatusEvent {
        event_type: status.event_type(),
        payout_status: status.payout_status(report.payout_status),
        occurred_at,
        error: report.error.clone().filter(|_| status == LinkStatus::PayoutFailed),
    };
    let occurred_at = report.occurred_at.unwrap_or(now);
    let mut events = Vec::new();
    // Money goes only to a recipient who claimed it, also where nobody saw the claim.
    if link.status == LinkStatus::Unclaimed
        && matches!(status, LinkStatus::Processing | LinkStatus::Succeeded)
    {
        events.push(event(LinkStatus::Claimed, occurred_at));
    }
    events.push(event(status, occurred_at));
    let after = Followed { status, changed_at: now, expiring_is_announced: false, ..link.clone() };
    FollowDecision {
        status,
        events,
        expiring_is_announced: false,
        cancel_had_no_effect: false,
        then: ask_again(&after, policy, now),
    }
}

/// Decides about a link whose status is the same.
fn same(link: &Followed, policy: &FollowPolicy, now: OffsetDateTime) -> FollowDecision {
    let is_unclaimed = link.status == LinkStatus::Unclaimed;
    let had_no_effect = is_unclaimed && matches!(link.cancelled, Some((_, CancelReason::Request)));
    let unchanged = |link: &Followed, then| FollowDecision {
        cancel_had_no_effect: had_no_effect,
        ..unchanged(link, then)
    };
    let ends = link.expires_at.filter(|_| is_unclaimed);
    // Also where a cancel has begun before: the provider says that it had no effect.
    if is_unclaimed && link.cancel_is_requested {
        return unchanged(link, FollowStep::Cancel(CancelReason::Request));
    }
    if policy.cancels_expired && ends.is_some_and(|end| end <= now) {
        return unchanged(link, FollowStep::Cancel(CancelReason::Expiry));
    }
    let is_expiring =
        ends.is_some_and(|end| policy.expiring.is_some_and(|before| end > now && since(now, end) <= before));
    if is_expiring && !link.expiring_is_announced {
        let event = StatusEvent {
            event_type: EventType::Expiring,
            payout_status: PayoutStatus::RequiresFulfillment,
            occurred_at: now,
            error: None,
        };
        let then = ask_again(&Followed { expiring_is_announced: true, ..link.clone() }, policy, now);
        return FollowDecision {
            status: link.status,
            events: vec![event],
            expiring_is_announced: true,
            cancel_had_no_effect: had_no_effect,
            then,
        };
    }
    unchanged(link, ask_again(link, policy, now))
}

fn unchanged(link: &Followed, then: FollowStep) -> FollowDecision {
    FollowDecision {
        status: link.status,
        events: Vec::new(),
        expiring_is_announced: link.expiring_is_announced,
        cancel_had_no_effect: false,
        then,
    }
}

fn ask_again(link: &Followed, policy: &FollowPolicy, now: OffsetDateTime) -> FollowStep {
    match next_question(link, policy, now) {
        Some(after) => FollowStep::Ask { after },
        None => FollowStep::Stop,
    }
}
