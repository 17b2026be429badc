//! `completions`, `man`: the command line described for shells and for man, from its definition.

use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use super::{Arguments, exit::ExitStatus, output::say};

/// The name of the program in its pages.
const PROGRAM: &str = "payout-link-worker";

#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// The shell that completes
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, clap::Args)]
pub(super) struct Man {
    /// Write a page for each command into this folder; without it the page of the program is printed
    #[arg(long, value_name = "FOLDER")]
    directory: Option<PathBuf>,
}

/// Prints the completion script of a shell.
pub(super) fn completions(arguments: &Completions) -> anyhow::Result<ExitStatus> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), PROGRAM, &mut script);
    say(String::from_utf8_lossy(&script).trim_end())?;
    Ok(ExitStatus::Done)
}

/// Prints the man page, or writes those of all commands.
pub(super) fn man(arguments: &Man) -> anyhow::Result<ExitStatus> {
    let command = Arguments::command().name(PROGRAM);
    if let Some(folder) = &arguments.directory {
        clap_mangen::generate_to(command, folder).with_context(|| folder.display().to_string())?;
        return Ok(ExitStatus::Done);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    say(String::from_utf8_lossy(&page).trim_end())?;
    Ok(ExitStatus::Done)
}
