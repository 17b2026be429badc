//! Prints the table of a run.

use std::time::Duration;

use crate::{plan::Mode, point::Outcome, proxy::Service};

pub fn table(unharmed: &[Outcome], outcomes: &[Outcome], took: Duration, lanes: usize) -> String {
    let mut lines = vec!["| kind | chunks |".to_owned(), "| --- | --- |".to_owned()];
    for mode in Mode::ALL {
        lines[0] += &format!(" {} |", in_words(mode));
        lines[1] += " --- |";
    }
    for baseline in unharmed {
        let of = outcomes.iter().filter(|outcome| outcome.kind == baseline.kind);
        lines.push(line(&format!("{:?}", baseline.kind), baseline.passed.len(), &of.collect::<Vec<_>>()));
    }
    let chunks = unharmed.iter().map(|outcome| outcome.passed.len()).sum();
    lines.push(line("all", chunks, &outcomes.iter().collect::<Vec<_>>()));

    lines.push("\n| mode | Postgres | RabbitMQ | connector | merchant | command | points | violations | median s | longest s |".to_owned());
    lines.push("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |".to_owned());
    for mode in Mode::ALL {
        let of: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.mode() == Some(mode)).collect();
        let at = |service| {
            of.iter()
                .filter(|outcome| {
                    outcome.injected.first().is_some_and(|first| first.chunk.service == service)
                })
                .count()
        };
        let [postgres, rabbitmq, connector, merchant, operator_postgres, operator_rabbitmq] =
            Service::ALL.map(at);
        let command = operator_postgres + operator_rabbitmq;
        let violations: usize = of.iter().map(|outcome| outcome.violations.len()).sum();
        let mut seconds: Vec<f32> = of.iter().map(|outcome| outcome.took.as_secs_f32()).collect();
        seconds.sort_by(f32::total_cmp);
        let median = seconds.get(seconds.len() / 2).copied().unwrap_or_default();
        let longest = seconds.last().copied().unwrap_or_default();
        lines.push(format!(
            "| {} | {postgres} | {rabbitmq} | {connector} | {merchant} | {command} | {} | {violations} | {median:.1} | {longest:.1} |",
            in_words(mode),
            postgres + rabbitmq + connector + merchant + command,
        ));
    }
    lines.push(format!("\n{} s, {lanes} envs side by side", took.as_secs()));
    lines.join("\n")
}

/// Formats the line of a kind: the number of points whose faults were injected, of a pair both.
fn line(name: &str, chunks: usize, of: &[&Outcome]) -> String {
    let mut line = format!("| {name} | {chunks} |");
    for mode in Mode::ALL {
        let faults = if mode.is_pair() { 2 } else { 1 };
        let injected =
            of.iter().filter(|outcome| outcome.mode() == Some(mode) && outcome.injected.len() == faults);
        line += &format!(" {} |", injected.count());
    }
    line
}

fn in_words(mode: Mode) -> &'static str {
    match mode {
        Mode::KilledBefore => "killed before",
        Mode::KilledAfter => "killed after",
        Mode::Reset => "reset",
        Mode::Silence => "silence",
        Mode::Stopped => "stopped",
        Mode::KilledTwice => "killed twice",
        Mode::StoppedAndKilled => "stopped, then killed",
    }
}
