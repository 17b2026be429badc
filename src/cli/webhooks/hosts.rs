//! `webhooks list`.

use anyhow::Context;
use time::OffsetDateTime;

use crate::{
    cli::{
        ExitStatus,
        filter::time_of,
        output::Output,
        table::{Cell, Column, Tone},
    },
    config::Config,
    postgres::{Reader, WebhookHost},
};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Count finished webhooks since this time; those that wait are all counted
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = since)]
    since: OffsetDateTime,
}

const COLUMNS: [Column; 8] = [
    Column::new("HOST"),
    Column::new("WAITING").number(),
    Column::new("RETRYING").number(),
    Column::new("ABANDONED").number(),
    Column::new("SUCCESS").number(),
    Column::new("NEXT ATTEMPT"),
    Column::new("PAUSED BY"),
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
            Cell::new(at(host.next_attempt_at)),
            paused,
            Cell::new(host.last_error.as_deref().unwrap_or_default()),
        ]
    })
}

/// Returns a time to the second.
pub(super) fn at(time: Option<OffsetDateTime>) -> String {
    time.map(|time| time.to_string().chars().take(19).collect()).unwrap_or_default()
}
