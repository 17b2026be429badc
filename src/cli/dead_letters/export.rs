//! `dead-letters export`: writes letters as they are, secrets included, to a file that only its owner may read.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::{BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::json;

use super::{
    row::{Queue, Row},
    select::Selection,
};
use crate::{
    cli::{
        ExitStatus,
        actor::Act,
        interrupts::Interrupts,
        note,
        output::{Output, counted, progress, progress_ends},
    },
    config::Config,
    postgres::{self, Store},
    rabbitmq::Letter,
};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// The file, which must not exist yet; one JSON object a line
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Maximum number of letters
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    act: Act,
}

#[derive(Serialize)]
struct Exported<'a> {
    #[serde(flatten)]
    row: &'a Row,
    properties: BTreeMap<&'a str, &'a str>,
    /// Those that are strings.
    headers: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    /// Of a body that is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

pub(super) async fn run(
    config: &Config,
    _output: Output,
    arguments: &Arguments,
) -> anyhow::Result<ExitStatus> {
    let (selection, file) = (&arguments.selection, arguments.to.display());
    let pool = postgres::connect(&config.database()).await.context("database")?;
    let store = Store::new(pool, config.key_ring()?, config.store());
    let mut reading = selection.open(config).await?;
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&arguments.to);
    let mut written = BufWriter::new(created.with_context(|| file.to_string())?);
    let details = json!({
        "queue": match selection.queue { Queue::Jobs => "jobs", Queue::Results => "results" },
        "file": file.to_string(),
    });
    let mut interrupts = Interrupts::listen()?;
    // Before the first secret leaves the queue.
    let operator = arguments.act.operator();
    store.record_action(&operator, "dead-letters export", None, &details).await.context("database")?;
    let mut count = 0;
    while arguments.limit.is_none_or(|limit| count < limit) && !interrupts.is_seen().await {
        let read = interrupts.finish(Box::pin(reading.next())).await;
        let read = read.with_context(|| format!("interrupted: {file} is not complete, and has secrets"))?;
        let Some((letter, row)) = read? else { break };
        serde_json::to_writer(&mut written, &exported(&letter, &row)).context("cannot write the file")?;
        written.write_all(b"\n").context("cannot write the file")?;
        count += 1;
        progress(format_args!("{} exported", counted(count, "letter")));
    }
    progress_ends();
    let left = reading.give_back().await?;
    let written = written.into_inner().context("cannot write the file")?;
    written.sync_all().context("cannot write the file")?;
    let is_interrupted = interrupts.is_seen().await;
    if count == 0 {
        // It holds nothing.
        std::fs::remove_file(&arguments.to).with_context(|| file.to_string())?;
    } else {
        note(format_args!(
            "exported {} with their secrets to {file}; only its owner may read it (mode 0600). Delete it when it is not \
             needed any more",
            counted(count, "letter")
        ));
    }
    if is_interrupted {
        note(format_args!(
            "interrupted: {count} exported, and {left} not touched. The command does not go on: repeat it with another file"
        ));
        return Ok(ExitStatus::InPart);
    }
    Ok(if count == 0 { ExitStatus::NothingFound } else { ExitStatus::Done })
}

fn exported<'a>(letter: &'a Letter, row: &'a Row) -> Exported<'a> {
    let body = std::str::from_utf8(&letter.body).ok();
    Exported {
        row,
        properties: letter.properties().collect(),
        headers: letter.headers().filter_map(|(name, value)| Some((name, value?))).collect(),
        body,
        body_base64: body.is_none().then(|| STANDARD.encode(&letter.body)),
    }
}
