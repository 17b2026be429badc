//! Acts on letters: preview, confirmation, and then one letter after another.

use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use super::{
    list,
    look::{look, refuse_shared_keys},
    plan::Plan,
    row::{Queue, Row},
    select::{Reading, Selection},
};
use crate::{
    cli::{
        ExitStatus,
        acting::note_last_act,
        actor::Act,
        interrupts::Interrupts,
        note,
        output::{Output, counted, progress, progress_ends},
        table::{Cell, Column, Tone},
    },
    config::Config,
    postgres::{self, Operator, Store},
    rabbitmq::{Letter, Route},
};

/// How many, how fast, and who does it.
#[derive(Debug, clap::Args)]
pub(super) struct Acting {
    /// Act on every letter of the queue
    #[arg(long)]
    all: bool,
    /// Act at once, without a preview and a question
    #[arg(long)]
    yes: bool,
    /// Maximum number of letters; the oldest are first
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Maximum number of letters a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    #[command(flatten)]
    act: Act,
}

/// The outcome of the action on one letter.
#[derive(Debug, Serialize)]
struct Report {
    id: String,
    merchant_id: String,
    merchant_payout_id: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
}

const COLUMNS: [Column; 5] = [
    Column::new("ID"),
    Column::new("MERCHANT"),
    Column::new("PAYOUT"),
    Column::new("OUTCOME"),
    Column::new("REASON").shrinks(),
];

const REFUSED: &str = "refused";

/// Does what `plan` says to every selected letter. `plan` returns why a letter is refused. `is_patched`: it corrects letters,
/// so all of them are looked at before the first is published.
pub(super) async fn run(
    config: &Config,
    output: Output,
    (command, verb): (&'static str, &'static str),
    (selection, acting, is_patched): (&Selection, &Acting, bool),
    plan: impl Fn(&Letter, &Row) -> Result<Plan, String>,
) -> anyhow::Result<ExitStatus> {
    if !selection.is_narrowed() && !acting.all {
        return Err(ExitStatus::WrongUse.because("select letters by id or --where, or add --all").into());
    }
    let pool = postgres::connect(&config.database()).await.context("database")?;
    let store = Store::new(pool, config.key_ring()?, config.store());
    let lock = store.lock_acts("letters").await.context("database")?;
    note_last_act(&store, command).await?;
    let Some(lock) = lock else {
        return Err(ExitStatus::Refused
            .because("another operator, or a worker's retention, is acting on letters now")
            .into());
    };
    let only = match acting.yes && !is_patched {
        true => None,
        false => {
            let Some(looked) = look(config, selection, acting.limit, &plan).await? else {
                note(list::NO_MATCH);
                return Ok(ExitStatus::NothingFound);
            };
            refuse_shared_keys(&store, &looked.payouts).await?;
            if !acting.yes {
                looked.preview(output, verb)?;
            }
            Some(looked.ids)
        }
    };
    let mut reading = selection.open(config).await?.only(only);
    let mut reports = Vec::new();
    let operator = acting.act.operator();
    let acted = act_on_all(
        &mut reading,
        &store,
        &operator,
        command,
        (selection.queue, acting, verb),
        &plan,
        &mut reports,
    )
    .await;
    let given_back = reading.give_back().await;
    progress_ends();
    let is_interrupted = matches!(acted, Ok(true));
    output.rows(&COLUMNS, &reports, |report| {
        let tone = if report.outcome == REFUSED { Tone::Bad } else { Tone::Plain };
        let texts = [&report.id, &report.merchant_id, &report.merchant_payout_id].map(Cell::new);
        texts.into_iter().chain([Cell::new(report.outcome).tone(tone), Cell::new(&report.reason)]).collect()
    })?;
    let done = reports.iter().filter(|report| report.outcome != REFUSED).count();
    note(format_args!("{done} of {} {verb}", counted(reports.len(), "letter")));
    let left = acted.and(given_back);
    if is_interrupted && let Ok(left) = left {
        let left = acting.limit.map_or(left, |limit| left.min(limit.saturating_sub(reports.len())));
        note(format_args!(
            "interrupted: {done} {verb}, {} refused, and {left} not touched. The same command goes on: a letter that was \
             {verb} does not match any more",
            reports.len() - done
        ));
        return Ok(ExitStatus::InPart);
    }
    if let Err(error) = left {
        note(format_args!(
            "{error:#}. A letter that is not reported may be {verb} and still be in its queue"
        ));
        return Ok(if done > 0 { ExitStatus::InPart } else { ExitStatus::Failed });
    }
    // The session ends with the program in any case.
    let _ = lock.end().await;
    Ok(match (reports.len(), done) {
        (0, _) => ExitStatus::NothingFound,
        (_, 0) => ExitStatus::Refused,
        (all, done) if done < all => ExitStatus::InPart,
        _ => ExitStatus::Done,
    })
}

/// Acts on the letters one after another. Returns whether an interrupt ended it before its end.
async fn act_on_all(
    reading: &mut Reading<'_>,
    store: &Store,
    operator: &Operator,
    command: &str,
    (queue, acting, verb): (Queue, &Acting, &'static str),
    plan: &impl Fn(&Letter, &Row) -> Result<Plan, String>,
    reports: &mut Vec<Report>,
) -> anyhow::Result<bool> {
    let mut pace = acting.rate.map(|rate| interval(Duration::from_secs(1) / rate));
    if let Some(pace) = &mut pace {
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let mut interrupts = Interrupts::listen()?;
    while acting.limit.is_none_or(|limit| reports.len() < limit) {
        let wait = async {
            if let Some(pace) = &mut pace {
                pace.tick().await;
            }
        };
        if interrupts.end_wait(wait).await {
            return Ok(true);
        }
        let act = Box::pin(act_on_next(reading, store, operator, command, (queue, verb), plan));
        let Some(acted) = interrupts.finish(act).await else { anyhow::bail!("interrupted within an act") };
        match acted? {
            Some(report) => reports.push(report),
            None => break,
        }
        progress(format_args!("{} processed", counted(reports.len(), "letter")));
    }
    Ok(false)
}

/// Acts on the next letter that is selected; `None` at the end of the queue.
async fn act_on_next(
    reading: &mut Reading<'_>,
    store: &Store,
    operator: &Operator,
    command: &str,
    (queue, verb): (Queue, &'static str),
    plan: &impl Fn(&Letter, &Row) -> Result<Plan, String>,
) -> anyhow::Result<Option<Report>> {
    let Some((letter, row)) = reading.next().await? else { return Ok(None) };
    let reason = match plan(&letter, &row) {
        Err(reason) => reason,
        Ok(plan) => {
            // Before the act: one that is not recorded is not carried out.
            record(store, operator, command, queue, &row, &plan).await?;
            carry_out(reading, &letter, operator, &plan).await?
        }
    };
    let outcome = if reason.is_empty() { verb } else { REFUSED };
    Ok(Some(Report {
        id: row.id,
        merchant_id: row.merchant_id,
        merchant_payout_id: row.merchant_payout_id,
        outcome,
        reason,
    }))
}

/// Acts on one letter, and returns why it was refused; nothing if it was not.
async fn carry_out(
    reading: &mut Reading<'_>,
    letter: &Letter,
    operator: &Operator,
    plan: &Plan,
) -> anyhow::Result<String> {
    if let Plan::Publish { exchange, routing_key, body, .. } = plan {
        let to = (exchange.as_str(), routing_key.as_str());
        let published = reading.letters.publish_again(letter, body.as_deref(), &operator.actor, to).await;
        if published.context("broker")? == Route::Returned {
            return Ok(format!("no queue is bound to {exchange} with the routing key {routing_key}"));
        }
    }
    // Only now: a crash before this line leaves a duplicate, never a loss.
    reading.letters.remove(letter).await.context("broker")?;
    Ok(String::new())
}

pub(super) async fn record(
    store: &Store,
    operator: &Operator,
    command: &str,
    queue: Queue,
    row: &Row,
    plan: &Plan,
) -> anyhow::Result<()> {
    let link = store.link_of(&row.merchant_id, &row.merchant_payout_id).await.context("database")?;
    let (to, patched) = match plan {
        Plan::Publish { routing_key, body, .. } => (Some(routing_key), body.is_some()),
        Plan::Remove => (None, false),
    };
    let details = json!({
        "queue": match queue { Queue::Jobs => "jobs", Queue::Results => "results" },
        "letter": row.id,
        "code": row.code,
        "merchant_id": row.merchant_id,
        "merchant_payout_id": row.merchant_payout_id,
        "to": to,
        "patched": patched,
    });
    store.record_action(operator, command, link, &details).await.context("database")
}
