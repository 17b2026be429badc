//! What is due, into the same functions: unknown outcomes, retries, parked records, leases of workers that died, and
//! events that are not delivered yet.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::{FutureExt, select, select_all};

use super::{Pipeline, Work};
use crate::{
    connectors::Account,
    domain::{ReplayRule, retry::jittered},
    postgres::{Absences, StoreError},
};

/// Between two looks for workers that are gone.
const PRESENCE_INTERVAL: Duration = Duration::from_secs(1);
/// A rate limit lets its calls through one by one: they are claimed in groups of as many as come in this.
const RATE_INTERVAL: Duration = Duration::from_millis(100);

/// How the sweeper fares, for readiness and metrics.
#[derive(Debug)]
pub(super) struct Health(Mutex<State>);

#[derive(Debug)]
struct State {
    passed_at: Instant,
    oldest_due_record: Duration,
    oldest_due_event: Duration,
    /// Since when an account has had due work that it could be called for, and none was claimed.
    neglected_since: HashMap<Arc<str>, Instant>,
}

impl Health {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State {
            passed_at: Instant::now(),
            oldest_due_record: Duration::ZERO,
            oldest_due_event: Duration::ZERO,
            neglected_since: HashMap::new(),
        }))
    }

    pub(super) fn oldest_due(&self) -> (Duration, Duration) {
        let state = self.state();
        (state.oldest_due_record, state.oldest_due_event)
    }

    /// Returns for how long due work has been neglected: none was looked for, or none was taken that could be.
    pub(super) fn neglected(&self) -> Duration {
        let state = self.state();
        let since = state.neglected_since.values().copied().chain([state.passed_at]).min();
        since.unwrap_or(state.passed_at).elapsed()
    }

    fn is_served(&self, account: &Account) {
        self.state().neglected_since.remove(&account.name);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks, works, and looks again at once while there was something; else after the sweep interval, or when a permit is free
/// for what waits.
pub(super) async fn run(pipeline: Arc<Pipeline>) {
    let mut sweeper = Sweeper {
        names: pipeline.connectors.iter().map(name).collect(),
        unsettled: pipeline.connectors.iter().filter(|account| !can_be_settled(account)).map(name).collect(),
        absences: Absences::default(),
        presence_looked_at: None,
        pipeline: pipeline.clone(),
    };
    let mut is_said = false;
    while !pipeline.is_stopping() {
        let swept = match sweeper.sweep().await {
            Ok(swept) => {
                is_said = false;
                pipeline.health.state().passed_at = Instant::now();
                swept
            }
            Err(error @ StoreError::Unusable(_)) => {
                pipeline.report(&error);
                0
            }
            Err(error) => {
                if matches!(error, StoreError::Unavailable(_)) {
                    pipeline.store.note_failure();
                }
                if is_said {
                    tracing::debug!(%error, "cannot look for what is due");
                } else {
                    tracing::warn!(%error, "cannot look for what is due, trying again until it works");
                    is_said = true;
                }
                0
            }
        };
        if swept == 0 {
            sweeper.wait().await;
        }
    }
}

/// Where no rule settles an unknown outcome, an early claim would end the record while its worker may still be calling.
fn can_be_settled(account: &Account) -> bool {
    account.connector.replay_rule() != ReplayRule::Never
}

fn name(account: &Account) -> String {
    account.name.to_string()
}

struct Sweeper {
    pipeline: Arc<Pipeline>,
    names: Vec<String>,
    /// Those whose unknown outcomes nothing can settle.
    unsettled: Vec<String>,
    absences: Absences,
    presence_looked_at: Option<Instant>,
}

impl Sweeper {
    /// Takes no more than there are permits for: what is left is still due for whoever has one.
    async fn sweep(&mut self) -> Result<usize, StoreError> {
        let pipeline = self.pipeline.clone();
        if self.presence_looked_at.is_none_or(|at| at.elapsed() >= PRESENCE_INTERVAL) {
            self.presence_looked_at = Some(Instant::now());
            pipeline.store.take_over_leases(&self.names, &self.unsettled, &mut self.absences).await?;
        }
        let due = pipeline.store.due_records(&self.names).await?;
        pipeline.health.state().oldest_due_record = due.values().copied().max().unwrap_or_default();
        let mut swept = 0;
        for account in pipeline.connectors.iter() {
            swept += sweep_account(&pipeline, account, due.contains_key(&*account.name)).await?;
        }
        Ok(swept + sweep_events(&pipeline).await?)
    }

    /// Until it is time for the next look.
    async fn wait(&self) {
        let interval = self.pipeline.settings.sweep_interval;
        let mut pause = jittered(interval, interval * 2);
        let mut free = Vec::new();
        for account in self.pipeline.connectors.iter().filter(|account| account.permits.due_waits()) {
            let rate = account.rate.wait(Instant::now());
            if !rate.is_zero() {
                pause = pause.min(rate.max(RATE_INTERVAL));
            }
            free.push(account.permits.free_for_due().boxed());
        }
        free.push(self.pipeline.look_soon.notified().boxed());
        let pause = Box::pin(self.pipeline.sleep(pause));
        select(pause, select_all(free)).await;
    }
}

async fn sweep_account(
    pipeline: &Arc<Pipeline>,
    account: &Account,
    is_due: bool,
) -> Result<usize, StoreError> {
    account.permits.set_due_waits(is_due);
    let now = Instant::now();
    if !is_due {
        account.permits.set_backlog(false);
        pipeline.health.is_served(account);
        return Ok(0);
    }
    // What is due of a connector that is out of order stays due, save one that tries it.
    let limit = pipeline.settings.sweep_batch.min(account.breaker.allowed_calls(now));
    // The rate limit first: a permit that is given back unused would wake the sweeper at once, again and again.
    let reserved = account.rate.reserve_now(now, limit);
    let mut permits = account.permits.take_for_due(reserved);
    let places = permits.len();
    account.rate.give_back(reserved - places);
    if permits.is_empty() {
        // Every permit is in use, or the rate limit is: it is being called for others.
        pipeline.health.is_served(account);
        return Ok(0);
    }
    pipeline.health.state().neglected_since.entry(account.name.clone()).or_insert(now);
    let claimed = pipeline.store.claim(&account.name, permits.len()).await;
    let links = match claimed {
        Ok(links) => links,
        Err(error) => {
            account.rate.give_back(places);
            return Err(error);
        }
    };
    let claimed = links.len();
    account.rate.give_back(places - claimed);
    account.permits.set_backlog(claimed == places);
    if claimed < places {
        // Nothing more is due.
        account.permits.set_due_waits(false);
    }
    pipeline.health.is_served(account);
    for link in links {
        match (link, permits.pop()) {
            (Ok(link), Some(permit)) => {
                let (pipeline, name) = (pipeline.clone(), account.name.clone());
                pipeline.clone().tasks.spawn(async move {
                    if let Some(account) = pipeline.connectors.choose(Some(&name)) {
                        pipeline.finish(Work { link, account, permit }).await;
                    }
                });
            }
            (Ok(_), None) => {}
            (Err(error), permit) => {
                drop(permit);
                account.rate.give_back(1);
                pipeline.report(&error);
            }
        }
    }
    Ok(claimed)
}

async fn sweep_events(pipeline: &Arc<Pipeline>) -> Result<usize, StoreError> {
    let oldest = pipeline.store.oldest_due_event().await?;
    pipeline.health.state().oldest_due_event = oldest.unwrap_or_default();
    let limit = pipeline.due_events.free().min(pipeline.settings.sweep_batch);
    if limit == 0 || oldest.is_none() {
        return Ok(0);
    }
    let events = pipeline.store.claim_events(limit, pipeline.publisher.is_up()).await?;
    let claimed = events.len();
    for event in events {
        match event {
            Ok(event) => {
                let (pipeline, publishing) = (pipeline.clone(), pipeline.due_events.take().await);
                pipeline.clone().tasks.spawn(async move { pipeline.deliver(event, publishing).await });
            }
            Err(error) => pipeline.report(&error),
        }
    }
    Ok(claimed)
}
