//! Writes to standard output and standard error. Either may be closed or full; it never panics.

use std::{
    fmt::Display,
    io::{ErrorKind, Write},
};

use anyhow::Context;

/// Writes a line to standard output. If a reader such as `head` has closed it, the command goes on, and its exit
/// status does not change.
///
/// # Errors
///
/// If it cannot be written for another reason, such as a full disk.
pub(super) fn say(line: impl Display) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes a line to standard error, if that is possible.
pub fn note(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "payout-link-worker: {line}");
}
