//! Processes jobs: from the delivery to the delivered webhook.
//!
//! ```text
//! delivery ─▶ read ─▶ admit ─▶ accept ─▶ settle ─▶ create_link ─▶ deliver      (process.rs)
//!              │ invalid                              ▲              ▲
//!              ▼                                      └── sweeper ───┘
//!            reject                                due records and events
//! ```
//!
//! A job is stored as a row before it is acknowledged. From then on workers process the row: this worker at once, or
//! any worker once the row is due. Recovery has no code path of its own: the sweeper calls the same functions.
//!
//! A created link is asked about by the follower of its account (`follow.rs`). Its changes become events, which are
//! delivered by the same functions.
//!
//! The pipeline never acknowledges a delivery that is not accounted for, and never begins a call that is not stored.

mod reject;
mod breakers;
mod call_log;
mod clocks;
mod consumption;
mod create_link;
mod event_claims;
mod follow;
mod follow_wakes;
mod headers;
mod host_pauses;
mod ignored_fields;
mod intake;
mod key_rotation;
mod letter_retention;
mod link_requests;
mod merchants_seen;
mod outbox;
mod pauses;
mod placement;
mod provider_webhooks;
mod process;
mod reading;
mod record_claims;
mod retention;
mod seals;
mod services;
mod stopping;
mod suspects;
mod sweeper;
mod timeline;
mod work;

use self::{
    follow_wakes::FollowWakes, ignored_fields::IgnoredFields, merchants_seen::MerchantsSeen, work::Incoming,
};
pub use self::{
    key_rotation::{KeyRotation, KeyRotationSettings, Rotation},
    letter_retention::LetterRetentionSettings,
    placement::Placement,
    provider_webhooks::{WebhookIntake, WebhookOutcome},
    retention::RetentionSettings,
    sweeper::SweeperSettings,
};

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::{Notify, RwLock, watch};
use tokio_util::task::TaskTracker;

use crate::{
    connectors::Connectors,
    contract::DecodePolicy,
    domain::retry::RetryPolicy,
    limits::{LanePool, PermitPool},
    metrics::{Metrics, Now},
    postgres::{Pauses, Store, StoreError},
    rabbitmq::{Consumer, Names, Publisher},
    tasks,
    webhooks::{IntakePauses, Webhooks},
};

/// Settings of a [`Pipeline`].
#[derive(Debug, Clone)]
pub struct PipelineSettings {
    /// How jobs are decoded.
    pub decode: DecodePolicy,
    /// The limits of retries.
    pub retry: RetryPolicy,
    /// A wait up to this long is slept in place; for a longer one the record is postponed.
    pub wait_in_place: Duration,
    /// Maximum number of deliveries being accepted, and of records being concluded.
    pub jobs_in_flight: usize,
    /// Maximum number of events being delivered.
    pub events_in_flight: usize,
    /// Limit of the wait for a publisher confirm.
    pub publish_patience: Duration,
    /// First pause before an event is published again.
    pub publish_pause: Duration,
    /// How due records and events are found.
    pub sweeper: SweeperSettings,
    /// When stored data is deleted.
    pub retention: RetentionSettings,
    /// When dead letters are deleted; `None`: never.
    pub letter_retention: Option<LetterRetentionSettings>,
    /// Begins without an end after which a message counts as poison.
    pub max_unfinished_begins: u32,
    /// Names of exchanges and queues.
    pub names: Names,
    /// Name of the deployment, part of every idempotency key unless it is empty.
    pub deployment: String,
}

/// Takes jobs, processes records, and delivers events.
pub struct Pipeline {
    /// The worker's state in PostgreSQL.
    pub store: Store,
    /// Publishes results, replies and dead letters.
    pub publisher: Publisher,
    /// The accounts that links are created at.
    pub connectors: Connectors,
    /// Delivers webhooks.
    pub webhooks: Webhooks,
    metrics: Metrics,
    ignored_fields: IgnoredFields,
    merchants_seen: MerchantsSeen,
    settings: PipelineSettings,
    /// Permits for deliveries that are being accepted, each for a few seconds at most.
    taken_in: PermitPool,
    /// Permits for records that are being concluded, until their results are being published.
    concluding: PermitPool,
    /// Permits for events whose results are being published for the first time.
    events: PermitPool,
    /// The same for events that are due again: first publications never wait behind them.
    due_events: PermitPool,
    /// Permits for webhooks that are being delivered, or wait for a permit of their host.
    delivering: LanePool,
    /// Held exclusively while a suspect message is processed.
    suspects: RwLock<()>,
    /// Wakes the sweeper early.
    look_soon: Notify,
    /// Wakes the follower of an account early.
    follow_soon: FollowWakes,
    /// Wakes the service that answers link requests early.
    answer_soon: Notify,
    /// A reply could not be published: consumption pauses until results can be published.
    replies_blocked: watch::Sender<bool>,
    may_consume: watch::Sender<bool>,
    /// Operators' pauses.
    pauses: watch::Sender<Pauses>,
    health: sweeper::Health,
    placement: Mutex<Placement>,
    tasks: TaskTracker,
    stopping: watch::Sender<bool>,
    /// The grace period of the shutdown has ended: remaining work is abandoned.
    abandoned: watch::Sender<bool>,
    /// An error that makes every job impossible.
    unusable: watch::Sender<Option<StoreError>>,
}

impl Pipeline {
    /// Makes a pipeline. Nothing runs before [`Pipeline::start_services`] and [`Pipeline::take_jobs`].
    pub fn new(
        store: Store,
        publisher: Publisher,
        connectors: Connectors,
        webhooks: Webhooks,
        settings: PipelineSettings,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            publisher,
            metrics: Metrics::new(connectors.iter()),
            follow_soon: FollowWakes::new(&connectors),
            ignored_fields: IgnoredFields::default(),
            merchants_seen: MerchantsSeen::default(),
            connectors,
            webhooks,
            taken_in: PermitPool::new(settings.jobs_in_flight),
            concluding: PermitPool::new(settings.jobs_in_flight),
            events: PermitPool::new(settings.events_in_flight.div_ceil(2)),
            due_events: PermitPool::new(settings.events_in_flight.div_ceil(2)),
            delivering: LanePool::new(settings.events_in_flight.saturating_mul(2)),
            suspects: RwLock::new(()),
            look_soon: Notify::new(),
            answer_soon: Notify::new(),
            replies_blocked: watch::Sender::new(false),
            may_consume: watch::Sender::new(true),
            pauses: watch::Sender::new(Pauses::default()),
            health: sweeper::Health::new(),
            placement: Mutex::default(),
            tasks: TaskTracker::new(),
            stopping: watch::Sender::new(false),
            abandoned: watch::Sender::new(false),
            unusable: watch::Sender::new(None),
            settings,
        })
    }

    /// Takes jobs until the consumer is stopped. Each permit is free again within seconds, so no delivery stays
    /// unsettled for longer.
    pub async fn take_jobs(self: Arc<Self>, mut consumer: Consumer) {
        let mut pauses = IntakePauses::default();
        loop {
            self.taken_in.wait_until_free().await;
            // A backlog of conclusions pauses this loop; a slow connector does not.
            self.concluding.wait_until_free().await;
            self.webhooks.slow_down(&mut pauses).await;
            let Some(delivery) = consumer.next().await else { return };
            // A permit is still free: no other task takes one. A delivery that waits here does not count as in
            // flight.
            let incoming = Incoming { delivery, _permit: self.taken_in.take().await };
            self.spawn(self.clone().process(incoming));
        }
    }

    /// Spawns the work on one delivery, record, event or question. A panic is counted. The lease of the work expires, and it
    /// is claimed again.
    fn spawn(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        let pipeline = self.clone();
        self.tasks.spawn(tasks::watched(work, move || {
            tracing::error!("work panicked, will be claimed again when its lease expires");
            pipeline.metrics.abandoned("panic");
        }));
    }

    /// Waits until the database turns out to be unusable, and returns that error.
    pub async fn unusable(&self) -> StoreError {
        let mut unusable = self.unusable.subscribe();
        match unusable.wait_for(Option::is_some).await.map(|error| error.clone()) {
            Ok(Some(error)) => error,
            // The sender is this pipeline's own: it cannot be gone.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Returns the number of deliveries being accepted and records being processed.
    pub fn jobs_in_flight(&self) -> usize {
        let called: usize = self.connectors.iter().map(|account| account.permits.taken()).sum();
        self.taken_in.taken() + called + self.concluding.taken()
    }

    /// Returns every metric as OpenMetrics text. `consuming`: the consumer is up; `unread`: deliveries that wait to be taken.
    pub fn measured(&self, consuming: bool, unread: usize) -> String {
        let due = self.health.due();
        let now = Now {
            jobs_in_flight: self.jobs_in_flight(),
            events_in_flight: self.events.taken() + self.due_events.taken() + self.delivering.taken(),
            deliveries_unread: unread,
            oldest_due_record: due.oldest_record,
            oldest_due_event: due.oldest_event,
            most_delayed_merchant: due.most_delayed_merchant,
            merchants_waiting: due.merchants_waiting,
            due_work_neglected: self.neglected(),
            database_up: *self.store.is_up().borrow(),
            consuming,
            publishing: self.publisher.is_up(),
            open_records: self.placement().counts(),
            database_clock: self.store.clock(),
            merchants_clock: self.webhooks.clock_offset(),
        };
        self.metrics.text(&now, self.connectors.iter())
    }

    /// Returns for how long due work has not been searched for, or not been claimed although a permit was free.
    pub fn neglected(&self) -> Duration {
        self.health.neglected()
    }

    /// Logs and counts an error of the store, once. In every case the row becomes due again.
    fn report(&self, error: &StoreError) {
        self.metrics.abandoned_for(error);
        match error {
            StoreError::LeaseLost => tracing::warn!("lease lost, abandoned"),
            StoreError::Unavailable(_) => {
                tracing::warn!(%error, "abandoned after a database error; will be retried when the lease expires");
            }
            StoreError::Inconsistent { .. } | StoreError::Rejected(_) => {
                tracing::error!(%error, "abandoned after a database error; will be retried when the lease expires");
            }
            StoreError::Unusable(_) => {
                tracing::error!(%error, "abandoned after a database error; will be retried when the lease expires");
                self.unusable.send_replace(Some(error.clone()));
            }
        }
    }
}
