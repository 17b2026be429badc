//! Arguments, telemetry, a command, an exit code: nothing else.

use std::{
    env,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use clap::Parser;
use payout_link_worker::cli::{self, Arguments};

fn main() -> ExitCode {
    with_its_environment();
    match cli::execute(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("payout-link-worker: {error:#}");
            ExitCode::FAILURE
        }
    }
}

const STACK: &str = "RUST_MIN_STACK";
/// As many levels as fit into a message's headers, in a debug build. Reserved for each thread, used by none of them.
const STACK_BYTES: &str = "134217728";

const ALLOCATOR: &str = "GLIBC_TUNABLES";
/// Each thread keeps blocks of up to 16 KiB at hand, in place of 1 KiB: what a call and its task are made of.
const KEPT_BLOCKS: &str = "glibc.malloc.tcache_max=16384";

/// Becomes this program again, with room on its threads' stacks: what takes a message's headers apart in lapin, and puts
/// them together, goes down a level with each list in a list, and a few thousand of those would end the process. The
/// size is read from the environment alone, and only a new program gets a new one without unsafe code. The same holds
/// for the allocator, unless it has been told something already.
fn with_its_environment() {
    if env::var_os(STACK).is_some() {
        return;
    }
    if let Ok(program) = env::current_exe() {
        let allocator = env::var_os(ALLOCATOR).unwrap_or_else(|| KEPT_BLOCKS.into());
        // It returns only where it fails; then it is this program that goes on.
        let error = Command::new(program)
            .args(env::args_os().skip(1))
            .env(STACK, STACK_BYTES)
            .env(ALLOCATOR, allocator)
            .exec();
        eprintln!("payout-link-worker: threads have the usual stacks: {error}");
    }
}
