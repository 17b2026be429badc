//! Reads and writes the worker's state in PostgreSQL. Each verb is one statement, shared by as many callers as are
//! waiting.
//!
//! | verb | promise |
//! | --- | --- |
//! | `accept` | the job has one row for its key; only then may it be acknowledged |
//! | `accepted_before` | recognizes a duplicate of an accepted job, also under another configuration |
//! | `claim` | gives due rows a lease under a new holder; a row whose lease expired during a call becomes unknown |
//! | `renew_for_call`, `renew_for_look_up` | the next call and its lease are stored before the call begins |
//! | `postpone` | ends the lease and sets `due_at`; takes back a call that was stored and not made |
//! | `conclude` | stores the conclusion and its event together, at most once for each record |
//! | `claim_followed`, `begin_cancel`, `record_answer` | asks about created links: status, events and the next question are stored together |
//! | `request_cancel`, `request_cancel_once_created`, `cancel_state` | a request to cancel a link stays in its record until its answer is stored |
//! | `accept_link_request`, `carry_out_link_requests`, `claim_link_answers`, `finish_link_request` | a message about a link is stored before it is acknowledged, and answered at least once |
//! | `record_webhook` | a provider's webhook is stored once, and its link is due to be asked about |
//! | `hasten`, `hasten_question` | an operator wants a record to be looked up, or a link to be asked about, at once |
//! | `acted`, `resolve`, `reopen` | an operator ends an unknown record, or has a failed one tried again: once, if it is as it was seen |
//! | `pauses`, `pause`, `resume` | what operators have paused; a paused merchant's records are not claimed |
//! | `claim_events`, `delivered` | the same for events: claim them, and store what was published and delivered |
//! | `lock_acts`, `last_act` | two operators do not act on the same messages at once, and know of each other |
//! | `redeliver`, `webhook_events` | finished webhooks become due again under the same ids; publications are not touched |
//! | `pause_host`, `resume_host`, `paused_hosts`, `webhook_hosts` | no webhook goes to a host that an operator paused |
//! | `stored_events`, `count_stored_events` | reads the results of published events, to publish them again |
//! | `look_at_clock`, `steady` | since when the database's clock has run without a step |
//! | `open_records` | counts open records for each connector and account |
//! | `remember` | stores a setting that records depend on, and returns the former value |
//! | `due_records`, `oldest_due_event`, `merchants_with_due_events` | what is due, by merchant, and for how long |
//! | `be_present`, `take_over_leases` | makes the leases of workers that are gone due at once |
//! | `record_open_breakers` | each worker's open circuit breakers, for an operator |
//! | `note_rejection`, `rejection_of` | a rejected message is rejected again when it is delivered again |
//! | `begin_suspect`, `end_suspect` | evidence that a message brings workers down |
//! | `erase` | removes a person's data from one record, when an operator wants it |
//! | `erase_requests`, `delete_events`, `delete_attempts`, `delete_provider_webhooks` | deletes one batch of rows that are past their retention |
//! | `audit_page` | reads a page of records for the history checker, without decrypting anything |
//! | `record_action`, `actions_of` | what operators did, who and why; acts with an effect here are stored in its transaction |
//! | `record_seals`, `seals` | how many values each sealing key has encrypted |
//! | `show`, `list`, `count`, `status`, `obstacles` | read records for an operator, without decrypting anything ([`Reader`]) |
//! | `reseal`, `count_keys` | encrypts a page of records with the ring's first key; counts values by key |
//!
//! This module never keeps a transaction open across a network call. Every write that depends on a lease names its
//! holder and checks the rows affected. Every statement is safe to repeat, because an error may arrive after the
//! commit.

mod accept;
mod acted;
mod accepted;
mod acts;
mod audit;
mod availability;
mod batch;
mod breakers;
mod cancel;
mod claim;
mod claim_events;
mod clock;
mod conclude;
mod conclude_again;
mod connect;
mod connect_error;
mod delivered_at_once;
mod delivered_row;
mod due;
mod due_event;
mod duplicate;
mod erase;
mod error;
mod event_result;
mod filter;
mod fitness;
mod follow;
mod hasten;
mod obstacles;
mod leased;
mod list;
mod link_requests;
mod link_status;
mod migrations;
mod numbers;
mod renew;
mod resolve;
mod connection_cache;
mod open;
mod operator_actions;
mod pauses;
mod outbox;
mod probe;
mod compression;
mod provider_webhooks;
mod prune;
mod reader;
mod reconcile;
mod record_id;
mod redeliver;
mod rejections;
mod remembered;
mod rotate;
mod seal;
mod seal_count;
mod show;
mod stored_events;
mod shown;
mod account_status;
mod status;
mod suspects;
mod timeline;
mod webhook_hosts;
mod worker;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use sqlx::PgPool;
use tokio::time::sleep;

use self::{
    accept::Accept, availability::Availability, batch::Batcher, clock::DatabaseClock, conclude::Conclude,
    connect::answered, connection_cache::ConnectionCache, link_status::RecordAnswer, outbox::Delivered,
    renew::Renew, worker::WorkerNumber,
};
pub use self::{
    accept::{Hold, NewLink},
    accepted::Accepted,
    account_status::{AccountStatus, LastAttempts, STATUS_SCAN},
    acted::{ActedRecord, ConclusionBefore},
    acts::ActLock,
    audit::{Audited, AuditedAction, AuditedEarlier, AuditedEvent, AuditedLater},
    batch::{BatchLimits, MIN_CONNECTIONS},
    breakers::OpenBreaker,
    cancel::CancelState,
    clock::ClockState,
    conclude::Unconcluded,
    connect::{DatabaseSettings, DatabaseTls, connect, target, url_problem},
    due::{DuePlaces, DueRecords, EventPlaces},
    due_event::{DueEvent, EventProgress, WebhookState},
    erase::Erased,
    error::StoreError,
    filter::{OVERDUE_SECONDS, RecordFilter},
    fitness::{examine, is_fit, schema},
    follow::FollowedLink,
    link_requests::{AnsweredRequest, NewLinkRequest},
    link_status::AnswerRecord,
    list::{Counted, Listed, Page, PageRequest},
    migrations::{MIGRATIONS, migrate},
    obstacles::Obstacles,
    open::OpenRecords,
    operator_actions::{Operator, OperatorAction},
    pauses::{Pause, PauseKind, Pauses},
    probe::Probe,
    provider_webhooks::{ProviderWebhooks, WebhookLink, WebhookRecord, WebhookStored},
    prune::Batch,
    reader::Reader,
    reconcile::{BookedPage, BookedRecord},
    record_id::Identity,
    redeliver::{Redelivery, WebhookEvent, WebhookFilter},
    remembered::Remembered,
    resolve::{Acted, NewAct},
    rotate::{KeyCount, Rotated, Unopened},
    seal::{Column, KeyError, KeyRing, OpenError},
    seal_count::{MANY_SEALS, MAX_SEALS},
    show::Search,
    shown::{Shown, ShownAttempt, ShownEvent},
    status::{DatabaseStatus, EventStatus, HostStatus, Pile, SeenWorkers},
    stored_events::{EventRange, StoredEvent},
    webhook_hosts::{NAMED_MERCHANTS, WebhookHost},
    worker::Absences,
};
use crate::domain::retry;

/// Settings of a [`Store`].
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// Length of a record's lease: the timeout of one call and some slack.
    pub lease: Duration,
    /// Length of an event's lease: the timeout of one webhook and some slack.
    pub event_lease: Duration,
    /// Limits of the batches that are written together.
    pub batches: BatchLimits,
}

/// The worker's state in PostgreSQL.
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
    answering: Batcher<RecordAnswer>,
}

impl Store {
    /// Makes a store over a connected pool, with a worker number of its own.
    pub fn new(pool: PgPool, keys: KeyRing, settings: StoreSettings) -> Self {
        let (keys, limits) = (Arc::new(keys), settings.batches);
        let lane = batch::Lane::new(ConnectionCache::new(pool.clone()));
        Self {
            accepting: Batcher::start(Accept { lease: settings.lease }, limits, &lane),
            renewing: Batcher::start(Renew { lease: settings.lease }, limits, &lane),
            concluding: Batcher::start(Conclude { event_lease: settings.event_lease }, limits, &lane),
            delivering: Batcher::start(Delivered, limits, &lane),
            answering: Batcher::start(RecordAnswer, limits, &lane),
            pool,
            worker: WorkerNumber::random(),
            presence_lost_at: Mutex::default(),
            availability: Availability::new(),
            clock: DatabaseClock::default(),
            keys,
            settings,
        }
    }

    /// Repeats a verb while the database is away, with backoff and jitter and without limit. The caller decides how
    /// long it waits.
    async fn patiently<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        verb: impl FnMut() -> F,
    ) -> Result<T, StoreError> {
        self.patiently_while(|| true, verb).await
    }

    /// Does the same while `wanted` returns true. After that it returns the last error.
    async fn patiently_while<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        wanted: impl Fn() -> bool,
        mut verb: impl FnMut() -> F,
    ) -> Result<T, StoreError> {
        let (mut pause, started) = (Duration::from_millis(50), Instant::now());
        loop {
            match verb().await {
                Err(StoreError::Unavailable(reason)) if wanted() => {
                    tracing::debug!(reason, "database unavailable, will retry");
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

    /// Returns a reader over the same pool.
    pub fn reader(&self) -> Reader {
        Reader::new(self.pool.clone())
    }

    /// Makes one round trip to the database.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn ping(&self) -> Result<(), StoreError> {
        answered(&self.pool, sqlx::query("SELECT 1").execute(&self.pool)).await?;
        Ok(())
    }

    /// Closes the connection pool.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// A shorter outage does not count as one.
const BLIP: Duration = Duration::from_secs(2);
const PAUSE_LIMIT: Duration = Duration::from_secs(3);
