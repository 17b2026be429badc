//! One job, from top to bottom.
//!
//! ```text
//! delivery ─▶ intake::take ─▶ create_link ─▶ outbox::deliver
//!                  │ rejected      ▲              ▲
//!                  ▼               └── sweeper ───┘
//!            answer::reject          what is due
//! ```
//!
//! A job becomes a row before it is acknowledged; from then on the row is what is worked on, here or by whoever
//! finds it due. Recovery is not a second code path: the sweeper feeds the same functions.

mod answer;
mod called;
mod consumption;
mod create_link;
mod ignored_fields;
mod intake;
mod monitor;
mod outbox;
mod reading;
mod retention;
mod seals;
mod sweeper;
mod timeline;

use self::ignored_fields::IgnoredFields;
pub use self::{monitor::Placement, retention::Retention};

use std::{
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Either, select},
};
use tokio::{
    sync::{Notify, RwLock, watch},
    task::JoinHandle,
    time::sleep,
};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::{
    connectors::{Account, Connectors},
    contract::DecodePolicy,
    domain::{OpenLink, retry::RetryPolicy},
    limits::{Permit, PermitPool},
    metrics::{Metrics, Now},
    postgres::{Store, StoreError},
    rabbitmq::{Consumer, Names, Publisher},
    tasks,
    webhooks::Webhooks,
};

#[derive(Debug, Clone)]
pub struct PipelineSettings {
    pub decode: DecodePolicy,
    pub retry: RetryPolicy,
    /// Waits up to this long are slept where they arise; longer ones are written down.
    pub wait_in_place: Duration,
    /// Deliveries that are being taken in, and records that are being concluded: each at most.
    pub jobs_in_flight: usize,
    /// Events being told, at most.
    pub events_in_flight: usize,
    /// How long a confirm is waited for.
    pub publish_patience: Duration,
    /// How long an event waits that could not be published.
    pub publish_pause: Duration,
    pub sweep_interval: Duration,
    /// Rows claimed at once, at most.
    pub sweep_batch: usize,
    /// Begins without an end before a message is taken for poison.
    pub max_unfinished_begins: u32,
    pub retention: Retention,
    pub names: Names,
    /// Part of every idempotency key, where it has a name.
    pub deployment: String,
}

pub struct Pipeline {
    pub store: Store,
    pub publisher: Publisher,
    pub connectors: Connectors,
    pub webhooks: Webhooks,
    metrics: Metrics,
    ignored_fields: IgnoredFields,
    settings: PipelineSettings,
    /// Deliveries that are being taken in: each for a few seconds at most.
    taken_in: PermitPool,
    /// Records that are being concluded, until their results are being published.
    concluding: PermitPool,
    /// Events whose results are being published for the first time.
    events: PermitPool,
    /// The same for those that came due again: first publications never wait behind them.
    due_events: PermitPool,
    /// Webhooks that are being delivered, or wait for a permit of their host.
    delivering: PermitPool,
    /// Held exclusively while a suspect message is processed.
    suspects: RwLock<()>,
    /// Wakes the sweeper before its interval is over.
    look_soon: Notify,
    /// Something had to be answered and could not be: consumption stops until results can leave.
    unanswered: watch::Sender<bool>,
    may_consume: watch::Sender<bool>,
    health: sweeper::Health,
    placement: Mutex<Placement>,
    tasks: TaskTracker,
    stopping: watch::Sender<bool>,
    /// The grace period of the shutdown has ended.
    given_up: watch::Sender<bool>,
    /// Why there is no use in going on.
    unusable: watch::Sender<Option<StoreError>>,
}

impl Pipeline {
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
            ignored_fields: IgnoredFields::default(),
            connectors,
            webhooks,
            taken_in: PermitPool::new(settings.jobs_in_flight),
            concluding: PermitPool::new(settings.jobs_in_flight),
            events: PermitPool::new(settings.events_in_flight.div_ceil(2)),
            due_events: PermitPool::new(settings.events_in_flight.div_ceil(2)),
            delivering: PermitPool::new(settings.events_in_flight),
            suspects: RwLock::new(()),
            look_soon: Notify::new(),
            unanswered: watch::Sender::new(false),
            may_consume: watch::Sender::new(true),
            health: sweeper::Health::new(),
            placement: Mutex::default(),
            tasks: TaskTracker::new(),
            stopping: watch::Sender::new(false),
            given_up: watch::Sender::new(false),
            unusable: watch::Sender::new(None),
            settings,
        })
    }

    /// Takes jobs until the consumer is stopped. A place is free again within seconds, so that none waits unsettled for
    /// longer.
    pub async fn take_jobs(self: Arc<Self>, mut consumer: Consumer) {
        loop {
            self.taken_in.wait_until_free().await;
            // What the database and the broker are behind with is waited for; a connector is not.
            self.concluding.wait_until_free().await;
            let Some(delivery) = consumer.next().await else { return };
            // There still is one: nobody else takes any. What waits here for a job is none in flight.
            let place = self.taken_in.take().await;
            self.tasks.spawn(self.clone().take(delivery, place));
        }
    }

    /// Starts what works by itself: due work, retention, and what watches the database and consumption. The handles end
    /// once the pipeline is stopped.
    pub fn start_services(self: &Arc<Self>) -> Vec<JoinHandle<()>> {
        let pipeline = || self.clone();
        let (sweep, retain, seals) = (pipeline(), pipeline(), pipeline());
        let (presence, availability, consumption) = (pipeline(), pipeline(), pipeline());
        let (clocks, placement) = (pipeline(), pipeline());
        let until_stopped = |pipeline: Arc<Self>, name, service: fn(Arc<Self>) -> BoxFuture<'static, ()>| {
            tasks::supervise(name, move || {
                let pipeline = pipeline.clone();
                async move {
                    let service = service(pipeline.clone());
                    pipeline.unless_stopped(service).await;
                }
            })
        };
        vec![
            tasks::supervise("sweeper", move || sweeper::run(sweep.clone())),
            tasks::supervise("retention", move || retention::run(retain.clone())),
            tasks::supervise("seals", move || seals::run(seals.clone())),
            until_stopped(presence, "presence", |this| async move { this.store.be_present().await }.boxed()),
            until_stopped(availability, "availability", |this| {
                async move { this.store.watch_availability().await }.boxed()
            }),
            until_stopped(clocks, "clocks", |this| async move { this.watch_clocks().await }.boxed()),
            until_stopped(placement, "placement", |this| async move { this.watch_placement().await }.boxed()),
            until_stopped(consumption, "consumption", |this| {
                async move { this.watch_consumption().await }.boxed()
            }),
        ]
    }

    /// From now on nothing new is begun: what waits for a call is written down and let go.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
        self.tasks.close();
    }

    /// Ends what the grace period was not long enough for. What is lost with it is logged within [`LAST_LINES`].
    pub async fn give_up(&self) {
        self.given_up.send_replace(true);
        let _ = tokio::time::timeout(LAST_LINES, self.at_rest()).await;
    }

    /// Until the database turns out to be one that no job can be done with.
    pub async fn unusable(&self) -> StoreError {
        let mut told = self.unusable.subscribe();
        match told.wait_for(Option::is_some).await.map(|error| error.clone()) {
            Ok(Some(error)) => error,
            // The sender is this pipeline's own: it cannot be gone.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Until everything that was under way has come to rest.
    pub async fn at_rest(&self) {
        self.tasks.wait().await;
        seals::at_the_end(self).await;
    }

    pub fn jobs_in_flight(&self) -> usize {
        let called: usize = self.connectors.iter().map(|account| account.permits.taken()).sum();
        self.taken_in.taken() + called + self.concluding.taken()
    }

    /// Returns every metric, as text. `consuming`: whether the consumer is up; `unread`: deliveries not taken yet.
    pub fn measured(&self, consuming: bool, unread: usize) -> String {
        let (oldest_due_record, oldest_due_event) = self.health.oldest_due();
        let now = Now {
            jobs_in_flight: self.jobs_in_flight(),
            events_in_flight: self.events.taken() + self.due_events.taken() + self.delivering.taken(),
            deliveries_unread: unread,
            oldest_due_record,
            oldest_due_event,
            database_up: *self.store.is_up().borrow(),
            consuming,
            publishing: self.publisher.is_up(),
            open_records: self.placement().counts(),
            database_clock: self.store.clock(),
            merchants_clock: self.webhooks.clock_offset(),
        };
        self.metrics.text(&now, self.connectors.iter())
    }

    /// Returns for how long due work has not been looked for, or not been taken though it could be.
    pub fn neglected(&self) -> Duration {
        self.health.neglected()
    }

    fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    async fn stopped(&self) {
        // The sender is this pipeline's own: it cannot be gone.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    /// Sleeps, unless the pipeline is stopped before.
    async fn sleep(&self, duration: Duration) {
        // The timer counts whole milliseconds, and takes one for nothing as well: no job's first call waits for that.
        if duration.is_zero() {
            return;
        }
        select(Box::pin(sleep(duration)), Box::pin(self.stopped())).await;
    }

    /// What is awaited, unless the pipeline is stopped before.
    async fn unless_stopped<T>(&self, future: impl Future<Output = T> + Unpin) -> Option<T> {
        match select(future, pin!(self.stopped())).await {
            Either::Left((value, _)) => Some(value),
            Either::Right(_) => None,
        }
    }

    /// Awaits what is not given up before the grace period has ended. `None`: it has.
    async fn until_given_up<T>(&self, future: impl Future<Output = T> + Unpin) -> Option<T> {
        let mut given_up = self.given_up.subscribe();
        // The sender is this pipeline's own: it cannot be gone.
        match select(future, pin!(given_up.wait_for(|given_up| *given_up))).await {
            Either::Left((value, _)) => Some(value),
            Either::Right(_) => None,
        }
    }

    /// The same, but with a while to come to an answer: a row that is written down and let go unheard would be taken
    /// for one whose connector may have been called.
    async fn until_long_stopped<T>(&self, future: impl Future<Output = T> + Unpin) -> Option<T> {
        let long_stopped = async {
            self.stopped().await;
            sleep(LAST_WORD).await;
        };
        match select(future, pin!(long_stopped)).await {
            Either::Left((value, _)) => Some(value),
            Either::Right(_) => None,
        }
    }

    /// An open record, to its end: the call with its retries, then its event.
    ///
    /// No `async fn`: that would have room for what it is given twice.
    fn finish<'a>(&'a self, work: Work<'a>) -> impl Future<Output = ()> + Send + 'a {
        let Work { link, account, permit } = work;
        let span = tracing::info_span!(
            "payout_link",
            payout_link.id = %link.id,
            merchant_payout_id = link.job.merchant_payout_id.as_str(),
            connector.name = %account.name,
            attempt.number = tracing::field::Empty,
        );
        async move {
            match self.create_link(link, account, permit).await {
                Ok(Some((event, concluding))) => {
                    let publishing = self.events.take().await;
                    drop(concluding);
                    // Boxed: what waits for a connector does not need the room that this takes, twice its own.
                    Box::pin(self.deliver(event, publishing)).await;
                }
                Ok(None) => {}
                Err(error) => self.report(&error),
            }
        }
        .instrument(span)
    }

    /// Once, where it is handled. What is left in the database comes due again in every case.
    fn report(&self, error: &StoreError) {
        self.metrics.abandoned_for(error);
        match error {
            StoreError::LeaseLost => tracing::warn!("let go: the lease ran out, it is somebody else's now"),
            StoreError::Unavailable(_) => tracing::warn!(%error, "let go: it comes due again"),
            StoreError::Inconsistent { .. } | StoreError::Refused(_) => {
                tracing::error!(%error, "let go: it comes due again");
            }
            StoreError::Unusable(_) => {
                tracing::error!(%error, "let go: it comes due again");
                self.unusable.send_replace(Some(error.clone()));
            }
        }
    }
}

/// A record that is to be worked on now.
struct Work<'a> {
    link: Box<OpenLink>,
    account: &'a Account,
    /// Its permit for the connector, and with it a place under the rate limit for one call.
    permit: Permit,
}

/// What a write that is under way gets when the pipeline is stopped.
const LAST_WORD: Duration = Duration::from_secs(5);
/// What is given up gets this to be logged.
const LAST_LINES: Duration = Duration::from_millis(500);
