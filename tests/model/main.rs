//! The protocol of leases, fencing, replay and outbox, gone through in every order of its steps: two workers and
//! three, a broker that redelivers, a connector of each replay rule, crashes, pauses longer than a lease, late and
//! lost answers. What is decided is decided by the worker's own `retry::next`.
//!
//! Faults are counted, and every step uses something up: so there are finitely many states, all are looked at, and
//! every run ends. (States are told apart by a hash of 64 bits.) What has to hold is in `rules`, what the steps stand
//! for in `protocol`.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

mod flaws;
mod protocol;
mod rules;
mod state;
mod steps;

use std::time::Duration;

use payout_link_worker::domain::{LookUp, ReplayRule};
use stateright::{Checker, HasDiscoveries, Model};

use flaws::Flaw;
use protocol::{Protocol, settled};
use state::{Faults, LEASE, TICK, TIMEOUT};

/// Short enough to pass while leases run out.
const WINDOW: u8 = 2 * LEASE + 4;

fn same_key() -> ReplayRule {
    ReplayRule::SameKey { window: TICK * WINDOW.into(), look_up: None }
}

fn same_key_or_look_up() -> ReplayRule {
    ReplayRule::SameKey { window: TICK * WINDOW.into(), look_up: Some(settled()) }
}

fn look_up() -> ReplayRule {
    ReplayRule::LookUp(settled())
}

const NONE: Faults = Faults { crashes: 0, pauses: 0, losses: 0, noes: 0, redeliveries: 0 };

/// What may go wrong in one run. All that can happen with it is gone through.
const COMBINED: [Faults; 4] = [
    Faults { crashes: 1, losses: 1, ..NONE },
    Faults { losses: 1, noes: 1, ..NONE },
    Faults { pauses: 1, ..NONE },
    Faults { redeliveries: 1, ..NONE },
];

/// Minutes, in a release build: `cargo test --release --test model -- --ignored --nocapture`.
const MORE: [Faults; 5] = [
    Faults { crashes: 1, pauses: 1, ..NONE },
    Faults { pauses: 1, losses: 1, ..NONE },
    Faults { crashes: 1, redeliveries: 1, ..NONE },
    Faults { crashes: 2, losses: 1, ..NONE },
    Faults { crashes: 1, losses: 1, noes: 1, ..NONE },
];

/// What a flaw is looked for with.
const EACH: Faults = Faults { crashes: 1, pauses: 1, losses: 1, noes: 1, redeliveries: 1 };

/// Looks at every state, and says how many there are.
fn prove(rule: ReplayRule, workers: usize, faults: Faults) {
    let started = std::time::Instant::now();
    let checker = Protocol { rule, workers, faults, flaw: None }.checker().threads(2).spawn_bfs().join();
    println!(
        "{rule:?}, {workers} workers, {faults:?}: {} states, {} steps deep, {:.1} s",
        checker.unique_state_count(),
        checker.max_depth(),
        started.elapsed().as_secs_f32()
    );
    if let Some((broken, path)) = checker.discoveries().into_iter().next() {
        let end = path.last_state().clone();
        panic!("{broken}, after {:?}: {end:#?}", path.into_actions());
    }
    assert!(checker.is_done());
}

#[test]
fn keys_that_can_be_repeated() {
    COMBINED.into_iter().for_each(|faults| prove(same_key(), 2, faults));
}

#[test]
fn keys_that_can_be_repeated_and_then_be_asked_about() {
    COMBINED.into_iter().for_each(|faults| prove(same_key_or_look_up(), 2, faults));
}

#[test]
fn links_that_can_be_asked_about() {
    COMBINED.into_iter().for_each(|faults| prove(look_up(), 2, faults));
}

#[test]
fn links_that_cannot_be_asked_about() {
    COMBINED.into_iter().for_each(|faults| prove(ReplayRule::Never, 2, faults));
}

#[test]
fn three_workers() {
    for rule in [same_key(), look_up(), ReplayRule::Never] {
        prove(rule, 3, Faults { crashes: 1, ..NONE });
    }
}

#[test]
#[ignore = "minutes"]
fn more_of_everything() {
    for rule in [same_key(), same_key_or_look_up(), look_up(), ReplayRule::Never] {
        MORE.into_iter().for_each(|faults| prove(rule, 2, faults));
        prove(rule, 3, Faults { crashes: 1, losses: 1, ..NONE });
    }
}

/// Prints the shortest way into the ditch.
fn fails(flaw: Flaw, rule: ReplayRule, expected: &str) {
    let protocol = Protocol { rule, workers: 2, faults: EACH, flaw: Some(flaw) };
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
fn without_fencing_a_refusal_is_concluded_beside_a_call() {
    fails(Flaw::NoFencing, look_up(), "R4");
}

#[test]
fn a_new_key_for_every_attempt_makes_a_second_link() {
    fails(Flaw::NewKeyPerAttempt, same_key(), "R2");
}

#[test]
fn a_repeat_without_asking_makes_a_second_link() {
    fails(Flaw::RepeatsUnasked, look_up(), "R2");
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
fn a_doubt_that_is_forgotten_makes_a_second_link() {
    fails(Flaw::DoubtForgotten, ReplayRule::Never, "R2");
}

#[test]
fn a_call_sent_after_its_lease_makes_a_second_link() {
    fails(Flaw::LeaseNotLookedAt, look_up(), "R2");
}

#[test]
fn a_decision_that_has_aged_repeats_a_key_that_is_forgotten() {
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
fn a_new_id_for_every_telling_cannot_be_told_from_another_event() {
    fails(Flaw::NewEventId, same_key(), "R6");
}

/// The model cannot go on about functions that are no more.
#[test]
fn every_step_stands_for_a_function() {
    let mut count = 0;
    for named in include_str!("protocol.rs").split('`').filter(|text| text.starts_with("src/")) {
        let (file, function) = named.split_once("::").unwrap();
        let source = std::fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        assert!(source.contains(&format!("fn {function}(")), "{named}");
        count += 1;
    }
    assert!(count >= 15, "{count}");
}
