//! R26, and the part of R1 that knows the retention of dead letters.

use std::collections::HashSet;

use super::{History, LetterRetention, Violation};

impl LetterRetention {
    /// Returns whether a letter of this time may be deleted.
    pub(super) fn is_past(&self, rejected_at: i64) -> bool {
        let length = i64::try_from(self.length.as_secs()).unwrap_or(i64::MAX);
        rejected_at <= self.ended_at.saturating_sub(length)
    }
}

/// Checks that every letter that was seen is in its queue, or past its retention.
pub(super) fn check(history: &History) -> Vec<Violation> {
    let left: HashSet<&str> = history.dead.iter().filter_map(|letter| letter.message_id.as_deref()).collect();
    let may_be_gone = |rejected_at: Option<i64>| {
        let retention = history.letter_retention.zip(rejected_at);
        retention.is_some_and(|(retention, rejected_at)| retention.is_past(rejected_at))
    };
    let gone = history
        .letters_seen
        .iter()
        .filter(|letter| !left.contains(letter.message_id.as_str()) && !may_be_gone(letter.rejected_at));
    let evidence = |letter| format!("{letter:?} was deleted within {:?}", history.letter_retention);
    gone.map(|letter| Violation { rule: "R26", evidence: evidence(letter) }).collect()
}
