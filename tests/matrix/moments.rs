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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{proxy::Direction, words::Words};

    const READ: &str = "SELECT id FROM payout_links";
    const CLAIM: &str = "WITH due AS (SELECT id FROM payout_links) UPDATE payout_links SET holder = $1";
    const FINISH: &str =
        "WITH finished AS (\n -- The answer is published.\n DELETE FROM link_requests WHERE id = $1)
        UPDATE payout_links SET due_at = NULL";

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind][..], &length.to_be_bytes(), body].concat()
    }

    /// Returns the chunks of statements that are prepared, and then executed with these answers.
    fn passed(statements: &[(&str, &str)]) -> Vec<Chunk> {
        let service = Service::Postgres;
        let mut words = Words::new(service);
        let mut chunks = Vec::new();
        let mut pass = |direction, bytes: &[u8]| {
            chunks.push(Chunk { service, words: words.of(direction, bytes).unwrap() });
        };
        for (number, (statement, answer)) in statements.iter().enumerate() {
            let name = format!("s{number}");
            pass(Direction::Out, &message(b'P', format!("{name}\0{statement}\0").as_bytes()));
            pass(Direction::In, &message(b'1', b""));
            pass(Direction::Out, &message(b'B', format!("\0{name}\0").as_bytes()));
            let answers =
                [message(b'2', b""), message(b'C', format!("{answer}\0").as_bytes()), message(b'Z', b"I")];
            pass(Direction::In, &answers.concat());
        }
        // The last chunk always counts.
        pass(Direction::Out, &message(b'S', b""));
        chunks
    }

    /// Returns how many of the four chunks of each statement are moments.
    fn counts(mode: Mode, statements: &[(&str, &str)]) -> Vec<usize> {
        let moments = of(mode, &passed(statements));
        let each = moments.chunks_exact(4);
        each.map(|chunks| chunks.iter().filter(|is_moment| **is_moment).count()).collect()
    }

    #[test]
    fn a_process_dies_at_changes_alone() {
        let statements = [(READ, "SELECT 1"), (CLAIM, "UPDATE 0"), (CLAIM, "UPDATE 1"), (FINISH, "UPDATE 0")];
        for mode in [Mode::KilledBefore, Mode::KilledAfter, Mode::KilledTwice] {
            // A part of the last statement deletes, although its answer counts no row.
            assert_eq!(counts(mode, &statements), [0, 0, 2, 2], "{mode:?}");
        }
    }

    #[test]
    fn connections_fail_once_at_each_text_without_effect() {
        let statements = [(READ, "SELECT 1"), (READ, "SELECT 1"), (CLAIM, "UPDATE 1"), (CLAIM, "UPDATE 1")];
        for mode in [Mode::Reset, Mode::Silence, Mode::Stopped] {
            // The preparation of the second claim repeats that of the first.
            assert_eq!(counts(mode, &statements), [4, 0, 4, 2], "{mode:?}");
        }
    }
}
