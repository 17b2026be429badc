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
    upstream::JOBS,
    workers::WORKERS,
    world::World,
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

const PATIENCE: Duration = Duration::from_secs(180);

/// Does the whole plan; returns when all is healed and every recovery is known.
pub async fn carry_out(world: &World, plan: Vec<Planned>) -> Done {
    let (done, started) = (Mutex::new(Done::default()), Instant::now());
    let all = plan.into_iter().map(async |planned| {
        sleep_until((started + planned.at).into()).await;
        println!("{planned}");
        one(world, planned, &done).await;
    });
    join_all(all).await;
    done.into_inner().unwrap()
}

async fn one(world: &World, planned: Planned, done: &Mutex<Done>) {
    let hit = planned.fault.workers();
    upon(done, &hit, true);
    let began = Instant::now();
    world.samples.begins(planned.fault);
    let result = strike(world, planned).await;
    world.samples.ends(planned.fault, began.elapsed());
    upon(done, &hit, false);
    if let Err(failure) = result {
        println!("  !! {:?}: {failure}", planned.fault);
        done.lock().unwrap().failures.push(format!("{:?}: {failure}", planned.fault));
    }
    let recovered = recovery(world, planned.fault, &hit, done).await;
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
async fn recovery(world: &World, fault: Fault, hit: &[usize], done: &Mutex<Done>) -> Option<Duration> {
    let healed = Instant::now();
    let connector = match fault {
        Fault::Connector(connector, _) | Fault::Way(_, Service::Connector(connector), _) => Some(connector),
        _ => None,
    };
    // Behind a backlog a new job says nothing of one fault.
    let probe = if world.variant.is_some() { None } else { Some(world.probe(connector)) };
    while let Some(probe) = &probe
        && !world.upstream.ear.lock().unwrap().concluded.contains_key(probe)
    {
        sleep(Duration::from_millis(50)).await;
        if healed.elapsed() > PATIENCE {
            println!("  !! {fault:?}: {probe} has no result");
            return None;
        }
    }
    for &worker in hit {
        let is_hit_again = || done.lock().unwrap().upon[worker] > 0;
        while !is_hit_again() && !world.fleet.is_ready(worker).await {
            sleep(Duration::from_millis(50)).await;
            if healed.elapsed() > PATIENCE {
                println!("  !! {fault:?}: worker {worker} is not ready");
                return None;
            }
        }
    }
    Some(healed.elapsed())
}

async fn strike(world: &World, planned: Planned) -> Result<(), String> {
    let Planned { fault, lasts, .. } = planned;
    match fault {
        Fault::KillWorker(worker) => {
            samples::kill(world, worker).await;
            sleep(lasts).await;
            world.fleet.start(worker);
        }
        Fault::PauseWorker(worker) => {
            // The same process, whatever was started in its place meanwhile.
            if let Some(pid) = world.fleet.pid(worker) {
                signal(pid, "STOP").await;
                sleep(lasts).await;
                signal(pid, "CONT").await;
            }
        }
        Fault::RestartWorker(worker) => restart(world, worker).await,
        Fault::RollingRestart => {
            for worker in 0..WORKERS {
                restart(world, worker).await;
                // As a deployment does it: the next when this one is ready.
                let ready = Instant::now();
                while !world.fleet.is_ready(worker).await && ready.elapsed() < Duration::from_secs(20) {
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
        Fault::KillPostgres => {
            world.postgres.kill().await?;
            sleep(lasts).await;
            world.postgres.restart().await?;
        }
        Fault::KillNode(node) => nodes(world, &[node], lasts).await?,
        Fault::KillLeader => {
            let mut leader = None;
            // One may just be being elected.
            until("a leader", Duration::from_secs(60), async || {
                leader = world.cluster.leader(JOBS).await;
                leader.is_some()
            })
            .await?;
            nodes(world, leader.as_slice(), lasts).await?;
        }
        Fault::KillMajority(node) => nodes(world, &[node, (node + 1) % 3], lasts).await?,
        Fault::RestartNode(node) => {
            world.cluster.stop(node).await;
            sleep(lasts).await;
            world.cluster.spawn(node).await?;
            world.cluster.wait(node).await?;
        }
        Fault::Alarm(node) => {
            world.cluster.alarm(node, true).await?;
            sleep(lasts).await;
            world.cluster.alarm(node, false).await?;
        }
        Fault::Way(worker, service, harm) => harmed(world.way(worker, service), harm, lasts).await,
        Fault::Connector(connector, Ill::Outage) => {
            let ways = || (0..WORKERS).map(|worker| world.way(worker, Service::Connector(connector)));
            ways().for_each(|way| way.set(Mode::Refuse));
            sleep(lasts).await;
            ways().for_each(Proxy::heal);
        }
        Fault::Connector(connector, ill) => {
            let provider = &world.providers[connector];
            ill.order().into_iter().for_each(|order| provider.inject_fault(order.always()));
            sleep(lasts).await;
            provider.clear_faults();
        }
        Fault::Merchant(merchant, Mood::Refuses) => {
            world.merchants[merchant].way.set(Mode::Refuse);
            sleep(lasts).await;
            world.merchants[merchant].way.heal();
        }
        Fault::Merchant(merchant, mood) => {
            let receiver = &world.merchants[merchant].receiver;
            mood.order().into_iter().for_each(|order| receiver.inject_fault(order.always()));
            sleep(lasts).await;
            receiver.clear_faults();
        }
        Fault::Overload(overload) => overload::strike(world, overload, lasts).await?,
    }
    Ok(())
}

pub async fn restart(world: &World, worker: usize) {
    world.fleet.stop(worker).await;
    world.fleet.start(worker);
}

async fn nodes(world: &World, nodes: &[usize], lasts: Duration) -> Result<(), String> {
    for &node in nodes {
        world.cluster.kill(node).await;
    }
    sleep(lasts).await;
    for &node in nodes {
        world.cluster.spawn(node).await?;
    }
    for &node in nodes {
        world.cluster.wait(node).await?;
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

impl World {
    fn way(&self, worker: usize, service: Service) -> &Proxy {
        let ways = &self.fleet.workers[worker].ways;
        match service {
            Service::Postgres => &ways.postgres,
            Service::RabbitMq => &ways.rabbitmq,
            Service::Connector(connector) => &ways.connectors[connector % CONNECTORS.len()],
        }
    }
}
