//! Whole jobs, measured from outside: a worker between a real RabbitMQ, a real Postgres and stubs of a connector and of
//! merchants. `scripts/bench --help`.
//!
//! Rounds of the scenarios are interleaved, figures are medians, and each that has a scenario to be held against says
//! the ratio: machines differ and are noisy, only what ran side by side can be compared. Every run is checked: one link
//! a job, one result, one webhook.

#![expect(clippy::float_arithmetic, reason = "figures for people; no amount passes through here")]
#![expect(clippy::unwrap_used, reason = "nothing goes on where something fails")]

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
    /// Which; all but the long ones where none is named. `--list` names them
    scenarios: Vec<String>,
    /// Runs of each
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Jobs of a backlog, in place of each scenario's own
    #[arg(long)]
    jobs: Option<usize>,
    /// Concluded records that are there before, in the scenario that is about them
    #[arg(long, default_value_t = 1_000_000)]
    history: u64,
    /// Open links, in the scenario that follows them
    #[arg(long, default_value_t = 1_000_000)]
    links: u64,
    /// How many of them change each minute
    #[arg(long, default_value_t = 1000)]
    changes: u64,
    /// Jobs of another merchant, in the scenario that is about them
    #[arg(long, default_value_t = 500_000)]
    beside: usize,
    /// The figures of every run, a JSON object a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The worker to measure
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_payout-link-worker"))]
    worker: PathBuf,
    /// Says what the scenarios are, and ends
    #[arg(long)]
    list: bool,
    /// cargo bench passes it on
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
