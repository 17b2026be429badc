//! `submit`: publishes jobs, and with `--wait` prints their results from a reply queue of its own.

use std::{
    io::{IsTerminal, Read, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::output::{note, say};
use crate::{
    config::Config,
    rabbitmq::{Job, Submitter},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// File with one JSON object or JSON Lines; - reads standard input
    file: String,
    /// Wait for the results and print them, one a line
    #[arg(long)]
    wait: bool,
    /// Limit of the wait for all results, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    timeout: u64,
    /// x-connector
    #[arg(long, value_name = "NAME")]
    connector: Option<String>,
    /// x-merchant-id
    #[arg(long, value_name = "ID")]
    merchant: Option<String>,
}

pub(super) async fn run(config: &Config, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let jobs = split(&read(&arguments.file)?)?;
    if jobs.is_empty() {
        bail!("{} has no job", arguments.file);
    }
    let mut submitter = Submitter::connect(&config.broker(), arguments.wait).await.context("broker")?;
    let shows_progress = jobs.len() >= 1000 && std::io::stderr().is_terminal();
    let all = jobs.len();
    for (count, body) in jobs.into_iter().enumerate() {
        let job = Job {
            body: body.get().as_bytes().to_vec(),
            message_id: Uuid::now_v7().to_string(),
            connector: arguments.connector.as_deref(),
            merchant_id: arguments.merchant.as_deref(),
        };
        submitter.submit(job).await.context("the broker did not accept a job")?;
        if shows_progress && count % 1000 == 0 {
            let _ = write!(std::io::stderr(), "\r{count} of {all} jobs");
        }
    }
    submitter.confirmed().await.context("the broker did not confirm every job")?;
    if shows_progress {
        let _ = writeln!(std::io::stderr(), "\r{all} of {all} jobs");
    }
    if !arguments.wait {
        note(format_args!("{all} submitted"));
        return Ok(ExitCode::SUCCESS);
    }
    let (mut failed, mut came) = (false, 0);
    let results = async {
        for _ in 0..all {
            let (kind, body) = submitter.next_result().await?;
            failed |= kind != "payout_link.created";
            came += 1;
            say(String::from_utf8_lossy(&body))?;
        }
        anyhow::Ok(())
    };
    let deadline = Duration::from_secs(arguments.timeout);
    match tokio::time::timeout(deadline, results).await {
        Ok(done) => done?,
        Err(_) => bail!(
            "{came} of {all} results came within {} s. The jobs are in RabbitMQ or in the database, and go on. Does a \
             worker run? `payout-link-worker show ID` prints the state of a payout",
            deadline.as_secs()
        ),
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn read(file: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    match file {
        "-" => std::io::stdin().read_to_string(&mut text).map(drop).context("standard input")?,
        file => text = std::fs::read_to_string(file).with_context(|| file.to_owned())?,
    }
    Ok(text)
}

/// Splits the text into jobs: the whole text if it is one JSON value, otherwise one a line.
fn split(text: &str) -> anyhow::Result<Vec<Box<RawValue>>> {
    if serde_json::from_str::<IgnoredAny>(text).is_ok() {
        if text.trim_start().starts_with('[') {
            bail!("the jobs are a JSON list: write one JSON object, or one object a line");
        }
        return Ok(vec![serde_json::from_str(text)?]);
    }
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| {
            serde_json::from_str(line).with_context(|| format!("line {} is not JSON", number + 1))
        })
        .collect()
}
