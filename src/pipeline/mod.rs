//! One job, from top to bottom.
//!
//! ```text
//! delivery ─▶ intake::take ─▶ create_link ─▶ outbox::tell
//!                  │ refused       ▲              ▲
//!                  ▼               └── sweeper ───┘
//!            intake::reject          what is due
//! ```
//!
//! A job becomes a row before it is acknowledged; from then on the row is what is worked on, here or by whoever
//! finds it due. Recovery is not a second code path: the sweeper feeds the same functions.

mod create_link;
mod intake;
mod outbox;
mod retention;
mod sweeper;

pub use self::retention::Retention;

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::future::{Either, join, select};
use tokio::{sync::watch, time::sleep};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::{
    broker::{Consumer, Names, Publisher},
    connector::{Account, Connectors},
    domain::{OpenLink, retry::RetryPolicy},
    limits::{Slot, Slots},
    metrics::{Metrics, Now},
    store::{DueEvent, Store, StoreError},
    webhook::Webhooks,
    wire::DecodePolicy,
};

#[derive(Debug, Clone)]
pub struct PipelineSettings {
    pub decode: DecodePolicy,
    pub retry: RetryPolicy,
    /// Waits up to this long are slept where they arise; longer ones are written down.
    pub wait_in_place: Duration,
    /// Jobs taken from the queue and not concluded, at most.
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
    /// Deliveries of one message before it is taken for poison.
    pub max_deliveries: u64,
    pub retention: Retention,
    pub names: Names,
}

pub struct Pipeline {
    pub store: Store,
    pub publisher: Publisher,
    pub connectors: Connectors,
    pub webhooks: Webhooks,
    metrics: Metrics,
    settings: PipelineSettings,
    jobs: Slots,
    events: Slots,
    /// Of the places among the events, those that retries may take: first tries never wait behind them.
    retold_events: Slots,
    tasks: TaskTracker,
    stopping: watch::Sender<bool>,
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
            connectors,
            webhooks,
            jobs: Slots::new(settings.jobs_in_flight),
            events: Slots::new(settings.events_in_flight.div_ceil(2)),
            retold_events: Slots::new(settings.events_in_flight.div_ceil(2)),
            tasks: TaskTracker::new(),
            stopping: watch::Sender::new(false),
            unusable: watch::Sender::new(None),
            settings,
        })
    }

    /// Takes jobs until the consumer is stopped. A job is taken in only when there is a place for it; until then it
    /// waits in RabbitMQ, which is what a queue is for.
    pub async fn take_jobs(self: Arc<Self>, mut consumer: Consumer) {
        loop {
            self.jobs.room().await;
            let Some(delivery) = consumer.next().await else { return };
            // There still is one: nobody else takes any. What waits here for a job is none in flight.
            let place = self.jobs.take().await;
            self.tasks.spawn(self.clone().take(delivery, place));
        }
    }

    /// Takes what is due, and erases what is past its retention, until the pipeline is stopped.
    pub async fn sweep(self: Arc<Self>) {
        join(sweeper::run(self.clone()), retention::run(self)).await;
    }

    /// From now on nothing new is begun: what waits for a call is written down and let go.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
        self.tasks.close();
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
    }

    pub fn jobs_in_flight(&self) -> usize {
        self.jobs.taken()
    }

    /// Every metric, as text; `consuming`: whether the consumer is up.
    pub fn measured(&self, consuming: bool) -> String {
        let now = Now {
            jobs_in_flight: self.jobs.taken(),
            events_in_flight: self.events.taken() + self.retold_events.taken(),
            consuming,
            publishing: self.publisher.is_up(),
        };
        self.metrics.text(&now, self.connectors.iter())
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

    /// An open record, to its end: the call with its retries, then what is to be told of it. `slot` is its place among
    /// the connector's calls, `place` the one among the jobs in flight: free again once this one can be told of.
    ///
    /// No `async fn`: that would have room for what it is given twice.
    fn finish(
        &self,
        link: Box<OpenLink>,
        account: &Account,
        slot: Slot,
        place: Option<Slot>,
    ) -> impl Future<Output = ()> + Send {
        let span = tracing::info_span!(
            "payout_link",
            payout_link.id = %link.id,
            merchant_payout_id = link.job.merchant_payout_id.as_str(),
            connector.name = %account.name,
            attempt.number = tracing::field::Empty,
        );
        // What was swept up has no place among the jobs in flight: its slot bounds it, until it can be told of.
        let (slot, place) = match place {
            Some(place) => (Some(slot), place),
            None => (None, slot),
        };
        async move {
            match self.create_link(link, account, slot).await {
                Ok(Some(event)) => {
                    let telling = self.events.take().await;
                    drop(place);
                    // Boxed: what waits for a connector does not need the room that telling takes, twice its own.
                    Box::pin(self.tell(event, telling)).await;
                }
                Ok(None) => {}
                Err(error) => self.report(&error),
            }
        }
        .instrument(span)
    }

    /// An event, told; the place among the events is held meanwhile.
    async fn tell(&self, event: Box<DueEvent>, _telling: Slot) {
        if let Err(error) = self.tell_event(event).await {
            self.report(&error);
        }
    }

    /// Once, where it is handled. What is left in the database comes due again in every case.
    fn report(&self, error: &StoreError) {
        self.metrics.let_go(error);
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

/// What a write that is under way gets when the pipeline is stopped.
const LAST_WORD: Duration = Duration::from_secs(5);
