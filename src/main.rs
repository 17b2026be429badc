//! Arguments, telemetry, a command, an exit code: nothing else.

use std::{
    env,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use clap::Parser;
use payout_link_worker::cli::{self, Arguments};
use tikv_jemallocator::Jemalloc;

/// What it may keep: .cargo/config.toml.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    with_deep_stacks();
    match cli::execute(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            cli::note(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

const STACK: &str = "RUST_MIN_STACK";
/// As many levels as fit into a message's headers, in a debug build. Reserved for each thread, used by none of them.
const STACK_BYTES: &str = "134217728";

/// Becomes this program again, with room on its threads' stacks: what takes a message's headers apart in lapin, and puts
/// them together, goes down a level with each list in a list, and a few thousand of those would end the process. The
/// size is read from the environment alone, and only a new program gets a new one without unsafe code.
fn with_deep_stacks() {
    if env::var_os(STACK).is_some() {
        return;
    }
    if let Ok(program) = env::current_exe() {
        // It returns only where it fails; then it is this program that goes on.
        let error = Command::new(program).args(env::args_os().skip(1)).env(STACK, STACK_BYTES).exec();
        cli::note(format_args!("threads have the usual stacks: {error}"));
    }
}
