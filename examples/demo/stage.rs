//! Everything around the jobs of a demonstration: a database, queues, a merchant, a worker.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use aws_lc_rs::rand;
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer,
    options::{
        BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::FieldTable,
};
use provider_simulators::sandbox::{Received, Receiver};
use serde_json::Value;
use sqlx::{Connection as _, Executor, PgConnection};
use tokio::time::timeout;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(30);

/// Everything around the jobs.
pub struct Stage {
    pub merchant: Receiver,
    pub channel: Channel,
    results: tokio::sync::Mutex<Consumer>,
    names: Names,
    pub binary: PathBuf,
    pub folder: PathBuf,
    _connection: Connection,
    _worker: Running,
}

struct Names {
    jobs_exchange: String,
    jobs: String,
    results: String,
    dead: String,
}

/// Ends with the demo, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let terminated = Command::new("kill").arg(self.0.id().to_string()).status();
        if !terminated.is_ok_and(|status| status.success()) {
            let _ = self.0.kill();
        }
        let _ = self.0.wait();
    }
}

impl Stage {
    /// `connector`: the one that the worker knows, as TOML.
    pub async fn build(name: &str, connector: &str) -> anyhow::Result<Self> {
        let admin_url = std::env::var("DATABASE_URL").context("DATABASE_URL is not set: run scripts/demo")?;
        let amqp_url = std::env::var("AMQP_URL").context("AMQP_URL is not set: run scripts/demo")?;
        let run = format!("demo_{}", &Uuid::new_v4().simple().to_string()[..8]);
        let mut admin = PgConnection::connect(&admin_url).await.context("Postgres")?;
        admin.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {run}"))).await?;
        let mut database_url: url::Url = admin_url.parse()?;
        database_url.set_path(&run);

        let webhook_secret = format!("whsec_{}", random(32)?);
        let merchant = Receiver::start(std::slice::from_ref(&webhook_secret)).await?;
        let names = Names {
            jobs_exchange: run.clone(),
            jobs: format!("{run}.create"),
            results: format!("{run}.results"),
            dead: format!("{run}.dead"),
        };
        let folder = std::env::current_dir()?.join(".demo");
        fs::create_dir_all(&folder)?;
        let config = format!(
            r#"# Made by scripts/demo, with keys of its own.
[database]
url = "{database_url}"
[broker]
url = "{amqp_url}"
[broker.names]
jobs_exchange = "{run}"
jobs_queue = "{jobs}"
results_exchange = "{results}"
dead_exchange = "{run}.dead"
dead_queue = "{dead}"
unrouted_exchange = "{run}.unrouted"
unrouted_queue = "{run}.unrouted"
[keys]
sealing = ["demo:{sealing}"]
fingerprint = "{fingerprint}"
[jobs]
default_connector = "{name}"
allow_http_webhooks = true
{connector}
[webhooks]
secrets = ["{webhook_secret}"]
allowed_networks = ["127.0.0.0/8"]
"#,
            jobs = names.jobs,
            results = names.results,
            dead = names.dead,
            sealing = random(32)?,
            fingerprint = random(32)?,
        );
        fs::write(folder.join("worker.toml"), config)?;
        let binary = std::env::current_exe()?
            .parent()
            .and_then(Path::parent)
            .context("no folder")?
            .join("payout-link-worker");
        let worker = start_worker(&binary, &folder)?;
        let connection =
            Connection::connect(&amqp_url, ConnectionProperties::default()).await.context("RabbitMQ")?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        wait_for_worker(&folder).await?;
        let results = listen(&channel, Some(&names.results)).await?.1.into();
        Ok(Self {
            merchant,
            channel,
            results,
            names,
            binary,
            folder,
            _connection: connection,
            _worker: worker,
        })
    }

    /// Publishes a job.
    pub async fn publish(
        &self,
        job: &Value,
        reply_to: Option<&str>,
        correlation: &str,
    ) -> anyhow::Result<()> {
        self.send("create", job, reply_to, correlation).await
    }

    /// Publishes a message to the exchange of jobs.
    pub async fn send(
        &self,
        routing_key: &str,
        message: &Value,
        reply_to: Option<&str>,
        correlation: &str,
    ) -> anyhow::Result<()> {
        let mut properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(2)
            .with_message_id(Uuid::now_v7().to_string().into())
            .with_correlation_id(correlation.into());
        if let Some(queue) = reply_to {
            properties = properties.with_reply_to(queue.into());
        }
        let (body, options) =
            (message.to_string(), BasicPublishOptions { mandatory: true, ..Default::default() });
        let exchange = self.names.jobs_exchange.as_str();
        let confirm = self
            .channel
            .basic_publish(exchange.into(), routing_key.into(), options, body.as_bytes(), properties)
            .await?;
        let confirm = confirm.await?;
        ensure!(confirm.is_ack(), "RabbitMQ did not accept the message");
        ensure!(confirm.take_message().is_none(), "no queue is bound to {routing_key:?}");
        Ok(())
    }

    /// The result that answers a job, of all that are received.
    pub async fn result(&self, correlation: &str) -> anyhow::Result<Value> {
        let mut results = self.results.lock().await;
        let wanted = async {
            while let Some(delivery) = results.next().await {
                let delivery = delivery?;
                if delivery.properties.correlation_id().as_ref().is_some_and(|id| id.as_str() == correlation)
                {
                    return Ok(serde_json::from_slice(&delivery.data)?);
                }
            }
            bail!("the results queue is gone")
        };
        timeout(PATIENCE, wanted).await.context("no result")?
    }

    pub async fn webhook(&self, reference: &str) -> anyhow::Result<Received> {
        let of = |received: &Received| received.reference.as_deref() == Some(reference);
        let received = self.merchant.until(|received| received.iter().any(of));
        let received = timeout(PATIENCE, received).await.context("no webhook")?;
        received.into_iter().find(of).context("no webhook")
    }

    /// The first webhooks of a payout, in the order in which they came.
    pub async fn webhooks(&self, reference: &str, count: usize) -> anyhow::Result<Vec<Received>> {
        let of = |received: &Received| received.reference.as_deref() == Some(reference);
        let all_there =
            |received: &[Received]| received.iter().filter(|received| of(received)).count() >= count;
        let received = timeout(PATIENCE, self.merchant.until(all_there)).await.context("no webhook")?;
        Ok(received.into_iter().filter(of).collect())
    }

    pub async fn dead_letter(&self) -> anyhow::Result<Vec<u8>> {
        let deadline = Instant::now() + PATIENCE;
        let options = BasicGetOptions { no_ack: true };
        while Instant::now() < deadline {
            if let Some(message) = self.channel.basic_get(self.names.dead.as_str().into(), options).await? {
                return Ok(message.delivery.data);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("no dead letter")
    }

    pub fn show(&self, id: &str) -> anyhow::Result<Value> {
        let config = self.folder.join("worker.toml");
        let mut show = Command::new(&self.binary);
        show.env_remove("DATABASE_URL").env_remove("AMQP_URL").arg("--config").arg(config);
        let output = show.args(["show", "--json", id]).output()?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

fn start_worker(binary: &Path, folder: &Path) -> anyhow::Result<Running> {
    let log = File::create(folder.join("worker.log"))?;
    let child = Command::new(binary)
        .arg("run")
        .arg("--config")
        .arg(folder.join("worker.toml"))
        .env_remove("DATABASE_URL")
        .env_remove("AMQP_URL")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| binary.display().to_string())?;
    Ok(Running(child))
}

async fn wait_for_worker(folder: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !fs::read_to_string(folder.join("worker.log"))?.contains("consuming") {
        ensure!(Instant::now() < deadline, "the worker does not start: see its log in {}", folder.display());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// A queue of the demo's own, bound to an exchange where one is given.
pub async fn listen(channel: &Channel, exchange: Option<&str>) -> anyhow::Result<(String, Consumer)> {
    let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
    let queue = channel.queue_declare("".into(), options, FieldTable::default()).await?.name().to_string();
    if let Some(exchange) = exchange {
        let (bind, arguments) = (QueueBindOptions::default(), FieldTable::default());
        channel.queue_bind(queue.as_str().into(), exchange.into(), "#".into(), bind, arguments).await?;
    }
    let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let consumer =
        channel.basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default()).await?;
    Ok((queue, consumer))
}

pub fn random(bytes: usize) -> anyhow::Result<String> {
    let mut random = vec![0; bytes];
    rand::fill(&mut random).context("no random numbers")?;
    Ok(STANDARD.encode(random))
}
