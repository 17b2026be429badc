//! Measures whole jobs from outside: a worker runs between a real RabbitMQ, a real PostgreSQL, and stubs of a
//! connector and of merchants. See `scripts/bench --help`.
//!
//! The rounds of the scenarios are interleaved, and the figures are medians. Machines differ and are noisy, so only
//! runs side by side can be compared: a scenario that has a reference scenario prints the ratio to it. Every run is
//! checked: each job has one link, one result and one webhook.

#![expect(clippy::float_arithmetic, reason = "figures for people; no amount passes through here")]
#![expect(clippy::unwrap_used, reason = "a benchmark stops at the first failure")]

mod figures;
mod followed;
mod machine;
mod queue;
mod run;
mod scenarios;
mod stubs;

use std::path::PathBuf;

use clap::Parser;

use crate::scenarios::{SCENARIOS, Scenario};

/// Measures the worker on this machine: jobs a second, latency, CPU, memory, commits.
#[derive(Parser)]
struct Arguments {
    /// Scenarios to run; by default all but the long ones. `--list` prints their names
    scenarios: Vec<String>,
    /// Rounds of each scenario
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Jobs of a backlog, instead of each scenario's own number
    #[arg(long)]
    jobs: Option<usize>,
    /// Concluded records in the database before the run, in the `history` scenario
    #[arg(long, default_value_t = 1_000_000)]
    history: u64,
    /// Open links, in the `followed-links` scenario
    #[arg(long, default_value_t = 1_000_000)]
    links: u64,
    /// Links that change each minute, in the `followed-links` scenario
    #[arg(long, default_value_t = 1000)]
    changes: u64,
    /// Jobs of another merchant, in the `fair` scenario
    #[arg(long, default_value_t = 500_000)]
    beside: usize,
    /// Write the figures of every run, a JSON object a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The worker binary to measure
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_payout-link-worker"))]
    worker: PathBuf,
    /// Print the scenarios, and exit
    #[arg(long)]
    list: bool,
    /// `cargo bench` passes this flag
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments = Arguments::parse();
    if arguments.list {
        for scenario in SCENARIOS {
            println!("{:<18} {}", scenario.name, scenario.about);
        }
        println!("{:<18} {}", followed::NAME, followed::ABOUT);
        return;
    }
    let (followed, others): (Vec<&String>, Vec<&String>) =
        arguments.scenarios.iter().partition(|name| *name == followed::NAME);
    if !followed.is_empty() {
        followed::run(&arguments).await;
        if others.is_empty() {
            return;
        }
    }
    let chosen = chosen(&others);
    let mut all = Vec::new();
    for round in 1..=arguments.rounds {
        for scenario in &chosen {
            let figures = run::run(scenario, &arguments).await;
            eprintln!("round {round}, {}", figures.in_a_line());
            all.push(figures);
        }
    }
    println!("{}", figures::table(&chosen, &all));
    if let Some(file) = arguments.json {
        let lines: Vec<String> = all.iter().map(|figures| serde_json::to_string(figures).unwrap()).collect();
        std::fs::write(file, lines.join("\n") + "\n").unwrap();
    }
}

fn chosen(names: &[&String]) -> Vec<&'static Scenario> {
    for name in names {
        assert!(
            SCENARIOS.iter().any(|scenario| scenario.name == *name),
            "no scenario {name}; --list names them"
        );
    }
    let is_chosen =
        |s: &&Scenario| if names.is_empty() { !s.is_long } else { names.iter().any(|name| *name == s.name) };
    SCENARIOS.iter().filter(is_chosen).collect()
}
