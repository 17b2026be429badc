//! Removes each guard once and checks that the model finds a violation of the expected rule.

use std::time::Duration;

use payout_link_worker::domain::{LookUp, ReplayRule};
use stateright::{Checker, HasDiscoveries, Model};

use crate::{
    NONE,
    flaws::Flaw,
    look_up,
    protocol::Protocol,
    same_key,
    state::{Faults, TICK, TIMEOUT},
};

/// Bounds the faults of a test that names none.
const EACH: Faults = Faults { crashes: 1, pauses: 1, losses: 1, provider_errors: 1, ..NONE };

/// Checks that the flaw breaks the rule, and prints the shortest run that does.
fn fails(flaw: Flaw, rule: ReplayRule, expected: &str) {
    fails_with(flaw, rule, 2, EACH, expected);
}

fn fails_with(flaw: Flaw, rule: ReplayRule, workers: usize, faults: Faults, expected: &str) {
    let protocol = Protocol { rule, workers, faults, flaw: Some(flaw) };
    let checker = protocol.checker().threads(1).finish_when(HasDiscoveries::Any).spawn_bfs().join();
    let found = checker.discoveries();
    let seen: Vec<&str> = found.keys().copied().collect();
    let (broken, path) = found
        .into_iter()
        .find(|(broken, _)| broken.starts_with(expected))
        .unwrap_or_else(|| panic!("{seen:?}"));
    println!("{flaw:?}: {broken}, after {:?}", path.into_actions());
}

#[test]
fn a_job_acknowledged_before_its_commit_is_lost() {
    fails(Flaw::AcknowledgedBeforeCommit, same_key(), "R1");
}

#[test]
fn without_fencing_a_decline_is_concluded_beside_a_call() {
    fails(Flaw::NoFencing, look_up(), "R4");
}

#[test]
fn a_new_key_for_every_attempt_makes_a_second_link() {
    fails(Flaw::NewKeyPerAttempt, same_key(), "R2");
}

#[test]
fn a_repeat_without_a_look_up_makes_a_second_link() {
    fails(Flaw::RepeatsWithoutLookUp, look_up(), "R2");
}

#[test]
fn without_a_settle_time_a_call_under_way_is_taken_for_none() {
    fails(Flaw::NoSettleTime, ReplayRule::LookUp(LookUp { settle: Duration::ZERO }), "R2");
}

#[test]
fn a_settle_time_within_the_lease_is_too_short() {
    let settle = TICK * (TIMEOUT + 1).into();
    fails(Flaw::SettledWithinTheLease, ReplayRule::LookUp(LookUp { settle }), "R2");
}

#[test]
fn an_expired_lease_that_is_ignored_makes_a_second_link() {
    fails(Flaw::ExpiredLeaseIgnored, ReplayRule::Never, "R2");
}

#[test]
fn a_call_sent_after_its_lease_makes_a_second_link() {
    fails(Flaw::LeaseNotChecked, look_up(), "R2");
}

#[test]
fn an_old_decision_repeats_a_key_after_its_window() {
    fails(Flaw::StaleDecision, same_key(), "R2");
}

#[test]
fn an_event_apart_from_its_conclusion_is_lost() {
    fails(Flaw::EventApart, same_key(), "R10");
}

#[test]
fn a_result_that_is_not_confirmed_is_lost() {
    fails(Flaw::PublishedUnconfirmed, same_key(), "R6");
}

#[test]
fn a_new_id_for_every_publish_gives_one_event_two_results() {
    fails(Flaw::NewEventId, same_key(), "R6");
}

#[test]
fn with_permits_that_are_not_returned_a_record_waits_for_ever() {
    let faults = Faults { losses: 1, ..NONE };
    fails_with(Flaw::PermitNotReturned, look_up(), 1, faults, "R10");
}

#[test]
fn with_new_work_first_a_parked_record_waits_for_ever() {
    let faults = Faults { others: 2, ..NONE };
    fails_with(Flaw::NewWorkFirst, same_key(), 2, faults, "R10");
}

#[test]
fn a_lease_before_the_rate_limit_makes_an_uncalled_record_unknown() {
    let faults = Faults { pauses: 1, waits: 1, ..NONE };
    fails_with(Flaw::LeasedBeforeLetThrough, ReplayRule::Never, 2, faults, "R5b");
}

#[test]
fn a_claim_that_always_makes_unknown_does_so_to_an_uncalled_record() {
    for rule in [ReplayRule::Never, look_up()] {
        let faults = Faults { crashes: 1, others: 2, ..NONE };
        fails_with(Flaw::EveryClaimMakesUnknown, rule, 2, faults, "R5b");
    }
}

#[test]
fn a_call_that_leaves_its_claim_uncalled_makes_a_second_link() {
    for rule in [ReplayRule::Never, look_up()] {
        let faults = Faults { crashes: 1, others: 2, ..NONE };
        fails_with(Flaw::CallNotRecorded, rule, 2, faults, "R2");
    }
}

#[test]
fn a_takeover_that_clears_the_holder_makes_a_second_link() {
    let faults = Faults { takeovers: 1, ..NONE };
    fails_with(Flaw::TakeoverClearsHolder, look_up(), 2, faults, "R2");
}

#[test]
fn a_takeover_that_settles_at_once_makes_a_second_link() {
    let faults = Faults { takeovers: 1, ..NONE };
    fails_with(Flaw::TakenOverAsSettled, look_up(), 2, faults, "R2");
}

#[test]
fn a_takeover_under_the_same_claim_concludes_a_decline_beside_a_call() {
    let faults = Faults { takeovers: 1, provider_errors: 1, ..NONE };
    fails_with(Flaw::TakenOverUnderTheSameClaim, same_key(), 2, faults, "R4");
}

#[test]
fn a_takeover_without_a_replay_rule_is_unknown_before_the_answer_comes() {
    let faults = Faults { takeovers: 1, ..NONE };
    fails_with(Flaw::TakenOverWithoutReplay, ReplayRule::Never, 2, faults, "R5c");
}

#[test]
fn a_conclusion_abandoned_at_the_end_of_the_lease_loses_a_link() {
    let faults = Faults { pauses: 1, ..NONE };
    fails_with(Flaw::ConclusionGivenUp, ReplayRule::Never, 1, faults, "R5d");
}

#[test]
fn an_acknowledgement_of_an_ended_session_loses_a_job() {
    let faults = Faults { breaks: 1, ..NONE };
    fails_with(Flaw::StaleAcknowledgement, same_key(), 2, faults, "R1");
}

#[test]
fn a_session_that_nothing_wakes_leaves_its_deliveries_unread() {
    let faults = Faults { breaks: 1, ..NONE };
    fails_with(Flaw::SessionNotWoken, same_key(), 2, faults, "R10");
}

#[test]
fn a_job_that_is_rejected_without_a_search_may_have_its_record() {
    let faults = Faults { crashes: 1, reasons: 1, ..NONE };
    fails_with(Flaw::RejectedWithoutSearch, same_key(), 2, faults, "R9");
}

#[test]
fn a_job_that_is_rejected_beside_a_write_may_get_its_record() {
    let faults = Faults { breaks: 1, reasons: 1, ..NONE };
    fails_with(Flaw::RejectedBesideAWrite, same_key(), 2, faults, "R9");
}

#[test]
fn an_accept_that_counts_the_first_call_makes_an_uncalled_outcome_unknown() {
    let faults = Faults { crashes: 1, ..NONE };
    fails_with(Flaw::AcceptedAsCalled, ReplayRule::Never, 2, faults, "R5b");
}

#[test]
fn a_first_call_without_a_write_of_its_own_makes_a_second_link() {
    for faults in [Faults { takeovers: 1, ..NONE }, Faults { crashes: 1, ..NONE }] {
        fails_with(Flaw::FirstCallNotRecorded, ReplayRule::Never, 2, faults, "R2");
    }
}

#[test]
fn an_account_that_is_not_stored_makes_a_second_link_in_another_one() {
    for rule in [same_key(), look_up()] {
        let faults = Faults { moves: 1, ..NONE };
        fails_with(Flaw::AccountNotStored, rule, 2, faults, "R2");
    }
}
