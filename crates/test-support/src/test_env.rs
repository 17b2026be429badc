//! Starts everything around a worker for one test, and removes it afterwards.

use std::{
    path::PathBuf,
    process::{Output, Stdio},
    sync::{Arc, Mutex},
};

use payout_link_worker::{domain::event_time, rabbitmq::Names};
use provider_simulators::sandbox::{Received, Receiver, Sandbox, Settings};
use serde_json::Value;
use sqlx::{Connection, Executor, PgConnection, PgPool};
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::{Job, ReceivedMessage, Setup, Worker, broker::Upstream, eventually, setup::variable, worker};

/// The credential of the sandbox. It must not appear anywhere.
pub const TOKEN: &str = "canary-provider-token";
/// The webhook secret of the configuration and of the receiver.
pub const WEBHOOK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A test environment: a database and queues of its own, a provider simulator and a merchant.
pub struct TestEnv {
    /// The provider at which links are created.
    pub provider: Sandbox,
    /// The merchant's webhook receiver.
    pub merchant: Receiver,
    /// Connections to the database, with the rights of its owner.
    pub pool: PgPool,
    /// The names of exchanges and queues.
    pub names: Names,
    /// The folder with the configuration and the logs.
    pub folder: PathBuf,
    upstream: Upstream,
    amqp_url: String,
    admin_url: String,
    database: String,
    settings: Vec<(String, String)>,
    workers: Mutex<u32>,
}

impl TestEnv {
    /// Builds the usual environment.
    pub async fn new() -> Self {
        Setup::default().build().await
    }

    pub(super) async fn build(setup: Setup) -> Self {
        let name = format!("it_{}", Uuid::new_v4().simple());
        let admin_url = setup
            .database_url
            .clone()
            .unwrap_or_else(|| std::env::var("DATABASE_URL").expect("DATABASE_URL"));
        let amqp_url = setup.amqp_url.clone().unwrap_or_else(|| std::env::var("AMQP_URL").expect("AMQP_URL"));
        let mut admin = PgConnection::connect(&admin_url).await.unwrap();
        admin.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        let mut database_url: url::Url = admin_url.parse().unwrap();
        database_url.set_path(&name);

        let names = setup.names.clone().unwrap_or_else(|| Names {
            jobs_exchange: format!("{name}.jobs"),
            jobs_routing_key: "create".into(),
            jobs_queue: format!("{name}.create"),
            results_exchange: format!("{name}.results"),
            dead_exchange: format!("{name}.dead"),
            dead_queue: format!("{name}.create.dead"),
            unrouted_exchange: format!("{name}.unrouted"),
            unrouted_queue: format!("{name}.results.unrouted"),
            ..Names::default()
        });
        let upstream = Upstream::connect(&amqp_url, names.clone(), !setup.without_listener).await;
        let provider = Sandbox::start(Settings::new(TOKEN)).await.unwrap();
        let merchant = Receiver::start(&[WEBHOOK_SECRET.to_owned()]).await.unwrap();
        let folder = std::env::temp_dir().join(&name);
        std::fs::create_dir(&folder).unwrap();
        let config = setup.configuration(&database_url, &amqp_url, &names, provider.url());
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

    /// Connects again after a broker of the test's own was away.
    pub async fn reconnect(&mut self) {
        self.upstream = Upstream::connect(&self.amqp_url, self.names.clone(), false).await;
    }

    /// Starts a worker, and waits until it consumes.
    pub async fn start_worker(&self) -> Worker {
        let worker = self.launch_worker(&[]);
        worker.says("connected to RabbitMQ, consuming").await;
        worker
    }

    /// Starts a worker with its own settings, without waiting for it.
    pub fn launch_worker(&self, settings: &[(&str, String)]) -> Worker {
        self.launch(&["run"], settings)
    }

    /// Starts a command of the program with settings of its own, without waiting for it.
    pub fn launch(&self, arguments: &[&str], settings: &[(&str, String)]) -> Worker {
        let number = {
            let mut workers = self.workers.lock().unwrap();
            *workers += 1;
            *workers
        };
        let log = self.folder.join(format!("worker-{number}.log"));
        let mut command = self.command(arguments);
        command.envs(settings.iter().map(|(name, value)| (*name, value.as_str())));
        Worker::start(command, log)
    }

    /// Starts a worker from a script for `sh`. In it `$0` is the program and `$@` are its arguments.
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

    /// Builds a command of the program with this environment's configuration.
    pub fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = worker::command(&self.folder.join("worker.toml"));
        command.envs(self.settings.iter().cloned()).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a command of the program to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Connects a publisher that writes its frames by hand.
    pub fn raw_publisher(&self) -> super::RawPublisher {
        super::RawPublisher::connect(&self.amqp_url)
    }

    /// Publishes a job and waits for the confirm.
    pub async fn publish(&self, job: impl AsRef<Job>) {
        self.upstream.publish(job.as_ref()).await;
    }

    /// Publishes to the jobs exchange with another routing key.
    pub async fn publish_to(&self, routing_key: &str, message: impl AsRef<Job>) {
        self.upstream.publish_to(&self.names.jobs_exchange, routing_key, message.as_ref()).await;
    }

    /// Publishes into the queue of dead letters.
    pub async fn publish_dead_letter(&self, letter: impl AsRef<Job>) {
        self.upstream.publish_to("", &self.names.dead_queue, letter.as_ref()).await;
    }

    /// Returns the results so far.
    pub fn results(&self) -> Vec<ReceivedMessage> {
        self.upstream.received()
    }

    /// Returns the results of a payout so far.
    pub fn results_of(&self, id: &str) -> Vec<ReceivedMessage> {
        self.results().into_iter().filter(|received| received.json()["merchant_payout_id"] == id).collect()
    }

    /// Waits for `count` results of a payout.
    pub async fn wait_for_results(&self, id: &str, count: usize) -> Vec<ReceivedMessage> {
        eventually(&format!("{count} results of {id}"), async || {
            let received = self.results_of(id);
            (received.len() >= count).then_some(received)
        })
        .await
    }

    /// Waits for the first result that answers a message. A message that cannot be read names no payout.
    pub async fn answer_to(&self, message_id: &str) -> ReceivedMessage {
        eventually(&format!("an answer to {message_id}"), async || {
            self.results()
                .into_iter()
                .find(|received| received.correlation_id().as_deref() == Some(message_id))
        })
        .await
    }

    /// Waits for the first result of a payout.
    pub async fn result_of(&self, id: &str) -> ReceivedMessage {
        self.wait_for_results(id, 1).await.remove(0)
    }

    /// Declares a reply queue, and returns it with the messages that it receives.
    pub async fn reply_queue(&self) -> (String, Arc<Mutex<Vec<ReceivedMessage>>>) {
        let (queue, replies) = (self.upstream.reply_queue().await, Arc::default());
        self.upstream.listen(&queue, Arc::clone(&replies)).await;
        (queue, replies)
    }

    /// Declares a queue that rejects all messages.
    pub async fn full_queue(&self) -> String {
        self.upstream.full_queue().await
    }

    /// Binds a queue to the results exchange.
    pub async fn bind_to_results(&self, queue: &str) {
        self.upstream.bind_to_results(queue).await;
    }

    /// Waits for a dead letter and takes it.
    pub async fn dead_letter(&self) -> ReceivedMessage {
        eventually("a dead letter", async || self.upstream.take(&self.names.dead_queue).await).await
    }

    /// Takes a message of a queue, if there is one.
    pub async fn take(&self, queue: &str) -> Option<ReceivedMessage> {
        self.upstream.take(queue).await
    }

    /// Deletes a queue.
    pub async fn delete_queue(&self, queue: &str) {
        self.upstream.delete_queue(queue).await;
    }

    /// Returns how many messages of a queue are ready.
    pub async fn ready(&self, queue: &str) -> u32 {
        self.upstream.ready(queue).await
    }

    /// Returns the output of `show --json` for a payout.
    pub fn shown(&self, id: &str) -> Option<Value> {
        let output = self.run(&["show", "--json", id]);
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Returns the time of a payout's first event, in RFC 3339: as it is in the event's id.
    pub fn time_of_event(&self, id: &str) -> String {
        let event: Uuid = self.shown(id).unwrap()["event"]["id"].as_str().unwrap().parse().unwrap();
        event_time(event).format(&Rfc3339).unwrap()
    }

    /// Returns whether no record has this identifier.
    pub async fn has_no_record(&self, id: &str) -> bool {
        let known = "SELECT EXISTS (SELECT FROM payout_links WHERE merchant_payout_id = $1)";
        !sqlx::query_scalar::<_, bool>(known).bind(id).fetch_one(&self.pool).await.unwrap()
    }

    /// Waits until the output of `show` satisfies a condition.
    pub async fn wait_until_shown(&self, id: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(what, async || self.shown(id).filter(|shown| wanted(shown))).await
    }

    /// Waits until a payout is concluded, its result published and its webhook delivered.
    pub async fn wait_until_delivered(&self, id: &str) -> Value {
        let reply = |shown: &Value| shown["event"].is_object() && shown["event"]["due_at"].is_null();
        self.wait_until_shown(id, &format!("{id} has its result"), reply).await
    }

    /// Returns a webhook URL of this environment's merchant.
    pub fn webhook_url(&self) -> Value {
        self.merchant.url().into()
    }

    /// Waits until the merchant has received this many webhooks.
    pub async fn webhooks(&self, count: usize) -> Vec<Received> {
        let received = self.merchant.until(|received| received.len() >= count);
        tokio::time::timeout(super::DEADLINE, received).await.unwrap_or_else(|_| {
            panic!(
                "{count} webhooks: not within {:?}, but {}",
                super::DEADLINE,
                self.merchant.received().len()
            )
        })
    }

    /// Changes a setting of the workers that start from now on.
    pub fn set(&mut self, setting: &str, value: impl ToString) {
        self.settings.push((variable(setting), value.to_string()));
    }

    /// Delivers the first job of the queue and returns it, like a worker that dies.
    pub async fn deliver_and_give_back(&self) {
        eventually("a job to be delivered", async || self.upstream.give_back(&self.names.jobs_queue).await)
            .await;
    }

    /// Delivers this many jobs and returns all of them, like a session that ends.
    pub async fn deliver_and_give_all_back(&self, count: usize) {
        self.upstream.give_all_back(&self.names.jobs_queue, count).await;
    }

    /// Dumps the database with `pg_dump`, and prints a note if that is not installed.
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

    /// Dumps the whole database as text. Bytes are not in hexadecimal, where a search would find nothing.
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

impl AsRef<Job> for Job {
    fn as_ref(&self) -> &Job {
        self
    }
}

impl Drop for TestEnv {
    /// Removes everything, unless the test failed: then it stays for a diagnosis.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("stays for a diagnosis: {} and database {}", self.folder.display(), self.database);
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
