//! `show`: prints a record, its event and its timeline. It never decrypts anything.

use std::fmt::Write;

use anyhow::Context;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    exit::ExitStatus,
    output::{Format, Output},
};
use crate::{
    config::Config,
    domain::{escape_control, idempotency_key_of},
    postgres::{Reader, Shown},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Any id of the record: merchant_payout_id, record id, event id, connector_payout_id or provider_payout_id
    id: String,
    /// Print JSON, one object a line: the same as --output jsonl
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(
    config: &Config,
    output: Output,
    arguments: &Arguments,
) -> anyhow::Result<ExitStatus> {
    let output = if arguments.json { output.with(Format::Jsonl) } else { output };
    let reader = Reader::connect(&config.database()).await.context("database")?;
    let records = reader.show(&arguments.id).await.context("database")?;
    if records.is_empty() {
        return Err(ExitStatus::NothingFound
            .because(format!("no record has the id {:?}", arguments.id))
            .into());
    }
    output.objects(&records, |record| shown(record, &config.worker.deployment))?;
    Ok(ExitStatus::Done)
}

fn shown(record: &Shown, deployment: &str) -> String {
    let mut text = format!("{} {}\n", escape_control(&record.merchant_payout_id), record.state);
    // Writing to a String cannot fail.
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "  {name:<20} {}", escape_control(value));
        }
    };
    let at =
        |time: Option<OffsetDateTime>| time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default();
    line("id", &record.id.to_string());
    line("merchant_id", &record.merchant_id);
    line("connector", &record.connector);
    line("idempotency_key", &idempotency_key_of(deployment, &record.merchant_id, &record.merchant_payout_id));
    line("amount", &format!("{} minor units of {}", record.amount_minor, record.currency));
    line("payout_status", record.payout_status.as_deref().unwrap_or_default());
    line("connector_payout_id", record.connector_payout_id.as_deref().unwrap_or_default());
    line("error", record.error_code.as_deref().unwrap_or_default());
    line("created", &at(Some(record.created_at)));
    line("unknown since", &at(record.in_doubt_since));
    line(if record.leased { "leased until" } else { "due" }, &at(record.due_at));
    line("concluded", &at(record.concluded_at));
    if let Some(link) = &record.link {
        line("link", &link.status);
        line("provider status", link.provider_status.as_deref().unwrap_or_default());
        line("provider_payout_id", link.provider_payout_id.as_deref().unwrap_or_default());
        line("expires", &at(link.expires_at));
        line("asked", &at(link.asked_at));
        line("ask again", &at(link.ask_at));
        line("cancel requested", &at(link.cancel_requested_at));
    }
    for event in record.event.iter().chain(&record.later_events) {
        line("event", &format!("{} {}", event.r#type, event.id));
        line("published", &at(event.published_at));
        line("webhook", &format!("{}, {} attempts", event.webhook_state, event.webhook_attempts));
        line("event due", &at(event.due_at));
    }
    for call in &record.timeline {
        let _ = writeln!(
            text,
            "  {} {} {} {} {} ({} ms) {}",
            at(Some(call.started_at)),
            call.kind,
            call.number,
            call.outcome,
            call.status_code,
            call.took_ms,
            escape_control(call.detail.as_deref().unwrap_or_default())
        );
    }
    text
}
