//! Chaos: runs real workers and services under a steady stream of jobs, injects faults all the time, and then runs
//! the history checker over everything that was published, created, delivered and stored.
//!
//! See `scripts/chaos --help`. The seed alone decides which faults and jobs there are. It does not decide when
//! exactly a fault meets a job, so a run with the same seed is similar, but not identical.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]
#![expect(clippy::cast_possible_truncation, reason = "the counts of a run are small")]

use test_support::{accounts, calls, proxy};

mod announcements;
mod cluster;
mod configuration;
mod connectors;
mod faults;
mod inbox;
mod jobs;
mod letters;
mod operators;
mod overload;
mod plan;
mod random;
mod raw;
mod recipients;
mod report;
mod samples;
mod saturation;
mod services;
mod upstream;
mod verdict;
mod workers;
mod test_env;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser;
use tokio::{sync::Semaphore, time::sleep_until};

use crate::{
    announcements::Announcements, letters::Letters, operators::Operators, recipients::Recipients,
    test_env::TestEnv, workers::WORKERS,
};

/// Injects faults into everything that a payout link depends on, and checks the results.
#[derive(Parser)]
#[command(name = "chaos")]
struct Arguments {
    /// Minutes for which jobs are published and faults are injected
    #[arg(long, default_value_t = 3)]
    minutes: u64,
    /// The seed of faults and jobs; by default another one each time
    #[arg(long)]
    seed: Option<u64>,
    /// New payouts a second; duplicates add about an eighth. 31, or 60 with --saturate
    #[arg(long)]
    rate: Option<u64>,
    /// Fill everything: a backlog, slow and limited connectors, and the faults that matter only then
    #[arg(long)]
    saturate: bool,
    /// Payouts published at the start, with --saturate
    #[arg(long, default_value_t = saturation::BACKLOG)]
    backlog: u64,
    /// Only faults whose name in the table contains this; may be given several times
    #[arg(long, value_name = "NAME")]
    fault: Vec<String>,
    /// Let providers announce changes of links, and let an operator run commands. Needs spare CPU
    #[arg(long)]
    announce: bool,
    /// Write the table, in Markdown, to this file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Print the faults and their times, and exit
    #[arg(long)]
    plan: bool,
    /// Keep logs and data also after a run without violations
    #[arg(long)]
    keep: bool,
    /// The worker binary to test
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_payout-link-worker"))]
    worker: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = arguments.seed.unwrap_or(now.as_secs() % 1_000_000);
    let variant = arguments.saturate.then(|| saturation::variant(seed));
    let plan = plan::plan(seed, arguments.minutes * 60, variant, &arguments.fault);
    println!("chaos: {} faults in {} minutes, --seed {seed}", plan.len(), arguments.minutes);
    if let Some(variant) = &variant {
        println!("chaos: {variant:?}");
    }
    if arguments.plan {
        for planned in &plan {
            println!("{planned}");
        }
        return ExitCode::SUCCESS;
    }
    let folder = std::env::temp_dir().join(format!("chaos-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    println!("logs and data are in {}", folder.display());
    // When this future returns or is dropped, the test environment and all its processes have ended.
    let ended = tokio::select! {
        ended = run(&arguments, seed, variant, plan, &folder) => ended,
        _ = tokio::signal::ctrl_c() => Err(format!("interrupted; logs and data are in {}", folder.display())),
    };
    match ended {
        Ok(true) => {
            if !arguments.keep {
                std::fs::remove_dir_all(&folder).unwrap();
            }
            ExitCode::SUCCESS
        }
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(
    arguments: &Arguments,
    seed: u64,
    variant: Option<saturation::Variant>,
    plan: Vec<plan::Planned>,
    folder: &Path,
) -> Result<bool, String> {
    let env = TestEnv::start(seed, folder, arguments.worker.clone(), variant).await?;
    for worker in 0..WORKERS {
        env.fleet.start(worker);
    }
    for worker in 0..WORKERS {
        let ready = async || env.fleet.is_ready(worker).await;
        services::until("a worker that is ready", Duration::from_mins(1), ready).await?;
    }
    let started = Instant::now();
    println!("{WORKERS} workers are ready");

    let supervising = tokio::spawn(supervise(env.clone()));
    let length = Duration::from_secs(arguments.minutes * 60);
    let watching = tokio::spawn(env.samples.clone().watch(variant));
    let rate = arguments.rate.unwrap_or(if arguments.saturate { saturation::RATE } else { 31 });
    let backlog = if arguments.saturate { arguments.backlog } else { 0 };
    let publishing = tokio::spawn(publish(env.clone(), rate, backlog, length));
    // In the saturated mode accounts have no calls left for a question each second.
    let is_announced = arguments.announce && variant.is_none();
    let recipients = variant.is_none().then(|| tokio::spawn(Recipients::act(env.clone(), is_announced)));
    let writing = variant.is_none().then(|| tokio::spawn(Letters::act(env.clone())));
    let operating = is_announced.then(|| tokio::spawn(Operators::act(env.clone())));
    let announcing = is_announced.then(|| tokio::spawn(Announcements::act(env.clone())));
    let done = faults::inject_all(&env, plan).await;
    publishing.await.unwrap();
    env.recipients.stop();
    if let Some(recipients) = recipients {
        recipients.await.unwrap();
    }
    env.announcements.stop();
    env.operators.stop();
    env.letters.stop();
    for acting in [announcing, operating, writing].into_iter().flatten() {
        acting.await.unwrap();
    }
    let published_for = started.elapsed();
    env.heal();
    if variant.is_some() {
        // A full reply queue must not affect other results, so this one stays full to the end.
        env.upstream.declare_full(saturation::FULL_REPLIES, 8, false).await?;
    }
    println!("all faults are healed");
    if variant.is_none() {
        // At its start it reads the dead letters.
        env.fleet.stop(letters::WORKER).await;
        env.fleet.start(letters::WORKER);
    }
    let quiet = verdict::quiet(&env).await;
    println!("time until nothing was left: {quiet:?}");
    supervising.abort();
    watching.abort();

    let verdict = verdict::judge(&env, done, quiet, started.elapsed(), published_for).await?;
    println!("\n{}", verdict.report.markdown());
    if let Some(path) = &arguments.report {
        std::fs::write(path, verdict.report.markdown()).map_err(|error| error.to_string())?;
    }
    let is_good = verdict.problems.is_empty();
    verdict::print(&verdict.problems);
    if !is_good {
        let all = verdict.problems.join("\n");
        std::fs::write(folder.join("problems.txt"), all).map_err(|error| error.to_string())?;
        println!("{} problems; logs and database stay in {}", verdict.problems.len(), folder.display());
    }
    Ok(is_good)
}

/// Publishes the backlog at once, then jobs at a steady pace. If faults delay the publishing, it catches up later.
async fn publish(env: Arc<TestEnv>, rate: u64, backlog: u64, length: Duration) {
    let (started, urls) = (Instant::now(), env.webhook_urls());
    let end = started + length;
    let under_way = Arc::new(Semaphore::new(512));
    let mut publishing = tokio::task::JoinSet::new();
    let pause = Duration::from_micros(1_000_000 / rate);
    let mut number = 0_u64;
    while Instant::now() < end {
        let paced = u32::try_from(number.saturating_sub(backlog)).unwrap();
        sleep_until((started + pause * paced).into()).await;
        for message in jobs::case(env.seed, number, &urls, env.variant) {
            let (env, under_way) = (env.clone(), under_way.clone());
            let is_now = message.after == 0 && !message.after_conclusion;
            let permit = if is_now { under_way.acquire_owned().await.ok() } else { None };
            publishing.spawn(async move {
                tokio::time::sleep(Duration::from_secs(message.after)).await;
                if !message.after_conclusion || env.upstream.concluded(&message.known.key, end).await {
                    env.upstream.publish(message).await;
                }
                drop(permit);
            });
        }
        while publishing.try_join_next().is_some() {}
        number += 1;
    }
    while let Some(published) = publishing.join_next().await {
        published.unwrap();
    }
}

/// Restarts workers that ended by themselves, collects webhooks, and prints the progress.
async fn supervise(env: Arc<TestEnv>) {
    let started = Instant::now();
    for round in 0_u64.. {
        tokio::time::sleep(Duration::from_secs(1)).await;
        env.fleet.supervise();
        if round % 15 == 0 {
            for merchant in &env.merchants {
                merchant.collect_webhooks();
            }
            let concluded = env.upstream.inbox.lock().unwrap().concluded.len();
            let published = env.upstream.count();
            println!("{:>7} s  {published} jobs published, {concluded} results", started.elapsed().as_secs());
        }
    }
}
