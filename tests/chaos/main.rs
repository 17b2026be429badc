//! Chaos: real workers, real services, a steady stream of jobs, and everything that can go wrong, again and again;
//! then the checker over all that was published, made, told and written down.
//!
//! `scripts/chaos --help`. Which faults and which jobs comes from the seed alone; when exactly a fault hits which
//! job does not, so a run that is had again is like the first, not the same to the byte.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]
#![expect(clippy::cast_possible_truncation, reason = "the counts of a run are small")]

use test_support::{accounts, calls, proxy};

mod announcements;
mod cluster;
mod configuration;
mod connectors;
mod faults;
mod jobs;
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
    announcements::Announcements, operators::Operators, recipients::Recipients, test_env::TestEnv,
    workers::WORKERS,
};

/// Kills and cuts everything that a payout link depends on, for as long as you like, and checks what comes of it.
#[derive(Parser)]
#[command(name = "chaos")]
struct Arguments {
    /// How long jobs are published and faults done
    #[arg(long, default_value_t = 3)]
    minutes: u64,
    /// Which faults and jobs; another one each time where it is not given
    #[arg(long)]
    seed: Option<u64>,
    /// New payouts a second; with their repeats, about an eighth more jobs. 31, or 60 with --saturate
    #[arg(long)]
    rate: Option<u64>,
    /// Everything is full: a backlog, slow and limited connectors, and the faults that show only then
    #[arg(long)]
    saturate: bool,
    /// Payouts that are published at the start, with --saturate
    #[arg(long, default_value_t = saturation::BACKLOG)]
    backlog: u64,
    /// Only faults whose name in the table contains this; may be given several times
    #[arg(long, value_name = "NAME")]
    fault: Vec<String>,
    /// Providers announce what became of links, and an operator runs commands. Needs a machine with cores to spare
    #[arg(long)]
    announce: bool,
    /// The table, in Markdown, to this file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Print what would go wrong when, and end
    #[arg(long)]
    plan: bool,
    /// Keep logs and data of a run without violations, too
    #[arg(long)]
    keep: bool,
    /// The worker to try
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
    println!("everything is in {}", folder.display());
    // When it returns, or is left, the test environment and everything that ran in it has ended.
    let ended = tokio::select! {
        ended = run(&arguments, seed, variant, plan, &folder) => ended,
        _ = tokio::signal::ctrl_c() => Err(format!("interrupted; what there is is in {}", folder.display())),
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

    let tending = tokio::spawn(tend(env.clone()));
    let length = Duration::from_secs(arguments.minutes * 60);
    let watching = tokio::spawn(env.samples.clone().watch(variant));
    let rate = arguments.rate.unwrap_or(if arguments.saturate { saturation::RATE } else { 31 });
    let backlog = if arguments.saturate { arguments.backlog } else { 0 };
    let publishing = tokio::spawn(publish(env.clone(), rate, backlog, length));
    // Where everything is full, accounts have no calls left for questions every second.
    let recipients = variant.is_none().then(|| tokio::spawn(Recipients::act(env.clone())));
    let is_announced = arguments.announce && variant.is_none();
    let operating = is_announced.then(|| tokio::spawn(Operators::act(env.clone())));
    let announcing = is_announced.then(|| tokio::spawn(Announcements::act(env.clone())));
    let done = faults::carry_out(&env, plan).await;
    publishing.await.unwrap();
    env.recipients.stop();
    if let Some(recipients) = recipients {
        recipients.await.unwrap();
    }
    env.announcements.stop();
    env.operators.stop();
    for acting in [announcing, operating].into_iter().flatten() {
        acting.await.unwrap();
    }
    let published_for = started.elapsed();
    env.heal();
    if variant.is_some() {
        // Whose replies nobody reads is no trouble of anybody else: this one stays full to the end.
        env.upstream.declare_full(saturation::FULL_REPLIES, 8, false).await?;
    }
    println!("all is healed");
    let quiet = verdict::quiet(&env).await;
    println!("quiet: {quiet:?}");
    tending.abort();
    watching.abort();

    let verdict = verdict::reach(&env, done, quiet, started.elapsed(), published_for).await?;
    println!("\n{}", verdict.report.markdown());
    if let Some(path) = &arguments.report {
        std::fs::write(path, verdict.report.markdown()).map_err(|error| error.to_string())?;
    }
    let is_good = verdict.problems.is_empty();
    verdict::print(&verdict.problems);
    if !is_good {
        let all = verdict.problems.join("\n");
        std::fs::write(folder.join("problems.txt"), all).map_err(|error| error.to_string())?;
        println!("{} problems; logs and database are left in {}", verdict.problems.len(), folder.display());
    }
    Ok(is_good)
}

/// Publishes the backlog at once, then at a steady pace. What faults hold up is published later, and the pace is caught
/// up with.
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

/// Restarts workers that end by themselves, takes over webhooks, and says now and then how it goes.
async fn tend(env: Arc<TestEnv>) {
    let started = Instant::now();
    for round in 0_u64.. {
        tokio::time::sleep(Duration::from_secs(1)).await;
        env.fleet.tend();
        if round % 15 == 0 {
            for merchant in &env.merchants {
                merchant.take_over();
            }
            let concluded = env.upstream.ear.lock().unwrap().concluded.len();
            let published = env.upstream.count();
            println!("{:>7} s  {published} jobs published, {concluded} results", started.elapsed().as_secs());
        }
    }
}
