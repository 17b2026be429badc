//! Injects a planned fault, heals it, and measures the recovery.

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
    plan::{ConnectionFault, Fault, MerchantFault, Planned, ProviderFault, Service},
    proxy::{Mode, Proxy},
    samples,
    services::{signal, until},
    test_env::TestEnv,
    upstream::JOBS,
    workers::WORKERS,
};

/// The results of the injected faults.
#[derive(Default)]
pub struct FaultResults {
    /// The recovery times of each kind; `None` if the recovery took longer than the patience.
    pub recoveries: BTreeMap<String, Vec<Option<Duration>>>,
    /// Faults that could not be injected or healed.
    pub failures: Vec<String>,
    /// The number of current faults of each worker.
    under_fault: [u32; WORKERS],
}

const PATIENCE: Duration = Duration::from_mins(3);

/// Injects the whole plan, and returns when every fault is healed and every recovery is measured.
pub async fn inject_all(env: &TestEnv, plan: Vec<Planned>) -> FaultResults {
    let (done, started) = (Mutex::new(FaultResults::default()), Instant::now());
    let all = plan.into_iter().map(async |planned| {
        sleep_until((started + planned.at).into()).await;
        println!("{planned}");
        one(env, planned, &done).await;
    });
    join_all(all).await;
    done.into_inner().unwrap()
}

async fn one(env: &TestEnv, planned: Planned, done: &Mutex<FaultResults>) {
    let hit = planned.fault.workers();
    count_fault(done, &hit, true);
    let began = Instant::now();
    env.samples.begin(planned.fault);
    let result = inject(env, planned).await;
    env.samples.end(planned.fault, began.elapsed());
    count_fault(done, &hit, false);
    if let Err(failure) = result {
        println!("  !! {:?}: {failure}", planned.fault);
        done.lock().unwrap().failures.push(format!("{:?}: {failure}", planned.fault));
    }
    let recovered = recovery(env, planned.fault, &hit, done).await;
    done.lock().unwrap().recoveries.entry(planned.fault.kind()).or_default().push(recovered);
}

fn count_fault(done: &Mutex<FaultResults>, workers: &[usize], begins: bool) {
    let mut done = done.lock().unwrap();
    for &worker in workers {
        done.under_fault[worker] =
            if begins { done.under_fault[worker] + 1 } else { done.under_fault[worker] - 1 };
    }
}

/// Measures the time from the heal until a new job has its result and each affected worker is ready, unless that
/// worker has another fault. Other faults continue meanwhile, so the figure is an upper bound.
async fn recovery(
    env: &TestEnv,
    fault: Fault,
    hit: &[usize],
    done: &Mutex<FaultResults>,
) -> Option<Duration> {
    let healed = Instant::now();
    let connector = match fault {
        Fault::Connector(connector, _) | Fault::Connection(_, Service::Connector(connector), _) => {
            Some(connector)
        }
        _ => None,
    };
    // Behind a backlog a new job does not show the recovery from one fault.
    let probe = if env.variant.is_some() { None } else { Some(env.probe(connector)) };
    while let Some(probe) = &probe
        && !env.upstream.inbox.lock().unwrap().concluded.contains_key(probe)
    {
        sleep(Duration::from_millis(50)).await;
        if healed.elapsed() > PATIENCE {
            println!("  !! {fault:?}: {probe} has no result");
            return None;
        }
    }
    for &worker in hit {
        let is_hit_again = || done.lock().unwrap().under_fault[worker] > 0;
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

async fn inject(env: &TestEnv, planned: Planned) -> Result<(), String> {
    let Planned { fault, lasts, .. } = planned;
    match fault {
        Fault::KillWorker(worker) => {
            samples::kill(env, worker).await;
            sleep(lasts).await;
            env.fleet.start(worker);
        }
        Fault::PauseWorker(worker) => {
            // SIGCONT goes to the process that was stopped, even if another one was started in its place.
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
                // As in a deployment, the next worker restarts when this one is ready.
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
            // An election may be under way.
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
        Fault::Connection(worker, service, fault) => disturb(env.proxy(worker, service), fault, lasts).await,
        Fault::Connector(connector, ProviderFault::Outage) => {
            let proxies = || (0..WORKERS).map(|worker| env.proxy(worker, Service::Connector(connector)));
            proxies().for_each(|proxy| proxy.set(Mode::Refuse));
            sleep(lasts).await;
            proxies().for_each(Proxy::heal);
        }
        Fault::Connector(connector, fault) => {
            let provider = &env.providers[connector];
            fault.fault_rule().into_iter().for_each(|rule| provider.inject_fault(rule.always()));
            sleep(lasts).await;
            provider.clear_faults();
        }
        Fault::Merchant(merchant, MerchantFault::Refuses) => {
            env.merchants[merchant].proxy.set(Mode::Refuse);
            sleep(lasts).await;
            env.merchants[merchant].proxy.heal();
        }
        Fault::Merchant(merchant, fault) => {
            let receiver = &env.merchants[merchant].receiver;
            fault.fault_rule().into_iter().for_each(|rule| receiver.inject_fault(rule.always()));
            sleep(lasts).await;
            receiver.clear_faults();
        }
        Fault::Overload(overload) => overload::inject(env, overload, lasts).await?,
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

async fn disturb(proxy: &Proxy, fault: ConnectionFault, lasts: Duration) {
    match fault.mode() {
        None => proxy.cut(),
        Some(mode) => {
            proxy.set(mode);
            sleep(lasts).await;
            proxy.heal();
        }
    }
}

impl Fault {
    /// Lists the workers that the fault affects directly.
    fn workers(self) -> Vec<usize> {
        match self {
            Self::KillWorker(worker) | Self::PauseWorker(worker) | Self::RestartWorker(worker) => {
                vec![worker]
            }
            Self::Connection(worker, Service::Postgres | Service::RabbitMq, _) => vec![worker],
            Self::Connection(..) | Self::Connector(..) | Self::Merchant(..) => Vec::new(),
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
    fn proxy(&self, worker: usize, service: Service) -> &Proxy {
        let proxies = &self.fleet.workers[worker].proxies;
        match service {
            Service::Postgres => &proxies.postgres,
            Service::RabbitMq => &proxies.rabbitmq,
            Service::Connector(connector) => &proxies.connectors[connector % CONNECTORS.len()],
        }
    }
}
