//! Removes secrets from texts that come from outside.
//!
//! A provider may repeat a secret whole or truncated, in groups, in base64, percent-encoded or escaped. The redactor therefore
//! searches for each run of [`RUN`] characters of a secret, in every decoding of the text. A truncation leaves fewer characters.

mod views;

use std::collections::HashMap;

use secrecy::{ExposeSecret, SecretString};

use self::views::{Unit, View};

/// The length of a run of a secret that is never published, in characters.
pub const RUN: usize = 6;
/// The shortest secret that is searched for. Shorter ones occur in every text.
const MIN_SECRET_CHARS: usize = 3;
/// The maximum length of a text, in characters. The rest is dropped.
pub const MAX_TEXT_CHARS: usize = 4096;

const REDACTED: &str = "[REDACTED]";

/// A redactor for a set of secrets. `Debug` shows none of them.
#[derive(Debug, Default)]
pub struct Redactor {
    secrets: Vec<SecretString>,
}

/// Byte ranges of a text that are replaced.
type Marks = Vec<(usize, usize)>;

impl Redactor {
    /// Creates a redactor. Secrets of fewer than three characters are ignored.
    pub fn new(secrets: impl IntoIterator<Item = SecretString>) -> Self {
        let long_enough = |secret: &SecretString| secret.expose_secret().chars().count() >= MIN_SECRET_CHARS;
        Self { secrets: secrets.into_iter().filter(long_enough).collect() }
    }

    /// Returns the text without any secret: each run of [`RUN`] characters of one is replaced, and each whole word that
    /// holds a shorter secret.
    pub fn redact(&self, text: &str) -> String {
        let end = text.char_indices().nth(MAX_TEXT_CHARS).map_or(text.len(), |(end, _)| end);
        let text = &text[..end];
        if self.secrets.is_empty() {
            return text.to_owned();
        }
        let views = views::of(text);
        let mut marks = Marks::new();
        self.mark_runs(&views, &mut marks);
        self.mark_words(&views, &mut marks);
        replaced(text, marks)
    }

    /// Marks each run of a secret. The index holds the runs of the text, because the text is shorter than the secrets.
    fn mark_runs(&self, views: &[View], marks: &mut Marks) {
        let mut positions: HashMap<[char; RUN], Marks> = HashMap::new();
        for units in views.iter().flat_map(|view| [&view.units, &view.compact]) {
            for run in units.windows(RUN) {
                if let [first, .., last] = run {
                    positions.entry(folded(run)).or_default().push((first.start, last.end));
                }
            }
        }
        for secret in &self.secrets {
            let units: Vec<Unit> = views::units(secret.expose_secret());
            let compact = views::compact(&units);
            for run in units.windows(RUN).chain(compact.windows(RUN)) {
                marks.extend(positions.get(&folded(run)).into_iter().flatten());
            }
        }
    }

    /// Marks the whole word around a short secret, because the rest of the word would help to guess it.
    fn mark_words(&self, views: &[View], marks: &mut Marks) {
        for secret in &self.secrets {
            let short: Vec<char> = secret.expose_secret().chars().map(fold).collect();
            if short.len() >= RUN {
                continue;
            }
            for units in views.iter().filter(|view| view.is_text).map(|view| &view.units) {
                for at in 0..units.len().saturating_sub(short.len() - 1) {
                    let found = units[at..at + short.len()].iter().map(|unit| fold(unit.letter));
                    if found.eq(short.iter().copied()) {
                        marks.push(word_around(units, at, at + short.len()));
                    }
                }
            }
        }
    }
}

fn word_around(units: &[Unit], mut first: usize, mut end: usize) -> (usize, usize) {
    while first > 0 && units[first - 1].letter.is_alphanumeric() {
        first -= 1;
    }
    while end < units.len() && units[end].letter.is_alphanumeric() {
        end += 1;
    }
    (units[first].start, units[end - 1].end)
}

fn folded(run: &[Unit]) -> [char; RUN] {
    let mut letters = ['\0'; RUN];
    for (letter, unit) in letters.iter_mut().zip(run) {
        *letter = fold(unit.letter);
    }
    letters
}

/// Folds one character to one character, so that positions stay valid.
fn fold(letter: char) -> char {
    letter.to_lowercase().next().unwrap_or(letter)
}

fn replaced(text: &str, mut marks: Marks) -> String {
    marks.sort_unstable();
    let mut clean = String::with_capacity(text.len());
    let mut done = 0;
    let mut marks = marks.into_iter().peekable();
    while let Some((start, mut end)) = marks.next() {
        while let Some((_, further)) = marks.next_if(|(next, _)| *next <= end) {
            end = end.max(further);
        }
        clean.push_str(&text[done..start]);
        clean.push_str(REDACTED);
        done = end;
    }
    clean.push_str(&text[done..]);
    clean
}

#[cfg(test)]
mod tests;
