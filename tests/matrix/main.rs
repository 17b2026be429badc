//! The crash-point matrix: a fault at every chunk of bytes between a worker and its services. Proxies count the chunks of
//! the real binary. At the k-th chunk they kill the worker, ask it to stop, reset the connection, or let it fall silent. The
//! history checker then judges the jobs. The complete matrix increases k until the jobs finish before the fault.
//!
//! A sample runs with the other tests, chosen by a seed that is printed. `scripts/crash-matrix` runs all points.
//!
//! Environment variables: `MATRIX` is `all` or a number of points, and `MATRIX_SEED` chooses them. `MATRIX_KIND`,
//! `MATRIX_MODE`, `MATRIX_SERVICE` and `MATRIX_CHUNK` select points. `MATRIX_ENVIRONMENTS` is the number of test environments
//! side by side.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use test_support as support;
use test_support::accounts;

mod evidence;
mod follow;
mod history;
mod kinds;
mod letters;
mod moments;
mod operator;
mod plan;
mod point;
mod proxy;
mod table;
mod words;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Debug,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
    time::Instant,
};

use futures_util::FutureExt as _;
use kinds::Kind;
use plan::Point;
use point::Outcome;

/// The number of test environments side by side, without `MATRIX_ENVIRONMENTS`.
const LANES: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_or_made_twice_whatever_breaks() {
    let started = Instant::now();
    let lanes = setting("MATRIX_ENVIRONMENTS").unwrap_or(LANES);
    let seed = setting("MATRIX_SEED").unwrap_or_else(seed);
    let kinds = Kind::ALL.into_iter().filter(|kind| is_wanted("MATRIX_KIND", kind));

    // First each kind without a fault: it has no violation, and its chunks are the points.
    let mut unharmed = all(kinds.map(|kind| (kind, None)).collect(), lanes).await;
    unharmed.sort_by_key(|outcome| outcome.kind);
    let mut points = plan::points(&unharmed, seed);
    points.retain(|point| {
        is_wanted("MATRIX_MODE", &point.mode)
            && is_wanted("MATRIX_SERVICE", &point.service)
            && is_wanted("MATRIX_CHUNK", &point.first.number)
    });
    let (count, is_all) = (points.len(), std::env::var("MATRIX").is_ok_and(|wanted| wanted == "all"));
    let chosen = if is_all { points } else { plan::sample(points, setting("MATRIX"), seed) };
    println!("{} of {count} points, MATRIX_SEED={seed}", chosen.len());
    let mut outcomes = all(chosen.iter().map(|point| (point.kind, Some(*point))).collect(), lanes).await;
    println!("{}", table::table(&unharmed, &outcomes, started.elapsed(), lanes));

    // Each kind continues beyond its known chunks, until its jobs finish before the fault.
    let mut further = if is_all { beyond(last_points(&chosen), &outcomes) } else { Vec::new() };
    while !further.is_empty() {
        println!("{} further points", further.len());
        let more = all(further.iter().map(|point| (point.kind, Some(*point))).collect(), lanes).await;
        further = beyond(further, &more);
        outcomes.extend(more);
    }
    if is_all {
        println!("{}", table::table(&unharmed, &outcomes, started.elapsed(), lanes));
    }
    let failures: Vec<String> = unharmed.iter().chain(&outcomes).filter_map(failure).collect();
    assert!(failures.is_empty(), "{}\nMATRIX_SEED={seed}", failures.join("\n"));
}

/// Returns the last single point of each kind, mode and service.
fn last_points(points: &[Point]) -> Vec<Point> {
    let mut last: BTreeMap<_, Point> = BTreeMap::new();
    for point in points.iter().filter(|point| !point.mode.is_pair()) {
        let key = (point.kind, point.mode, point.service);
        let found = last.entry(key).or_insert(*point);
        if point.first.number > found.first.number {
            *found = *point;
        }
    }
    last.into_values().collect()
}

/// Returns the next point after each whose fault was injected.
fn beyond(points: Vec<Point>, outcomes: &[Outcome]) -> Vec<Point> {
    let was_injected = |point: &Point| {
        outcomes
            .iter()
            .any(|outcome| !outcome.injected.is_empty() && outcome.point.is_some_and(|of| of.is_at(point)))
    };
    points.into_iter().filter(was_injected).map(|point| point.further()).collect()
}

fn setting(name: &str) -> Option<usize> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

fn is_wanted(name: &str, value: &impl Debug) -> bool {
    std::env::var(name).ok().is_none_or(|only| only == format!("{value:?}"))
}

fn seed() -> usize {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.subsec_micros() as usize
}

type Task = (Kind, Option<Point>);

/// Runs tasks side by side, each lane with its own test environment.
async fn all(tasks: VecDeque<Task>, lanes: usize) -> Vec<Outcome> {
    let (tasks, outcomes) = (Arc::new(Mutex::new(tasks)), Arc::new(Mutex::new(Vec::new())));
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..lanes.min(tasks.lock().unwrap().len()) {
        let (tasks, outcomes) = (tasks.clone(), outcomes.clone());
        running.spawn(async move {
            let mut place = point::place().await;
            loop {
                let Some((kind, point)) = tasks.lock().unwrap().pop_front() else { return };
                let run = AssertUnwindSafe(point::run(&place, kind, point.as_ref())).catch_unwind().await;
                let outcome = match run {
                    Ok(outcome) => outcome,
                    Err(_) => {
                        // The panic may have left anything behind.
                        place = point::place().await;
                        Outcome::panicked(kind, point.as_ref())
                    }
                };
                if let Some(failure) = failure(&outcome) {
                    println!("{failure}");
                }
                let mut outcomes = outcomes.lock().unwrap();
                outcomes.push(outcome);
                if outcomes.len().is_multiple_of(100) {
                    println!("{} are done", outcomes.len());
                }
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
    let faults: Vec<String> = outcome.injected.iter().map(|injected| injected.in_words()).collect();
    let place = if faults.is_empty() { "unharmed".into() } else { faults.join(", then ") };
    let violations =
        outcome.violations.iter().map(|found| format!("\n    {}: {}", found.rule, found.evidence));
    Some(format!("{:?}, {place}:{}", outcome.kind, violations.collect::<String>()))
}
