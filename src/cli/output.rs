//! Writes to standard output and standard error. Either may be closed or full; it never panics.
//!
//! A command gives its rows or its object to an [`Output`], which writes text, JSON or JSON Lines (`--output`). Control
//! characters are escaped in all of them, because values come from jobs, providers and merchants.

use std::{
    fmt::{Display, Write as _},
    io::{ErrorKind, IsTerminal, Write},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use anyhow::Context;
use clap::ValueEnum;
use serde::Serialize;

use super::table::{Cell, Column, Table};
use crate::domain::is_control;

/// The form of what a command prints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: tables that fit the terminal
    #[default]
    Text,
    /// One JSON document
    Json,
    /// One JSON object a line
    Jsonl,
}

/// Where and how a command writes what it found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    format: Format,
    /// Columns of the terminal; `None` if standard output is no terminal, and lines may have any length.
    width: Option<usize>,
    colour: bool,
}

impl Output {
    /// Makes an output for the process's standard output.
    pub(super) fn new(format: Format) -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        let width = rustix::termios::tcgetwinsize(std::io::stdout())
            .ok()
            .filter(|size| is_terminal && size.ws_col > 0)
            .map(|size| usize::from(size.ws_col));
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        // https://no-color.org
        let is_plain = is_set("NO_COLOR") || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { format, width, colour: is_terminal && !is_plain }
    }

    /// Returns the form that was asked for.
    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Returns the same output with another form: for a command's own option that is older than `--output`.
    pub(super) fn with(self, format: Format) -> Self {
        Self { format, ..self }
    }

    /// Writes rows: a table, an array, or an object a line. `cells` makes the cells of one row, in the order of
    /// `columns`.
    ///
    /// # Errors
    ///
    /// If standard output cannot be written.
    pub(super) fn rows<T: Serialize>(
        &self,
        columns: &[Column],
        rows: &[T],
        cells: impl Fn(&T) -> Vec<Cell>,
    ) -> anyhow::Result<()> {
        match self.format {
            Format::Text if rows.is_empty() => Ok(()),
            Format::Text => {
                let table = Table::new(columns, rows.iter().map(cells).collect());
                say(table.text(self.width, self.colour).trim_end_matches('\n'))?;
                let left_out = table.left_out(self.width);
                if !left_out.is_empty() {
                    note(format_args!("the terminal is too narrow for {}", left_out.join(", ")));
                }
                Ok(())
            }
            Format::Json | Format::Jsonl => self.objects(rows, |_| String::new()),
        }
    }

    /// Writes one object: `text` makes its text, in which values are escaped already.
    ///
    /// # Errors
    ///
    /// If standard output cannot be written.
    pub(super) fn object<T: Serialize>(
        &self,
        object: &T,
        text: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        match self.format {
            Format::Text => say(text(object).trim_end()),
            Format::Json => say(escape_json(&serde_json::to_string_pretty(object)?)),
            Format::Jsonl => say(escape_json(&serde_json::to_string(object)?)),
        }
    }

    /// Writes several objects, as [`Self::object`] does: an array in JSON.
    ///
    /// # Errors
    ///
    /// If standard output cannot be written.
    pub(super) fn objects<T: Serialize>(
        &self,
        objects: &[T],
        text: impl Fn(&T) -> String,
    ) -> anyhow::Result<()> {
        match self.format {
            Format::Text => objects.iter().try_for_each(|object| say(text(object).trim_end())),
            Format::Json => say(escape_json(&serde_json::to_string_pretty(objects)?)),
            Format::Jsonl => {
                objects.iter().try_for_each(|object| say(escape_json(&serde_json::to_string(object)?)))
            }
        }
    }

    /// Writes a line for people: nothing if JSON was asked for.
    ///
    /// # Errors
    ///
    /// If standard output cannot be written.
    pub(super) fn text(&self, line: impl Display) -> anyhow::Result<()> {
        match self.format {
            Format::Text => say(line),
            Format::Json | Format::Jsonl => Ok(()),
        }
    }
}

/// An act on something that is no record, as it is printed.
#[derive(Debug, Serialize)]
pub(super) struct Done<'a> {
    pub(super) target: &'a str,
    pub(super) outcome: &'static str,
    /// Escaped.
    pub(super) message: String,
}

impl Done<'_> {
    pub(super) fn text(&self) -> String {
        self.message.clone()
    }
}

/// Writes a line to standard output. If a reader such as `head` has closed it, the command goes on, and its exit
/// status does not change.
///
/// # Errors
///
/// If it cannot be written for another reason, such as a full disk.
pub(super) fn say(line: impl Display) -> anyhow::Result<()> {
    clear_progress(&std::io::stdout());
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes a number of things: `1 webhook`, `2 webhooks`.
pub(super) fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// Writes a line to standard error, if that is possible.
pub fn note(line: impl Display) {
    clear_progress(&std::io::stderr());
    let _ = writeln!(std::io::stderr(), "payout-link-worker: {line}");
}

/// Whether the last line of standard error is one of progress.
static HAS_PROGRESS: AtomicBool = AtomicBool::new(false);
/// Clears the rest of the terminal's line.
const CLEAR: &str = "\u{1b}[K";

/// Replaces the line of progress on standard error, if that is a terminal. [`progress_ends`] ends the line.
pub(super) fn progress(line: impl Display) {
    if std::io::stderr().is_terminal() {
        HAS_PROGRESS.store(true, Relaxed);
        let _ = write!(std::io::stderr(), "\r{line}{CLEAR}");
    }
}

/// Ends the line of progress, if there is one.
pub(super) fn progress_ends() {
    if HAS_PROGRESS.swap(false, Relaxed) {
        let _ = writeln!(std::io::stderr());
    }
}

/// Removes the line of progress before another line is written to the same terminal.
fn clear_progress(stream: &impl IsTerminal) {
    if stream.is_terminal() && HAS_PROGRESS.swap(false, Relaxed) {
        let _ = write!(std::io::stderr(), "\r{CLEAR}");
    }
}

/// Escapes control characters. JSON itself escapes C0 only; the others occur in strings only.
fn escape_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for letter in json.chars() {
        // Line feeds of the layout; those in strings are escaped already.
        if letter != '\n' && is_control(letter) {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(letter));
        } else {
            escaped.push(letter);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_no_control_character_and_says_the_same() {
        let text = "plink_\u{1b}[2J\u{9b}\u{202e}\u{7f}\né";
        let escaped = escape_json(&serde_json::to_string(text).unwrap());
        assert!(!escaped.chars().any(is_control), "{escaped:?}");
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
    }
}
