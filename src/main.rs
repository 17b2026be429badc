//! Parses the arguments, runs the command, and returns its exit code.

use std::{
    env,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use clap::Parser;
use payout_link_worker::cli::{self, Arguments};
use tikv_jemallocator::Jemalloc;

/// The allocator. `.cargo/config.toml` has its settings.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    with_deep_stacks();
    match cli::execute(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            cli::note(format_args!("{error:#}"));
            cli::status_of(&error).into()
        }
    }
}

const STACK: &str = "RUST_MIN_STACK";
/// Enough for the deepest nesting that fits into a message's headers, in a debug build. Reserved for each thread, and
/// normally unused.
const STACK_BYTES: &str = "134217728";

/// Executes this program again with larger thread stacks. lapin parses and writes message headers recursively, and a
/// few thousand nested lists would overflow the usual stack and end the process. The stack size is read from the
/// environment only, and only a new program gets a new size without unsafe code.
fn with_deep_stacks() {
    if env::var_os(STACK).is_some() {
        return;
    }
    if let Ok(program) = env::current_exe() {
        // `exec` returns only if it fails; then this program goes on.
        let error = Command::new(program).args(env::args_os().skip(1)).env(STACK, STACK_BYTES).exec();
        cli::note(format_args!("cannot enlarge the thread stacks: {error}"));
    }
}
