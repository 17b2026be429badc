//! Runs a scenario: sets everything up, measures, checks, and clears away.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use payout_link_worker::rabbitmq::Names;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};
use tokio::time::{sleep, sleep_until};
use uuid::Uuid;

use crate::{
    Arguments,
    figures::{Figures, Latencies},
    machine,
    queue::{Upstream, confirmed},
    scenarios::{Before, Scenario},
    stubs::{Arrivals, Stubs},
};

/// Fails a run that makes no progress for this long.
pub const STUCK: Duration = Duration::from_mins(1);

/// The first jobs of a paced run meet cold caches. They are created but not counted.
const WARM_UP: Duration = Duration::from_secs(2);

pub async fn run(scenario: &'static Scenario, arguments: &Arguments) -> Figures {
    let is_paced = scenario.rate.is_some();
    let jobs = arguments.jobs.filter(|_| !is_paced && scenario.jobs > 0).unwrap_or(scenario.jobs);
    let place = Place::make(&arguments.worker).await;
    place.fill(scenario.before, arguments.history).await;
    let started = Instant::now();
    let (results, webhooks) =
        (Arc::new(Arrivals::new(started, jobs)), Arc::new(Arrivals::new(started, jobs)));
    let stubs = Stubs::start(scenario, webhooks).await;
    let upstream = Upstream::connect(&place.amqp_url, place.names.clone()).await;
    upstream.listen(results.clone()).await;
    // The worker declares the exchange to which jobs are published. A paced run continues with the same workers.
    let mut workers = vec![place.start(scenario, &stubs).await];
    if is_paced || jobs == 0 {
        while workers.len() < scenario.workers {
            workers.push(place.start(scenario, &stubs).await);
        }
    } else {
        workers.drain(..).for_each(stop);
        upstream.send_all((0..jobs).map(|job| body(job, &stubs))).await;
    }
    if scenario.before == Before::AnotherMerchant {
        fill_with_another_merchant(&upstream, &stubs, arguments.beside).await;
    }
    let answered = (0..jobs).filter(|job| stubs.is_answered(*job)).count();

    let cpu_of = |workers: &[Child]| workers.iter().map(|worker| machine::cpu(worker.id())).sum::<Duration>();
    let cpu_before = cpu_of(&workers);
    let (database, all_before, from) =
        (machine::database(&place.pool).await, machine::all_cpu(), started.elapsed());
    let mut published = Vec::new();
    match scenario.rate {
        Some(rate) => {
            published = pace(&upstream, rate, (0..jobs).map(|job| body(job, &stubs)), started).await;
        }
        None if jobs == 0 => sleep(Duration::from_secs(30)).await,
        None => {
            for _ in 0..scenario.workers {
                workers.push(place.launch(scenario, &stubs));
            }
        }
    }
    let is_done = || results.count() == jobs && stubs.webhooks.count() == answered;
    let (mut progress, mut since) = (0, Instant::now());
    while !is_done() {
        sleep(Duration::from_millis(2)).await;
        let now = results.count() + stubs.webhooks.count();
        if now > progress {
            (progress, since) = (now, Instant::now());
        }
        assert!(
            since.elapsed() < STUCK,
            "{}: {} of {jobs} results, {} of {answered} webhooks; see {}",
            scenario.name,
            results.count(),
            stubs.webhooks.count(),
            place.folder.display()
        );
    }
    let took = started.elapsed().saturating_sub(from);
    let (worker_cpu, all_cpu) =
        (cpu_of(&workers).saturating_sub(cpu_before), machine::all_cpu().saturating_sub(all_before));
    let memory = workers.iter().map(|worker| machine::peak_memory(worker.id())).fold(0.0, f64::max);
    workers.drain(..).for_each(stop);
    // A session adds its work to the statistics at its end.
    sleep(Duration::from_secs(1)).await;
    let after = machine::database(&place.pool).await;

    place.check(jobs, answered).await;
    let (links, doubles) = stubs.links();
    // The run does not wait for the other merchant's jobs.
    let links = if scenario.before == Before::AnotherMerchant { links.min(jobs) } else { links };
    assert_eq!((links, doubles), (jobs, 0), "{}: jobs with one link, and with more", scenario.name);
    assert_eq!(
        (results.repeats(), stubs.webhooks.repeats()),
        (0, 0),
        "{}: results and webhooks that came twice",
        scenario.name
    );
    assert_eq!(upstream.jobs_left().await, 0, "{}: jobs left in the queue", scenario.name);
    upstream.clear_away().await;
    place.clear_away().await;

    let latencies = |arrivals: &Arrivals| {
        let counted = published.iter().enumerate().filter(|(_, at)| **at >= from + WARM_UP);
        let waited = counted.filter_map(|(job, at)| Some(arrivals.at(job)?.saturating_sub(*at)));
        Latencies::of(waited.collect())
    };
    Figures::new(scenario.name, jobs, took, worker_cpu, all_cpu)
        .with_memory(memory)
        .with_database(after.commits - database.commits, after.wal_bytes - database.wal_bytes)
        .with_latencies(latencies(&results), latencies(&stubs.webhooks))
}

/// Publishes the jobs of another merchant, and waits until all are accepted. The worker parks those that exceed the
/// merchant's share.
async fn fill_with_another_merchant(upstream: &Upstream, stubs: &Stubs, jobs: usize) {
    // A worker that knows only one merchant parks nothing.
    upstream.send_all(std::iter::once(("", other_body(0)))).await;
    upstream.send_all((1..jobs).map(|job| ("another", other_body(job)))).await;
    let (mut left, mut since) = (upstream.jobs_left().await, Instant::now());
    while left > 0 {
        sleep(Duration::from_millis(200)).await;
        let now = upstream.jobs_left().await;
        if now < left {
            (left, since) = (now, Instant::now());
        }
        assert!(since.elapsed() < STUCK, "{left} jobs of the other merchant are not accepted");
    }
    let (made, _) = stubs.links();
    eprintln!("{jobs} jobs of another merchant accepted, {made} of them created");
}

/// Builds a job whose result and webhook are not counted.
fn other_body(job: usize) -> Vec<u8> {
    let mut body: serde_json::Value = serde_json::from_slice(&plain_body(job)).unwrap();
    body["merchant_payout_id"] = json!(format!("other-{job:08}"));
    body.to_string().into_bytes()
}

/// Publishes jobs at a steady pace, even if the worker is slower. Returns when each was published, since `started`.
async fn pace(
    upstream: &Upstream,
    rate: u32,
    bodies: impl Iterator<Item = (&'static str, Vec<u8>)>,
    started: Instant,
) -> Vec<Duration> {
    let (first, mut published, mut confirms) = (Instant::now(), Vec::new(), Vec::new());
    for (number, (merchant, body)) in bodies.enumerate() {
        let due = Duration::from_secs(1) * u32::try_from(number).unwrap() / rate;
        sleep_until((first + due).into()).await;
        published.push(started.elapsed());
        confirms.push(upstream.send(merchant, &body).await);
    }
    for confirm in confirms {
        confirmed(confirm).await;
    }
    published
}

fn body(job: usize, stubs: &Stubs) -> (&'static str, Vec<u8>) {
    let mut body: serde_json::Value = serde_json::from_slice(&plain_body(job)).unwrap();
    body["webhook_url"] = json!(stubs.webhook_url(job));
    ("", body.to_string().into_bytes())
}

fn plain_body(job: usize) -> Vec<u8> {
    json!({
        "merchant_payout_id": format!("po-{job:08}"),
        "amount": { "minor_amount": 1000 + job % 1000, "currency": "EUR" },
        "destination_currency": "EUR",
        "address": { "billing_address": {
            "first_name": "Ada", "last_name": "Example", "line1": "1 Example Street", "city": "Berlin",
            "zip_code": "10115", "country_alpha2_code": "DE", "email": "ada@example.com",
        } },
        "customer": { "id": format!("cus-{job}"), "name": "Ada Example", "email": "ada@example.com" },
    })
    .to_string()
    .into_bytes()
}

/// A database and queues of the run's own, and the worker's configuration.
pub struct Place {
    name: String,
    pub amqp_url: String,
    pub names: Names,
    admin: PgConnection,
    pub pool: PgPool,
    folder: PathBuf,
    pub config: PathBuf,
    worker: PathBuf,
}

impl Place {
    pub async fn make(worker: &Path) -> Self {
        let variable =
            |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name}: see scripts/bench"));
        let (admin_url, amqp_url) = (variable("DATABASE_URL"), variable("AMQP_URL"));
        let name = format!("bench_{}", Uuid::new_v4().simple());
        let mut admin = PgConnection::connect(&admin_url).await.unwrap();
        admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        let mut database_url: url::Url = admin_url.parse().unwrap();
        database_url.set_path(&name);
        let names = Names {
            jobs_exchange: format!("{name}.jobs"),
            jobs_routing_key: "create".into(),
            jobs_queue: format!("{name}.create"),
            results_exchange: format!("{name}.results"),
            dead_exchange: format!("{name}.dead"),
            dead_queue: format!("{name}.create.dead"),
            unrouted_exchange: format!("{name}.unrouted"),
            unrouted_queue: format!("{name}.results.unrouted"),
            ..Names::default()
        };
        let folder = std::env::temp_dir().join(&name);
        std::fs::create_dir(&folder).unwrap();
        let config = folder.join("worker.toml");
        let text = format!(
            r#"
            [database]
            url = "{database_url}"
            [broker]
            url = "{amqp_url}"
            [broker.names]
            jobs_exchange = "{name}.jobs"
            jobs_queue = "{name}.create"
            results_exchange = "{name}.results"
            dead_exchange = "{name}.dead"
            dead_queue = "{name}.create.dead"
            unrouted_exchange = "{name}.unrouted"
            unrouted_queue = "{name}.results.unrouted"
            [keys]
            sealing = ["k1:c2VhbGluZyBrZXkgb2YgYSB0ZXN0LCAzMiBieXRlcy4="]
            fingerprint = "ZmluZ2VycHJpbnQga2V5IG9mIGEgdGVzdCwgMzIgYi4="
            [jobs]
            default_connector = "sandbox"
            allow_http_webhooks = true
            [connectors.sandbox]
            kind = "sandbox"
            token = "bench"
            [webhooks]
            secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
            allowed_networks = ["127.0.0.0/8"]
            [log]
            format = "json"
            # A line a job is the log's own cost, not the worker's.
            filter = "warn,payout_link_worker::rabbitmq=info"
            "#
        );
        std::fs::write(&config, text).unwrap();
        let pool = PgPool::connect_lazy(database_url.as_str()).unwrap();
        let place = Self { name, amqp_url, names, admin, pool, folder, config, worker: worker.to_owned() };
        assert!(place.command("migrate").status().unwrap().success(), "migrate");
        place
    }

    pub fn command(&self, command: &str) -> Command {
        let log = File::options().create(true).append(true).open(self.folder.join("worker.log")).unwrap();
        let mut process = Command::new(&self.worker);
        process.env_remove("DATABASE_URL").env_remove("AMQP_URL");
        // `migrate` does not need this variable, but reads the configuration that refers to it.
        process.env("PAYOUT_LINK__CONNECTORS__SANDBOX__URL", "http://127.0.0.1:9");
        process.arg("--config").arg(&self.config).arg(command);
        process.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        process
    }

    fn launch(&self, scenario: &Scenario, stubs: &Stubs) -> Child {
        let mut command = self.command("run");
        let port = stubs.connector.port();
        command.env("PAYOUT_LINK__CONNECTORS__SANDBOX__URL", format!("http://127.0.0.1:{port}"));
        for (name, value) in scenario.settings {
            command.env(format!("PAYOUT_LINK__{name}"), value);
        }
        command.spawn().unwrap()
    }

    /// Starts the scenario's worker, and waits until it consumes.
    async fn start(&self, scenario: &Scenario, stubs: &Stubs) -> Child {
        self.until_consuming(|| self.launch(scenario, stubs)).await
    }

    /// Starts a worker, and waits until it consumes.
    pub async fn until_consuming(&self, launch: impl FnOnce() -> Child) -> Child {
        let consuming = || {
            let log = std::fs::read_to_string(self.folder.join("worker.log")).unwrap_or_default();
            log.matches("connected to RabbitMQ, consuming").count()
        };
        let before = consuming();
        let worker = launch();
        let since = Instant::now();
        while consuming() == before {
            assert!(since.elapsed() < STUCK, "the worker does not start; see {}", self.folder.display());
            sleep(Duration::from_millis(20)).await;
        }
        worker
    }

    async fn fill(&self, before: Before, history: u64) {
        let (count, waits) = match before {
            Before::Nothing | Before::AnotherMerchant => return,
            Before::History => (i64::try_from(history).unwrap(), false),
            Before::WaitingWebhooks => (100_000, true),
        };
        let mut connection = self.pool.acquire().await.unwrap();
        connection.execute("SET enable_seqscan = off").await.unwrap();
        // A piece is as large as the number of jobs in flight. Now and then VACUUM runs, as autovacuum would.
        let (piece, vacuum) = (2_000, 200_000);
        for first in (0..count).step_by(piece) {
            let last = (first + i64::try_from(piece).unwrap()).min(count) - 1;
            for step in [
                sqlx::query(include_str!("fill/accepted.sql")).bind(first).bind(last),
                sqlx::query(include_str!("fill/concluded.sql")),
                sqlx::query(include_str!("fill/delivered.sql")).bind(waits),
            ] {
                step.execute(&mut *connection).await.unwrap();
            }
            if (last + 1) % vacuum == 0 {
                connection.execute("VACUUM (ANALYZE) payout_links, events").await.unwrap();
            }
        }
        for statement in ["RESET enable_seqscan", "VACUUM (ANALYZE)", "CHECKPOINT"] {
            connection.execute(statement).await.unwrap();
        }
    }

    /// Checks that every job has its record, and that every event is delivered, except to a merchant that never
    /// answers.
    async fn check(&self, jobs: usize, answered: usize) {
        let counted: (i64, i64) = sqlx::query_as(
            "SELECT count(*) FILTER (WHERE state = 'created' AND merchant_payout_id LIKE 'po-%'),
                (SELECT count(*) FROM events e JOIN payout_links p ON p.id = e.payout_link_id
                 WHERE e.due_at IS NULL AND p.merchant_payout_id LIKE 'po-%')
             FROM payout_links",
        )
        .fetch_one(&self.pool)
        .await
        .unwrap();
        let wanted = (i64::try_from(jobs).unwrap(), i64::try_from(answered).unwrap());
        assert_eq!(counted, wanted, "created records, and delivered events; see {}", self.folder.display());
    }

    pub async fn clear_away(mut self) {
        self.pool.close().await;
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        self.admin.execute(AssertSqlSafe(drop)).await.unwrap();
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

/// Sends SIGTERM and waits for the end.
pub fn stop(mut worker: Child) {
    let sent = Command::new("kill").arg(worker.id().to_string()).status().unwrap();
    assert!(sent.success() && worker.wait().unwrap().success(), "a worker did not stop cleanly");
}
