//! Injects the faults of a full system, which `saturation.rs` lists.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::{
    faults::restart,
    jobs::Job,
    proxy::{Mode, Proxy},
    samples,
    saturation::{FULL_REPLIES, FULL_RESULTS, Overload},
    services::until,
    test_env::TestEnv,
    workers::WORKERS,
};

/// The time between two breaks: enough to connect again, but not to work off the local queues.
const BETWEEN_BREAKS: Duration = Duration::from_millis(800);
/// The delay of each provider during the breaks. A call takes longer than two breaks, so no permit becomes free
/// between them.
const LATE: Duration = Duration::from_millis(2500);
const BETWEEN_ENDS: Duration = Duration::from_secs(2);
const BETWEEN_UNREADABLE: Duration = Duration::from_secs(3);
const CONSUMER_TIMEOUT: Duration = Duration::from_secs(5);
/// The default of RabbitMQ.
const USUAL_CONSUMER_TIMEOUT: Duration = Duration::from_mins(30);
/// Allows for actions that need a majority of nodes, while another fault has just taken it.
const PATIENCE: Duration = Duration::from_mins(2);

pub async fn inject(env: &TestEnv, overload: Overload, lasts: Duration) -> Result<(), String> {
    match overload {
        Overload::Breaks(times) => {
            let proxies = || env.fleet.workers.iter().flat_map(|worker| &worker.proxies.connectors);
            proxies().for_each(|proxy| proxy.set(Mode::Slow(LATE)));
            for _ in 0..times {
                sleep(BETWEEN_BREAKS).await;
                cut(env);
            }
            sleep(BETWEEN_BREAKS).await;
            proxies().for_each(Proxy::heal);
        }
        Overload::Closes(times) => {
            for _ in 0..times {
                retried("connections that are closed", async || env.cluster.close_all_connections().await)
                    .await?;
                sleep(BETWEEN_BREAKS).await;
            }
        }
        Overload::ConsumerTimeout => {
            // A channel keeps the timeout that it was opened with.
            for (timeout, lasts) in [(CONSUMER_TIMEOUT, lasts), (USUAL_CONSUMER_TIMEOUT, Duration::ZERO)] {
                retried("a consumer timeout", async || env.cluster.consumer_timeout(timeout).await).await?;
                cut(env);
                sleep(lasts).await;
            }
        }
        Overload::Kills | Overload::Stops => ends(env, overload == Overload::Kills, lasts).await,
        Overload::FreezePostgres => {
            env.postgres.signal("STOP").await?;
            sleep(lasts).await;
            env.postgres.signal("CONT").await?;
        }
        Overload::PostgresAway => {
            env.postgres.kill().await?;
            sleep(lasts).await;
            env.postgres.restart().await?;
        }
        Overload::FullReplies => {
            retried("a queue that is full", async || env.upstream.declare_full(FULL_REPLIES, 8, false).await)
                .await?;
            sleep(lasts / 2).await;
            retried("a queue that is emptied", async || env.upstream.empty(FULL_REPLIES, false).await)
                .await?;
            sleep(lasts / 2).await;
            retried("a queue that is deleted", async || env.upstream.empty(FULL_REPLIES, true).await).await?;
        }
        Overload::FullResults => {
            retried("a queue that is full", async || env.upstream.declare_full(FULL_RESULTS, 50, true).await)
                .await?;
            sleep(lasts).await;
            retried("a queue that is deleted", async || env.upstream.empty(FULL_RESULTS, true).await).await?;
        }
        Overload::CrowdHangs => {
            env.crowd.iter().for_each(|proxy| proxy.set(Mode::Silent));
            sleep(lasts).await;
            env.crowd.iter().for_each(Proxy::heal);
        }
        Overload::Unreadable => unreadable(env, lasts).await?,
        Overload::Rename => {
            rename(env, true).await?;
            sleep(lasts).await;
            rename(env, false).await?;
        }
    }
    Ok(())
}

/// Cuts every worker's connections to RabbitMQ.
fn cut(env: &TestEnv) {
    env.fleet.workers.iter().for_each(|worker| worker.proxies.rabbitmq.cut());
}

/// Ends one worker after the other, and starts each again at once.
async fn ends(env: &TestEnv, by_kill: bool, lasts: Duration) {
    let started = Instant::now();
    for worker in (0..WORKERS).cycle() {
        if by_kill {
            samples::kill(env, worker).await;
            env.fleet.start(worker);
        } else {
            restart(env, worker).await;
        }
        sleep(BETWEEN_ENDS).await;
        if started.elapsed() > lasts {
            return;
        }
    }
}

async fn unreadable(env: &TestEnv, lasts: Duration) -> Result<(), String> {
    let started = Instant::now();
    for number in 0.. {
        retried("an unreadable message", async || env.upstream.publish_unreadable().await).await?;
        let number = started.elapsed().as_millis() as u64 * 1000 + number;
        env.upstream.publish(Job::oversized(env.seed, number)).await;
        sleep(BETWEEN_UNREADABLE).await;
        if started.elapsed() > lasts {
            return Ok(());
        }
    }
    Ok(())
}

/// Renames the section as an operator would: writes the file, then restarts one worker after the other.
async fn rename(env: &TestEnv, renamed: bool) -> Result<(), String> {
    env.write_configuration(renamed)?;
    for worker in 0..WORKERS {
        restart(env, worker).await;
        // The recovery notices a worker that does not become ready.
        let ready = async || env.fleet.is_ready(worker).await;
        let _ = until("a worker that is ready", Duration::from_secs(20), ready).await;
    }
    Ok(())
}

/// Repeats the action until it succeeds.
async fn retried(what: &str, mut action: impl AsyncFnMut() -> Result<(), String>) -> Result<(), String> {
    let mut last = Ok(());
    let done = until(what, PATIENCE, async || {
        last = action().await;
        last.is_ok()
    });
    done.await.map_err(|late| format!("{late}: {last:?}"))
}
