//! `show`: prints a record, its event and its timeline. It never decrypts anything.

use std::{fmt::Write, process::ExitCode};

use anyhow::Context;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::output::{note, say};
use crate::{
    config::Config,
    domain::{escape_control, idempotency_key_of, is_control},
    postgres::{self, Shown, Store},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Any id of the record: merchant_payout_id, record id, event id, connector_payout_id or provider_payout_id
    id: String,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(config: &Config, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let pool = postgres::connect(&config.database()).await.context("database")?;
    let store = Store::new(pool, config.key_ring()?, config.store());
    let records = store.show(&arguments.id).await.context("database")?;
    if records.is_empty() {
        note(format_args!("no record has the id {:?}", arguments.id));
        return Ok(ExitCode::FAILURE);
    }
    for record in &records {
        if arguments.json {
            say(escape_json(&serde_json::to_string(record)?))?;
        } else {
            say(shown(record, &config.worker.deployment).trim_end())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Escapes control characters. JSON itself escapes C0 only; the others occur in strings only.
fn escape_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for letter in json.chars() {
        if is_control(letter) {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(letter));
        } else {
            escaped.push(letter);
        }
    }
    escaped
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_no_control_character_and_says_the_same() {
        let text = "plink_\u{1b}[2J\u{9b}\u{202e}\u{7f}é";
        let escaped = escape_json(&serde_json::to_string(text).unwrap());
        assert!(!escaped.chars().any(is_control), "{escaped:?}");
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
    }
}
