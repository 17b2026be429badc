//! `dead-letters show`: letters with their secrets masked.

use std::{collections::BTreeMap, fmt::Write};

use serde::Serialize;
use serde_json::Value;
use time::format_description::well_known::Rfc3339;

use super::{row::Row, select::Selection};
use crate::{
    cli::{
        ExitStatus,
        output::{Format, Output, note, say},
    },
    config::Config,
    contract::{MASKED, masked},
    domain::escape_control,
    rabbitmq::{DELIVERY_COUNT, Letter},
};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// Maximum number of letters
    #[arg(long, value_name = "N", default_value_t = 10)]
    limit: usize,
}

#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    row: Row,
    properties: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    /// The body with every possible secret masked; a string that says so if it is not JSON.
    body: Value,
}

/// Headers whose values are identifiers, times and codes. Others are the sender's own, and may hold secrets.
const SHOWN_HEADERS: &[&str] = &[
    "x-merchant-id",
    "x-connector",
    "x-rejected-code",
    "x-rejected-reason",
    "x-rejected-at",
    "x-rejected-from",
    "x-original-expiration",
    "x-original-user-id",
    "x-original-reply-to",
    "x-requeued-by",
    "x-requeued-at",
    "x-requeued-count",
    "x-replayed",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-first-death-exchange",
    "x-last-death-queue",
    "x-last-death-reason",
    "x-last-death-exchange",
    "traceparent",
];

pub(super) async fn run(
    config: &Config,
    output: Output,
    arguments: &Arguments,
) -> anyhow::Result<ExitStatus> {
    let mut reading = arguments.selection.open(config).await?;
    let (mut shown, mut is_cut) = (Vec::new(), false);
    while let Some((letter, row)) = reading.next().await? {
        if shown.len() >= arguments.limit {
            is_cut = true;
            break;
        }
        shown.push(show(&letter, row));
    }
    reading.give_back().await?;
    match output.format() {
        Format::Text => {
            for letter in &shown {
                say(text(letter).trim_end())?;
            }
        }
        Format::Json | Format::Jsonl => output.rows(&[], &shown, |_| Vec::new())?,
    }
    if is_cut {
        note(format_args!("more letters follow: this is the limit of {}", arguments.limit));
    }
    Ok(if shown.is_empty() { ExitStatus::NothingFound } else { ExitStatus::Done })
}

fn show(letter: &Letter, row: Row) -> Shown {
    let not_json = || format!("{MASKED}: {} bytes that are not JSON", letter.body.len()).into();
    let header = |(name, value): (&str, Option<&str>)| {
        let is_shown = SHOWN_HEADERS.iter().any(|shown| shown.eq_ignore_ascii_case(name));
        (name.to_owned(), value.filter(|_| is_shown).unwrap_or(MASKED).to_owned())
    };
    let count = letter.delivery_count().map(|count| (DELIVERY_COUNT.to_owned(), count));
    Shown {
        properties: letter.properties().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        headers: letter.headers().map(header).chain(count).collect(),
        body: masked(&letter.body).unwrap_or_else(not_json),
        row,
    }
}

fn text(shown: &Shown) -> String {
    let row = &shown.row;
    let mut text = format!("{} {} {}\n", row.id, escape_control(&row.kind), escape_control(&row.code));
    // Writing to a String cannot fail.
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "  {:<20} {}", escape_control(name), escape_control(value));
        }
    };
    let at = row.at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default();
    line("at", &at);
    line("merchant_id", &row.merchant_id);
    line("merchant_payout_id", &row.merchant_payout_id);
    line("bytes", &row.bytes.to_string());
    shown.properties.iter().for_each(|(name, value)| line(name, value));
    shown.headers.iter().for_each(|(name, value)| line(name, value));
    let body = serde_json::to_string_pretty(&shown.body).unwrap_or_default();
    for row in body.lines() {
        let _ = writeln!(text, "    {}", escape_control(row));
    }
    text
}
