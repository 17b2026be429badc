//! `webhooks list`.

use anyhow::Context;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    cli::{
        ExitStatus,
        filter::time_of,
        output::Output,
        table::{Cell, Column, Tone},
    },
    config::Config,
    postgres::{NAMED_MERCHANTS, Reader, WebhookHost},
};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Count finished webhooks since this time; those that wait are all counted
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = since)]
    since: OffsetDateTime,
}

const COLUMNS: [Column; 9] = [
    Column::new("HOST"),
    Column::new("WAITING").number(),
    Column::new("RETRYING").number(),
    Column::new("ABANDONED").number(),
    Column::new("SUCCESS").number(),
    Column::new("NEXT ATTEMPT").optional(),
    Column::new("PAUSED BY").optional(),
    Column::new("MERCHANTS").shrinks(),
    Column::new("LAST ERROR").shrinks(),
];

pub(super) fn since(text: &str) -> Result<OffsetDateTime, String> {
    time_of("since", text, OffsetDateTime::now_utc())
}

pub(super) async fn run(
    config: &Config,
    output: Output,
    arguments: &Arguments,
) -> anyhow::Result<ExitStatus> {
    let reader = Reader::connect(&config.database()).await.context("database")?;
    let hosts = reader.webhook_hosts(None, arguments.since).await.context("database")?;
    print(output, &hosts)?;
    Ok(if hosts.is_empty() { ExitStatus::NothingFound } else { ExitStatus::Done })
}

/// Names the merchants whose webhooks fail at the host, those with the most first.
fn failing_merchants(host: &WebhookHost) -> String {
    let named: Vec<&str> = host
        .failing_merchants
        .iter()
        .take(NAMED_MERCHANTS)
        .map(|merchant| if merchant.is_empty() { "(no merchant)" } else { merchant })
        .collect();
    let others = if host.failing_merchants.len() > NAMED_MERCHANTS { ", and others" } else { "" };
    format!("{}{others}", named.join(", "))
}

/// Returns the last error and its time: it may be over.
fn last_error(host: &WebhookHost) -> String {
    let Some(error) = host.last_error.as_deref().map(answered) else { return String::new() };
    let at = host.last_error_at.and_then(|at| at.replace_nanosecond(0).ok()?.format(&Rfc3339).ok());
    at.map_or_else(|| error.to_owned(), |at| format!("{at} {error}"))
}

/// Returns an error with the status that its outcome stands for.
pub(super) fn answered(error: &str) -> &str {
    if error == "gone" { "410 (gone)" } else { error }
}

pub(super) fn print(output: Output, hosts: &[WebhookHost]) -> anyhow::Result<()> {
    output.rows(&COLUMNS, hosts, |host| {
        let success = match host.attempts {
            0 => String::new(),
            attempts => format!("{} %", host.delivered.min(attempts) * 100 / attempts),
        };
        let paused = Cell::new(host.paused_by.as_deref().unwrap_or_default()).tone(Tone::Warning);
        let tone = if host.abandoned > 0 { Tone::Bad } else { Tone::Plain };
        vec![
            Cell::new(&host.host),
            Cell::new(host.waiting.to_string()),
            Cell::new(host.retrying.to_string()),
            Cell::new(host.abandoned.to_string()).tone(tone),
            Cell::new(success),
            Cell::time(host.next_attempt_at),
            paused,
            Cell::new(failing_merchants(host)),
            Cell::new(last_error(host)),
        ]
    })
}
