//! Checks that names, comments and pages use the words of `docs/reference/glossary.md`, and no others for the same
//! thing.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use std::path::Path;

/// A word, and the one to write.
const BANNED: &[(&str, &str)] = &[
    ("told", "published, delivered, replied, said by whom"),
    ("telling", "publishing, delivering"),
    ("let go", "abandoned"),
    ("mend", "correct, repair"),
    ("mended", "corrected, repaired"),
    ("kept", "stored, held, unrouted: say where"),
    ("befall", "happen to"),
    ("heard", "received"),
    ("hears", "receives"),
    ("whoever", "the worker, the caller"),
    ("stand-in", "provider simulator"),
    ("story", "scenario, test"),
    ("stories", "scenarios, tests"),
    ("world", "test environment"),
    ("MOST_", "MAX_"),
    ("LEAST_", "MIN_"),
    ("What is", "name the thing"),
    ("Whatever", "name the thing"),
    ("Whoever", "name the party"),
    ("/// What ", "begin the summary with a verb"),
];

/// Uses that stay, each with its reason.
const ALLOWED: &[(&str, &str, &str)] = &[
    ("tests/vocabulary.rs", "", "the list itself"),
    ("docs/reference/glossary.md", "", "names words that are not used"),
];

#[test]
fn code_and_pages_use_the_words_of_the_glossary() {
    let mut found = Vec::new();
    for folder in ["src", "docs", "scripts", "crates", "tests", "benches", "examples"] {
        look(Path::new(folder), &mut found);
    }
    for page in ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "config.example.toml"] {
        read(Path::new(page), &mut found);
    }
    assert!(found.is_empty(), "{} uses:\n{}", found.len(), found.join("\n"));
}

fn look(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            look(&path, found);
        } else {
            read(&path, found);
        }
    }
}

fn read(path: &Path, found: &mut Vec<String>) {
    let Ok(text) = std::fs::read_to_string(path) else { return };
    let name = path.to_str().unwrap();
    for (number, line) in text.lines().enumerate() {
        for (word, instead) in BANNED {
            let is_allowed = ALLOWED
                .iter()
                .any(|(file, allowed, _)| name == *file && (allowed.is_empty() || allowed == word));
            if !is_allowed && has(line, word) {
                found.push(format!("{name}:{}: \"{word}\" (write: {instead})", number + 1));
            }
        }
    }
}

/// Says whether a line has the word: as a whole word, as a prefix of a constant, at the beginning of a sentence, or at
/// the beginning of a doc comment.
fn has(line: &str, word: &str) -> bool {
    if let Some(sentence) = word.strip_prefix("/// ") {
        let doc = line.trim_start();
        let text = doc.strip_prefix("/// ").or_else(|| doc.strip_prefix("//! "));
        return text.is_some_and(|text| text.starts_with(sentence));
    }
    if word.ends_with('_') {
        return line.match_indices(word).any(|(at, _)| is_edge(line[..at].chars().next_back()));
    }
    if word.starts_with(char::is_uppercase) {
        let text = line.trim_start().trim_start_matches(['/', '!', '#', '-', '*', '|', ' ']);
        return text.starts_with(word) || line.contains(&format!(". {word}"));
    }
    let lower = line.to_lowercase();
    lower.match_indices(word).any(|(at, _)| {
        is_edge(lower[..at].chars().next_back()) && is_edge(lower[at + word.len()..].chars().next())
    })
}

fn is_edge(letter: Option<char>) -> bool {
    letter.is_none_or(|letter| !letter.is_alphanumeric())
}

#[test]
fn words_are_found_whole_and_sentences_at_their_beginning() {
    assert!(
        has("/// It was told.", "told")
            && has("fn wait_until_told()", "told")
            && !has("a stolid one", "told")
    );
    assert!(has("// Whatever comes", "Whatever") && has("Done. What is left", "What is"));
    assert!(has("    /// What it does.", "/// What ") && has("//! What a run needs.", "/// What "));
    assert!(!has("    // What it does.", "/// What ") && !has("/// Whatever", "/// What "));
    assert!(!has("so that whatever comes", "Whatever") && has("const MOST_BYTES: usize", "MOST_"));
}
