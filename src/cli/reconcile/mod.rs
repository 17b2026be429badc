//! `reconcile`: compares a provider's statement with the created records of an account.
//!
//! The statement is read once, in groups of lines, and the records after it, in pages. Of each id, a number of 64 bits and the
//! number of its first line stay in memory.

mod compare;
mod statement;

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    fs::File,
    hash::{BuildHasher, RandomState},
    io::{BufReader, Read},
    path::PathBuf,
};

use anyhow::Context;
use serde::Serialize;
use time::OffsetDateTime;

use self::{
    compare::{Finding, Rules, SETTLED_AFTER},
    statement::{Columns, Line, Statement},
};
use super::{
    exit::ExitStatus,
    filter::time_of,
    output::{Format, Output, progress, progress_ends},
};
use crate::{
    config::Config,
    domain::LinkStatus,
    postgres::{BookedRecord, Reader},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The connector account
    #[arg(long, value_name = "NAME")]
    account: String,
    /// The statement: CSV with a line of column names, or - for standard input
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    #[command(flatten)]
    columns: Columns,
    /// A word of the statement and our status for it: paid=succeeded. Repeat it for each word
    #[arg(long = "status", value_name = "WORD=STATUS", value_parser = word)]
    words: Vec<(String, LinkStatus)>,
    /// The amounts are decimal text (12.50), not minor units
    #[arg(long)]
    major_units: bool,
    /// The begin of the statement: records accepted since then have to be in it. RFC 3339, a date, or an age such as 2d. Without
    /// it, the time of its first line
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// The end of the statement. Without it, the time of its last line
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Minutes before the end of the statement in which a line or a record may be on one side only
    #[arg(long, value_name = "MINUTES", default_value_t = SETTLED_AFTER.whole_minutes(), value_parser = clap::value_parser!(i64).range(0..=100_000))]
    settled_after_minutes: i64,
    /// Print matched lines as well
    #[arg(long)]
    all: bool,
    /// Findings in the document of --output json, at most
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    limit: usize,
}

/// A finding that is printed.
#[derive(Debug, Serialize)]
struct Row {
    finding: Finding,
    /// The provider's id.
    id: String,
    /// The line of the statement.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    /// The first line of the statement with the same id, if this one repeats it.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<BookedRecord>,
    #[serde(skip_serializing_if = "String::is_empty")]
    difference: String,
}

/// The document of `--output json`.
#[derive(Debug, Serialize)]
struct Document<'a> {
    findings: &'a [Row],
    /// Whether every finding is in the document.
    complete: bool,
    /// How often each finding was made.
    counts: &'a BTreeMap<Finding, u64>,
}

/// The end of `--output jsonl`.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    counts: &'a BTreeMap<Finding, u64>,
}

/// The findings so far.
struct Findings {
    output: Output,
    all: bool,
    limit: usize,
    counts: BTreeMap<Finding, u64>,
    held: Vec<Row>,
}

/// Lines that are looked up together.
const GROUP: usize = 1_000;

pub(super) async fn run(
    config: &Config,
    output: Output,
    arguments: &Arguments,
) -> anyhow::Result<ExitStatus> {
    let now = OffsetDateTime::now_utc();
    let time = |name: &str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => {
            time_of(name, text, now).map(Some).map_err(|problem| ExitStatus::WrongUse.because(problem))
        }
    };
    let (since, until) = (time("--since", &arguments.since)?, time("--until", &arguments.until)?);
    let source: Box<dyn Read + Send> = match arguments.from.as_os_str() == "-" {
        true => Box::new(std::io::stdin()),
        false => {
            let file = File::open(&arguments.from).with_context(|| arguments.from.display().to_string())?;
            Box::new(BufReader::new(file))
        }
    };
    let mut statement = Statement::new(source, &arguments.columns)?;
    let reader = Reader::connect(&config.database()).await.context("database")?;
    let rules = Rules {
        words: arguments.words.iter().cloned().collect(),
        major_units: arguments.major_units,
        settled_before: until.unwrap_or(now) - time::Duration::minutes(arguments.settled_after_minutes),
    };
    let mut findings = Findings {
        output,
        all: arguments.all,
        limit: arguments.limit,
        counts: BTreeMap::new(),
        held: Vec::new(),
    };
    let seen = Seen::default();
    let (seen, times) =
        compare_lines(&mut statement, &reader, arguments, &rules, &mut findings, seen).await?;
    let range = since.or(times.map(|(first, _)| first)).zip(until.or(times.map(|(_, last)| last)));
    match range {
        Some((since, until)) => {
            let until = until + time::Duration::MILLISECOND;
            compare_records(&reader, arguments, (since, until), &rules, &mut findings, &seen).await?;
        }
        None => super::note(
            "the statement has no times: records that it does not have are not searched. --since and --until name its range",
        ),
    }
    progress_ends();
    findings.end()
}

/// Compares each line with its record. Returns the ids of the statement, and its first and last time.
async fn compare_lines(
    statement: &mut Statement,
    reader: &Reader,
    arguments: &Arguments,
    rules: &Rules,
    findings: &mut Findings,
    mut seen: Seen,
) -> anyhow::Result<(Seen, Option<(OffsetDateTime, OffsetDateTime)>)> {
    let mut times: Option<(OffsetDateTime, OffsetDateTime)> = None;
    let mut lines = 0_u64;
    loop {
        let mut group: Vec<Line> = Vec::with_capacity(GROUP);
        while group.len() < GROUP
            && let Some(line) = statement.next()?
        {
            group.push(line);
        }
        if group.is_empty() {
            return Ok((seen, times));
        }
        let ids: Vec<String> = group.iter().map(|line| line.id.clone()).collect();
        let booked = reader.booked(&arguments.account, &ids).await.context("database")?;
        let mut by_id: HashMap<&str, &BookedRecord> = HashMap::with_capacity(booked.len());
        for record in &booked {
            by_id.insert(&record.connector_payout_id, record);
            if let Some(id) = &record.provider_payout_id {
                by_id.insert(id, record);
            }
        }
        lines += group.len() as u64;
        for line in group {
            times = line.at.map_or(times, |at| match times {
                None => Some((at, at)),
                Some((first, last)) => Some((first.min(at), last.max(at))),
            });
            let record = by_id.get(line.id.as_str()).copied();
            if let Some(first) = seen.note(&line.id, line.number) {
                findings.add(Row {
                    finding: Finding::Repeated,
                    id: line.id.clone(),
                    line: Some(line.number),
                    first_line: Some(first),
                    record: record.cloned(),
                    difference: format!("line {first} has the same id"),
                })?;
            }
            let (finding, difference) =
                rules.compare(&line, record).map_err(|problem| ExitStatus::WrongUse.because(problem))?;
            findings.add(Row {
                finding,
                id: line.id,
                line: Some(line.number),
                first_line: None,
                record: record.cloned(),
                difference,
            })?;
        }
        progress(format_args!("{lines} lines compared"));
    }
}

/// Finds the records that the statement does not have.
async fn compare_records(
    reader: &Reader,
    arguments: &Arguments,
    (since, until): (OffsetDateTime, OffsetDateTime),
    rules: &Rules,
    findings: &mut Findings,
    seen: &Seen,
) -> anyhow::Result<()> {
    let (mut after, mut records) = (None, 0_usize);
    loop {
        let page = reader.booked_page(&arguments.account, since, until, after).await.context("database")?;
        records += page.records.len();
        for record in page.records {
            let is_there = seen.has(&record.connector_payout_id)
                || record.provider_payout_id.as_ref().is_some_and(|id| seen.has(id));
            if !is_there {
                findings.add(Row {
                    finding: rules.without_line(&record),
                    id: record.connector_payout_id.clone(),
                    line: None,
                    first_line: None,
                    record: Some(record),
                    difference: String::new(),
                })?;
            }
        }
        progress(format_args!("{records} records compared"));
        let Some(next) = page.next else { return Ok(()) };
        after = Some(next);
    }
}

impl Findings {
    fn add(&mut self, row: Row) -> anyhow::Result<()> {
        *self.counts.entry(row.finding).or_default() += 1;
        if row.finding == Finding::Matched && !self.all {
            return Ok(());
        }
        match self.output.format() {
            Format::Json if self.held.len() < self.limit => self.held.push(row),
            Format::Json => {}
            Format::Text | Format::Jsonl => self.output.object(&row, text)?,
        }
        Ok(())
    }

    /// Prints the counts.
    fn end(self) -> anyhow::Result<ExitStatus> {
        let counts = &self.counts;
        match self.output.format() {
            Format::Json => {
                let shown = |finding: &Finding| self.all || *finding != Finding::Matched;
                let printed: u64 =
                    counts.iter().filter(|(finding, _)| shown(finding)).map(|(_, times)| times).sum();
                let complete = printed == self.held.len() as u64;
                self.output
                    .object(&Document { findings: &self.held, complete, counts }, |_| String::new())?;
            }
            Format::Jsonl => self.output.object(&Summary { counts }, |_| String::new())?,
            Format::Text => {
                let said: Vec<String> =
                    counts.iter().map(|(finding, times)| format!("{times} {}", finding.as_str())).collect();
                super::note(if said.is_empty() { "the statement is empty".into() } else { said.join(", ") });
            }
        }
        Ok(match counts.keys().any(|finding| finding.is_difference()) {
            true => ExitStatus::InPart,
            false => ExitStatus::Done,
        })
    }
}

fn text(row: &Row) -> String {
    let payout = row.record.as_ref().map(|record| record.merchant_payout_id.escape_debug().to_string());
    let line = row.line.map(|line| format!("line {line}"));
    let parts = [Some(row.id.escape_debug().to_string()), payout, line, Some(row.difference.clone())];
    let parts: Vec<String> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    format!("{:<16} {}", row.finding.as_str(), parts.join("  "))
}

/// The ids of a statement, as numbers of 64 bits under a random key, each with its first line.
#[derive(Default)]
struct Seen {
    hasher: RandomState,
    lines: HashMap<u64, u64>,
}

impl Seen {
    /// Notes the id of a line. Returns the first line with this id, if there was one before.
    fn note(&mut self, id: &str, line: u64) -> Option<u64> {
        match self.lines.entry(self.hasher.hash_one(id)) {
            Entry::Occupied(first) => Some(*first.get()),
            Entry::Vacant(new) => {
                new.insert(line);
                None
            }
        }
    }

    fn has(&self, id: &str) -> bool {
        self.lines.contains_key(&self.hasher.hash_one(id))
    }
}

fn word(text: &str) -> Result<(String, LinkStatus), String> {
    let (word, status) = text.split_once('=').ok_or("expected WORD=STATUS, such as paid=succeeded")?;
    let known = || LinkStatus::ALL.map(LinkStatus::as_str).join(", ");
    let status =
        LinkStatus::parse(status).ok_or_else(|| format!("unknown status, expected one of {}", known()))?;
    Ok((word.to_lowercase(), status))
}
