//! Runs one point: a fault meets a worker behind the proxies, the other workers continue, and the checker judges.

use std::{
    net::{SocketAddr, TcpListener},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use provider_simulators::{
    providers::{ProviderSimulator, Settings},
    sandbox::Idempotency,
};
use serde_json::Value;

use crate::{
    accounts::{self, Account},
    evidence::{GLANCE, Run},
    follow::SECRET,
    history::{self, Record, Rule, Violation},
    kinds::Kind,
    letters,
    plan::{Mode, Point},
    proxy::{Chunk, Fault, Injected, Proxies, Service},
    support::{DEADLINE, Setup, TestEnv, Worker},
};

pub struct Outcome {
    pub kind: Kind,
    /// `None` for a run without a fault.
    pub point: Option<Point>,
    /// The injected faults. Empty if the jobs were finished before.
    pub injected: Vec<Injected>,
    /// The counted chunks.
    pub passed: Vec<Chunk>,
    pub violations: Vec<Violation>,
    pub took: Duration,
}

impl Outcome {
    /// Returns the mode; `None` for a run without a fault.
    pub fn mode(&self) -> Option<Mode> {
        self.point.map(|point| point.mode)
    }

    /// Reports a run that ended with a panic: a defect of the matrix itself, or an error that it does not expect.
    pub fn panicked(kind: Kind, point: Option<&Point>) -> Self {
        let evidence = point.map_or_else(|| "without a fault".into(), |point| format!("{point:?}"));
        Self {
            kind,
            point: point.copied(),
            injected: Vec::new(),
            passed: Vec::new(),
            violations: vec![Violation { rule: "panic", evidence }],
            took: Duration::ZERO,
        }
    }
}

static ACCOUNTS: [&Account; 4] =
    [&accounts::HYPERSWITCH, &accounts::REVOLUT, &accounts::RAZORPAYX, &accounts::XENDIT];

/// A test environment, and a simulator of every provider.
pub struct Place {
    pub env: TestEnv,
    /// The port on which its workers accept webhooks of providers, one worker after the other.
    pub webhooks_port: u16,
    simulators: Vec<(&'static Account, ProviderSimulator)>,
}

impl Place {
    pub fn simulator(&self, account: &Account) -> &ProviderSimulator {
        let found = self.simulators.iter().find(|(theirs, _)| theirs.kind == account.kind);
        found.map(|(_, simulator)| simulator).unwrap()
    }

    /// Returns the URL of the provider for a kind of job.
    fn connector_url(&self, kind: Kind) -> &str {
        kind.account().map_or(self.env.provider.url(), |account| self.simulator(account).url())
    }

    /// Sets the connector's faults for the payout `id`.
    fn order(&self, kind: Kind, id: &str) {
        let order = kind.at_connector().map(|order| order.for_reference(kind.reference(id)));
        let Some(account) = kind.account() else {
            // Without idempotency keys, every repeat without a look-up creates a second link.
            let keys_count = kind.rule() == Rule::SameKey;
            let idempotency = if keys_count { Idempotency::On } else { Idempotency::Off };
            self.env.provider.set_idempotency(idempotency);
            let ahead = kind
                .ahead(id)
                .into_iter()
                .filter_map(|id| Some(kind.ahead_at_connector()?.for_reference(kind.reference(&id))));
            order.into_iter().chain(ahead).for_each(|order| self.env.provider.inject_fault(order));
            return;
        };
        let simulator = self.simulator(account);
        if let Some(stages) = kind.stages() {
            simulator.set_stages(stages);
        }
        if let Some(order) = order {
            simulator.inject_fault(order);
        }
    }
}

/// Returns the shortest settings that the configuration allows.
pub async fn place() -> Place {
    let mut setup = Setup::default();
    let mut simulators = Vec::new();
    for account in ACCOUNTS {
        let simulator = ProviderSimulator::start(Settings::new((account.provider)())).await.unwrap();
        let calls = "timeout_seconds = 1, breaker_pause_seconds = 1";
        setup = setup.connector(&account.section(account.kind, simulator.url(), calls, 5));
        simulators.push((account, simulator));
    }
    let webhooks_port = free_port();
    let env = setup
        .set("worker.provider_webhooks_listen", format!("127.0.0.1:{webhooks_port}"))
        .set("connectors.sandbox.follow.webhook_secrets", serde_json::json!([SECRET]))
        .set("worker.lease_seconds", 4)
        // Each worker calls the provider through a proxy of its own.
        .set("connectors.sandbox.account", "matrix")
        .set("connectors.asked.account", "matrix")
        .set("connectors.mute.account", "matrix")
        .set("worker.grace_period_seconds", 15)
        .set("connectors.sandbox.calls.timeout_seconds", 1)
        .set("connectors.asked.calls.timeout_seconds", 1)
        .set("connectors.mute.calls.timeout_seconds", 1)
        .set("connectors.asked.settle_seconds", 4)
        .set("database.timeout_seconds", 2)
        .set("broker.publish_patience_seconds", 1)
        .set("webhooks.timeout_seconds", 1)
        .set("retry.wait_in_place_ms", 2000)
        .build()
        .await;
    Place { env, webhooks_port, simulators }
}

/// Returns a free port below the range that the system assigns.
fn free_port() -> u16 {
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let mut ports =
        std::iter::repeat_with(|| 20_000 + u16::try_from(uuid::Uuid::new_v4().as_u128() % 10_000).unwrap());
    ports.find(is_free).unwrap()
}

static SERIAL: AtomicU64 = AtomicU64::new(1);

/// Runs the jobs of a kind, with the faults of the point. Without a point there is no fault.
pub async fn run(place: &Place, kind: Kind, point: Option<&Point>) -> Outcome {
    let (env, started) = (&place.env, Instant::now());
    let id = format!("po-{}", SERIAL.fetch_add(1, Ordering::Relaxed));
    place.order(kind, &id);
    if let Some(order) = kind.at_merchant() {
        env.merchant.inject_fault(order.for_reference(&id));
    }
    for id in kind.ahead(&id) {
        let order = kind.ahead_at_merchant().map(|order| order.for_reference(id));
        if let Some(order) = order {
            env.merchant.inject_fault(order);
        }
    }
    let proxies = Proxies::start(targets(env, place.connector_url(kind))).await;
    let letters_lock = letters::lock(place, kind).await;
    let first = launch(place, kind, &proxies, sweep_interval(kind, point));
    first.says("connected to RabbitMQ, consuming").await;
    proxies.watch_over(first);

    let mut run = Run::new(place, kind);
    run.letters_lock = letters_lock;
    let webhook = Value::from(format!("http://{}/webhooks", proxies.address(Service::Merchant)));
    if let Some(first) = kind.first(&id, &webhook) {
        env.publish(&first.job).await;
        run.planned_jobs.push(first);
        run.settled(usize::from(kind.first_is_rejected())).await;
        run.prepare(&id).await;
        run.before = run.records().await;
    }
    // The worker has finished its start.
    while proxies.idle_for() < Duration::from_millis(150) {
        tokio::time::sleep(GLANCE).await;
    }
    let reply_queue = if kind.wants_reply() {
        let (queue, replies) = env.reply_queue().await;
        run.replies = replies;
        Some(queue)
    } else {
        None
    };
    let full = if kind.replies_are_refused() { Some(env.full_queue().await) } else { None };
    let planned_jobs = kind.planned_jobs(&id, &webhook).into_iter().map(|planned| {
        let queue = if planned.is_valid { reply_queue.as_deref() } else { full.as_deref() };
        planned.replied_to(queue)
    });
    proxies.arm(point.into_iter().flat_map(Point::triggers)).await;
    for planned in planned_jobs {
        env.publish(&planned.job).await;
        run.planned_jobs.push(planned);
    }
    run.change(&id, &proxies).await;
    tokio::select! {
        () = proxies.faults(1) => {}
        _ = finished(&mut run, &proxies) => {}
    }

    let (first, passed) = proxies.outcome().await;
    let mut found = Vec::new();
    let is_the_commands = first.first().is_some_and(|first| first.chunk.service.is_operators());
    let mut worker = match first.first().map(|first| first.trigger.fault) {
        None => proxies.survivor().unwrap(),
        fault if is_the_commands || matches!(fault, Some(Fault::Reset | Fault::Silence)) => {
            // It runs alone: it finishes its work, and then one more job.
            let mut is_done = finished(&mut run, &proxies).await;
            let after = kind.after(&id, &webhook).replied_to(reply_queue.as_deref());
            env.publish(&after.job).await;
            run.planned_jobs.push(after);
            is_done &= finished(&mut run, &proxies).await;
            let evidence = "the worker did not come to rest by itself".into();
            found.extend((!is_done).then_some(Violation { rule: "R10", evidence }));
            proxies.survivor().unwrap()
        }
        Some(Fault::Stop) => {
            if point.is_some_and(|point| point.second.is_some()) {
                proxies.victim_ended().await;
            }
            if let Some(stopping) = proxies.survivor() {
                found.extend(stopped(&run, stopping).await);
            }
            run.lapse().await;
            start(place, kind).await
        }
        Some(_) => {
            run.lapse().await;
            if point.is_some_and(|point| point.second.is_some()) {
                proxies.watch_over(launch(place, kind, &proxies, OFTEN));
                tokio::select! {
                    () = proxies.faults(2) => {}
                    // If everything was published before, the second worker may not handle signals yet.
                    _ = async { tokio::join!(finished(&mut run, &proxies), proxies.another_consumes()) } => {}
                }
                run.lapse().await;
            }
            match proxies.survivor() {
                Some(second) => second,
                None => start(place, kind).await,
            }
        }
    };
    // Only a stopped worker has no unacknowledged deliveries. The next one answers those that it returned.
    finished(&mut run, &proxies).await;
    for _ in 0..3 {
        worker.signal("TERM");
        found.extend(stopped(&run, worker).await);
        run.waiting = env.ready(&env.names.jobs_queue).await;
        if run.waiting == 0 {
            break;
        }
        let received = run.received().len();
        worker = start(place, kind).await;
        run.receives(received + run.waiting as usize).await;
    }
    let (injected, _) = proxies.outcome().await;
    found.extend(run.unknown_and_uncalled().await);
    found.extend(run.unannounced().await);
    found.extend(run.not_carried_out().await);
    found.extend(run.letters_left().await);
    run.forget_links().await;
    found.extend(history::check(&run.history().await));
    Outcome { kind, point: point.copied(), injected, passed, violations: found, took: started.elapsed() }
}

/// Waits until the operator's command is done and no work is left. Returns whether that happened before the deadline.
async fn finished(run: &mut Run<'_>, proxies: &Proxies) -> bool {
    run.operated(proxies).await;
    run.settled(run.kind.refusals()).await
}

/// Checks that a worker which was asked to stop ends in time, with success, and without a lease.
async fn stopped(run: &Run<'_>, mut worker: Worker) -> Vec<Violation> {
    let mut evidence = Vec::new();
    match tokio::time::timeout(DEADLINE, worker.exited()).await {
        Err(_) => evidence.push("a worker that was stopped runs on".to_owned()),
        Ok(status) if !status.success() => evidence.push(format!("a worker stopped with {status}")),
        Ok(_) if worker.log().contains("grace period over") => {
            evidence.push("a worker that was stopped had something under way that did not end".into());
        }
        Ok(_) => {}
    }
    let is_left = |record: &&Record| record.leased || record.event.as_ref().is_some_and(|event| event.leased);
    let records = run.records().await;
    evidence.extend(
        records.iter().filter(is_left).map(|left| format!("left leased by a worker that stopped: {left:?}")),
    );
    let held = run.held_follows().await;
    if held > 0 {
        evidence.push(format!("{held} links are asked about by a worker that stopped"));
    }
    evidence.into_iter().map(|evidence| Violation { rule: "R10", evidence }).collect()
}

const OFTEN: Duration = Duration::from_millis(1500);
const SELDOM: Duration = Duration::from_secs(30);
/// Dead letters are read after ten to twenty sweeps.
const FOR_LETTERS: Duration = Duration::from_millis(250);

/// Returns the sweep interval. Sweeps add chunks to the sequence, so they are rare unless a kind or mode depends on one.
fn sweep_interval(kind: Kind, point: Option<&Point>) -> Duration {
    if kind == Kind::OldLetters {
        return FOR_LETTERS;
    }
    let survives = point.is_some_and(|point| matches!(point.first.fault, Fault::Reset | Fault::Silence));
    let hangs_on_it = matches!(kind, Kind::WebhookFails | Kind::RevolutUnderway)
        || kind.is_operated()
        || kind.is_saturated();
    if survives || hangs_on_it { OFTEN } else { SELDOM }
}

fn targets(env: &TestEnv, connector: &str) -> [SocketAddr; Service::ALL.len()] {
    let address = |url: &str| -> SocketAddr {
        let url: url::Url = url.parse().unwrap();
        let default = if url.scheme() == "postgres" { 5432 } else { 5672 };
        let addresses = url.socket_addrs(|| Some(default)).unwrap();
        addresses[0]
    };
    let variable = |name: &str| std::env::var(name).unwrap();
    let (postgres, rabbitmq) = (address(&variable("DATABASE_URL")), address(&variable("AMQP_URL")));
    [postgres, rabbitmq, address(connector), address(env.merchant.url()), postgres, rabbitmq]
}

fn database_url(env: &TestEnv) -> String {
    let options = env.pool.connect_options();
    let mut url: url::Url = std::env::var("DATABASE_URL").unwrap().parse().unwrap();
    url.set_path(options.get_database().unwrap());
    url.to_string()
}

/// Starts a worker that gets no faults.
async fn start(place: &Place, kind: Kind) -> Worker {
    let asks_often = kind.settings().iter().filter(|_| kind.course().is_some());
    let settings: Vec<(&str, String)> =
        asks_often.map(|(name, value)| (*name, (*value).to_owned())).collect();
    let worker = place.env.launch_worker(&settings);
    worker.says("connected to RabbitMQ, consuming").await;
    worker
}

/// Starts a worker that gets faults: it reaches every service through a proxy.
fn launch(place: &Place, kind: Kind, proxies: &Proxies, sweep_interval: Duration) -> Worker {
    let connector = format!("PAYOUT_LINK__CONNECTORS__{}__URL", kind.connector().to_uppercase());
    let mut settings = vec![
        ("PAYOUT_LINK__DATABASE__URL", through(proxies, &database_url(&place.env), Service::Postgres)),
        ("PAYOUT_LINK__BROKER__URL", through(proxies, &broker_url(), Service::RabbitMq)),
        (connector.as_str(), through(proxies, place.connector_url(kind), Service::Connector)),
        ("PAYOUT_LINK__WORKER__SWEEP_INTERVAL_MS", sweep_interval.as_millis().to_string()),
    ];
    settings.extend(kind.settings().iter().map(|(name, value)| (*name, (*value).to_owned())));
    place.env.launch_worker(&settings)
}

/// Returns the settings by which an operator's command reaches the servers through the proxies.
pub fn operator_settings(place: &Place, proxies: &Proxies) -> Vec<(&'static str, String)> {
    let database = through(proxies, &database_url(&place.env), Service::OperatorPostgres);
    let broker = through(proxies, &broker_url(), Service::OperatorRabbitMq);
    vec![("PAYOUT_LINK__DATABASE__URL", database), ("PAYOUT_LINK__BROKER__URL", broker)]
}

fn broker_url() -> String {
    std::env::var("AMQP_URL").unwrap()
}

fn through(proxies: &Proxies, url: &str, service: Service) -> String {
    let mut url: url::Url = url.parse().unwrap();
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(proxies.address(service).port())).unwrap();
    url.to_string()
}
