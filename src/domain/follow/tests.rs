use std::time::Duration;

use time::{OffsetDateTime, macros::datetime};

use super::*;

const NOW: OffsetDateTime = datetime!(2026-12-02 00:00 UTC);
const MINUTE: Duration = Duration::from_mins(1);

const POLICY: FollowPolicy = FollowPolicy {
    min_interval: MINUTE,
    max_interval: Duration::from_hours(1),
    expiring: None,
    cancels_expired: false,
    confirm_cancel: Duration::ZERO,
    watch_reversals: Duration::from_hours(7 * 24),
};
/// A provider that never ends a link, and takes claims that were submitted before a cancel.
const NEVER_ENDS: FollowPolicy =
    FollowPolicy { cancels_expired: true, confirm_cancel: Duration::from_mins(3), ..POLICY };

pub(super) fn link(status: LinkStatus) -> Followed {
    Followed {
        status,
        changed_at: datetime!(2026-12-01 00:00 UTC),
        expires_at: None,
        expiring_is_announced: false,
        cancel_is_requested: false,
        cancelled: None,
        failures: 0,
    }
}

fn report(status: LinkStatus) -> LinkReport {
    LinkReport {
        status: Some(status),
        provider_status: status.as_str().into(),
        payout_status: status.payout_status(PayoutStatus::Pending),
        occurred_at: None,
        expires_at: None,
        provider_payout_id: None,
        error: None,
        status_code: 200,
    }
}

fn reported(link: &Followed, report: LinkReport, policy: &FollowPolicy) -> FollowDecision {
    next(link, &LinkAnswer::Reported(report), policy, NOW)
}

fn types(decision: &FollowDecision) -> Vec<&'static str> {
    decision.events.iter().map(|event| event.event_type.as_str().trim_start_matches("payout_link.")).collect()
}

/// Every status followed by every report: the events.
#[test]
fn every_transition_has_its_events() {
    use LinkStatus::{Cancelled, Claimed, Expired, PayoutFailed, Processing, Reversed, Succeeded, Unclaimed};
    let expected = |from, to| -> &[&str] {
        match (from, to) {
            (Unclaimed, Claimed) => &["claimed"],
            (Unclaimed, Processing) => &["claimed", "processing"],
            (Unclaimed, Succeeded) => &["claimed", "succeeded"],
            (Claimed, Processing) => &["processing"],
            (Claimed | Processing, Unclaimed) => &["reopened"],
            (Claimed | Processing | Cancelled | Expired, Succeeded) => &["succeeded"],
            (Unclaimed | Claimed | Processing, PayoutFailed) => &["payout_failed"],
            (Unclaimed | Claimed | Processing, Expired) => &["expired"],
            (Unclaimed | Claimed | Processing, Cancelled) => &["cancelled"],
            (Unclaimed | Claimed | Processing | Succeeded, Reversed) => &["reversed"],
            _ => &[],
        }
    };
    for from in LinkStatus::ALL {
        for to in LinkStatus::ALL {
            let decision = reported(&link(from), report(to), &POLICY);
            assert_eq!(types(&decision), expected(from, to), "{from}, then {to}");
            let after = if decision.events.is_empty() { from } else { to };
            assert_eq!(decision.status, after, "{from}, then {to}");
            let stops = after.is_final();
            assert_eq!(decision.then == FollowStep::Stop, stops, "{from}, then {to}: {:?}", decision.then);
        }
    }
}

#[test]
fn a_status_that_nobody_knows_changes_nothing_and_is_asked_about_again() {
    for status in [LinkStatus::Unclaimed, LinkStatus::Claimed, LinkStatus::Processing] {
        let unknown = LinkReport { status: None, provider_status: "frozen".into(), ..report(status) };
        let decision = reported(&link(status), unknown, &POLICY);
        assert_eq!((decision.status, decision.events.len()), (status, 0));
        assert!(matches!(decision.then, FollowStep::Ask { .. }), "{decision:?}");
    }
}

#[test]
fn an_event_has_the_providers_time_and_a_failure_its_reason() {
    let occurred_at = datetime!(2026-12-01 12:00 UTC);
    let error = ConnectorError::new(200, Some("ACCOUNT_CLOSED"), "the account is closed", None);
    let failed = LinkReport {
        occurred_at: Some(occurred_at),
        error: Some(error.clone()),
        ..report(LinkStatus::PayoutFailed)
    };
    let decision = reported(&link(LinkStatus::Claimed), failed.clone(), &POLICY);
    let expected = StatusEvent {
        event_type: EventType::PayoutFailed,
        payout_status: PayoutStatus::Failed,
        occurred_at,
        error: Some(error),
    };
    assert_eq!(decision.events, [expected]);
    let paid = LinkReport { error: failed.error, ..report(LinkStatus::Succeeded) };
    for event in reported(&link(LinkStatus::Unclaimed), paid, &POLICY).events {
        assert_eq!((event.occurred_at, event.error), (NOW, None));
    }
}

#[test]
fn questions_without_an_answer_end_nothing_and_become_rarer() {
    let error = ConnectorError::unanswered("timed out");
    for (failures, retry_after, minutes) in
        [(0, None, 1), (1, None, 2), (5, None, 32), (6, None, 60), (40, None, 60), (0, Some(5), 5)]
    {
        let asked = Followed { failures, ..link(LinkStatus::Claimed) };
        let retry_after = retry_after.map(|minutes| minutes * MINUTE);
        let answer = LinkAnswer::Unanswered { error: error.clone(), retry_after };
        let decision = next(&asked, &answer, &POLICY, NOW);
        assert_eq!((decision.status, decision.events.len()), (LinkStatus::Claimed, 0));
        assert_eq!(decision.then, FollowStep::Ask { after: minutes * MINUTE }, "{failures}");
    }
    let missing =
        next(&link(LinkStatus::Unclaimed), &LinkAnswer::NotFound { status_code: 404 }, &POLICY, NOW);
    assert_eq!((missing.events.len(), missing.then), (0, FollowStep::Ask { after: POLICY.max_interval }));
}

#[test]
fn a_link_expires_when_the_provider_says_so_and_not_by_the_clock() {
    let over = Followed { expires_at: Some(NOW - MINUTE), ..link(LinkStatus::Unclaimed) };
    let decision = reported(&over, report(LinkStatus::Unclaimed), &POLICY);
    assert_eq!((decision.events.len(), decision.then), (0, FollowStep::Ask { after: MINUTE }));
    assert_eq!(types(&reported(&over, report(LinkStatus::Expired), &POLICY)), ["expired"]);
    // The provider moved the end.
    let moved = LinkReport {
        expires_at: Some(NOW + 86_400 * Duration::from_secs(1)),
        ..report(LinkStatus::Unclaimed)
    };
    assert!(matches!(reported(&over, moved, &NEVER_ENDS).then, FollowStep::Ask { .. }));
}

#[test]
fn a_link_that_the_provider_never_ends_is_cancelled_and_confirmed_before_it_counts_as_expired() {
    let over = Followed { expires_at: Some(NOW - MINUTE), ..link(LinkStatus::Unclaimed) };
    let decision = reported(&over, report(LinkStatus::Unclaimed), &NEVER_ENDS);
    assert_eq!((decision.events.len(), decision.then), (0, FollowStep::Cancel(CancelReason::Expiry)));

    let just_cancelled = Followed { cancelled: Some((NOW - MINUTE, CancelReason::Expiry)), ..over.clone() };
    let decision = reported(&just_cancelled, report(LinkStatus::Cancelled), &NEVER_ENDS);
    assert_eq!((decision.events.len(), decision.then), (0, FollowStep::Ask { after: 2 * MINUTE }));

    let confirmed = Followed { cancelled: Some((NOW - 3 * MINUTE, CancelReason::Expiry)), ..over };
    assert_eq!(types(&reported(&confirmed, report(LinkStatus::Cancelled), &NEVER_ENDS)), ["expired"]);
    // The claim was on its way: the provider's word counts.
    assert_eq!(
        types(&reported(&confirmed, report(LinkStatus::Processing), &NEVER_ENDS)),
        ["claimed", "processing"]
    );
    assert_eq!(
        types(&reported(&confirmed, report(LinkStatus::Succeeded), &NEVER_ENDS)),
        ["claimed", "succeeded"]
    );
}

#[test]
fn a_requested_cancel_is_carried_out_while_nobody_has_claimed() {
    let requested = |status| Followed { cancel_is_requested: true, ..link(status) };
    let decision = reported(&requested(LinkStatus::Unclaimed), report(LinkStatus::Unclaimed), &POLICY);
    assert_eq!(decision.then, FollowStep::Cancel(CancelReason::Request));
    // The claim came first.
    let decision = reported(&requested(LinkStatus::Unclaimed), report(LinkStatus::Claimed), &POLICY);
    assert_eq!((types(&decision), decision.status), (vec!["claimed"], LinkStatus::Claimed));
    assert!(matches!(decision.then, FollowStep::Ask { .. }));
    let begun =
        Followed { cancelled: Some((NOW, CancelReason::Request)), ..requested(LinkStatus::Unclaimed) };
    assert_eq!(types(&reported(&begun, report(LinkStatus::Cancelled), &POLICY)), ["cancelled"]);
    // It had no effect, and the link expired.
    assert_eq!(types(&reported(&begun, report(LinkStatus::Expired), &POLICY)), ["expired"]);
}

#[test]
fn a_cancel_on_request_is_forgotten_once_the_link_can_be_claimed_after_it() {
    let begun = |reason| Followed { cancelled: Some((NOW, reason)), ..link(LinkStatus::Unclaimed) };
    let is_forgotten = |link: &Followed, status| reported(link, report(status), &POLICY).cancel_had_no_effect;
    assert!(is_forgotten(&begun(CancelReason::Request), LinkStatus::Unclaimed));
    assert!(!is_forgotten(&begun(CancelReason::Request), LinkStatus::Cancelled));
    // A link whose time is over expires, also if its worker ends it.
    assert!(!is_forgotten(&begun(CancelReason::Expiry), LinkStatus::Unclaimed));
    let unanswered = LinkAnswer::Unanswered { error: ConnectorError::unanswered(""), retry_after: None };
    assert!(!next(&begun(CancelReason::Request), &unanswered, &POLICY, NOW).cancel_had_no_effect);
}

#[test]
fn the_warning_before_the_end_is_announced_once_and_only_where_it_is_configured() {
    let hour = Duration::from_hours(1);
    let policy = FollowPolicy { expiring: Some(24 * hour), ..POLICY };
    let soon = Followed { expires_at: Some(NOW + 23 * hour), ..link(LinkStatus::Unclaimed) };
    let decision = reported(&soon, report(LinkStatus::Unclaimed), &policy);
    assert_eq!((types(&decision), decision.expiring_is_announced), (vec!["expiring"], true));
    assert_eq!(decision.status, LinkStatus::Unclaimed);
    assert_eq!(decision.events[0].payout_status, PayoutStatus::RequiresFulfillment);
    for (link, policy) in [
        (Followed { expiring_is_announced: true, ..soon.clone() }, &policy),
        (soon.clone(), &POLICY),
        (Followed { expires_at: Some(NOW + 25 * hour), ..soon.clone() }, &policy),
        (Followed { expires_at: Some(NOW - hour), ..soon.clone() }, &policy),
        (Followed { expires_at: None, ..soon }, &policy),
    ] {
        assert!(types(&reported(&link, report(LinkStatus::Unclaimed), policy)).is_empty(), "{link:?}");
    }
}
