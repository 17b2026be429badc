//! What is due, into the same functions: retries, records of workers that died, events that are not told yet.

use std::{sync::Arc, time::Instant};

use super::Pipeline;
use crate::{connector::Account, domain::retry::jittered, store::StoreError};

/// Looks, works, and looks again at once while there was something; else after the sweep interval.
pub(super) async fn run(pipeline: Arc<Pipeline>) {
    let mut told = false;
    while !pipeline.is_stopping() {
        let swept = match sweep(&pipeline).await {
            Ok(swept) => {
                told = false;
                swept
            }
            Err(error @ StoreError::Unusable(_)) => {
                pipeline.report(&error);
                0
            }
            Err(error) if told => {
                tracing::debug!(%error, "cannot look for what is due");
                0
            }
            Err(error) => {
                tracing::warn!(%error, "cannot look for what is due, trying again until it works");
                told = true;
                0
            }
        };
        if swept == 0 {
            let interval = pipeline.settings.sweep_interval;
            pipeline.sleep(jittered(interval, interval * 2)).await;
        }
    }
}

/// Takes no more than there are places for: what is left is still due for whoever has one.
async fn sweep(pipeline: &Arc<Pipeline>) -> Result<usize, StoreError> {
    let mut swept = 0;
    let names: Vec<Arc<str>> = pipeline.connectors.iter().map(|account| account.name.clone()).collect();
    for name in names {
        swept += sweep_connector(pipeline, name).await?;
    }
    Ok(swept + sweep_events(pipeline).await?)
}

async fn sweep_connector(pipeline: &Arc<Pipeline>, name: Arc<str>) -> Result<usize, StoreError> {
    let Some(account) = account(pipeline, &name) else { return Ok(0) };
    // What is due of a connector that is out of order stays due, save one that tries it.
    let limit =
        account.slots.free().min(pipeline.settings.sweep_batch).min(account.breaker.room(Instant::now()));
    let mut places: Vec<_> = (0..limit).map_while(|_| account.slots.try_take()).collect();
    if places.is_empty() {
        return Ok(0);
    }
    let links = pipeline.store.claim(&name, places.len()).await?;
    let claimed = links.len();
    for link in links {
        match link {
            Ok(link) => {
                let (pipeline, name, place) = (pipeline.clone(), name.clone(), places.pop());
                pipeline.clone().tasks.spawn(async move {
                    if let (Some(account), Some(place)) = (self::account(&pipeline, &name), place) {
                        pipeline.finish(link, account, place, None).await;
                    }
                });
            }
            Err(error) => pipeline.report(&error),
        }
    }
    Ok(claimed)
}

async fn sweep_events(pipeline: &Arc<Pipeline>) -> Result<usize, StoreError> {
    let limit = pipeline.retold_events.free().min(pipeline.settings.sweep_batch);
    if limit == 0 {
        return Ok(0);
    }
    let events = pipeline.store.claim_events(limit, pipeline.publisher.is_up()).await?;
    let claimed = events.len();
    for event in events {
        match event {
            Ok(event) => {
                let (pipeline, place) = (pipeline.clone(), pipeline.retold_events.take().await);
                pipeline.clone().tasks.spawn(async move { pipeline.tell(event, place).await });
            }
            Err(error) => pipeline.report(&error),
        }
    }
    Ok(claimed)
}

fn account<'a>(pipeline: &'a Pipeline, name: &str) -> Option<&'a Account> {
    pipeline.connectors.choose(Some(name))
}
