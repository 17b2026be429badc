//! `results republish`: publishes the results of stored events again.

use std::time::Duration;

use anyhow::Context;
use futures_util::{StreamExt, stream};
use serde::Serialize;
use serde_json::json;
use time::OffsetDateTime;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use super::{
    ExitStatus,
    acting::note_last_act,
    actor::Act,
    confirm::confirm,
    filter::time_of,
    interrupts::Interrupts,
    note,
    output::{Output, progress, progress_ends},
};
use crate::{
    config::Config,
    domain::event_time,
    postgres::{self, EventRange, Store, StoreError, StoredEvent},
    rabbitmq::{Names, PublishError, Publisher, ResultMessage, Route},
};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Action {
    /// Publish the results of a range of time again, under the same ids and marked as replays. No webhook is sent
    Republish(Arguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Events since this time: RFC 3339, a date or an age such as 2h
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: OffsetDateTime,
    /// Events before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: OffsetDateTime,
    /// Events of this x-merchant-id
    #[arg(long, value_name = "ID")]
    merchant: Option<String>,
    /// Go on after this event: an earlier run printed it
    #[arg(long, value_name = "EVENT", default_value_t = Uuid::nil(), hide_default_value = true)]
    after: Uuid,
    /// Publish to the reply_to of the jobs as well
    #[arg(long)]
    replies: bool,
    /// Act at once, without a preview and a question
    #[arg(long)]
    yes: bool,
    /// Maximum number of results; the oldest are first
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Maximum number of results a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    #[command(flatten)]
    act: Act,
}

/// The outcome of a run.
#[derive(Debug, Default, Serialize)]
struct Republished {
    published: u64,
    /// Events that could not be read: a key is missing.
    unreadable: u64,
    replies: u64,
    /// The last event that was published or skipped: `--after` goes on after it.
    last_event: Option<Uuid>,
}

const PAGE: u32 = 500;
/// Limit of the wait for a confirm.
const PATIENCE: Duration = Duration::from_secs(30);
/// Maximum number of unconfirmed results.
const WINDOW: usize = 128;

fn time(text: &str) -> Result<OffsetDateTime, String> {
    time_of("time", text, OffsetDateTime::now_utc())
}

pub(super) async fn run(config: &Config, output: Output, action: &Action) -> anyhow::Result<ExitStatus> {
    let Action::Republish(arguments) = action;
    let pool = postgres::connect(&config.database()).await.context("database")?;
    let store = Store::new(pool, config.key_ring()?, config.store());
    let merchant_id = arguments.merchant.clone();
    let range = EventRange { from: arguments.from, to: arguments.to, merchant_id };
    let count = store.count_stored_events(&range).await.context("database")?;
    if count == 0 {
        return Err(ExitStatus::NothingFound.because("no result was published in this range").into());
    }
    note_last_act(&store, "results republish").await?;
    if !arguments.yes {
        note(format_args!("{count} results of this range would be published again"));
        confirm("Continue?", false)?;
    }
    let details = json!({
        "from": arguments.from.to_string(), "to": arguments.to.to_string(), "merchant_id": arguments.merchant,
        "after": arguments.after, "limit": arguments.limit, "replies": arguments.replies,
    });
    let recorded = store.record_action(&arguments.act.operator(), "results republish", None, &details).await;
    recorded.context("database")?;
    let (publisher, task) = Publisher::start(config.broker());
    let connected = tokio::select! {
        () = publisher.wait_until_up() => Ok(()),
        ended = task => Err(ended),
        () = tokio::time::sleep(PATIENCE) => anyhow::bail!("broker: not connected within {} s", PATIENCE.as_secs()),
    };
    if let Err(ended) = connected {
        ended.context("broker")?.context("broker")?;
    }
    let mut done = Republished::default();
    let names = config.broker().names;
    let published = republish(&store, &publisher, &names, &range, arguments, &mut done).await;
    progress_ends();
    output.object(&done, |done| {
        let last = done.last_event.map(|id| format!("; the last event is {id}")).unwrap_or_default();
        format!("{} results published again, {} unreadable{last}", done.published, done.unreadable)
    })?;
    if let Ok(Some(after)) = published {
        // The event itself is counted: it has the time.
        let rest = EventRange { from: range.from.max(event_time(after)), ..range };
        let left = store.count_stored_events(&rest).await.context("database")?;
        let left =
            u64::try_from(left).unwrap_or_default().saturating_sub(u64::from(done.last_event.is_some()));
        let left = arguments.limit.map_or(left, |limit| {
            left.min(u64::from(limit).saturating_sub(done.published + done.unreadable))
        });
        note(format_args!(
            "interrupted: {} published again, {} unreadable, and about {left} not touched. Go on with --after and the last event",
            done.published, done.unreadable
        ));
        return Ok(ExitStatus::InPart);
    }
    if let Err(error) = published {
        note(format_args!("{error:#}. Go on with --after and the last event"));
        return Ok(if done.published > 0 { ExitStatus::InPart } else { ExitStatus::Failed });
    }
    Ok(if done.unreadable > 0 { ExitStatus::InPart } else { ExitStatus::Done })
}

/// Publishes page after page. Returns the last event if an interrupt ended it between two pages.
async fn republish(
    store: &Store,
    publisher: &Publisher,
    names: &Names,
    range: &EventRange,
    arguments: &Arguments,
    done: &mut Republished,
) -> anyhow::Result<Option<Uuid>> {
    let (mut after, mut left) = (arguments.after, arguments.limit.unwrap_or(u32::MAX));
    let page = arguments.rate.map_or(PAGE, |rate| rate.min(PAGE));
    let mut pace = arguments.rate.map(|rate| interval(Duration::from_secs(1) * page / rate));
    if let Some(pace) = &mut pace {
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let mut interrupts = Interrupts::listen()?;
    while left > 0 {
        let wait = async {
            if let Some(pace) = &mut pace {
                pace.tick().await;
            }
        };
        if interrupts.end_wait(wait).await {
            return Ok(Some(after));
        }
        let events = store.stored_events(range, after, page.min(left).into()).await.context("database")?;
        let Some((last, _)) = events.last() else { break };
        after = *last;
        left -= u32::try_from(events.len()).unwrap_or(left).min(left);
        let published = publish_all(publisher, names, events, arguments.replies, done);
        interrupts.finish(Box::pin(published)).await.context("interrupted within a page")??;
        progress(format_args!("{} results published again", done.published));
    }
    Ok(None)
}

/// Publishes the events of a page, in their order.
async fn publish_all(
    publisher: &Publisher,
    names: &Names,
    events: Vec<(Uuid, Result<StoredEvent, StoreError>)>,
    replies: bool,
    done: &mut Republished,
) -> anyhow::Result<()> {
    let mut published = stream::iter(events)
        .map(async |(id, event)| match event {
            Ok(event) => Ok((id, Some(publish(publisher, names, &event, replies).await?))),
            Err(error) => {
                note(error);
                Ok::<_, anyhow::Error>((id, None))
            }
        })
        .buffered(WINDOW);
    while let Some(one) = published.next().await {
        let (id, replied) = one?;
        match replied {
            Some(replied) => {
                done.published += 1;
                done.replies += u64::from(replied);
            }
            None => done.unreadable += 1,
        }
        done.last_event = Some(id);
    }
    Ok(())
}

/// Publishes one result, and returns whether it was also published to a `reply_to`.
async fn publish(
    publisher: &Publisher,
    names: &Names,
    event: &StoredEvent,
    replies: bool,
) -> anyhow::Result<bool> {
    let (exchange, kind) = (names.results_exchange.as_str(), event.event_type.as_str());
    if send(publisher, event, exchange, kind).await? == Route::Returned {
        anyhow::bail!("no queue is bound to {exchange} for {kind}: bind it first");
    }
    match event.reply_to.as_deref().filter(|_| replies) {
        // A queue that is gone is no error.
        Some(queue) => Ok(send(publisher, event, "", queue).await? == Route::Queued),
        None => Ok(false),
    }
}

async fn send(
    publisher: &Publisher,
    event: &StoredEvent,
    exchange: &str,
    routing_key: &str,
) -> Result<Route, PublishError> {
    let result = ResultMessage {
        id: event.id,
        event_type: event.event_type,
        timestamp: event_time(event.id).unix_timestamp(),
        body: event.result.clone(),
        reply_to: None,
        correlation_id: event.correlation_id.as_deref(),
        merchant_id: &event.merchant_id,
        connector: Some(&event.connector),
        trace: &event.trace,
        replayed: true,
    };
    publisher.publish(result.for_route(exchange, routing_key), PATIENCE).await
}
