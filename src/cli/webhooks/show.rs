//! `webhooks show`: a host, or the webhooks of a payout or an event.

use anyhow::Context;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    hosts::{self, answered, since},
    pause::without_port,
};
use crate::{
    cli::{
        ExitStatus, note,
        output::{Format, Output},
        table::{Cell, Column},
    },
    config::Config,
    postgres::{Reader, WebhookEvent, WebhookFilter},
};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// A host, or any id of a payout or an event
    name: String,
    /// Count finished webhooks of a host since this time
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = since)]
    since: OffsetDateTime,
    /// Maximum number of webhooks
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
}

const COLUMNS: [Column; 8] = [
    Column::new("EVENT"),
    Column::new("TYPE").optional(),
    Column::new("MERCHANT"),
    Column::new("PAYOUT"),
    Column::new("STATE"),
    Column::new("ATTEMPTS").number().optional(),
    Column::new("NEXT ATTEMPT").optional(),
    Column::new("LAST ERROR").shrinks(),
];

pub(super) const ALL_STATES: [&str; 3] = ["pending", "delivered", "abandoned"];

pub(super) async fn run(
    config: &Config,
    output: Output,
    arguments: &Arguments,
) -> anyhow::Result<ExitStatus> {
    let reader = Reader::connect(&config.database()).await.context("database")?;
    let ids = events_of(&reader, &arguments.name).await?;
    let filter = if ids.is_empty() {
        let host = arguments.name.to_ascii_lowercase();
        let found = reader.webhook_hosts(Some(&host), arguments.since).await.context("database")?;
        if found.is_empty() {
            let reason = match without_port(&host) {
                Some(host) => {
                    format!("a host has no port here: `webhooks show {host}` shows all ports of it")
                }
                None => format!("no webhook goes to a host {host:?}, and no payout or event has this id"),
            };
            return Err(ExitStatus::NothingFound.because(reason).into());
        }
        if output.format() == Format::Text {
            hosts::print(output, &found)?;
        }
        WebhookFilter { host: Some(host), states: vec!["pending", "abandoned"], ..WebhookFilter::default() }
    } else {
        WebhookFilter { ids: Some(ids), states: ALL_STATES.into(), ..WebhookFilter::default() }
    };
    let events = reader.webhook_events(&filter, Uuid::nil(), arguments.limit).await.context("database")?;
    print(output, &events)?;
    if events.len() == arguments.limit {
        note(format_args!("more may follow: this is the limit of {}", arguments.limit));
    }
    Ok(ExitStatus::Done)
}

/// Returns the events of a record with this id, or the event of this id; none if there is no such record.
pub(super) async fn events_of(reader: &Reader, id: &str) -> anyhow::Result<Vec<Uuid>> {
    let records = reader.show(id).await.context("database")?;
    let events = records.iter().flat_map(|record| record.event.iter().chain(&record.later_events));
    let ids: Vec<Uuid> = events.map(|event| event.id).collect();
    Ok(match Uuid::parse_str(id) {
        Ok(event) if ids.contains(&event) => vec![event],
        Ok(_) | Err(_) => ids,
    })
}

pub(super) fn print(output: Output, events: &[WebhookEvent]) -> anyhow::Result<()> {
    output.rows(&COLUMNS, events, |event| {
        let state = if event.waits { "waits" } else { &event.state };
        // The last error of a delivered webhook was before its delivery.
        let error =
            event.last_error.as_deref().filter(|_| state != "delivered").map(answered).unwrap_or_default();
        let (id, attempts) = (event.event_id.to_string(), event.attempts.to_string());
        let texts = [&*id, &event.r#type, &event.merchant_id, &event.merchant_payout_id, state, &attempts];
        let cells = texts.into_iter().map(Cell::new);
        cells.chain([Cell::time(event.next_attempt_at), Cell::new(error)]).collect()
    })
}
