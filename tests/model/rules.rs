//! The invariants of every reachable state.

use payout_link_worker::domain::ReplayRule;
use stateright::Model;

use crate::{
    protocol::Protocol,
    state::{Doing, Message, NOW, State, System, TIMEOUT},
};

type Rule = fn(&Protocol, &System) -> bool;

pub const ALL: [(&str, Rule); 11] = [
    ("R1 a job that is acknowledged has its record, or is rejected", |_, system| {
        system.message != Message::Gone || system.row.is_some() || system.is_rejected
    }),
    ("R2 one link at most", |_, system| system.links.len() <= 1),
    ("R3 a created record's link is the connector's", |_, system| match state(system) {
        Some(State::Created { link }) => usize::from(link) < system.links.len(),
        _ => true,
    }),
    ("R4 a failed record has no link", |_, system| {
        state(system) != Some(State::Failed) || system.links.is_empty()
    }),
    ("R5 unknown only where there is no other way", |_, system| match state(system) {
        Some(State::Unknown { is_justified }) => is_justified,
        _ => true,
    }),
    ("R5b doubt only where a call was begun and its outcome is not written down", |_, system| {
        system.row.as_ref().is_none_or(|row| {
            row.is_unsettled || !(row.is_in_doubt || matches!(row.state, State::Unknown { .. }))
        })
    }),
    ("R5c never unknown while the answer can come", |protocol, system| {
        protocol.rule != ReplayRule::Never
            || !matches!(state(system), Some(State::Unknown { .. }))
            || !system.workers.iter().any(
                |worker| matches!(worker.doing, Doing::Calling { sent_at, .. } if NOW < sent_at + TIMEOUT),
            )
    }),
    ("R5d no answer is given up while its record is open", |_, system| !system.gave_up),
    ("R6 one event under one id, published before it counts as told", |_, system| {
        let event = system.row.as_ref().and_then(|row| row.event);
        system.results.len() <= 1
            && event.is_none_or(|event| !event.is_published || system.results == [event.id])
    }),
    ("R9 rejected, or accepted", |_, system| !system.is_rejected || system.row.is_none()),
    // Every step uses something up, so that every run ends: where it ends, nothing may be left open.
    ("R10 everything comes to rest", |protocol, system| {
        let mut steps = Vec::new();
        protocol.actions(system, &mut steps);
        !steps.is_empty() || system.is_quiet()
    }),
];

fn state(system: &System) -> Option<State> {
    system.row.as_ref().map(|row| row.state)
}
