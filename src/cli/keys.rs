//! `keys`: counts the values of each sealing key, and encrypts all of them with the first key.

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

use super::{
    exit::ExitStatus,
    output::{note, progress, progress_ends, say},
};
use crate::{
    config::Config,
    pipeline::{KeyRotation, KeyRotationSettings, Rotation},
    postgres::{self, MAX_SEALS, Rotated, Store},
};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Action {
    /// Count the values by column and key, and list unused and missing keys
    Status,
    /// Encrypt all values with the first key; safe while workers run, and safe to repeat
    Rotate,
    /// Print the public keys for verifying webhooks with asymmetric signatures (whsk_)
    Public,
}

/// Records in a page that is counted.
const COUNTED: u32 = 5000;
/// Records between two lines that stay on standard error.
const PROGRESS_EVERY: usize = 100_000;

pub(super) async fn run(config: &Config, action: &Action) -> anyhow::Result<ExitCode> {
    if matches!(action, Action::Public) {
        print_public_keys(config)?;
        return Ok(ExitCode::SUCCESS);
    }
    let ring = config.key_ring()?;
    let ids: Vec<String> = ring.ids().map(str::to_owned).collect();
    let pool = postgres::connect(&config.database()).await.context("database")?;
    let store = Store::new(pool, ring, config.store());
    match action {
        Action::Status => status(&store, &ids).await,
        Action::Rotate => rotate(&store, &ids).await,
        Action::Public => Ok(ExitCode::SUCCESS),
    }
}

fn print_public_keys(config: &Config) -> anyhow::Result<()> {
    let webhooks = config.webhooks();
    let merchants = webhooks.merchant_keys.iter().map(|(id, keys)| (id.escape_debug().to_string(), keys));
    let mut all: Vec<_> = std::iter::once(("every other merchant".to_owned(), &webhooks.default_keys))
        .chain(merchants)
        .flat_map(|(whose, keys)| keys.iter().filter_map(move |key| Some((whose.clone(), key.public()?))))
        .collect();
    all.sort();
    if all.is_empty() {
        note("every webhook secret is symmetric (whsec_) and has no public key");
    }
    all.into_iter().try_for_each(|(whose, key)| say(format_args!("{key}  {whose}")))
}

async fn status(store: &Store, ring: &[String]) -> anyhow::Result<ExitCode> {
    let (mut counts, mut after) = (BTreeMap::<(String, String), i64>::new(), Uuid::nil());
    for pages in 0.. {
        progress(format_args!("{} records read", pages * u64::from(COUNTED)));
        let page = store.count_keys(after, COUNTED).await.context("database")?;
        let Some(first) = page.first() else { break };
        after = first.last;
        for count in page.into_iter().filter(|count| !count.key.is_empty()) {
            *counts.entry((count.column, count.key)).or_default() += count.values;
        }
    }
    progress_ends();
    for ((column, key), values) in &counts {
        say(format_args!("{column} {key} {values}"))?;
    }
    for (key, seals) in store.seals().await.context("database")? {
        say(format_args!("encrypted with {key} so far: {seals} of {MAX_SEALS}"))?;
    }
    let is_used = |id: &String| counts.keys().any(|(_, key)| key == id);
    for (index, id) in ring.iter().enumerate().filter(|(_, id)| !is_used(id)) {
        let advice = if index == 0 { "encrypts new values" } else { "can be removed from the ring" };
        say(format_args!("unused: {id} ({advice})"))?;
    }
    let mut missing: Vec<&String> =
        counts.keys().map(|(_, key)| key).filter(|key| !ring.contains(key)).collect();
    missing.sort();
    missing.dedup();
    for id in &missing {
        say(format_args!("missing from the ring: {id} (its values cannot be decrypted)"))?;
    }
    Ok(if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn rotate(store: &Store, ring: &[String]) -> anyhow::Result<ExitCode> {
    let (mut seen, mut resealed) = (0, 0);
    let report = |page: &Rotated| {
        for value in &page.unopened {
            note(format_args!("{} of {}: {}", value.column, value.id, value.error));
        }
        let before = seen / PROGRESS_EVERY;
        seen += page.records;
        resealed += page.resealed;
        let line = format!("{seen} records read, {resealed} values encrypted again");
        if seen / PROGRESS_EVERY > before {
            note(&line);
        }
        progress(line);
        if page.last.is_none() {
            // The next pass counts from zero.
            seen = 0;
        }
    };
    let mut interrupts = signal(SignalKind::interrupt()).context("signals")?;
    let rotation = KeyRotation::new(store, KeyRotationSettings::default());
    let rotation = tokio::select! {
        rotation = rotation.run(report) => Some(rotation.context("database")?),
        _ = interrupts.recv() => None,
    };
    progress_ends();
    let Some(rotation) = rotation else {
        store.record_seals().await.context("database")?;
        note(format_args!(
            "interrupted: {seen} records read, {resealed} values encrypted again. The same command goes on with the others"
        ));
        return Ok(ExitStatus::InPart.into());
    };
    let Rotation { records, resealed, contended, unopened } = rotation;
    say(format_args!("{records} records read, {resealed} values encrypted again with {}", ring[0]))?;
    if contended > 0 {
        note(format_args!("{contended} values were in use: run the command again"));
    }
    if unopened > 0 {
        note(format_args!("{unopened} values could not be decrypted and are unchanged"));
    }
    Ok(if rotation.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
