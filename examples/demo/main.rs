//! The main job, shown: real jobs through RabbitMQ and Postgres to a connector and a merchant.
//!
//! `scripts/demo` builds everything, brings the services up, and runs this: eight cases at the sandbox, or with
//! `--connector KIND` five at the simulator for that provider. It exits with 0 only if all went as described; `--stay`
//! leaves everything running for jobs of your own.

mod connector;
mod stage;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, ensure};
use futures_util::StreamExt;
use provider_simulators::sandbox::{Fault, FaultRule, Sandbox, Settings};
use serde_json::{Value, json};
use tokio::time::timeout;

use stage::{Stage, listen, random};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let stay = arguments.iter().any(|argument| argument == "--stay");
    let kind = arguments.iter().skip_while(|argument| *argument != "--connector").nth(1);
    let shown = match kind {
        None => demo(stay).await,
        Some(kind) => connector::demo(kind, stay).await,
    };
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(stay: bool) -> anyhow::Result<()> {
    let token = random(24)?;
    let provider = Sandbox::start(Settings::new(&token)).await?;
    let url = provider.url();
    let section = format!(
        "[connectors.sandbox]\nkind = \"sandbox\"\nurl = \"{url}\"\ntoken = \"{token}\"\nallow_http_links = true
[connectors.sandbox.follow]
min_interval_seconds = 1"
    );
    let show = Show { stage: Stage::build("sandbox", &section).await?, provider };
    println!("\n  worker     log in {}", show.stage.folder.join("worker.log").display());
    println!("  connector  {} (the sandbox)", show.provider.url());
    println!("  merchant   {}\n", show.stage.merchant.url());

    show.plain_job().await.context("(a)")?;
    show.same_job_again().await.context("(b)")?;
    show.same_id_other_amount().await.context("(c)")?;
    show.provider_says_503_twice().await.context("(d)")?;
    show.broken_job().await.context("(e)")?;
    show.requester_gets_its_reply().await.context("(f)")?;
    show.link_is_claimed().await.context("(g)")?;
    show.link_is_taken_back().await.context("(h)")?;

    println!("All eight went as described.");
    if stay {
        stay_up(&show.stage, show.provider.url(), &job("po_mine", 4200, None)).await?;
    }
    Ok(())
}

/// Until Ctrl-C.
async fn stay_up(stage: &Stage, provider: &str, job: &Value) -> anyhow::Result<()> {
    let (binary, config) = (stage.binary.display(), stage.folder.join("worker.toml"));
    let (config, id) = (config.display(), job["merchant_payout_id"].as_str().unwrap_or_default());
    println!("\nEverything is left running until you press Ctrl-C. Try:\n");
    println!("  echo '{job}' \\");
    println!("    | {binary} submit --config {config} --wait -");
    println!("  {binary} show --config {config} {id}");
    println!("  curl -s {provider}/ledger\n");
    tokio::signal::ctrl_c().await?;
    Ok(())
}

/// The jobs at the sandbox.
struct Show {
    stage: Stage,
    provider: Sandbox,
}

impl Show {
    async fn plain_job(&self) -> anyhow::Result<()> {
        title("(a) a plain job of EUR 12.50");
        self.stage.publish(&job("po_1001", 1250, Some(self.stage.merchant.url())), None, "a").await?;
        let result = self.stage.result("a").await?;
        expect(&result, "payout_status", "REQUIRES_FULFILLMENT")?;
        shown("result", &result);
        shown("link", &result["payout_link"]["url"]);
        let webhook = self.stage.webhook("po_1001").await?;
        ensure!(webhook.verified, "the webhook's signature does not verify: {:?}", webhook.problem);
        shown("webhook", &json!({ "id": webhook.id, "type": webhook.event_type, "signature": "verified" }));
        ensure!(webhook.json()["data"] == result, "the webhook has other data than the result");
        Ok(())
    }

    async fn same_job_again(&self) -> anyhow::Result<()> {
        title("(b) the same job again: no second link");
        self.stage.publish(&job("po_1001", 1250, Some(self.stage.merchant.url())), None, "b").await?;
        let result = self.stage.result("b").await?;
        shown("link", &result["payout_link"]["url"]);
        let links = self.provider.ledger().links.len();
        ensure!(links == 1, "the connector has {links} links");
        shown("links at the connector", &links.into());
        Ok(())
    }

    async fn same_id_other_amount(&self) -> anyhow::Result<()> {
        title("(c) the same id with another amount: a conflict");
        self.stage.publish(&job("po_1001", 9900, None), None, "c").await?;
        let result = self.stage.result("c").await?;
        expect(&result["error"]["unified_details"], "code", "IDEMPOTENCY_CONFLICT")?;
        shown("error", &result["error"]["unified_details"]);
        Ok(())
    }

    async fn provider_says_503_twice(&self) -> anyhow::Result<()> {
        title("(d) a connector that answers 503 twice: retried, then created");
        self.provider.inject_fault(FaultRule::new(Fault::status_with_retry_after(503, "1")).times(2));
        self.stage.publish(&job("po_1002", 1250, Some(self.stage.merchant.url())), None, "d").await?;
        let result = self.stage.result("d").await?;
        expect(&result, "payout_status", "REQUIRES_FULFILLMENT")?;
        self.stage.webhook("po_1002").await?;
        for call in self.stage.show("po_1002")?["timeline"].as_array().into_iter().flatten() {
            shown(call["kind"].as_str().unwrap_or_default(), &json!([call["status_code"], call["outcome"]]));
        }
        Ok(())
    }

    async fn broken_job(&self) -> anyhow::Result<()> {
        title("(e) a job with a wrong currency: rejected, with the name of the field");
        let mut broken = job("po_1003", 1250, None);
        broken["amount"]["currency"] = "EURO".into();
        self.stage.publish(&broken, None, "e").await?;
        let result = self.stage.result("e").await?;
        expect(&result["error"]["unified_details"], "description", "amount.currency")?;
        shown("error", &result["error"]["unified_details"]);
        // The first dead letter is the conflict of (c), the second one is this job.
        for reference in ["po_1001", "po_1003"] {
            let dead: Value = serde_json::from_slice(&self.stage.dead_letter().await?)?;
            expect(&dead, "merchant_payout_id", reference)?;
        }
        shown("dead letter", &broken["merchant_payout_id"]);
        Ok(())
    }

    async fn requester_gets_its_reply(&self) -> anyhow::Result<()> {
        title("(f) a job with reply_to: the result also goes to that queue");
        let (queue, mut replies) = listen(&self.stage.channel, None).await?;
        self.stage.publish(&job("po_1004", 700, None), Some(&queue), "call 7").await?;
        let reply =
            timeout(PATIENCE, replies.next()).await.context("no reply")?.context("the queue is gone")??;
        let correlation = reply.properties.correlation_id().as_ref().map(ToString::to_string);
        ensure!(correlation.as_deref() == Some("call 7"), "the reply belongs to {correlation:?}");
        let result: Value = serde_json::from_slice(&reply.data)?;
        expect(&result, "merchant_payout_id", "po_1004")?;
        shown("reply", &result);
        Ok(())
    }

    async fn link_is_claimed(&self) -> anyhow::Result<()> {
        title("(g) the recipient claims a link: the merchant gets a webhook for each status, in order");
        self.stage.publish(&job("po_1005", 1999, Some(self.stage.merchant.url())), None, "g").await?;
        let result = self.stage.result("g").await?;
        let url = result["payout_link"]["url"].as_str().context("no link")?;
        let page = reqwest::get(url).await?;
        ensure!(page.status().is_success(), "the link's page answers {}", page.status());
        let details = "account_holder=Ada+Example&account_number=DE89370400440532013000";
        let client = reqwest::Client::new();
        let claim = client.post(url).header("content-type", "application/x-www-form-urlencoded");
        let claimed = claim.body(details).send().await?;
        ensure!(claimed.status().is_success(), "the claim was answered with {}", claimed.status());
        let types = ["payout_link.created", "payout_link.claimed", "payout_link.succeeded"];
        self.webhooks_are("po_1005", &types).await
    }

    async fn link_is_taken_back(&self) -> anyhow::Result<()> {
        title("(h) a message cancels an unclaimed link: the answer and a webhook say so");
        self.stage.publish(&job("po_1006", 2500, Some(self.stage.merchant.url())), None, "h").await?;
        let result = self.stage.result("h").await?;
        let url = result["payout_link"]["url"].as_str().context("no link")?;
        let (queue, mut replies) = listen(&self.stage.channel, None).await?;
        let cancel = json!({ "merchant_payout_id": "po_1006", "reason": "paid by bank transfer" });
        self.stage.send("cancel", &cancel, Some(&queue), "cancel 1").await?;
        let reply =
            timeout(PATIENCE, replies.next()).await.context("no reply")?.context("the queue is gone")??;
        let answer: Value = serde_json::from_slice(&reply.data)?;
        expect(&answer, "merchant_payout_id", "po_1006")?;
        expect(&answer, "payout_status", "CANCELLED")?;
        shown("answer", &json!({ "payout_status": answer["payout_status"], "sequence": answer["sequence"] }));
        let claim =
            reqwest::Client::new().post(url).header("content-type", "application/x-www-form-urlencoded");
        let claimed =
            claim.body("account_holder=Ada+Example&account_number=DE89370400440532013000").send().await?;
        ensure!(!claimed.status().is_success(), "the cancelled link was claimed");
        shown("a claim now", &json!(claimed.status().to_string()));
        self.webhooks_are("po_1006", &["payout_link.created", "payout_link.cancelled"]).await
    }

    /// Checks the webhooks of a payout, in their order.
    async fn webhooks_are(&self, reference: &str, types: &[&str]) -> anyhow::Result<()> {
        for (webhook, event_type) in self.stage.webhooks(reference, types.len()).await?.iter().zip(types) {
            let data = &webhook.json()["data"];
            ensure!(webhook.verified, "the webhook's signature does not verify: {:?}", webhook.problem);
            ensure!(webhook.event_type.as_deref() == Some(event_type), "{:?} came first", webhook.event_type);
            shown(
                "webhook",
                &json!({
                    "type": event_type,
                    "sequence": data["sequence"],
                    "payout_status": data["payout_status"],
                    "signature": "verified",
                }),
            );
        }
        Ok(())
    }
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

fn expect(value: &Value, field: &str, expected: &str) -> anyhow::Result<()> {
    ensure!(value[field] == expected, "{field} is {} and not {expected:?}", value[field]);
    Ok(())
}

fn title(text: &str) {
    println!("{text}");
}

fn shown(name: &str, value: &Value) {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    println!("      {name:<24} {text}");
}
