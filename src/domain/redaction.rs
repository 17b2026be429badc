//! Takes secrets out of texts that come from outside.
//!
//! A provider may repeat what it was sent: whole or cut, in groups, in base64, percent-encoded or escaped. So not whole
//! secrets are searched for but each run of [`RUN`] characters of one, in every spelling that the text can be read in. A cut, by the
//! provider or by us, then leaves fewer than that.

mod views;

use std::collections::HashMap;

use secrecy::{ExposeSecret, SecretString};

use self::views::{Unit, View};

/// Characters in a row of a secret that never come out.
pub const RUN: usize = 6;
/// Below this, a secret would be found in every text.
const MIN_SECRET_CHARS: usize = 3;
/// Characters of a text that are looked at; the rest is left out.
pub const MAX_TEXT_CHARS: usize = 4096;

const REDACTED: &str = "[REDACTED]";

/// Knows the secrets that a text may hold. `Debug` shows none.
#[derive(Debug, Default)]
pub struct Redactor {
    secrets: Vec<SecretString>,
}

/// Byte ranges of a text that are replaced.
type Marks = Vec<(usize, usize)>;

impl Redactor {
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

    /// The text's runs are the ones that are kept, not the secrets': it is the shorter of both.
    fn mark_runs(&self, views: &[View], marks: &mut Marks) {
        let mut places: HashMap<[char; RUN], Marks> = HashMap::new();
        for units in views.iter().flat_map(|view| [&view.units, &view.compact]) {
            for run in units.windows(RUN) {
                if let [first, .., last] = run {
                    places.entry(folded(run)).or_default().push((first.start, last.end));
                }
            }
        }
        for secret in &self.secrets {
            let units: Vec<Unit> = views::units(secret.expose_secret());
            let compact = views::compact(&units);
            for run in units.windows(RUN).chain(compact.windows(RUN)) {
                marks.extend(places.get(&folded(run)).into_iter().flatten());
            }
        }
    }

    /// A short secret goes with the whole word around it: what is left of the word would help to guess it.
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

/// One character stays one, so that places can be told.
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
