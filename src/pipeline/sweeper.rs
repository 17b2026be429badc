//! Claims due work and passes it to the functions that process new jobs: unknown outcomes, retries, parked records,
//! leases of workers that are gone, and events that are not delivered.
//!
//! The sweeper never claims more than there are permits for.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use futures_util::future::{FutureExt, select, select_all};

use super::{
    Pipeline,
    event_claims::EventClaims,
    record_claims::{Due, claim_due},
};
use crate::{
    connectors::Account,
    domain::{ReplayRule, Turns, retry::jittered},
    lock::lock,
    postgres::{Absences, DuePlaces, DueRecords, StoreError},
};

/// Interval between two looks for workers that are gone.
const PRESENCE_INTERVAL: Duration = Duration::from_secs(1);
/// Under a rate limit, records are claimed in groups: as many as it admits in this time.
const RATE_INTERVAL: Duration = Duration::from_millis(100);

/// State of the sweeper, for readiness and metrics.
#[derive(Debug)]
pub(super) struct Health(Mutex<State>);

#[derive(Debug)]
struct State {
    passed_at: Instant,
    due: DueWork,
    /// Since when an account has had due work and free permits, and none was claimed.
    neglected_since: HashMap<Arc<str>, Instant>,
}

/// The due work that the last sweep found.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DueWork {
    pub(super) oldest_record: Duration,
    pub(super) oldest_event: Duration,
    /// For how long the oldest due record of any merchant has been due that is at no limit of its own.
    pub(super) most_delayed_merchant: Duration,
    pub(super) merchants_waiting: usize,
}

impl Health {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State {
            passed_at: Instant::now(),
            due: DueWork::default(),
            neglected_since: HashMap::new(),
        }))
    }

    pub(super) fn due(&self) -> DueWork {
        self.state().due
    }

    /// Returns for how long due work has been neglected: not searched for, or not claimed although a permit was free.
    pub(super) fn neglected(&self) -> Duration {
        let state = self.state();
        let since = state.neglected_since.values().copied().chain([state.passed_at]).min();
        since.unwrap_or(state.passed_at).elapsed()
    }

    pub(super) fn note_oldest_event(&self, overdue: Duration) {
        self.state().due.oldest_event = overdue;
    }

    fn is_served(&self, account: &Account) {
        self.state().neglected_since.remove(&account.name);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}

/// Returns whether the replay rule can resolve an unknown outcome. If it cannot, an early claim would conclude the
/// record while its worker may still be calling.
fn can_be_settled(account: &Account) -> bool {
    account.connector.replay_rule() != ReplayRule::Never
}

fn name(account: &Account) -> String {
    account.name.to_string()
}

/// Settings of the sweeper.
#[derive(Debug, Clone, Copy)]
pub struct SweeperSettings {
    /// Interval between two sweeps for due work.
    pub interval: Duration,
    /// Maximum number of rows in one claim.
    pub batch: usize,
}

/// The work that one sweep claimed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Swept {
    pub(super) records: usize,
    pub(super) events: usize,
}

/// The sweeper.
pub(super) struct Sweeper {
    settings: SweeperSettings,
    names: Vec<String>,
    /// Connectors whose unknown outcomes cannot be resolved.
    unsettled: Vec<String>,
    absences: Absences,
    presence_looked_at: Option<Instant>,
    places: DuePlaces,
    /// By account.
    turns: HashMap<Arc<str>, Turns>,
    event_claims: EventClaims,
    /// When the first merchant that is at its rate limit may be called again.
    limited_for: Option<Duration>,
    /// A failure is logged once until a sweep succeeds.
    is_failure_logged: bool,
    pipeline: Arc<Pipeline>,
}

impl Sweeper {
    pub(super) fn new(pipeline: Arc<Pipeline>) -> Self {
        Self {
            settings: pipeline.settings.sweeper,
            names: pipeline.connectors.iter().map(name).collect(),
            unsettled: pipeline
                .connectors
                .iter()
                .filter(|account| !can_be_settled(account))
                .map(name)
                .collect(),
            absences: Absences::default(),
            presence_looked_at: None,
            places: DuePlaces::default(),
            turns: HashMap::new(),
            event_claims: EventClaims::default(),
            limited_for: None,
            is_failure_logged: false,
            pipeline,
        }
    }

    /// Sweeps until the pipeline is stopped. It sweeps again at once if it found work; otherwise after the sweep
    /// interval, or when a permit becomes free for waiting work.
    pub(super) async fn run(mut self) {
        while !self.pipeline.is_stopping() {
            match self.run_once().await {
                Ok(Swept { records: 0, events: 0 }) => self.wait().await,
                Ok(_) => {}
                Err(error) => {
                    self.report(&error);
                    self.wait().await;
                }
            }
        }
    }

    /// Claims due work once, and returns how much. The rest stays due for a worker with a free permit.
    async fn run_once(&mut self) -> Result<Swept, StoreError> {
        let pipeline = self.pipeline.clone();
        if self.presence_looked_at.is_none() && pipeline.store.has_several_merchants().await? {
            pipeline.merchants_seen.note_several();
        }
        if self.presence_looked_at.is_none_or(|at| at.elapsed() >= PRESENCE_INTERVAL) {
            self.presence_looked_at = Some(Instant::now());
            pipeline.store.take_over_leases(&self.names, &self.unsettled, &mut self.absences).await?;
        }
        // A paused account's records wait: they are not overdue.
        let is_running = |name: &&String| !pipeline.is_account_paused(name);
        let running: Vec<String> = self.names.iter().filter(is_running).cloned().collect();
        let found = pipeline.store.due_records(&running, &mut self.places).await?;
        let mut due = Due::by_account(&found);
        self.limited_for = None;
        let mut records = 0;
        for account in pipeline.connectors.iter() {
            let due = due.remove(&*account.name).unwrap_or_default();
            records += self.sweep_account(account, due).await?;
        }
        note_due(&pipeline, &found);
        let events = self.event_claims.claim_due(&pipeline, self.settings.batch).await?;
        self.is_failure_logged = false;
        pipeline.health.state().passed_at = Instant::now();
        Ok(Swept { records, events })
    }

    async fn sweep_account(&mut self, account: &Account, mut due: Due) -> Result<usize, StoreError> {
        let pipeline = self.pipeline.clone();
        let now = Instant::now();
        // New work of others does not wait behind merchants that are at a limit of their own.
        let limited_for = due.leave_out_merchants_at_a_limit(account, now);
        self.limited_for = self.limited_for.into_iter().chain(limited_for).min();
        account.permits.set_due_waits(!due.is_empty());
        if due.is_empty() {
            account.permits.set_backlog(false);
            pipeline.health.is_served(account);
            return Ok(0);
        }
        // While the circuit breaker is open, records stay due; when it is half-open, one is claimed to try the connector.
        let limit = self.settings.batch.min(account.breaker.allowed_calls(now));
        // The rate limit first: returning an unused permit would wake the sweeper at once, again and again.
        let reserved = account.rate.reserve_now(now, limit);
        let permits = account.permits.take_for_due(reserved);
        account.rate.give_back(reserved - permits.len());
        let mut claimed = Ok(0);
        // Otherwise every permit, or the rate limit, is in use for other records.
        if !permits.is_empty() {
            pipeline.health.state().neglected_since.entry(account.name.clone()).or_insert(now);
            let turns = self.turns.entry(account.name.clone()).or_default();
            claimed = claim_due(&pipeline, account, due, permits, turns).await;
        }
        if claimed.is_ok() {
            pipeline.health.is_served(account);
        }
        claimed
    }

    fn report(&mut self, error: &StoreError) {
        match error {
            StoreError::Unusable(_) => return self.pipeline.report(error),
            StoreError::Unavailable(_) => self.pipeline.store.note_failure(),
            StoreError::LeaseLost | StoreError::Inconsistent { .. } | StoreError::Rejected(_) => {}
        }
        if self.is_failure_logged {
            tracing::debug!(%error, "sweep failed");
        } else {
            tracing::warn!(%error, "sweep failed, will retry");
            self.is_failure_logged = true;
        }
    }

    /// Waits until the next sweep.
    async fn wait(&self) {
        let interval = self.settings.interval;
        let mut pause = jittered(interval, interval * 2);
        let mut free = Vec::new();
        for account in self.pipeline.connectors.iter().filter(|account| account.permits.due_waits()) {
            let rate = account.rate.wait(Instant::now());
            if !rate.is_zero() {
                pause = pause.min(rate.max(RATE_INTERVAL));
            }
            free.push(account.permits.free_for_due().boxed());
        }
        if let Some(limited_for) = self.limited_for {
            pause = pause.min(limited_for.max(RATE_INTERVAL));
        }
        free.extend(self.pipeline.connectors.iter().map(|account| account.merchants.below_limit().boxed()));
        free.push(self.pipeline.look_soon.notified().boxed());
        let pause = Box::pin(self.pipeline.sleep(pause));
        select(pause, select_all(free)).await;
    }
}

/// Notes what was due, for metrics.
fn note_due(pipeline: &Pipeline, found: &[DueRecords]) {
    let is_at_a_limit = |due: &DueRecords| {
        let account = pipeline.connectors.choose(Some(&due.connector));
        let merchant_id = due.merchant_id.as_deref();
        account.zip(merchant_id).is_some_and(|(account, id)| account.merchants.is_waiting(id))
    };
    let merchants: HashSet<&str> = found.iter().filter_map(|due| due.merchant_id.as_deref()).collect();
    for merchant_id in &merchants {
        pipeline.merchants_seen.note(merchant_id);
    }
    let mut state = pipeline.health.state();
    state.due.oldest_record = found.iter().map(|due| due.overdue).max().unwrap_or_default();
    let delayed = found.iter().filter(|due| !is_at_a_limit(due)).map(|due| due.overdue).max();
    state.due.most_delayed_merchant = delayed.unwrap_or_default();
    state.due.merchants_waiting = merchants.len();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_neglect_counts() {
        let (health, second) = (Health::new(), Duration::from_secs(1));
        assert!(health.neglected() < second);
        let since = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
        health.state().neglected_since.insert("slow".into(), since(20));
        assert!((20 * second..21 * second).contains(&health.neglected()));
        health.state().passed_at = since(30);
        assert!((30 * second..31 * second).contains(&health.neglected()));
    }
}
