//! `list`: prints the records that match conditions, page by page, or counts them.

use anyhow::Context;
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::{
    exit::ExitStatus,
    filter::FilterArguments,
    output::{Format, Output, note},
    table::{Cell, Column, Tone},
    waits::Waits,
};
use crate::{
    config::Config,
    domain::PayoutLinkState,
    postgres::{Listed, Page, PageRequest, Reader},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    filter: FilterArguments,
    /// List the oldest first; without it the newest come first
    #[arg(long)]
    oldest_first: bool,
    /// Begin after this record: the cursor that the page before printed
    #[arg(long, value_name = "RECORD")]
    after: Option<Uuid>,
    /// Records of a page
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Print only the number of records
    #[arg(long, conflicts_with_all = ["after", "oldest_first"])]
    count: bool,
    /// Rows that are looked at, at most. A larger number finds rare records in one page, and takes longer
    #[arg(long, default_value_t = 10_000, value_name = "ROWS", value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    scan: u32,
}

/// A number of records, for `--output json`.
#[derive(Debug, Serialize)]
struct Count {
    count: u64,
    /// Otherwise there are at least `count`.
    complete: bool,
}

/// A record, with what it waits for.
#[derive(Debug, Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    record: &'a Listed,
    /// Why it waits although it is due: pauses, and open circuit breakers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    waits_for: Vec<String>,
}

/// A page, for `--output json`.
#[derive(Debug, Serialize)]
struct Document<'a> {
    records: &'a [Row<'a>],
    /// `--after` of the next page.
    next: Option<Uuid>,
    /// Whether every row of the page's range was looked at.
    complete: bool,
}

const COLUMNS: [Column; 10] = [
    Column::new("ACCEPTED"),
    Column::new("PAYOUT"),
    Column::new("MERCHANT").shrinks(),
    Column::new("CONNECTOR").shrinks().optional(),
    Column::new("AMOUNT").number(),
    Column::new("CUR"),
    Column::new("STATE"),
    Column::new("STATUS").shrinks().optional(),
    Column::new("ERROR").shrinks().optional(),
    Column::new("WAITS").shrinks().optional(),
];

pub(super) async fn run(
    config: &Config,
    output: Output,
    arguments: &Arguments,
) -> anyhow::Result<ExitStatus> {
    let filter = arguments.filter.filter()?;
    let reader = Reader::connect(&config.database()).await.context("database")?;
    if arguments.count {
        let counted = reader.count(&filter, arguments.scan).await.context("database")?;
        let count = Count { count: counted.count, complete: counted.is_complete };
        let at_least = if count.complete { "" } else { "at least " };
        output.object(&count, |count| format!("{at_least}{}", count.count))?;
        if !count.complete {
            note(format_args!(
                "{} rows were looked at: --scan with a larger number counts more",
                arguments.scan
            ));
        }
        return Ok(found(count.count > 0 || !count.complete));
    }
    let request = PageRequest {
        newest_first: !arguments.oldest_first,
        after: arguments.after,
        limit: arguments.limit,
        scan: arguments.scan,
    };
    let page = reader.list(&filter, request).await.context("database")?;
    let is_waiting = |record: &Listed| record.due_at.is_some() && !record.leased;
    let waits = match page.records.iter().any(is_waiting) {
        true => Waits::read(&reader).await,
        false => Waits::default(),
    };
    let rows = page.records.iter().map(|record| Row {
        record,
        waits_for: match is_waiting(record) {
            true => waits.of_creation(&record.connector, &record.merchant_id),
            false => Vec::new(),
        },
    });
    print(output, &page, &rows.collect::<Vec<_>>())?;
    explain(arguments, &page);
    Ok(found(!page.records.is_empty() || page.next.is_some() || page.open_left_out))
}

fn found(any: bool) -> ExitStatus {
    if any { ExitStatus::Done } else { ExitStatus::NothingFound }
}

fn print(output: Output, page: &Page, rows: &[Row<'_>]) -> anyhow::Result<()> {
    let now = OffsetDateTime::now_utc();
    match output.format() {
        Format::Text => output.rows(&COLUMNS, rows, |row| cells(row, now)),
        Format::Json => {
            let complete = !page.stopped && !page.open_left_out;
            let document = Document { records: rows, next: page.next, complete };
            output.object(&document, |_| String::new())
        }
        Format::Jsonl => output.objects(rows, |_| String::new()),
    }
}

/// Says on standard error what the page leaves out, and where the next one begins.
fn explain(arguments: &Arguments, page: &Page) {
    if page.records.is_empty() && page.next.is_none() {
        note("no record matches");
    }
    if page.open_left_out {
        note(format_args!(
            "more than {} records are open: only the first in the order of service were looked at. Select a connector \
             or raise --scan",
            arguments.scan
        ));
    }
    let Some(next) = page.next else { return };
    if page.stopped {
        note(format_args!(
            "{} rows were looked at, {} {}: --after {next} goes on from there; --scan with a larger number looks at \
             more at once",
            arguments.scan,
            if arguments.oldest_first { "up to" } else { "back to" },
            time_of(next)
        ));
    } else {
        note(format_args!("next page: --after {next}"));
    }
}

/// Returns the time in a record's id.
fn time_of(id: Uuid) -> String {
    let millis = id.as_u128() >> 80;
    let time = i64::try_from(millis / 1000)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

fn cells(row: &Row<'_>, now: OffsetDateTime) -> Vec<Cell> {
    let record = row.record;
    let status = record.link_status.as_deref().or(record.payout_status.as_deref()).unwrap_or_default();
    vec![
        Cell::time(Some(record.created_at)),
        Cell::new(&record.merchant_payout_id),
        Cell::new(&record.merchant_id),
        Cell::new(&record.connector),
        record.amount_minor.to_string().into(),
        Cell::new(&record.currency),
        Cell::new(&record.state).tone(tone(record)),
        status.into(),
        record.error_code.as_deref().unwrap_or_default().into(),
        Cell::new(waits(row, now)),
    ]
}

fn tone(record: &Listed) -> Tone {
    match PayoutLinkState::parse(&record.state) {
        Some(PayoutLinkState::Unknown) => Tone::Bad,
        Some(PayoutLinkState::Failed) => Tone::Warning,
        Some(PayoutLinkState::Open) if record.in_doubt_since.is_some() => Tone::Bad,
        Some(PayoutLinkState::Open | PayoutLinkState::Created) | None => Tone::Plain,
    }
}

/// Says what an open record waits for.
fn waits(row: &Row<'_>, now: OffsetDateTime) -> String {
    let record = row.record;
    let Some(due_at) = record.due_at else { return String::new() };
    let seconds = (due_at - now).whole_seconds();
    let unknown = if record.in_doubt_since.is_some() { "unknown, " } else { "" };
    let attempts = match record.attempts {
        0 => String::new(),
        1 => ", after 1 attempt".to_owned(),
        attempts => format!(", after {attempts} attempts"),
    };
    let what = match (record.leased, seconds) {
        (true, _) => "at a worker".to_owned(),
        (false, 1..) => format!("due in {seconds} s"),
        (false, _) => format!("due for {} s", -seconds),
    };
    let obstacles: String = row.waits_for.iter().map(|obstacle| format!(", {obstacle}")).collect();
    format!("{unknown}{what}{attempts}{obstacles}")
}
