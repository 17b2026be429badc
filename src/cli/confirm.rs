//! Asks before something is done.

use std::io::{BufRead, IsTerminal, Write};

use super::exit::{Ended, ExitStatus};

/// Asks on the terminal, unless `--yes` was given.
///
/// # Errors
///
/// [`ExitStatus::Refused`] if the answer is not yes, or if there is no terminal to ask on.
pub(super) fn confirm(question: &str, yes: bool) -> Result<(), Ended> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(ExitStatus::Refused.because("nothing was changed: add --yes to do it"));
    }
    let mut answer = String::new();
    let _ = write!(std::io::stderr(), "{question} [y/N] ");
    let _ = std::io::stdin().lock().read_line(&mut answer);
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(ExitStatus::Refused.because("nothing was changed")),
    }
}
