//! Proves the protocol of leases, fencing, replay and outbox by trying every order of its steps.
//!
//! Two or three workers share a broker that redelivers and a connector of each replay rule. Workers crash or pause
//! longer than a lease; answers are late or lost. Each worker has one permit, which other jobs use too. A run may
//! have a rate limit, a takeover before the lease ends, and a reason to reject the job. The worker's own
//! `retry::next` decides.
//!
//! Faults are bounded, and every step uses up something finite. So there are finitely many states, the model visits
//! all of them, and every run ends. (A hash of 64 bits distinguishes states.) `rules` has the invariants, `protocol`
//! the functions behind the steps.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

mod admission;
mod broken;
mod choices;
mod flaws;
mod follow;
mod known;
mod protocol;
mod rules;
mod state;
mod steps;

use payout_link_worker::domain::ReplayRule;
use stateright::{Checker, Model};

use protocol::{Protocol, settled};
use state::{Faults, LEASE, TICK};

/// Is short enough to pass while leases expire.
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

const NONE: Faults = Faults {
    crashes: 0,
    pauses: 0,
    losses: 0,
    provider_errors: 0,
    breaks: 0,
    takeovers: 0,
    others: 0,
    waits: 0,
    reasons: 0,
    moves: 0,
};

/// The faults of one run each. The model tries every order of them.
const COMBINED: [Faults; 4] = [
    Faults { crashes: 1, losses: 1, ..NONE },
    Faults { losses: 1, provider_errors: 1, ..NONE },
    Faults { pauses: 1, ..NONE },
    Faults { breaks: 1, ..NONE },
];

/// The same, with full permits and a full rate limit, ended sessions, rejected jobs and takeovers.
const SATURATED: [Faults; 5] = [
    Faults { others: 1, ..NONE },
    Faults { waits: 1, others: 1, ..NONE },
    Faults { takeovers: 1, ..NONE },
    Faults { breaks: 2, ..NONE },
    Faults { breaks: 1, reasons: 1, ..NONE },
];

/// The same, and a worker dies.
const SATURATED_AND_CRASHED: [Faults; 3] = [
    Faults { crashes: 1, others: 1, ..NONE },
    Faults { crashes: 1, waits: 1, ..NONE },
    Faults { crashes: 1, reasons: 1, ..NONE },
];

/// A worker restarts with a configuration that names another account.
const MOVED: [Faults; 3] = [
    Faults { moves: 1, ..NONE },
    Faults { moves: 1, losses: 1, ..NONE },
    Faults { moves: 1, pauses: 1, ..NONE },
];

/// Combinations that take minutes in a release build: `cargo test --release --test model -- --ignored --nocapture`.
const MORE: [Faults; 13] = [
    Faults { moves: 1, takeovers: 1, ..NONE },
    Faults { moves: 2, crashes: 1, ..NONE },
    Faults { others: 2, losses: 1, ..NONE },
    Faults { crashes: 1, takeovers: 1, ..NONE },
    Faults { provider_errors: 1, takeovers: 1, ..NONE },
    Faults { losses: 1, takeovers: 1, ..NONE },
    Faults { pauses: 1, waits: 1, others: 1, ..NONE },
    Faults { crashes: 1, breaks: 1, reasons: 1, ..NONE },
    Faults { crashes: 1, pauses: 1, ..NONE },
    Faults { pauses: 1, losses: 1, ..NONE },
    Faults { crashes: 1, breaks: 1, ..NONE },
    Faults { crashes: 2, losses: 1, ..NONE },
    Faults { crashes: 1, losses: 1, provider_errors: 1, ..NONE },
];

/// Visits every state, checks the rules, and prints the number of states.
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
fn connectors_with_the_same_key_rule() {
    for faults in COMBINED {
        prove(same_key(), 2, faults);
    }
}

#[test]
fn connectors_with_the_same_key_rule_and_a_look_up() {
    for faults in COMBINED {
        prove(same_key_or_look_up(), 2, faults);
    }
}

#[test]
fn connectors_with_the_look_up_rule() {
    for faults in COMBINED {
        prove(look_up(), 2, faults);
    }
}

#[test]
fn connectors_with_the_never_rule() {
    for faults in COMBINED {
        prove(ReplayRule::Never, 2, faults);
    }
}

#[test]
fn full_connectors_and_limits() {
    for rule in [look_up(), ReplayRule::Never] {
        for faults in SATURATED {
            prove(rule, 2, faults);
        }
    }
    // A worker repeats the call of another worker that is still calling.
    prove(same_key(), 2, Faults { takeovers: 1, ..NONE });
}

#[test]
fn a_crash_while_everything_is_full() {
    for rule in [look_up(), ReplayRule::Never] {
        for faults in SATURATED_AND_CRASHED {
            prove(rule, 2, faults);
        }
    }
}

#[test]
fn a_connector_that_names_another_account() {
    for rule in [same_key(), look_up(), ReplayRule::Never] {
        for faults in MOVED {
            prove(rule, 2, faults);
        }
    }
}

/// A record with replay rule `never` may be taken over as long as no call has begun.
#[test]
fn a_record_without_a_begun_call_is_taken_over() {
    for faults in [Faults { takeovers: 1, crashes: 1, ..NONE }, Faults { takeovers: 1, losses: 1, ..NONE }] {
        prove(ReplayRule::Never, 2, faults);
    }
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
        let all = MORE.into_iter().chain(SATURATED).chain(SATURATED_AND_CRASHED).chain(MOVED);
        all.for_each(|faults| prove(rule, 2, faults));
        prove(rule, 3, Faults { crashes: 1, losses: 1, ..NONE });
    }
}

/// Checks that each function that a step names exists.
#[test]
fn every_step_stands_for_a_function() {
    let mut count = 0;
    let steps = [include_str!("protocol.rs"), include_str!("follow/protocol.rs")];
    let named = steps.iter().flat_map(|text| text.split('`'));
    for named in named.filter(|text| text.starts_with("src/")) {
        let (file, function) = named.split_once("::").unwrap();
        let source = std::fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let begins = |letter| source.contains(&format!("fn {function}{letter}"));
        assert!(begins('(') || begins('<'), "{named}");
        count += 1;
    }
    assert!(count >= 30, "{count}");
}
