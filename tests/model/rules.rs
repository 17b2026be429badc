//! What has to hold in every state that can be reached.

use payout_link_worker::domain::ReplayRule;
use stateright::Model;

use crate::{
    protocol::Protocol,
    state::{Doing, Message, NOW, State, TIMEOUT, World},
};

type Rule = fn(&Protocol, &World) -> bool;

pub const ALL: [(&str, Rule); 11] = [
    ("R1 a job that is acknowledged has its record, or is rejected", |_, world| {
        world.message != Message::Gone || world.row.is_some() || world.is_rejected
    }),
    ("R2 one link at most", |_, world| world.links.len() <= 1),
    ("R3 a created record's link is the connector's", |_, world| match state(world) {
        Some(State::Created { link }) => usize::from(link) < world.links.len(),
        _ => true,
    }),
    ("R4 a failed record has no link", |_, world| {
        state(world) != Some(State::Failed) || world.links.is_empty()
    }),
    ("R5 unknown only where there is no other way", |protocol, world| match state(world) {
        Some(State::Unknown { is_justified }) => {
            is_justified && !matches!(protocol.rule, ReplayRule::LookUp(_))
        }
        _ => true,
    }),
    ("R5b doubt only where a call was begun and its outcome is not written down", |_, world| {
        world.row.as_ref().is_none_or(|row| {
            row.is_unsettled || !(row.is_in_doubt || matches!(row.state, State::Unknown { .. }))
        })
    }),
    ("R5c never unknown while the answer can come", |protocol, world| {
        protocol.rule != ReplayRule::Never
            || !matches!(state(world), Some(State::Unknown { .. }))
            || !world.workers.iter().any(
                |worker| matches!(worker.doing, Doing::Calling { sent_at, .. } if NOW < sent_at + TIMEOUT),
            )
    }),
    ("R5d no answer is given up while its record is open", |_, world| !world.gave_up),
    ("R6 one event under one id, published before it counts as told", |_, world| {
        let event = world.row.as_ref().and_then(|row| row.event);
        world.results.len() <= 1
            && event.is_none_or(|event| !event.is_published || world.results == [event.id])
    }),
    ("R9 rejected, or accepted", |_, world| !world.is_rejected || world.row.is_none()),
    // Every step uses something up, so that every run ends: where it ends, nothing may be left open.
    ("R10 everything comes to rest", |protocol, world| {
        let mut steps = Vec::new();
        protocol.actions(world, &mut steps);
        !steps.is_empty() || world.is_quiet()
    }),
];

fn state(world: &World) -> Option<State> {
    world.row.as_ref().map(|row| row.state)
}
