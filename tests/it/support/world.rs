//! Everything around a worker, made for one test and cleared away with it.

use std::{
    path::PathBuf,
    process::{Output, Stdio},
    sync::{Arc, Mutex},
};

use payout_link_worker::{
    broker::Names,
    sandbox::{Received, Receiver, Sandbox, Settings},
};
use serde_json::Value;
use sqlx::{Connection, Executor, PgConnection, PgPool};
use uuid::Uuid;

use super::{Heard, Job, Worker, broker::Upstream, eventually, worker};

pub const TOKEN: &str = "canary-provider-token";
pub const WEBHOOK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// How a world differs from the usual one.
#[derive(Default)]
pub struct Setup {
    settings: Vec<(String, String)>,
    database_url: Option<String>,
    amqp_url: Option<String>,
    deaf: bool,
    names: Option<Names>,
    only_connector: Option<&'static str>,
    short_leases: bool,
    more_connectors: String,
}

impl Setup {
    /// A setting of the workers: `worker.lease_seconds`.
    pub fn set(mut self, setting: &str, value: impl ToString) -> Self {
        self.settings.push((variable(setting), value.to_string()));
        self
    }

    /// A server of the test's own.
    pub fn database(mut self, url: &str) -> Self {
        self.database_url = Some(url.into());
        self
    }

    pub fn broker(mut self, url: &str) -> Self {
        self.amqp_url = Some(url.into());
        self
    }

    /// Of a broker of the test's own.
    pub fn names(mut self, names: Names) -> Self {
        self.names = Some(names);
        self
    }

    /// Calls, leases and settle times of a few seconds, for stories in which they run out. Otherwise they are long
    /// enough for a machine that stands still in between.
    pub fn short_leases(mut self) -> Self {
        self.short_leases = true;
        self
    }

    /// No queue is bound to the results exchange.
    pub fn without_listener(mut self) -> Self {
        self.deaf = true;
        self
    }

    /// The worker knows one connector alone.
    pub fn only_connector(mut self, name: &'static str) -> Self {
        self.only_connector = Some(name);
        self
    }

    /// One more connector: its `[connectors.NAME]`, as TOML.
    pub fn connector(mut self, section: &str) -> Self {
        self.more_connectors += section;
        self
    }

    /// One more account, `broken`, at a provider of its own; `settings` as TOML.
    pub fn broken_account(self, provider: &Sandbox, settings: &str) -> Self {
        self.connector(&format!(
            r#"
            [connectors.broken]
            kind = "sandbox"
            url = "{}"
            token = "{TOKEN}"
            allow_http_links = true
            {settings}
            "#,
            provider.url()
        ))
    }

    pub async fn build(self) -> World {
        World::build(self).await
    }
}

pub struct World {
    pub provider: Sandbox,
    pub merchant: Receiver,
    pub pool: PgPool,
    pub names: Names,
    pub folder: PathBuf,
    upstream: Upstream,
    amqp_url: String,
    admin_url: String,
    database: String,
    settings: Vec<(String, String)>,
    workers: Mutex<u32>,
}

impl World {
    pub async fn new() -> Self {
        Setup::default().build().await
    }

    async fn build(setup: Setup) -> Self {
        let name = format!("it_{}", Uuid::new_v4().simple());
        let admin_url =
            setup.database_url.unwrap_or_else(|| std::env::var("DATABASE_URL").expect("DATABASE_URL"));
        let amqp_url = setup.amqp_url.unwrap_or_else(|| std::env::var("AMQP_URL").expect("AMQP_URL"));
        let mut admin = PgConnection::connect(&admin_url).await.unwrap();
        admin.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        let mut database_url: url::Url = admin_url.parse().unwrap();
        database_url.set_path(&name);

        let names = setup.names.unwrap_or_else(|| Names {
            jobs_exchange: format!("{name}.jobs"),
            jobs_routing_key: "create".into(),
            jobs_queue: format!("{name}.create"),
            results_exchange: format!("{name}.results"),
            dead_exchange: format!("{name}.dead"),
            dead_queue: format!("{name}.create.dead"),
            unrouted_exchange: format!("{name}.unrouted"),
            unrouted_queue: format!("{name}.results.unrouted"),
        });
        let upstream = Upstream::connect(&amqp_url, names.clone(), !setup.deaf).await;
        let provider = Sandbox::start(Settings::new(TOKEN)).await.unwrap();
        let merchant = Receiver::start(&[WEBHOOK_SECRET.to_owned()]).await.unwrap();
        let folder = std::env::temp_dir().join(&name);
        std::fs::create_dir(&folder).unwrap();
        let (lease_seconds, call_seconds) = if setup.short_leases { (9, 5) } else { (14, 10) };
        let config = format!(
            r#"
            [worker]
            lease_seconds = {lease_seconds}
            sweep_interval_ms = 100
            [database]
            url = "{database_url}"
            max_connections = 6
            [broker]
            url = "{amqp_url}"
            heartbeat_seconds = 5
            publish_patience_seconds = 10
            publish_pause_seconds = 1
            [broker.names]
            jobs_exchange = "{jobs_exchange}"
            jobs_queue = "{jobs_queue}"
            results_exchange = "{results_exchange}"
            dead_exchange = "{dead_exchange}"
            dead_queue = "{dead_queue}"
            unrouted_exchange = "{unrouted_exchange}"
            unrouted_queue = "{unrouted_queue}"
            [keys]
            sealing = ["k1:c2VhbGluZyBrZXkgb2YgYSB0ZXN0LCAzMiBieXRlcy4="]
            fingerprint = "ZmluZ2VycHJpbnQga2V5IG9mIGEgdGVzdCwgMzIgYi4="
            [jobs]
            default_connector = "sandbox"
            allow_http_webhooks = true
            [retry]
            initial_ms = 50
            max_interval_seconds = 1
            wait_in_place_ms = 1000
            {connectors}
            [webhooks]
            secrets = ["{WEBHOOK_SECRET}"]
            schedule_seconds = [1, 1, 1]
            timeout_seconds = 10
            allowed_networks = ["127.0.0.0/8"]
            [log]
            format = "json"
            filter = "debug"
            "#,
            jobs_exchange = names.jobs_exchange,
            jobs_queue = names.jobs_queue,
            results_exchange = names.results_exchange,
            dead_exchange = names.dead_exchange,
            dead_queue = names.dead_queue,
            unrouted_exchange = names.unrouted_exchange,
            unrouted_queue = names.unrouted_queue,
            connectors = [("sandbox", "same-key"), ("asked", "look-up"), ("mute", "never")]
                .into_iter()
                .filter(|(name, _)| setup.only_connector.is_none_or(|only| only == *name))
                .map(|(name, replay)| {
                    let times = format!(
                        "settle_seconds = {lease_seconds}\n\
                         calls = {{ timeout_seconds = {call_seconds}, breaker_pause_seconds = 1 }}"
                    );
                    connector(name, replay, provider.url(), &times)
                })
                .chain([setup.more_connectors])
                .collect::<String>(),
        );
        std::fs::write(folder.join("worker.toml"), config).unwrap();
        Self {
            provider,
            merchant,
            pool: PgPool::connect_lazy(database_url.as_str()).unwrap(),
            names,
            folder,
            upstream,
            amqp_url,
            admin_url,
            database: name,
            settings: setup.settings,
            workers: Mutex::new(0),
        }
    }

    /// After a broker of the test's own was away.
    pub async fn reconnect(&mut self) {
        self.upstream = Upstream::connect(&self.amqp_url, self.names.clone(), false).await;
    }

    /// Starts a worker, and waits until it consumes.
    pub async fn start_worker(&self) -> Worker {
        let worker = self.launch_worker(&[]);
        worker.says("connected to RabbitMQ, consuming").await;
        worker
    }

    /// Starts a worker with settings of its own, without waiting for it.
    pub fn launch_worker(&self, settings: &[(&str, String)]) -> Worker {
        let number = {
            let mut workers = self.workers.lock().unwrap();
            *workers += 1;
            *workers
        };
        let log = self.folder.join(format!("worker-{number}.log"));
        let mut command = self.command(&["run"]);
        command.envs(settings.iter().map(|(name, value)| (*name, value.as_str())));
        Worker::start(command, log)
    }

    /// Starts a worker from a script of sh's, whose `$0` is the program and `$@` its arguments.
    pub fn launch_from(&self, shell: &[&str], script: &str, program: &std::path::Path) -> Worker {
        let plain = self.command(&["run"]);
        let mut command = std::process::Command::new(shell[0]);
        command.args(&shell[1..]).args(["-c", script]).arg(program).args(plain.get_args());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Worker::start(command, self.folder.join("from-a-script.log"))
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = worker::command(&self.folder.join("worker.toml"));
        command.envs(self.settings.iter().cloned()).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a command of the program to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Something that writes to the broker by hand.
    pub fn raw_publisher(&self) -> super::RawPublisher {
        super::RawPublisher::connect(&self.amqp_url)
    }

    pub async fn publish(&self, job: impl AsRef<Job>) {
        self.upstream.publish(job.as_ref()).await;
    }

    pub fn results(&self) -> Vec<Heard> {
        self.upstream.heard()
    }

    pub fn results_of(&self, id: &str) -> Vec<Heard> {
        self.results().into_iter().filter(|heard| heard.json()["merchant_payout_id"] == id).collect()
    }

    /// Waits for `count` results of a payout.
    pub async fn wait_for_results(&self, id: &str, count: usize) -> Vec<Heard> {
        eventually(&format!("{count} results of {id}"), async || {
            let heard = self.results_of(id);
            (heard.len() >= count).then_some(heard)
        })
        .await
    }

    /// Waits for the first result of a payout.
    pub async fn result_of(&self, id: &str) -> Heard {
        self.wait_for_results(id, 1).await.remove(0)
    }

    /// A queue of the test's own, and what comes to it.
    pub async fn reply_queue(&self) -> (String, Arc<Mutex<Vec<Heard>>>) {
        let (queue, replies) = (self.upstream.reply_queue().await, Arc::default());
        self.upstream.listen(&queue, Arc::clone(&replies)).await;
        (queue, replies)
    }

    /// A queue of the test's own that refuses whatever is published to it.
    pub async fn full_queue(&self) -> String {
        self.upstream.full_queue().await
    }

    /// Waits for a dead letter and takes it.
    pub async fn dead_letter(&self) -> Heard {
        eventually("a dead letter", async || self.upstream.take(&self.names.dead_queue).await).await
    }

    pub async fn take(&self, queue: &str) -> Option<Heard> {
        self.upstream.take(queue).await
    }

    pub async fn ready(&self, queue: &str) -> u32 {
        self.upstream.ready(queue).await
    }

    /// What `show --json` says of a payout.
    pub fn shown(&self, id: &str) -> Option<Value> {
        let output = self.run(&["show", "--json", id]);
        serde_json::from_slice(&output.stdout).ok()
    }

    pub async fn has_no_record(&self, id: &str) -> bool {
        let known = "SELECT EXISTS (SELECT FROM payout_links WHERE merchant_payout_id = $1)";
        !sqlx::query_scalar::<_, bool>(known).bind(id).fetch_one(&self.pool).await.unwrap()
    }

    /// Waits until `show` says what is wanted of a payout.
    pub async fn wait_until_shown(&self, id: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(what, async || self.shown(id).filter(|shown| wanted(shown))).await
    }

    /// Waits until nothing is left to be done for a payout: concluded, published, posted.
    pub async fn wait_until_told(&self, id: &str) -> Value {
        let told = |shown: &Value| shown["event"].is_object() && shown["event"]["due_at"].is_null();
        self.wait_until_shown(id, &format!("{id} is told"), told).await
    }

    /// A webhook URL of this world's merchant.
    pub fn webhook_url(&self) -> Value {
        self.merchant.url().into()
    }

    /// Waits until the merchant has heard so often.
    pub async fn webhooks(&self, count: usize) -> Vec<Received> {
        let heard = self.merchant.until(|received| received.len() >= count);
        tokio::time::timeout(super::DEADLINE, heard).await.unwrap_or_else(|_| {
            panic!(
                "{count} webhooks: not within {:?}, but {}",
                super::DEADLINE,
                self.merchant.received().len()
            )
        })
    }

    /// A setting of the workers that are started from now on.
    pub fn set(&mut self, setting: &str, value: impl ToString) {
        self.settings.push((variable(setting), value.to_string()));
    }

    /// Delivers the job that is first in the queue, and gives it back as a worker does that dies.
    pub async fn deliver_and_give_back(&self) {
        eventually("a job to be delivered", async || self.upstream.give_back(&self.names.jobs_queue).await)
            .await;
    }

    /// The database as an operator's backup has it. Said aloud where there is no pg_dump to make one.
    pub fn pg_dump(&self) -> String {
        let mut url: url::Url = self.admin_url.parse().unwrap();
        url.set_path(&self.database);
        match std::process::Command::new("pg_dump").arg(url.as_str()).output() {
            Ok(dumped) => {
                assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
                String::from_utf8(dumped.stdout).unwrap()
            }
            Err(error) => {
                eprintln!("pg_dump: {error}: its output is NOT searched");
                String::new()
            }
        }
    }

    /// All that is in the database, as text; bytes as they are, not in hexadecimal, where nothing would be found.
    pub async fn dump(&self) -> String {
        let mut dump = String::new();
        for table in ["payout_links", "events", "attempts"] {
            let bytes = if table == "payout_links" {
                "|| encode(row.request, 'escape') || encode(row.result, 'escape')"
            } else {
                ""
            };
            let rows = format!("SELECT row_to_json(row)::text {bytes} FROM {table} row");
            let rows: Vec<String> =
                sqlx::query_scalar(sqlx::AssertSqlSafe(rows)).fetch_all(&self.pool).await.unwrap();
            dump += &format!("{table}\n{}\n", rows.join("\n"));
        }
        dump
    }
}

fn variable(setting: &str) -> String {
    format!("PAYOUT_LINK__{}", setting.to_uppercase().replace('.', "__"))
}

impl AsRef<Job> for Job {
    fn as_ref(&self) -> &Job {
        self
    }
}

fn connector(name: &str, replay: &str, url: &str, times: &str) -> String {
    format!(
        r#"
            [connectors.{name}]
            kind = "sandbox"
            url = "{url}"
            token = "{TOKEN}"
            replay = "{replay}"
            allow_http_links = true
            {times}
        "#
    )
}

impl Drop for World {
    /// Clears away, unless the test failed: then everything is left to be looked at.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("left to look at: {} and database {}", self.folder.display(), self.database);
            return;
        }
        let (amqp_url, names) = (self.amqp_url.clone(), self.names.clone());
        let (admin_url, database) = (self.admin_url.clone(), self.database.clone());
        let cleared = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                Upstream::connect(&amqp_url, names, false).await.delete_topology().await;
                let mut admin = PgConnection::connect(&admin_url).await.unwrap();
                admin
                    .execute(sqlx::AssertSqlSafe(format!("DROP DATABASE {database} WITH (FORCE)")))
                    .await
                    .unwrap();
            });
        });
        let _ = cleared.join();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
