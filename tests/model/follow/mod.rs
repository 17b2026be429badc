//! Proves the protocol of a link after its creation by trying every order of its steps.
//!
//! A provider changes the link and announces it or not. Followers ask the provider under leases. Requests to cancel come by
//! message and by command. The results of a link are published in order, and its webhooks are delivered in order. As in the worker, `domain::follow::next`
//! decides.
//!
//! Faults and changes are bounded, and every step uses up something finite, as in the model of the creation.

mod broken;
mod choices;
mod flaws;
mod follower;
mod outbox;
mod protocol;
mod requests;
mod rules;
mod state;
mod worker;

use stateright::{Checker, Model};

use protocol::{FollowProtocol, Provider};
use state::{Creation, Faults, Outbox};

const NONE: Faults = Faults {
    changes: 0,
    crashes: 0,
    pauses: 0,
    losses: 0,
    repeats: 0,
    messages: 0,
    commands: 0,
    ends: 0,
    abandons: 0,
    late: 0,
    give_ups: 0,
};

/// The faults and changes of one run each. The model tries every order of them.
const EACH: [Faults; 12] = [
    Faults { changes: 3, ..NONE },
    Faults { changes: 2, crashes: 1, ..NONE },
    Faults { changes: 2, pauses: 1, ..NONE },
    Faults { changes: 1, losses: 1, repeats: 1, ..NONE },
    Faults { changes: 1, messages: 1, crashes: 1, ..NONE },
    Faults { changes: 1, messages: 1, losses: 1, ..NONE },
    Faults { changes: 1, commands: 1, pauses: 1, ..NONE },
    Faults { changes: 1, messages: 2, commands: 1, ..NONE },
    Faults { messages: 1, late: 1, ..NONE },
    Faults { changes: 1, ends: 1, late: 1, ..NONE },
    Faults { changes: 2, abandons: 1, ..NONE },
    Faults { changes: 1, messages: 1, give_ups: 1, losses: 1, ..NONE },
];

/// Combinations that take minutes in a release build.
const MORE: [Faults; 10] = [
    Faults { changes: 2, losses: 1, repeats: 1, ..NONE },
    Faults { changes: 2, messages: 1, losses: 1, ..NONE },
    Faults { changes: 2, commands: 1, pauses: 1, ..NONE },
    Faults { changes: 1, messages: 1, late: 1, ..NONE },
    Faults { changes: 4, crashes: 1, losses: 1, ..NONE },
    Faults { changes: 3, messages: 1, crashes: 1, losses: 1, ..NONE },
    Faults { changes: 3, messages: 2, commands: 1, ..NONE },
    Faults { changes: 2, messages: 1, pauses: 1, crashes: 1, ..NONE },
    Faults { changes: 2, ends: 1, messages: 1, late: 1, crashes: 1, ..NONE },
    Faults { changes: 3, abandons: 1, pauses: 1, ..NONE },
];

/// Faults and changes in runs whose outbox publishes results.
const WITH_RESULTS: [Faults; 6] = [
    Faults { changes: 3, ..NONE },
    Faults { changes: 2, crashes: 1, ..NONE },
    Faults { changes: 2, pauses: 1, ..NONE },
    Faults { changes: 2, losses: 1, ..NONE },
    Faults { changes: 1, losses: 1, pauses: 1, ..NONE },
    Faults { changes: 1, losses: 1, crashes: 1, ..NONE },
];

/// Visits every state of a run with webhooks.
fn prove(creation: Creation, provider: Provider, faults: Faults) {
    prove_with(Outbox::Webhooks, creation, provider, faults);
}

/// Visits every state, checks the rules, and prints the number of states.
fn prove_with(outbox: Outbox, creation: Creation, provider: Provider, faults: Faults) {
    let started = std::time::Instant::now();
    let protocol = FollowProtocol { creation, provider, workers: 2, outbox, faults, flaw: None };
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    println!(
        "{creation:?}, {outbox:?}, {provider:?}, {faults:?}: {} states, {} steps deep, {:.1} s",
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
fn links_whose_provider_announces_changes() {
    for faults in EACH {
        prove(Creation::Created, Provider::ANNOUNCES, faults);
    }
}

#[test]
fn links_whose_provider_is_silent() {
    for faults in EACH {
        prove(Creation::Created, Provider::SILENT, faults);
    }
}

#[test]
fn results_are_published_in_order() {
    for faults in WITH_RESULTS {
        prove_with(Outbox::Results, Creation::Created, Provider::ANNOUNCES, faults);
    }
    for faults in [
        Faults { changes: 2, crashes: 1, ..NONE },
        Faults { changes: 2, pauses: 1, ..NONE },
        Faults { changes: 2, losses: 1, abandons: 1, ..NONE },
    ] {
        prove_with(Outbox::Both, Creation::Created, Provider::SILENT, faults);
    }
}

/// Hyperswitch never ends a link: the worker cancels it and asks again before the cancel counts.
#[test]
fn links_that_the_worker_ends() {
    for faults in EACH {
        prove(Creation::Created, Provider::NEVER_ENDS, faults);
    }
}

/// Xendit has one word for cancelled and expired: the worker reads it by the outcome of its own cancel.
#[test]
fn links_whose_provider_has_one_word_for_two_ends() {
    for faults in [Faults { changes: 3, messages: 1, ..NONE }, Faults { changes: 2, commands: 1, ..NONE }] {
        prove(Creation::Created, Provider::ONE_WORD, faults);
    }
}

#[test]
fn cancels_before_a_call_end_the_record_and_later_ones_wait() {
    for faults in [
        Faults { messages: 1, changes: 1, ..NONE },
        Faults { messages: 1, crashes: 1, ..NONE },
        Faults { messages: 2, losses: 1, ..NONE },
        Faults { messages: 1, commands: 1, ..NONE },
    ] {
        prove(Creation::Uncalled, Provider::ANNOUNCES, faults);
    }
}

#[test]
#[ignore = "minutes"]
fn more_of_everything_after_the_creation() {
    for provider in [Provider::ANNOUNCES, Provider::SILENT, Provider::NEVER_ENDS] {
        EACH.into_iter().chain(MORE).for_each(|faults| prove(Creation::Uncalled, provider, faults));
        for faults in WITH_RESULTS {
            prove_with(Outbox::Both, Creation::Created, provider, faults);
        }
    }
}
