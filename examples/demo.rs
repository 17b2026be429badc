//! The main job, shown: real jobs through RabbitMQ and Postgres to the sandbox connector and a merchant.
//!
//! `scripts/demo` builds everything, brings the services up, and runs this. It exits with 0 only if all six jobs
//! went as told; `--stay` leaves everything running for jobs of your own.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
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
use payout_link_worker::sandbox::{Fault, Order, Received, Receiver, Sandbox, Settings};
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor, PgConnection};
use tokio::time::timeout;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> ExitCode {
    let stay = std::env::args().any(|argument| argument == "--stay");
    match demo(stay).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(stay: bool) -> anyhow::Result<()> {
    let stage = Stage::build().await?;
    println!("\n  worker     log in {}", stage.folder.join("worker.log").display());
    println!("  connector  {} (the sandbox)", stage.provider.url());
    println!("  merchant   {}\n", stage.merchant.url());

    stage.plain_job().await.context("(a)")?;
    stage.same_job_again().await.context("(b)")?;
    stage.same_id_other_amount().await.context("(c)")?;
    stage.provider_says_503_twice().await.context("(d)")?;
    stage.broken_job().await.context("(e)")?;
    stage.requester_gets_its_reply().await.context("(f)")?;

    println!("All six went as told.");
    if stay {
        println!("\nEverything is left running until you press Ctrl-C. Try:\n");
        println!("  echo '{}' \\", job("po_mine", 4200, None));
        println!(
            "    | {} submit --config {} --wait -",
            stage.binary.display(),
            stage.folder.join("worker.toml").display()
        );
        println!(
            "  {} show --config {} po_mine",
            stage.binary.display(),
            stage.folder.join("worker.toml").display()
        );
        println!("  curl -s {}/ledger\n", stage.provider.url());
        tokio::signal::ctrl_c().await?;
    }
    Ok(())
}

/// Everything around the jobs.
struct Stage {
    provider: Sandbox,
    merchant: Receiver,
    channel: Channel,
    results: tokio::sync::Mutex<Consumer>,
    names: Names,
    binary: PathBuf,
    folder: PathBuf,
    _connection: Connection,
    _worker: Running,
}

struct Names {
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
    async fn build() -> anyhow::Result<Self> {
        let admin_url = std::env::var("DATABASE_URL").context("DATABASE_URL is not set: run scripts/demo")?;
        let amqp_url = std::env::var("AMQP_URL").context("AMQP_URL is not set: run scripts/demo")?;
        let run = format!("demo_{}", &Uuid::new_v4().simple().to_string()[..8]);
        let mut admin = PgConnection::connect(&admin_url).await.context("Postgres")?;
        admin.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {run}"))).await?;
        let mut database_url: url::Url = admin_url.parse()?;
        database_url.set_path(&run);

        let token = random(24)?;
        let webhook_secret = format!("whsec_{}", random(32)?);
        let provider = Sandbox::start(Settings::new(&token)).await?;
        let merchant = Receiver::start(std::slice::from_ref(&webhook_secret)).await?;
        let names = Names {
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
default_connector = "sandbox"
allow_http_webhooks = true
[connectors.sandbox]
kind = "sandbox"
url = "{provider}"
token = "{token}"
allow_http_links = true
[webhooks]
secrets = ["{webhook_secret}"]
allowed_networks = ["127.0.0.0/8"]
"#,
            jobs = names.jobs,
            results = names.results,
            dead = names.dead,
            sealing = random(32)?,
            fingerprint = random(32)?,
            provider = provider.url(),
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
        let (_connection, _worker) = (connection, worker);
        Ok(Self { provider, merchant, channel, results, names, binary, folder, _connection, _worker })
    }

    async fn plain_job(&self) -> anyhow::Result<()> {
        told("(a) a plain job of EUR 12.50");
        self.publish(&job("po_1001", 1250, Some(self.merchant.url())), None, "a").await?;
        let result = self.result("a").await?;
        expect(&result, "payout_status", "REQUIRES_FULFILLMENT")?;
        shown("result", &result);
        shown("link", &result["payout_link"]["url"]);
        let webhook = self.webhook("po_1001").await?;
        ensure!(webhook.verified, "the webhook's signature does not verify: {:?}", webhook.problem);
        shown("webhook", &json!({ "id": webhook.id, "type": webhook.event_type, "signature": "verified" }));
        ensure!(webhook.json()["data"] == result, "the webhook tells something else");
        Ok(())
    }

    async fn same_job_again(&self) -> anyhow::Result<()> {
        told("(b) the same job again: no second link");
        self.publish(&job("po_1001", 1250, Some(self.merchant.url())), None, "b").await?;
        let result = self.result("b").await?;
        shown("link", &result["payout_link"]["url"]);
        let links = self.provider.ledger().links.len();
        ensure!(links == 1, "the connector has {links} links");
        shown("links at the connector", &links.into());
        Ok(())
    }

    async fn same_id_other_amount(&self) -> anyhow::Result<()> {
        told("(c) the same id with another amount: a conflict");
        self.publish(&job("po_1001", 9900, None), None, "c").await?;
        let result = self.result("c").await?;
        expect(&result["error"]["unified_details"], "code", "IDEMPOTENCY_CONFLICT")?;
        shown("error", &result["error"]["unified_details"]);
        Ok(())
    }

    async fn provider_says_503_twice(&self) -> anyhow::Result<()> {
        told("(d) a connector that answers 503 twice: retried, then created");
        self.provider.order_fault(Order::new(Fault::status_with_retry_after(503, "1")).times(2));
        self.publish(&job("po_1002", 1250, Some(self.merchant.url())), None, "d").await?;
        let result = self.result("d").await?;
        expect(&result, "payout_status", "REQUIRES_FULFILLMENT")?;
        self.webhook("po_1002").await?;
        for call in self.show("po_1002")?["timeline"].as_array().into_iter().flatten() {
            shown(call["kind"].as_str().unwrap_or_default(), &json!([call["status_code"], call["outcome"]]));
        }
        Ok(())
    }

    async fn broken_job(&self) -> anyhow::Result<()> {
        told("(e) a broken job: refused with its field named, and kept");
        let mut broken = job("po_1003", 1250, None);
        broken["amount"]["currency"] = "EURO".into();
        self.publish(&broken, None, "e").await?;
        let result = self.result("e").await?;
        expect(&result["error"]["unified_details"], "description", "amount.currency")?;
        shown("error", &result["error"]["unified_details"]);
        // The conflict of (c) is the first of the dead letters, this one the second.
        for reference in ["po_1001", "po_1003"] {
            let dead: Value = serde_json::from_slice(&self.dead_letter().await?)?;
            expect(&dead, "merchant_payout_id", reference)?;
        }
        shown("dead letter", &broken["merchant_payout_id"]);
        Ok(())
    }

    async fn requester_gets_its_reply(&self) -> anyhow::Result<()> {
        told("(f) an RPC-style job: the reply comes to its own queue");
        let (queue, mut replies) = listen(&self.channel, None).await?;
        self.publish(&job("po_1004", 700, None), Some(&queue), "call 7").await?;
        let reply =
            timeout(PATIENCE, replies.next()).await.context("no reply")?.context("the queue is gone")??;
        let correlation = reply.properties.correlation_id().as_ref().map(ToString::to_string);
        ensure!(correlation.as_deref() == Some("call 7"), "the reply belongs to {correlation:?}");
        let result: Value = serde_json::from_slice(&reply.data)?;
        expect(&result, "merchant_payout_id", "po_1004")?;
        shown("reply", &result);
        Ok(())
    }

    async fn publish(&self, job: &Value, reply_to: Option<&str>, correlation: &str) -> anyhow::Result<()> {
        let mut properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(2)
            .with_message_id(Uuid::now_v7().to_string().into())
            .with_correlation_id(correlation.into());
        if let Some(queue) = reply_to {
            properties = properties.with_reply_to(queue.into());
        }
        let (body, options) =
            (job.to_string(), BasicPublishOptions { mandatory: true, ..Default::default() });
        let queue = self.names.jobs.as_str();
        let confirm =
            self.channel.basic_publish("".into(), queue.into(), options, body.as_bytes(), properties).await?;
        ensure!(confirm.await?.is_ack(), "the broker did not take the job");
        Ok(())
    }

    /// The result that answers a job, of all that are heard.
    async fn result(&self, correlation: &str) -> anyhow::Result<Value> {
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

    async fn webhook(&self, reference: &str) -> anyhow::Result<Received> {
        let of = |received: &Received| received.reference.as_deref() == Some(reference);
        let received = self.merchant.until(|received| received.iter().any(of));
        let received = timeout(PATIENCE, received).await.context("no webhook")?;
        received.into_iter().find(of).context("no webhook")
    }

    async fn dead_letter(&self) -> anyhow::Result<Vec<u8>> {
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

    fn show(&self, id: &str) -> anyhow::Result<Value> {
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
async fn listen(channel: &Channel, exchange: Option<&str>) -> anyhow::Result<(String, Consumer)> {
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

fn job(id: &str, minor_amount: i64, webhook_url: Option<&str>) -> Value {
    let mut job = json!({
        "merchant_payout_id": id,
        "address": {},
        "amount": { "minor_amount": minor_amount, "currency": "EUR" },
        "destination_currency": "EUR",
        "customer": { "name": "Ada Example", "email": "ada@example.com" },
    });
    if let Some(url) = webhook_url {
        job["webhook_url"] = url.into();
    }
    job
}

fn random(bytes: usize) -> anyhow::Result<String> {
    let mut random = vec![0; bytes];
    rand::fill(&mut random).context("no random numbers")?;
    Ok(STANDARD.encode(random))
}

fn expect(value: &Value, field: &str, expected: &str) -> anyhow::Result<()> {
    ensure!(value[field] == expected, "{field} is {} and not {expected:?}", value[field]);
    Ok(())
}

fn told(text: &str) {
    println!("{text}");
}

fn shown(name: &str, value: &Value) {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    println!("      {name:<24} {text}");
}
