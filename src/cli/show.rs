//! `show`: a record, its event, its timeline. Nothing sealed is opened.

use std::process::ExitCode;

use anyhow::Context;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    config::Config,
    domain::idempotency_key,
    store::{self, Shown, Store},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// merchant_payout_id, or the record's own id
    id: String,
    /// As JSON, one object a line
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(config: &Config, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let pool = store::connect(&config.database()).await.context("database")?;
    let store = Store::new(pool, config.key_ring()?, config.store());
    let records = store.show(&arguments.id).await.context("database")?;
    if records.is_empty() {
        eprintln!("payout-link-worker: there is no record {:?}", arguments.id);
        return Ok(ExitCode::FAILURE);
    }
    for record in &records {
        if arguments.json {
            println!("{}", serde_json::to_string(record)?);
        } else {
            print(record);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(record: &Shown) {
    let line = |name: &str, value: &str| {
        if !value.is_empty() {
            println!("  {name:<20} {value}");
        }
    };
    let at =
        |time: Option<OffsetDateTime>| time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default();
    println!("{} {}", record.merchant_payout_id, record.state);
    line("id", &record.id.to_string());
    line("merchant_id", &record.merchant_id);
    line("connector", &record.connector);
    line("idempotency_key", &idempotency_key(&record.merchant_id, &record.merchant_payout_id));
    line("amount", &format!("{} minor units of {}", record.amount_minor, record.currency));
    line("payout_status", record.payout_status.as_deref().unwrap_or_default());
    line("connector_payout_id", record.connector_payout_id.as_deref().unwrap_or_default());
    line("error", record.error_code.as_deref().unwrap_or_default());
    line("created", &at(Some(record.created_at)));
    line("in doubt since", &at(record.in_doubt_since));
    line(if record.leased { "leased until" } else { "due" }, &at(record.due_at));
    line("concluded", &at(record.concluded_at));
    if let Some(event) = &record.event {
        line("event", &format!("{} {}", event.r#type, event.id));
        line("published", &at(event.published_at));
        line("webhook", &format!("{}, {} posts", event.webhook_state, event.webhook_attempts));
        line("event due", &at(event.due_at));
    }
    for call in &record.timeline {
        println!(
            "  {} {} {} {} {} ({} ms) {}",
            at(Some(call.started_at)),
            call.kind,
            call.number,
            call.outcome,
            call.status_code,
            call.took_ms,
            call.detail.as_deref().unwrap_or_default()
        );
    }
}
