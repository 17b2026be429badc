//! Every moment at which a worker can die, gone through from outside: proxies count what passes between the real
//! binary and its services, kill it at the k-th chunk, before or after handing that on, and a checker looks at what
//! a second worker makes of it. The matrix finds its own size: k goes up until the jobs run through unharmed.
//!
//! A sample runs with the other tests, chosen by a seed that is printed; `scripts/crash-matrix` runs them all.
//!
//! `MATRIX`: `all`, or how many points. `MATRIX_SEED`: which. `MATRIX_KIND`, `MATRIX_CHUNK`: only those.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

#[allow(dead_code, unused_imports, reason = "shared with the stories, which use all of it")]
#[path = "../it/support/mod.rs"]
mod support;

mod history;
mod kinds;
mod point;
mod proxy;
mod words;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use kinds::Kind;
use point::Outcome;
use proxy::{Cut, Service};

/// Worlds side by side, unless `MATRIX_WORLDS` says otherwise.
const LANES: usize = 6;

fn lanes() -> usize {
    std::env::var("MATRIX_WORLDS").ok().and_then(|lanes| lanes.parse().ok()).unwrap_or(LANES)
}

/// Points of a sample: what two processors do in a minute and a half.
const SAMPLE: usize = 100;

#[derive(Debug, Clone, Copy)]
struct Task {
    kind: Kind,
    cut: Option<Cut>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_or_made_twice_wherever_a_worker_dies() {
    let started = Instant::now();
    let wanted = std::env::var("MATRIX").unwrap_or_default();
    let only = std::env::var("MATRIX_KIND").ok();
    let seed = std::env::var("MATRIX_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(seed);
    let kinds: Vec<Kind> = Kind::ALL
        .into_iter()
        .filter(|kind| only.as_ref().is_none_or(|only| *only == format!("{kind:?}")))
        .collect();

    // Each kind without a death first: how long it is, and that it is as it should be.
    let unharmed = all(kinds.iter().map(|&kind| Task { kind, cut: None }).collect(), false).await;
    let lengths: BTreeMap<Kind, usize> =
        unharmed.iter().map(|outcome| (outcome.kind, outcome.passed.len())).collect();
    let points: Vec<Task> = lengths
        .iter()
        .flat_map(|(&kind, &length)| {
            (1..=length).flat_map(move |chunk| {
                [false, true].map(|handed_on| Task { kind, cut: Some(Cut { chunk, handed_on }) })
            })
        })
        .collect();
    let only_chunk: Option<usize> = std::env::var("MATRIX_CHUNK").ok().and_then(|chunk| chunk.parse().ok());
    let (chosen, goes_on) = if let Some(only) = only_chunk {
        let is_it = |task: &&Task| task.cut.is_some_and(|cut| cut.chunk == only);
        (points.iter().filter(is_it).copied().collect(), false)
    } else if wanted == "all" {
        (points.clone(), true)
    } else {
        let count = wanted.parse().unwrap_or(SAMPLE).clamp(1, points.len());
        println!("a sample of {count} of {} points, MATRIX_SEED={seed}", points.len());
        (sample(&points, count, seed), false)
    };
    let outcomes = all(chosen.into(), goes_on).await;

    println!("{}", table(&unharmed, &outcomes, started.elapsed()));
    let failures: Vec<String> = unharmed.iter().chain(&outcomes).filter_map(failure).collect();
    assert!(failures.is_empty(), "{}\nMATRIX_SEED={seed}", failures.join("\n"));
}

/// Evenly over kinds and chunks: every so many-th of the list, from a place that the seed chooses.
fn sample(points: &[Task], count: usize, seed: usize) -> Vec<Task> {
    (0..count).map(|number| points[(number * points.len() / count + seed) % points.len()]).collect()
}

fn seed() -> usize {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.subsec_micros() as usize
}

/// Runs them side by side, a world a lane. Where it goes on, each kind does so beyond its known length until its
/// jobs run through.
async fn all(tasks: VecDeque<Task>, goes_on: bool) -> Vec<Outcome> {
    let last: BTreeMap<Kind, usize> =
        tasks.iter().filter_map(|task| Some((task.kind, task.cut?.chunk))).collect();
    let (tasks, outcomes) = (Arc::new(Mutex::new(tasks)), Arc::new(Mutex::new(Vec::new())));
    let last = Arc::new(last);
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..lanes().min(tasks.lock().unwrap().len()) {
        let (tasks, outcomes, last) = (tasks.clone(), outcomes.clone(), last.clone());
        running.spawn(async move {
            let world = point::world().await;
            loop {
                let Some(task) = tasks.lock().unwrap().pop_front() else { return };
                let outcome = point::run(&world, task.kind, task.cut).await;
                if let Some(failure) = failure(&outcome) {
                    println!("{failure}");
                }
                if let Some(cut) = task.cut
                    && goes_on
                    && outcome.hit.is_some()
                    && last.get(&task.kind).is_some_and(|last| cut.chunk >= *last)
                {
                    let cut = Some(Cut { chunk: cut.chunk + 1, ..cut });
                    tasks.lock().unwrap().push_back(Task { cut, ..task });
                }
                outcomes.lock().unwrap().push(outcome);
            }
        });
    }
    while let Some(lane) = running.join_next().await {
        lane.unwrap();
    }
    std::mem::take(&mut *outcomes.lock().unwrap())
}

fn failure(outcome: &Outcome) -> Option<String> {
    if outcome.violations.is_empty() {
        return None;
    }
    let place = match (outcome.cut, &outcome.hit) {
        (Some(cut), Some(hit)) => {
            let side = if cut.handed_on { "after" } else { "before" };
            format!("killed {side} chunk {} {}", cut.chunk, hit.words)
        }
        _ => "unharmed".into(),
    };
    let violations =
        outcome.violations.iter().map(|found| format!("\n    {}: {}", found.rule, found.evidence));
    Some(format!("{:?}, {place}:{}", outcome.kind, violations.collect::<String>()))
}

fn table(unharmed: &[Outcome], outcomes: &[Outcome], took: Duration) -> String {
    let mut lines = vec![format!(
        "{:<14}{:>7}{:>8}{:>10}{:>10}{:>11}{:>10}{:>12}{:>10}",
        "kind", "chunks", "points", "Postgres", "RabbitMQ", "connector", "merchant", "violations", "seconds"
    )];
    let line = |name: &str, chunks: usize, of: &[&Outcome]| {
        let died = |service| {
            of.iter().filter(|outcome| outcome.hit.as_ref().is_some_and(|hit| hit.service == service)).count()
        };
        let [postgres, rabbitmq, connector, merchant] = Service::ALL.map(died);
        let violations: usize = of.iter().map(|outcome| outcome.violations.len()).sum();
        let seconds = of.iter().map(|outcome| outcome.took).sum::<Duration>().as_secs();
        let points = of.iter().filter(|outcome| outcome.hit.is_some()).count();
        format!(
            "{name:<14}{chunks:>7}{points:>8}{postgres:>10}{rabbitmq:>10}{connector:>11}{merchant:>10}{violations:>12}{seconds:>10}"
        )
    };
    for baseline in unharmed {
        let of: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.kind == baseline.kind).collect();
        lines.push(line(&format!("{:?}", baseline.kind), baseline.passed.len(), &of));
    }
    let chunks = unharmed.iter().map(|outcome| outcome.passed.len()).sum();
    lines.push(line("all", chunks, &outcomes.iter().collect::<Vec<_>>()));
    lines.push(format!("{} s, {} worlds side by side", took.as_secs(), lanes()));
    lines.join("\n")
}
