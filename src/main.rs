//! Arguments, telemetry, a command, an exit code: nothing else.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use payout_link_worker::cli::{self, Arguments};

// Chosen by measurement (docs/performance.md): the work is many small, short-lived allocations on two threads.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match cli::execute(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("payout-link-worker: {error:#}");
            ExitCode::FAILURE
        }
    }
}
