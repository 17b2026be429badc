//! A planned fault is done, healed, and its recovery timed.

use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::time::{sleep, sleep_until};

use crate::{
    connectors::CONNECTORS,
    overload,
    plan::{Fault, Harm, Ill, Mood, Planned, Service},
    proxy::{Mode, Proxy},
    samples,
    services::{signal, until},
    test_env::TestEnv,
    upstream::JOBS,
    workers::WORKERS,
};

/// What is known of the faults that were done.
#[derive(Default)]
pub struct Done {
    /// By kind: how long it took to recover, `None` where that was not within the patience.
    pub recoveries: BTreeMap<String, Vec<Option<Duration>>>,
    /// Faults that could not be done or healed.
    pub failures: Vec<String>,
    /// Workers that a fault of their own is upon.
    upon: [u32; WORKERS],
}

const PATIENCE: Duration = Duration::from_mins(3);

/// Does the whole plan; returns when all is healed and every recovery is known.
pub async fn carry_out(env: &TestEnv, plan: Vec<Planned>) -> Done {
    let (done, started) = (Mutex::new(Done::default()), Instant::now());
    let all = plan.into_iter().map(async |planned| {
        sleep_until((started + planned.at).into()).await;
        println!("{planned}");
        one(env, planned, &done).await;
    });
    join_all(all).await;
    done.into_inner().unwrap()
}

async fn one(env: &TestEnv, planned: Planned, done: &Mutex<Done>) {
    let hit = planned.fault.workers();
    upon(done, &hit, true);
    let began = Instant::now();
    env.samples.begins(planned.fault);
    let result = strike(env, planned).await;
    env.samples.ends(planned.fault, began.elapsed());
    upon(done, &hit, false);
    if let Err(failure) = result {
        println!("  !! {:?}: {failure}", planned.fault);
        done.lock().unwrap().failures.push(format!("{:?}: {failure}", planned.fault));
    }
    let recovered = recovery(env, planned.fault, &hit, done).await;
    done.lock().unwrap().recoveries.entry(planned.fault.kind()).or_default().push(recovered);
}

fn upon(done: &Mutex<Done>, workers: &[usize], begins: bool) {
    let mut done = done.lock().unwrap();
    for &worker in workers {
        done.upon[worker] = if begins { done.upon[worker] + 1 } else { done.upon[worker] - 1 };
    }
}

/// From the heal until a job that was published after it has its result, and each worker that was hit (unless
/// another fault is upon it) says that it is ready. Other faults go on meanwhile, so this is no less than the truth.
async fn recovery(env: &TestEnv, fault: Fault, hit: &[usize], done: &Mutex<Done>) -> Option<Duration> {
    let healed = Instant::now();
    let connector = match fault {
        Fault::Connector(connector, _) | Fault::Way(_, Service::Connector(connector), _) => Some(connector),
        _ => None,
    };
    // Behind a backlog a new job says nothing of one fault.
    let probe = if env.variant.is_some() { None } else { Some(env.probe(connector)) };
    while let Some(probe) = &probe
        && !env.upstream.ear.lock().unwrap().concluded.contains_key(probe)
    {
        sleep(Duration::from_millis(50)).await;
        if healed.elapsed() > PATIENCE {
            println!("  !! {fault:?}: {probe} has no result");
            return None;
        }
    }
    for &worker in hit {
        let is_hit_again = || done.lock().unwrap().upon[worker] > 0;
        while !is_hit_again() && !env.fleet.is_ready(worker).await {
            sleep(Duration::from_millis(50)).await;
            if healed.elapsed() > PATIENCE {
                println!("  !! {fault:?}: worker {worker} is not ready");
                return None;
            }
        }
    }
    Some(healed.elapsed())
}

async fn strike(env: &TestEnv, planned: Planned) -> Result<(), String> {
    let Planned { fault, lasts, .. } = planned;
    match fault {
        Fault::KillWorker(worker) => {
            samples::kill(env, worker).await;
            sleep(lasts).await;
            env.fleet.start(worker);
        }
        Fault::PauseWorker(worker) => {
            // The same process, whatever was started in its place meanwhile.
            if let Some(pid) = env.fleet.pid(worker) {
                signal(pid, "STOP").await;
                sleep(lasts).await;
                signal(pid, "CONT").await;
            }
        }
        Fault::RestartWorker(worker) => restart(env, worker).await,
        Fault::RollingRestart => {
            for worker in 0..WORKERS {
                restart(env, worker).await;
                // As a deployment does it: the next when this one is ready.
                let ready = Instant::now();
                while !env.fleet.is_ready(worker).await && ready.elapsed() < Duration::from_secs(20) {
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
        Fault::KillPostgres => {
            env.postgres.kill().await?;
            sleep(lasts).await;
            env.postgres.restart().await?;
        }
        Fault::KillNode(node) => nodes(env, &[node], lasts).await?,
        Fault::KillLeader => {
            let mut leader = None;
            // One may just be being elected.
            until("a leader", Duration::from_mins(1), async || {
                leader = env.cluster.leader(JOBS).await;
                leader.is_some()
            })
            .await?;
            nodes(env, leader.as_slice(), lasts).await?;
        }
        Fault::KillMajority(node) => nodes(env, &[node, (node + 1) % 3], lasts).await?,
        Fault::RestartNode(node) => {
            env.cluster.stop(node).await;
            sleep(lasts).await;
            env.cluster.spawn(node).await?;
            env.cluster.wait(node).await?;
        }
        Fault::Alarm(node) => {
            env.cluster.alarm(node, true).await?;
            sleep(lasts).await;
            env.cluster.alarm(node, false).await?;
        }
        Fault::Way(worker, service, harm) => harmed(env.way(worker, service), harm, lasts).await,
        Fault::Connector(connector, Ill::Outage) => {
            let ways = || (0..WORKERS).map(|worker| env.way(worker, Service::Connector(connector)));
            ways().for_each(|way| way.set(Mode::Refuse));
            sleep(lasts).await;
            ways().for_each(Proxy::heal);
        }
        Fault::Connector(connector, ill) => {
            let provider = &env.providers[connector];
            ill.order().into_iter().for_each(|order| provider.inject_fault(order.always()));
            sleep(lasts).await;
            provider.clear_faults();
        }
        Fault::Merchant(merchant, Mood::Refuses) => {
            env.merchants[merchant].way.set(Mode::Refuse);
            sleep(lasts).await;
            env.merchants[merchant].way.heal();
        }
        Fault::Merchant(merchant, mood) => {
            let receiver = &env.merchants[merchant].receiver;
            mood.order().into_iter().for_each(|order| receiver.inject_fault(order.always()));
            sleep(lasts).await;
            receiver.clear_faults();
        }
        Fault::Overload(overload) => overload::strike(env, overload, lasts).await?,
    }
    Ok(())
}

pub async fn restart(env: &TestEnv, worker: usize) {
    env.fleet.stop(worker).await;
    env.fleet.start(worker);
}

async fn nodes(env: &TestEnv, nodes: &[usize], lasts: Duration) -> Result<(), String> {
    for &node in nodes {
        env.cluster.kill(node).await;
    }
    sleep(lasts).await;
    for &node in nodes {
        env.cluster.spawn(node).await?;
    }
    for &node in nodes {
        env.cluster.wait(node).await?;
    }
    Ok(())
}

async fn harmed(way: &Proxy, harm: Harm, lasts: Duration) {
    match harm.mode() {
        None => way.cut(),
        Some(mode) => {
            way.set(mode);
            sleep(lasts).await;
            way.heal();
        }
    }
}

impl Fault {
    /// Those that it hits directly.
    fn workers(self) -> Vec<usize> {
        match self {
            Self::KillWorker(worker) | Self::PauseWorker(worker) | Self::RestartWorker(worker) => {
                vec![worker]
            }
            Self::Way(worker, Service::Postgres | Service::RabbitMq, _) => vec![worker],
            Self::Way(..) | Self::Connector(..) | Self::Merchant(..) => Vec::new(),
            Self::Overload(overload) => overload.workers(),
            Self::RollingRestart
            | Self::KillPostgres
            | Self::KillNode(_)
            | Self::RestartNode(_)
            | Self::KillLeader
            | Self::KillMajority(_)
            | Self::Alarm(_) => (0..WORKERS).collect(),
        }
    }
}

impl TestEnv {
    fn way(&self, worker: usize, service: Service) -> &Proxy {
        let ways = &self.fleet.workers[worker].ways;
        match service {
            Service::Postgres => &ways.postgres,
            Service::RabbitMq => &ways.rabbitmq,
            Service::Connector(connector) => &ways.connectors[connector % CONNECTORS.len()],
        }
    }
}
