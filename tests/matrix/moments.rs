//! Decides which chunks of an undisturbed run are moments of their own: at every other chunk, a fault finds and leaves
//! the same state as at one of these.

use std::collections::HashSet;

use crate::{
    plan::Mode,
    proxy::{Chunk, Service},
    words::{self, PING},
};

/// The effect of a chunk on the state outside the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// The chunk can change that state, or is the answer to such a chunk.
    Change,
    /// The chunk reads, prepares or connects, or its statement finds nothing to change.
    None,
}

/// Returns for each chunk of a run whether a fault of this mode has its own moment there.
///
/// A process that dies loses only what is outside it. To die at a chunk without effect is to die before the next chunk
/// that has one. A connection that fails, and a request to stop, meet the process itself: for them, chunks without
/// effect count too, but a chunk with the same words only once. The last chunk of each service always counts, because
/// the whole matrix continues from there.
pub fn of(mode: Mode, passed: &[Chunk]) -> Vec<bool> {
    let effects = effects(passed);
    let mut seen = HashSet::new();
    let mut is_moment: Vec<bool> = std::iter::zip(passed, effects)
        .map(|(chunk, effect)| match (mode, effect) {
            (_, Effect::Change) => true,
            (Mode::Reset | Mode::Silence, Effect::None) => {
                // No answer to a ping is missed before the ping.
                let is_answer = chunk.words.starts_with("<-") && chunk.words.ends_with(PING);
                !is_answer && seen.insert(&chunk.words)
            }
            (Mode::Stopped, Effect::None) => !chunk.words.ends_with(PING) && seen.insert(&chunk.words),
            (_, Effect::None) => false,
        })
        .collect();
    for service in Service::ALL {
        if let Some(last) = passed.iter().rposition(|chunk| chunk.service == service) {
            is_moment[last] = true;
        }
    }
    is_moment
}

fn effects(passed: &[Chunk]) -> Vec<Effect> {
    let mut effects: Vec<Effect> = passed.iter().map(effect).collect();
    // The answer shows whether a statement found anything.
    for (number, chunk) in passed.iter().enumerate() {
        let Some(statement) = words::executed(&chunk.words) else { continue };
        let is_answer =
            |other: &Chunk| other.service == chunk.service && words::answers(&other.words, statement);
        let answer = passed[number..].iter().position(is_answer).map(|after| number + after);
        if let Some(answer) = answer.filter(|answer| words::found_nothing(&passed[*answer].words)) {
            (effects[number], effects[answer]) = (Effect::None, Effect::None);
        }
    }
    effects
}

fn effect(chunk: &Chunk) -> Effect {
    let is_database = matches!(chunk.service, Service::Postgres | Service::OperatorPostgres);
    if is_database && !words::may_change(&chunk.words) { Effect::None } else { Effect::Change }
}
