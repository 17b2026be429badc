//! Removes each guard once and checks that the model finds a violation of the expected rule.

use stateright::{Checker, HasDiscoveries, Model};

use super::{
    NONE,
    flaws::FollowFlaw,
    protocol::{FollowProtocol, Provider},
    state::{Creation, Faults, Outbox},
};

/// Checks that the flaw breaks the rule, and prints the shortest run that does.
fn fails(flaw: FollowFlaw, faults: Faults, expected: &str) {
    fails_with(flaw, Creation::Created, Provider::ANNOUNCES, faults, expected);
}

fn fails_with(flaw: FollowFlaw, creation: Creation, provider: Provider, faults: Faults, expected: &str) {
    finds(
        &FollowProtocol {
            creation,
            provider,
            workers: 2,
            outbox: Outbox::Webhooks,
            faults,
            flaw: Some(flaw),
        },
        expected,
    );
}

/// Checks that the flaw breaks the rule in a run with results.
fn fails_with_results(flaw: FollowFlaw, faults: Faults, expected: &str) {
    let (creation, provider, outbox) = (Creation::Created, Provider::ANNOUNCES, Outbox::Results);
    finds(&FollowProtocol { creation, provider, workers: 2, outbox, faults, flaw: Some(flaw) }, expected);
}

fn finds(protocol: &FollowProtocol, expected: &str) {
    let flaw = protocol.flaw.unwrap();
    let checker = protocol.clone().checker().threads(1).finish_when(HasDiscoveries::Any).spawn_bfs().join();
    let found = checker.discoveries();
    let seen: Vec<&str> = found.keys().copied().collect();
    let (broken, path) = found
        .into_iter()
        .find(|(broken, _)| broken.split(' ').next() == Some(expected))
        .unwrap_or_else(|| panic!("{seen:?}"));
    println!("{flaw:?}: {broken}, after {:?}", path.into_actions());
}

#[test]
fn without_a_fence_a_change_is_announced_twice() {
    fails(FollowFlaw::NoFencing, Faults { changes: 1, pauses: 1, ..NONE }, "F1");
}

#[test]
fn a_status_that_is_not_compared_is_announced_again() {
    fails(FollowFlaw::StatusNotCompared, Faults { changes: 1, repeats: 1, ..NONE }, "F1");
}

#[test]
fn a_final_status_that_may_change_is_followed_by_another_event() {
    let faults = Faults { changes: 2, late: 1, ..NONE };
    fails_with(FollowFlaw::FinalChanges, Creation::Created, Provider::ANNOUNCES, faults, "F3");
}

#[test]
fn a_webhook_that_does_not_wait_overtakes_the_previous_one() {
    fails(FollowFlaw::PreviousNotFirst, Faults { changes: 1, ..NONE }, "F4");
}

#[test]
fn a_result_that_does_not_wait_overtakes_the_previous_one() {
    fails_with_results(FollowFlaw::PreviousResultNotFirst, Faults { changes: 1, ..NONE }, "F12");
}

#[test]
fn a_result_that_counts_before_its_confirm_is_overtaken_or_lost() {
    fails_with_results(FollowFlaw::ResultNotConfirmed, Faults { changes: 1, losses: 1, ..NONE }, "F12");
}

#[test]
fn a_webhook_that_nobody_wakes_is_never_delivered() {
    for flaw in [FollowFlaw::NextNotWoken, FollowFlaw::NextNotNamed] {
        fails(flaw, Faults { changes: 1, ..NONE }, "F10");
    }
}

#[test]
fn a_webhook_woken_by_a_write_of_its_own_is_lost_to_a_crash() {
    fails(FollowFlaw::NextWokenApart, Faults { changes: 1, crashes: 1, ..NONE }, "F10");
}

#[test]
fn an_abandoned_webhook_that_wakes_no_other_blocks_it() {
    fails(FollowFlaw::AbandonedBlocks, Faults { changes: 1, abandons: 1, ..NONE }, "F10");
}

#[test]
fn a_webhook_posted_after_its_lease_arrives_too_late() {
    let faults = Faults { changes: 1, pauses: 1, abandons: 1, ..NONE };
    fails(FollowFlaw::LeaseNotChecked, faults, "F4");
}

#[test]
fn an_event_apart_from_its_status_is_lost() {
    fails(FollowFlaw::EventApart, Faults { changes: 1, crashes: 1, ..NONE }, "F5");
}

#[test]
fn a_webhook_that_is_ignored_during_a_question_hides_a_late_payout() {
    let faults = Faults { changes: 1, late: 1, ..NONE };
    fails(FollowFlaw::WebhookDuringAQuestionIgnored, faults, "F8");
}

#[test]
fn a_cancel_that_does_not_wait_is_answered_wrongly() {
    let faults = Faults { messages: 1, ..NONE };
    let flaw = FollowFlaw::CancelDoesNotWait;
    fails_with(flaw, Creation::UnderWay, Provider::ANNOUNCES, faults, "F7");
}

#[test]
fn a_cancel_during_the_call_leaves_a_link_behind() {
    let flaw = FollowFlaw::CancelDuringTheCall;
    fails_with(flaw, Creation::Uncalled, Provider::SILENT, Faults { messages: 1, ..NONE }, "F11");
}

#[test]
fn a_cancel_that_is_not_verified_hides_a_claim() {
    fails(FollowFlaw::CancelNotVerified, Faults { changes: 1, messages: 1, ..NONE }, "F1");
}

#[test]
fn a_stored_cancel_without_effect_turns_an_expiry_into_a_cancel() {
    let faults = Faults { changes: 1, messages: 1, ..NONE };
    let flaw = FollowFlaw::CancelWithoutEffectStored;
    fails_with(flaw, Creation::Created, Provider::ONE_WORD, faults, "F1");
}

#[test]
fn a_cancel_that_is_answered_early_is_answered_wrongly() {
    fails(FollowFlaw::AnsweredEarly, Faults { messages: 1, ..NONE }, "F7");
}

#[test]
fn a_request_deleted_before_its_answer_is_lost() {
    fails(FollowFlaw::DeletedBeforeItsAnswer, Faults { messages: 1, crashes: 1, ..NONE }, "F10");
}

#[test]
fn a_link_that_expires_by_the_workers_clock_was_claimed() {
    fails(FollowFlaw::OwnClock, Faults { changes: 1, ends: 1, ..NONE }, "F1");
}
