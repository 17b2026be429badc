//! `webhooks redeliver`: delivers finished webhooks again.

use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use super::{
    pause::{host, open},
    show::{self, events_of},
};
use crate::{
    cli::{
        ExitStatus,
        acting::{no_record, note_last_act},
        actor::Act,
        confirm::confirm,
        filter::time_of,
        interrupts::Interrupts,
        note,
        output::{Output, counted, progress, progress_ends},
        table::{Cell, Column},
    },
    config::Config,
    postgres::{Reader, Redelivery, WebhookEvent, WebhookFilter},
};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Any ids of payouts or events; without one, all webhooks that match
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Webhooks to this host
    #[arg(long, value_name = "HOST", value_parser = host)]
    host: Option<String>,
    /// Webhooks of this x-merchant-id
    #[arg(long, value_name = "ID")]
    merchant: Option<String>,
    /// Webhooks of events since this time: RFC 3339, a date or an age such as 2h
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<OffsetDateTime>,
    /// Webhooks of events before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<OffsetDateTime>,
    /// Which of them; without the option those that were abandoned, and for ids all that are finished
    #[arg(long, value_enum)]
    only: Option<Only>,
    /// Act at once, without a preview and a question
    #[arg(long)]
    yes: bool,
    /// Maximum number of webhooks; the oldest events are first
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Maximum number of webhooks that become due a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    #[command(flatten)]
    act: Act,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Only {
    /// Abandoned: the schedule ran out, or the merchant answered 410
    Abandoned,
    /// Abandoned because the merchant answered 410
    Gone,
    /// Delivered before
    Delivered,
    /// Abandoned or delivered
    Finished,
}

#[derive(Debug, Serialize)]
struct Report {
    event_id: Uuid,
    merchant_id: String,
    merchant_payout_id: String,
    outcome: &'static str,
}

const COLUMNS: [Column; 4] =
    [Column::new("EVENT"), Column::new("MERCHANT"), Column::new("PAYOUT"), Column::new("OUTCOME").shrinks()];
const DUE: &str = "due";
const NO_MATCH: &str = "no webhook matches. Without --only, only abandoned webhooks are selected, or all finished ones of \
                        the ids";
const SAMPLE: usize = 5;
/// Events of one transaction.
const BATCH: usize = 100;

fn time(text: &str) -> Result<OffsetDateTime, String> {
    time_of("time", text, OffsetDateTime::now_utc())
}

pub(super) async fn run(
    config: &Config,
    output: Output,
    arguments: &Arguments,
) -> anyhow::Result<ExitStatus> {
    let reader = Reader::connect(&config.database()).await.context("database")?;
    let filter = filter(&reader, arguments).await?;
    let store = open(config).await?;
    note_last_act(&store, "webhooks redeliver").await?;
    let limit = arguments.limit.unwrap_or(usize::MAX);
    if !arguments.yes {
        let sample = reader.webhook_events(&filter, Uuid::nil(), SAMPLE).await.context("database")?;
        if sample.is_empty() {
            note(NO_MATCH);
            return Ok(ExitStatus::NothingFound);
        }
        let count = count(&reader, &filter, Uuid::nil(), limit).await?;
        show::print(output, &sample)?;
        if count > sample.len() {
            note(format_args!("these are the first {} of {count} webhooks", sample.len()));
        }
        note(format_args!("{} would be delivered again", counted(count, "webhook")));
        confirm("Continue?", false)?;
    }
    let (operator, rate) = (arguments.act.operator(), arguments.rate);
    let batch = rate.map_or(BATCH, |rate| BATCH.min(usize::try_from(rate).unwrap_or(BATCH)));
    let seconds = |rate: u32| Duration::from_secs(1) * u32::try_from(batch).unwrap_or(1) / rate;
    let mut pace = rate.map(|rate| interval(seconds(rate)));
    if let Some(pace) = &mut pace {
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let (mut reports, mut after) = (Vec::new(), Uuid::nil());
    let (mut interrupts, mut left, mut failed) = (Interrupts::listen()?, None, None);
    while let page = page(&reader, &filter, after, batch.min(limit - reports.len())).await?
        && let Some(last) = page.last()
    {
        let wait = async {
            if let Some(pace) = &mut pace {
                pace.tick().await;
            }
        };
        if interrupts.end_wait(wait).await {
            left = Some(count(&reader, &filter, after, limit - reports.len()).await?);
            break;
        }
        after = last.event_id;
        let ids: Vec<Uuid> = page.iter().map(|event| event.event_id).collect();
        let Some(redelivered) = interrupts.finish(Box::pin(store.redeliver(&operator, &ids))).await else {
            anyhow::bail!("interrupted within an act: the same command goes on");
        };
        let redelivered = match redelivered.context("database") {
            Ok(redelivered) => redelivered,
            // The batches before are reported all the same.
            Err(error) => {
                failed = Some(error);
                break;
            }
        };
        reports.extend(page.into_iter().zip(redelivered).map(|(event, (_, redelivery))| Report {
            event_id: event.event_id,
            merchant_id: event.merchant_id,
            merchant_payout_id: event.merchant_payout_id,
            outcome: match redelivery {
                Redelivery::Due => DUE,
                Redelivery::Pending => "refused: a worker is delivering it, or it is waiting already",
                Redelivery::Erased => "refused: its retention is over",
            },
        }));
        progress(format_args!("{} processed", counted(reports.len(), "webhook")));
    }
    progress_ends();
    output.rows(&COLUMNS, &reports, |report| {
        let id = report.event_id.to_string();
        [&*id, &report.merchant_id, &report.merchant_payout_id, report.outcome].map(Cell::new).into()
    })?;
    let due = reports.iter().filter(|report| report.outcome == DUE).count();
    match reports.len() {
        0 => note(NO_MATCH),
        all => note(format_args!("{due} of {} due again", counted(all, "webhook"))),
    }
    if let Some(error) = failed {
        note(format_args!("{error:#}. The last batch may be due again: repeat the command"));
        return Ok(if due > 0 { ExitStatus::InPart } else { ExitStatus::Failed });
    }
    if let Some(left) = left {
        note(format_args!(
            "interrupted: {due} due again, {} refused, and {left} not touched. The same command goes on; with --only \
             delivered or finished it repeats those that were delivered meanwhile",
            reports.len() - due
        ));
        return Ok(ExitStatus::InPart);
    }
    Ok(match (reports.len(), due) {
        (0, _) => ExitStatus::NothingFound,
        (_, 0) => ExitStatus::Refused,
        (all, due) if due < all => ExitStatus::InPart,
        _ => ExitStatus::Done,
    })
}

/// Counts the webhooks after an event, at most `limit`.
async fn count(
    reader: &Reader,
    filter: &WebhookFilter,
    mut after: Uuid,
    limit: usize,
) -> anyhow::Result<usize> {
    let mut count = 0;
    while let page = page(reader, filter, after, limit - count).await?
        && let Some(last) = page.last()
    {
        (count, after) = (count + page.len(), last.event_id);
    }
    Ok(count)
}

async fn page(
    reader: &Reader,
    filter: &WebhookFilter,
    after: Uuid,
    limit: usize,
) -> anyhow::Result<Vec<WebhookEvent>> {
    reader.webhook_events(filter, after, limit.min(1000)).await.context("database")
}

async fn filter(reader: &Reader, arguments: &Arguments) -> anyhow::Result<WebhookFilter> {
    let is_narrowed = arguments.host.is_some() || arguments.merchant.is_some() || arguments.from.is_some();
    if arguments.ids.is_empty() && !is_narrowed {
        let reason = "select webhooks by id, --host, --merchant or --from";
        return Err(ExitStatus::WrongUse.because(reason).into());
    }
    let mut ids = Vec::new();
    for id in &arguments.ids {
        let events = events_of(reader, id).await?;
        if events.is_empty() {
            return Err(ExitStatus::NothingFound.because(no_record(id)).into());
        }
        ids.extend(events);
    }
    let default = if ids.is_empty() { Only::Abandoned } else { Only::Finished };
    let only = arguments.only.unwrap_or(default);
    Ok(WebhookFilter {
        ids: (!ids.is_empty()).then_some(ids),
        host: arguments.host.clone(),
        merchant_id: arguments.merchant.clone(),
        from: arguments.from,
        to: arguments.to,
        states: match only {
            Only::Abandoned | Only::Gone => vec!["abandoned"],
            Only::Delivered => vec!["delivered"],
            Only::Finished => vec!["abandoned", "delivered"],
        },
        gone: only == Only::Gone,
    })
}
