//! `status`: prints what is wrong now, the worst first, and exits with 1 if something needs a person.

use std::time::Duration;

use anyhow::Context;
use secrecy::ExposeSecret;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::time::timeout;

use super::{
    exit::ExitStatus,
    findings::{Finding, Known, Severity, findings},
    output::{Format, Output, counted},
    table::{Cell, Column, Tone},
    targets::Targets,
};
use crate::{
    config::Config,
    domain::escape_control,
    postgres::{DatabaseStatus, Reader, STATUS_SCAN},
    rabbitmq::{self, QueueCounts},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Do not ask RabbitMQ for the number of dead letters
    #[arg(long)]
    without_broker: bool,
}

/// The status, for `--output json`.
#[derive(Debug, Serialize)]
struct Document {
    /// Nothing needs a person.
    healthy: bool,
    findings: Vec<Finding>,
    /// Parts that could not be read, each with the reason.
    not_known: Vec<String>,
    /// Which database and which broker this is about.
    targets: Targets,
    database: DatabaseStatus,
}

/// Limit of the wait for RabbitMQ.
const BROKER_PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn run(
    config: &Config,
    output: Output,
    arguments: &Arguments,
    targets: Targets,
) -> anyhow::Result<ExitStatus> {
    let database = async {
        let reader = Reader::connect(&config.database()).await?;
        reader.status().await
    };
    let (database, queues) = tokio::join!(database, queues(config, arguments));
    let named = targets.database.as_deref().unwrap_or_default();
    let database = database.with_context(|| format!("database {}", escape_control(named)))?;
    let mut not_known = Vec::new();
    let queues = queues.map_err(|reason| not_known.push(reason)).ok();
    let known = Known {
        queues,
        accounts: (!config.connectors.is_empty())
            .then(|| config.connectors.keys().map(String::as_str).collect()),
        sealing_keys: (!config.keys.sealing.is_empty()).then(|| sealing_keys(config)),
    };
    if known.accounts.is_none() {
        not_known.push("accounts without a configuration: this configuration has no [connectors]".into());
    }
    if known.sealing_keys.is_none() {
        not_known.push("missing sealing keys: this configuration has no keys.sealing".into());
    }
    if database.workers.is_none() {
        not_known.push("workers: this server is a standby, and does not show them".into());
    }
    let now = OffsetDateTime::now_utc();
    let findings = findings(&database, &known, now);
    let healthy = findings.iter().all(|finding| finding.severity != Severity::Act);
    let document = Document { healthy, findings, not_known, targets, database };
    match output.format() {
        Format::Text => print(output, &document, queues, now)?,
        Format::Json | Format::Jsonl => output.object(&document, |_| String::new())?,
    }
    Ok(if healthy { ExitStatus::Done } else { ExitStatus::Failed })
}

async fn queues(config: &Config, arguments: &Arguments) -> Result<QueueCounts, String> {
    if arguments.without_broker {
        return Err("dead letters: RabbitMQ was not asked (--without-broker)".into());
    }
    if config.broker.url.is_none() {
        return Err("dead letters: this configuration has no broker.url".into());
    }
    match timeout(BROKER_PATIENCE, rabbitmq::queue_counts(&config.broker())).await {
        Ok(Ok(counts)) => Ok(counts),
        Ok(Err(error)) => Err(format!("dead letters: {error}")),
        Err(_) => {
            Err(format!("dead letters: RabbitMQ did not answer within {} s", BROKER_PATIENCE.as_secs()))
        }
    }
}

/// Returns the names of the configured sealing keys: the parts before the colon.
fn sealing_keys(config: &Config) -> Vec<String> {
    let keys = config.keys.sealing.iter().map(ExposeSecret::expose_secret);
    keys.filter_map(|key| key.split_once(':')).map(|(name, _)| name.to_owned()).collect()
}

const COLUMNS: [Column; 5] = [
    Column::new(""),
    Column::new("COUNT").number(),
    Column::new("FOR").number(),
    Column::new("WHAT").shrinks(),
    Column::new("SHOW MORE"),
];

fn print(
    output: Output,
    document: &Document,
    queues: Option<QueueCounts>,
    now: OffsetDateTime,
) -> anyhow::Result<()> {
    output.rows(&COLUMNS, &document.findings, |finding| cells(finding, now))?;
    if document.healthy {
        output.text("nothing needs a person")?;
    }
    let database = &document.database;
    let workers = database.workers.iter().flatten();
    let workers: Vec<String> = workers
        .map(|seen| format!("{} × {}", seen.count, seen.version.as_deref().unwrap_or("an earlier version")))
        .collect();
    if !workers.is_empty() {
        output.text(format_args!("workers: {}", workers.join(", ")))?;
    }
    for account in &database.accounts {
        let at_least = if account.open >= STATUS_SCAN { "at least " } else { "" };
        let name = escape_control(&account.connector);
        output.text(format_args!(
            "{name}: {at_least}{} open, {} retrying, {} with an outcome that is unknown so far",
            account.open, account.retrying, account.unknown
        ))?;
    }
    if let Some(queues) = queues {
        let jobs = usize::try_from(queues.jobs).unwrap_or(usize::MAX);
        output.text(format_args!("jobs queue: {}", counted(jobs, "message")))?;
    }
    for (what, target) in [("database", &document.targets.database), ("broker", &document.targets.broker)] {
        if let Some(target) = target {
            output.text(format_args!("{what}: {}", escape_control(target)))?;
        }
    }
    output.text(format_args!("database clock: {:+} ms", database.clock_offset_ms))?;
    for line in &document.not_known {
        output.text(format_args!("not known: {line}"))?;
    }
    Ok(())
}

fn cells(finding: &Finding, now: OffsetDateTime) -> Vec<Cell> {
    let (word, tone) = match finding.severity {
        Severity::Act => ("ACT", Tone::Bad),
        Severity::Watch => ("watch", Tone::Warning),
    };
    let at_least = if finding.complete { "" } else { "≥" };
    vec![
        Cell::new(word).tone(tone),
        format!("{at_least}{}", finding.count).into(),
        finding.since.map(|since| age(now - since)).unwrap_or_default().into(),
        Cell::new(&finding.text),
        Cell::new(&finding.next),
    ]
}

/// Writes a length of time in its largest whole unit.
fn age(age: time::Duration) -> String {
    let seconds = age.whole_seconds().max(0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_its_largest_unit() {
        for (seconds, text) in [(-5, "0 s"), (119, "119 s"), (120, "2 min"), (7_200, "2 h"), (172_800, "2 d")]
        {
            assert_eq!(age(time::Duration::seconds(seconds)), text);
        }
    }
}
