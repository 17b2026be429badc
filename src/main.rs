//! Arguments, telemetry, a command, an exit code: nothing else.

use std::process::ExitCode;

use clap::Parser;
use payout_link_worker::cli::{self, Arguments};

fn main() -> ExitCode {
    match cli::execute(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("payout-link-worker: {error:#}");
            ExitCode::FAILURE
        }
    }
}
