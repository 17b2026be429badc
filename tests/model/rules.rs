//! Lists the invariants of every reachable state.

use payout_link_worker::domain::ReplayRule;
use stateright::Model;

use crate::{
    protocol::Protocol,
    state::{Doing, Message, NOW, State, System, TIMEOUT},
};

type Rule = fn(&Protocol, &System) -> bool;

pub const ALL: [(&str, Rule); 11] = [
    ("R1 an acknowledged job has a record or is rejected", |_, system| {
        system.message != Message::Gone || system.row.is_some() || system.is_rejected
    }),
    ("R2 a record has at most one link", |_, system| system.links.len() <= 1),
    ("R3 a created record names a link of the connector", |_, system| match state(system) {
        Some(State::Created { link }) => usize::from(link) < system.links.len(),
        _ => true,
    }),
    ("R4 a failed record has no link", |_, system| {
        state(system) != Some(State::Failed) || system.links.is_empty()
    }),
    ("R5 a record is unknown only if its replay rule cannot resolve it", |_, system| match state(system) {
        Some(State::Unknown { is_justified }) => is_justified,
        _ => true,
    }),
    ("R5b an outcome is unknown only if a call began and its outcome is not recorded", |_, system| {
        system.row.as_ref().is_none_or(|row| {
            row.is_unsettled || !(row.is_in_doubt || matches!(row.state, State::Unknown { .. }))
        })
    }),
    ("R5c a record does not become unknown while its answer can still arrive", |protocol, system| {
        protocol.rule != ReplayRule::Never
            || !matches!(state(system), Some(State::Unknown { .. }))
            || !system.workers.iter().any(
                |worker| matches!(worker.doing, Doing::Calling { sent_at, .. } if NOW < sent_at + TIMEOUT),
            )
    }),
    ("R5d no worker discards an answer while it holds the open record", |_, system| {
        !system.discarded_an_answer
    }),
    (
        "R6 a record has one result, under its event's id, which the broker has before the event counts as published",
        |_, system| {
            let event = system.row.as_ref().and_then(|row| row.event);
            system.results.len() <= 1
                && event.is_none_or(|event| !event.is_published || system.results == [event.id])
        },
    ),
    ("R9 no job is both rejected and accepted", |_, system| !system.is_rejected || system.row.is_none()),
    // Every step uses up something finite, so every run ends. Where it ends, nothing may be left open.
    ("R10 every run ends with nothing left to do", |protocol, system| {
        let mut steps = Vec::new();
        protocol.actions(system, &mut steps);
        !steps.is_empty() || system.is_quiet()
    }),
];

fn state(system: &System) -> Option<State> {
    system.row.as_ref().map(|row| row.state)
}
