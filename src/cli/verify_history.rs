//! `verify-history`: checks a deployment's history against the invariants. `docs/reference/history-checker.md` has the file formats.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::output::say;
use super::records::{read_actions, read_followed, read_later, read_records};
use crate::{
    config::Config,
    domain::{ReplayRule, idempotency_key_of},
    postgres::{self, Store},
};
use history_checker::{self, Files, History, LetterRetention, Rule, Secrets, Violation};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Jobs that RabbitMQ confirmed
    #[arg(long, value_name = "FILE")]
    published: PathBuf,
    /// Messages received from the results exchange and from reply queues
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
    /// The dead letters
    #[arg(long, value_name = "FILE")]
    dead_letters: Option<PathBuf>,
    /// Webhooks that merchants received
    #[arg(long, value_name = "FILE")]
    webhooks: Option<PathBuf>,
    /// Links at the provider
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Calls that reached the provider
    #[arg(long, value_name = "FILE")]
    calls: Option<PathBuf>,
    /// Secret values, one a line; they are searched for in results, webhooks, database and logs
    #[arg(long, value_name = "FILE")]
    secrets: Option<PathBuf>,
    /// Logs to search for secrets
    #[arg(long, value_name = "FILE")]
    log: Vec<PathBuf>,
    /// Check only records created at this time or later (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = |text: &str| OffsetDateTime::parse(text, &Rfc3339))]
    since: Option<OffsetDateTime>,
}

pub(super) async fn run(config: &Config, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let secrets = match &arguments.secrets {
        None => Secrets::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            Secrets::new(text.lines().map(str::to_owned)).map_err(anyhow::Error::msg)?
        }
    };
    let files = Files {
        published: Some(arguments.published.clone()),
        results: arguments.results.clone(),
        dead_letters: arguments.dead_letters.clone(),
        webhooks: arguments.webhooks.clone(),
        ledger: arguments.ledger.clone(),
        calls: arguments.calls.clone(),
        logs: arguments.log.clone(),
    };
    let connectors = config.connectors()?;
    let rule = |name: Option<&str>| {
        Some(match connectors.choose(name)?.connector.replay_rule() {
            ReplayRule::SameKey { look_up: None, .. } => Rule::SameKey,
            ReplayRule::SameKey { look_up: Some(_), .. } | ReplayRule::LookUp(_) => Rule::LookUp,
            ReplayRule::Never => Rule::Never,
        })
    };
    let deployment = &config.worker.deployment;
    let key = |merchant_id: &str, id: &str| idempotency_key_of(deployment, merchant_id, id);
    let mut history = history_checker::read(&files, &secrets, rule, key)?;
    let pool = postgres::connect(&config.database()).await.context("database")?;
    let store = Store::new(pool, config.key_ring()?, config.store());
    let (records, leaks) = read_records(&store, arguments.since, &secrets).await.context("database")?;
    history.records = records;
    (history.actions, history.earlier) = read_actions(&store, arguments.since).await.context("database")?;
    history.leaks.extend(leaks);
    let (later, leaks) = read_later(&store, arguments.since, &secrets).await.context("database")?;
    history.later = later;
    history.leaks.extend(leaks);
    history.asked_later = Some(read_followed(&store, arguments.since).await.context("database")?);

    let tries = u32::try_from(config.webhooks.schedule_seconds.len()).unwrap_or(u32::MAX).saturating_add(1);
    history.letter_retention = config.retention.dead_letters_days.map(|days| LetterRetention {
        length: Duration::from_hours(24) * days,
        ended_at: OffsetDateTime::now_utc().unix_timestamp(),
    });
    let unchecked = arguments.unchecked(&history);
    let mut found = history_checker::check(&history, tries);
    found.retain(|violation| !unchecked.contains(&violation.rule));
    print(&found)?;
    say(format_args!(
        "{} jobs, {} records, {} results, {} dead letters, {} webhooks, {} links",
        history.published.len(),
        history.records.len(),
        history.messages.len(),
        history.dead.len(),
        history.webhooks.len(),
        history.links.len()
    ))?;
    if !unchecked.is_empty() {
        say(format_args!(
            "not checked, because their files or fields were not given: {}",
            unchecked.join(" ")
        ))?;
    }
    say(format_args!("{} violations", found.len()))?;
    Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Arguments {
    /// Returns the rules whose files, or whose fields in them, were not given.
    fn unchecked(&self, history: &History) -> Vec<&'static str> {
        let mut rules = Vec::new();
        let mut without = |file: &Option<PathBuf>, of: &[&'static str]| {
            if file.is_none() {
                rules.extend(of);
            }
        };
        without(&self.results, &["R1", "R6", "R18", "R20", "R21", "R22"]);
        without(&self.dead_letters, &["R1"]);
        without(&self.ledger, &["R2", "R3", "R4", "R21", "R22"]);
        without(&self.webhooks, &["R7", "R19"]);
        without(&self.secrets, &["R11"]);
        if history.messages.iter().all(|message| message.queue.is_none()) {
            rules.push("R25");
        }
        rules.sort_unstable();
        rules.dedup();
        rules
    }
}

fn print(found: &[Violation]) -> anyhow::Result<()> {
    found.iter().try_for_each(|violation| say(format_args!("{}: {}", violation.rule, violation.evidence)))
}
