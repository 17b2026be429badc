//! Port: Postgres, as verbs. Each promises what its name says, in one statement for as many callers as are waiting.
//!
//! | verb | promise |
//! | --- | --- |
//! | `accept` | the job has a row, once for its key, whatever came before; only then may it be acknowledged |
//! | `accepted_before` | what a job gets that was accepted earlier, whatever the configuration says by now |
//! | `claim` | due rows are ours until their lease expires; one whose holder let it expire after it began a call is unknown |
//! | `renew_for_call`, `renew_for_look_up` | the next call and its lease are on disk |
//! | `postpone` | nobody's until it is due; a call that was not made is taken back |
//! | `conclude` | the row has its end and its event, both or neither; never a second time |
//! | `claim_events`, `delivered` | the same for what has to be published and delivered |
//! | `look_at_clock`, `steady` | since when the database's clock runs steadily by this worker's |
//! | `open_records` | how many records are open, per connector and account |
//! | `remember` | a setting that records depend on, and the one before it |
//! | `due_records`, `oldest_due_event` | how much waits, and since when |
//! | `be_present`, `take_over_leases` | leases of workers that are gone are due at once |
//! | `note_rejection`, `rejection_of` | a rejected message that comes again is rejected again |
//! | `begin_suspect`, `end_suspect` | evidence that a message brings workers down |
//! | `erase_requests`, `delete_events`, `delete_attempts` | what is past its retention is gone, a batch of it |
//! | `audit_page` | a page of what the checker compares; nothing sealed is opened |
//! | `record_seals`, `seals` | how much each sealing key has encrypted |
//! | `reseal`, `count_keys` | a page of records is sealed with the ring's first key; which key sealed how much |
//!
//! No transaction is ever open across a network call. Every write that relies on a lease names its holder and
//! looks at the rows affected. Every statement is safe to repeat, since an error may come after the commit.

mod accept;
mod audit;
mod availability;
mod batch;
mod claim;
mod clock;
mod conclude;
mod connect;
mod due;
mod duplicate;
mod fitness;
mod renew;
mod connection_cache;
mod open;
mod outbox;
mod probe;
mod compression;
mod prune;
mod record_id;
mod rejections;
mod remembered;
mod rotate;
mod seal;
mod seal_count;
mod show;
mod suspects;
mod timeline;
mod worker;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use sqlx::PgPool;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use self::{
    accept::Accept, availability::Availability, batch::Batcher, clock::DatabaseClock, conclude::Conclude,
    connect::answered, renew::Renew, connection_cache::ConnectionCache, outbox::Delivered, worker::WorkerNumber,
};
pub use self::{
    accept::{Accepted, Hold, NewLink},
    audit::{Audited, AuditedEvent},
    batch::{BatchLimits, MIN_CONNECTIONS},
    clock::ClockState,
    conclude::Unconcluded,
    connect::{DatabaseSettings, DatabaseTls, MIGRATIONS, connect, migrate, url_problem},
    fitness::{examine, is_fit, schema},
    open::OpenRecords,
    outbox::{DueEvent, EventProgress, WebhookState},
    probe::Probe,
    record_id::Identity,
    remembered::Remembered,
    prune::Batch,
    rotate::{KeyCount, Rotated, Unopened},
    seal::{Column, KeyError, KeyRing, OpenError},
    seal_count::{MANY_SEALS, MAX_SEALS},
    show::Shown,
    worker::Absences,
};
use crate::domain::{Lease, retry};

/// What the caller may do next is what tells these apart.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Try again: the database is away, restarting, or asked for a repeat.
    #[error("the database cannot be used right now: {0}")]
    Unavailable(String),
    /// Let go: the lease ran out and the row is somebody else's.
    #[error("the lease ran out")]
    LeaseLost,
    /// Tell: the row cannot be understood.
    #[error("{table}.{column} of {id}: {reason}")]
    Inconsistent { table: &'static str, column: &'static str, id: Uuid, reason: String },
    /// Tell: the database refuses what this row would become.
    #[error("the database refused: {0}")]
    Rejected(String),
    /// Stop and say so: the database is not one that this worker, or this role, can work with (a table, a column or a
    /// right is missing, the role is locked out).
    #[error("the database cannot be used by this worker: {0}")]
    Unusable(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(refusal) => {
                let code = refusal.code().unwrap_or_default();
                // Connection exceptions, transaction rollbacks (serialization, deadlock), out of resources,
                // operator intervention (restarts), and a primary that has become read-only by a failover.
                let passing = ["08", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class))
                    || code == "25006"
                    || code == "55P03";
                // Not supported, authorization, database and schema names, syntax and access rules.
                let for_all = ["0A", "28", "3D", "3F", "42"].iter().any(|class| code.starts_with(class));
                let text = format!("{} ({code})", refusal.message());
                match (passing, for_all) {
                    (true, _) => Self::Unavailable(text),
                    (false, true) => Self::Unusable(text),
                    (false, false) => Self::Rejected(text),
                }
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error.to_string()),
            _ => Self::Rejected(error.to_string()),
        }
    }
}

#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// How long a row is its holder's: one call's whole timeout and some slack.
    pub lease: Duration,
    /// The same for an event: one webhook's whole timeout and some slack.
    pub event_lease: Duration,
    pub batches: BatchLimits,
}

pub struct Store {
    pool: PgPool,
    worker: WorkerNumber,
    presence_lost_at: Mutex<Option<Instant>>,
    availability: Availability,
    clock: DatabaseClock,
    keys: Arc<KeyRing>,
    settings: StoreSettings,
    accepting: Batcher<Accept>,
    renewing: Batcher<Renew>,
    concluding: Batcher<Conclude>,
    delivering: Batcher<Delivered>,
}

impl Store {
    pub fn new(pool: PgPool, keys: KeyRing, settings: StoreSettings) -> Self {
        let (keys, limits) = (Arc::new(keys), settings.batches);
        let lane = batch::Lane::new(ConnectionCache::new(pool.clone()));
        Self {
            accepting: Batcher::start(Accept { lease: settings.lease }, limits, &lane),
            renewing: Batcher::start(Renew { lease: settings.lease }, limits, &lane),
            concluding: Batcher::start(Conclude { event_lease: settings.event_lease }, limits, &lane),
            delivering: Batcher::start(Delivered, limits, &lane),
            pool,
            worker: WorkerNumber::random(),
            presence_lost_at: Mutex::default(),
            availability: Availability::new(),
            clock: DatabaseClock::default(),
            keys,
            settings,
        }
    }

    /// Repeats a verb while the database is away, with backoff and jitter and no end: whoever waits decides how long.
    async fn patiently<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        verb: impl FnMut() -> F,
    ) -> Result<T, StoreError> {
        self.patiently_while(|| true, verb).await
    }

    /// The same, until it is not wanted any more: then the last error is returned.
    async fn patiently_while<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        wanted: impl Fn() -> bool,
        mut verb: impl FnMut() -> F,
    ) -> Result<T, StoreError> {
        let (mut pause, started) = (Duration::from_millis(50), Instant::now());
        loop {
            match verb().await {
                Err(StoreError::Unavailable(reason)) if wanted() => {
                    tracing::debug!(reason, "database unavailable, trying again");
                    if started.elapsed() >= BLIP {
                        self.availability.failed();
                    }
                    sleep(retry::jittered(pause, PAUSE_LIMIT)).await;
                    pause = (pause * 2).min(PAUSE_LIMIT);
                }
                answer => return answer,
            }
        }
    }

    /// One round trip: does the database answer?
    pub async fn ping(&self) -> Result<(), StoreError> {
        answered(&self.pool, sqlx::query("SELECT 1").execute(&self.pool)).await?;
        Ok(())
    }

    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// An outage that is shorter is none.
const BLIP: Duration = Duration::from_secs(2);
const PAUSE_LIMIT: Duration = Duration::from_secs(3);

impl StoreError {
    fn inconsistent(table: &'static str, column: &'static str, id: Uuid, reason: impl ToString) -> Self {
        Self::Inconsistent { table, column, id, reason: reason.to_string() }
    }
}

/// Awaits a write that is of use only while the lease runs.
async fn while_leased<T>(
    lease: &Lease,
    write: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let late = || StoreError::Unavailable("the lease expired before it answered".into());
    timeout(lease.left(), write).await.unwrap_or_else(|_| Err(late()))
}

/// Milliseconds for the database's interval arithmetic.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
