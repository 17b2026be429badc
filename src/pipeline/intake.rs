//! A delivery becomes a record, or is rejected; only then is it settled. It waits for nothing longer than a few seconds.

use std::{
    panic::AssertUnwindSafe,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::FutureExt;
use time::OffsetDateTime;
use tokio::time::timeout;
use uuid::Uuid;

use super::{Pipeline, Work, answer::Answered, outbox::Outgoing, reading::Readable};
use crate::{
    connectors::Account,
    contract::{Rejection, RejectionCode},
    domain::{EventType, ReplayRule, TraceContext, event_time},
    limits::{Permit, PooledPermit},
    postgres::{Accepted, Hold, NewLink, StoreError},
    rabbitmq::Delivery,
};

impl Pipeline {
    /// Takes one delivery from the queue to its end. `place`: its place among the deliveries that are taken in.
    pub(super) async fn take(self: Arc<Self>, delivery: Box<Delivery>, place: PooledPermit) {
        let taken = AssertUnwindSafe(self.take_in(&delivery)).catch_unwind().await;
        drop(place);
        match taken {
            Ok(Some(work)) => {
                // What waits for a connector does not hold the message as well.
                drop(delivery);
                self.finish(work).await;
            }
            Ok(None) => {}
            Err(_) => {
                tracing::error!("processing a message panicked, it is given back");
                self.metrics.abandoned("panic");
                delivery.give_back();
            }
        }
    }

    /// Accepts or rejects a delivery, and settles it. Returns the work that follows at once.
    ///
    /// Boxed: what few jobs need. A job that waits takes as much memory as the largest thing that it may come to.
    async fn take_in(&self, delivery: &Delivery) -> Option<Work<'_>> {
        if delivery.is_stale() {
            return None;
        }
        if delivery.deliveries_before() >= SUSPICIOUS {
            return Box::pin(self.take_suspect(delivery)).await;
        }
        if delivery.is_redelivered && Box::pin(self.is_rejected_again(delivery)).await? {
            return None;
        }
        // While a suspect message is processed no other is decoded: a worker that goes down is evidence against it.
        let readable = {
            let _no_suspect = self.suspects.read().await;
            self.read(delivery)
        };
        self.process(delivery, readable, ADMISSION).await
    }

    /// A message that came back several times is processed alone, and its begin is on disk before it is decoded.
    async fn take_suspect(&self, delivery: &Delivery) -> Option<Work<'_>> {
        let _alone = self.suspects.write().await;
        if delivery.is_stale() {
            return None;
        }
        let digest = super::answer::message_digest(delivery, "suspect");
        let unfinished = match self.store.begin_suspect(&digest).await {
            Ok(unfinished) => unfinished,
            Err(error) => {
                self.report(&error);
                return None;
            }
        };
        let work = self.process_suspect(delivery, unfinished).await;
        // It did not bring this worker down: the next time that it comes is a new try.
        let ended = self.until_long_stopped(Box::pin(self.store.end_suspect(&digest))).await;
        if let Some(Err(error)) = ended {
            self.report(&error);
        }
        work
    }

    /// `unfinished`: how often its processing began before and never ended.
    async fn process_suspect(&self, delivery: &Delivery, unfinished: u32) -> Option<Work<'_>> {
        let limit = self.settings.max_unfinished_begins;
        if unfinished < limit {
            if Box::pin(self.is_rejected_again(delivery)).await? {
                return None;
            }
            // It waits for no permit: all other deliveries wait for it.
            return self.process(delivery, self.read(delivery), Duration::ZERO).await;
        }
        let message = format!(
            "Processing this message began {unfinished} times and never ended. Correct the message, or report a \
             defect of the worker, before publishing it again."
        );
        let poison = Rejection { code: RejectionCode::InvalidJob, message, field: None };
        if unfinished == limit {
            // It may have been accepted before, by another version. To find that out it has to be read: once.
            self.reject_unless_accepted(delivery, &poison).await;
        } else {
            self.reject_as(delivery, &poison, None).await;
        }
        None
    }

    async fn process<'a>(
        &'a self,
        delivery: &Delivery,
        readable: Result<Readable<'a>, Rejection>,
        patience: Duration,
    ) -> Option<Work<'a>> {
        let Readable { job, account } = match readable {
            Ok(readable) => readable,
            Err(rejection) => {
                Box::pin(self.reject_unless_accepted(delivery, &rejection)).await;
                return None;
            }
        };
        // Stopped before it was taken in it stays the broker's.
        let admission = self.admit(account, patience).await?;
        if delivery.is_stale() {
            return None;
        }
        let lost_call_from = self.lost_call_from(delivery);
        let (hold, admitted) = match admission {
            // It is asked about first, as an unknown outcome is.
            Admission::Call(_) if lost_call_from.is_some() => {
                account.rate.give_back(1);
                (Hold::Park(Duration::ZERO), None)
            }
            Admission::Call(permit) => (first_hold(account.connector.replay_rule()), Some(permit)),
            Admission::Park => (Hold::Park(Duration::ZERO), None),
        };
        let new = NewLink {
            merchant_id: merchant_id(delivery).to_owned(),
            connector: account.name.to_string(),
            connector_is_named: delivery.header("x-connector").is_some(),
            job,
            reply_to: delivery.reply_to().map(str::to_owned),
            correlation_id: delivery.correlation_id().or(delivery.message_id()).map(str::to_owned),
            trace: trace(delivery),
            hold,
            account: account.id.clone(),
            lost_call_from,
        };
        // While the database is away nothing is accepted and nothing acknowledged; stopped meanwhile, the delivery
        // goes back to the queue, and finds its row there if it was written after all.
        let accepting = self.store.accept(new, || !delivery.is_stale());
        let accepted = self.until_long_stopped(Box::pin(accepting)).await?;
        match accepted.inspect(|accepted| self.metrics.accepted(accepted)) {
            Ok(Accepted::New(link)) => {
                delivery.acknowledge();
                return Some(Work { link, account, permit: admitted? });
            }
            Ok(Accepted::Parked) => {
                delivery.acknowledge();
                self.look_soon.notify_one();
            }
            Ok(accepted) => Box::pin(self.answer_duplicate(delivery, accepted)).await,
            Err(error) => Box::pin(self.not_accepted(delivery, error)).await,
        }
        None
    }

    /// What a duplicate gets, or a job whose key belongs to another request.
    pub(super) async fn answer_duplicate(&self, delivery: &Delivery, accepted: Accepted) {
        match accepted {
            Accepted::New(_) | Accepted::Parked | Accepted::InProgress => delivery.acknowledge(),
            Accepted::Finished { event_id, event_type, connector, result } => {
                self.replay(delivery, &connector, event_id, event_type, result.into()).await;
            }
            Accepted::Conflict { fields } => self.reject(delivery, &conflict(&fields)).await,
        }
    }

    /// The database has no row of it, and will have none.
    pub(super) async fn not_accepted(&self, delivery: &Delivery, error: StoreError) {
        match error {
            // Its content: said at once, since no try more makes it another.
            StoreError::Refused(reason) => {
                tracing::error!(reason, "the database refuses a job");
                let message =
                    "The database cannot store this job: a value is outside of what it takes. Correct the \
                               job (characters, lengths) and publish it again."
                        .to_owned();
                let rejection = Rejection { code: RejectionCode::InvalidJob, message, field: None };
                self.reject_for_now(delivery, &rejection).await;
            }
            // A duplicate whose record cannot be read (a key is missing from the ring). It was accepted, so that it is not
            // told rejected; as a dead letter it can be published again.
            StoreError::Inconsistent { .. } => {
                self.report(&error);
                self.set_aside(delivery, "RECORD_UNREADABLE", &error.to_string()).await;
            }
            // The worker stops: it goes back with its connection.
            StoreError::Unusable(_) => self.report(&error),
            StoreError::Unavailable(_) | StoreError::LeaseLost => {
                self.report(&error);
                delivery.give_back();
            }
        }
    }

    /// From when on a worker may have called for a message whose writes are lost. A message that does not say when it was
    /// published may be as old as any.
    fn lost_call_from(&self, delivery: &Delivery) -> Option<OffsetDateTime> {
        let time = self.settings.retry.ask_before_calling_since?;
        let published_at = delivery.timestamp().unwrap_or(OffsetDateTime::UNIX_EPOCH);
        (published_at < time).then_some(published_at)
    }

    /// Admits a job to a call at once: with a permit of its connector, and the rate limit's word. What does not come within
    /// `patience` is written down in place of it, and claimed in the order of service. `None`: the pipeline is stopped.
    async fn admit(&self, account: &Account, patience: Duration) -> Option<Admission> {
        let started = Instant::now();
        // A connector that is out of order, or so full that its due work waits, is not waited for.
        if account.breaker.allowed_calls(started) == 0
            || account.permits.is_saturated()
            || account.rate.wait(started) > patience
        {
            return Some(Admission::Park);
        }
        let permit = match account.permits.try_take() {
            Some(permit) => permit,
            None => {
                let waiting = self.unless_stopped(pin!(timeout(patience, account.permits.take()))).await?;
                let Ok(permit) = waiting else { return Some(Admission::Park) };
                permit
            }
        };
        let left = patience.saturating_sub(started.elapsed());
        match account.rate.reserve(Instant::now(), left) {
            Ok(wait) => self.sleep(wait).await,
            Err(_) => return Some(Admission::Park),
        }
        Some(Admission::Call(permit))
    }

    /// The stored result, published again to whoever asks again. No second webhook.
    async fn replay(
        &self,
        delivery: &Delivery,
        connector: &str,
        event_id: Uuid,
        event_type: EventType,
        body: Bytes,
    ) {
        let trace = trace(delivery);
        let result = Outgoing {
            id: event_id,
            event_type,
            timestamp: event_time(event_id).unix_timestamp(),
            body,
            connector: Some(connector),
            replayed: true,
            ..Outgoing::to(delivery, &trace)
        };
        match self.answer(&result, None).await {
            Answered::Yes => {
                delivery.acknowledge();
                self.metrics.replayed();
            }
            Answered::LeftToTheBroker | Answered::No => delivery.give_back(),
            Answered::Stopped => {}
        }
    }
}

/// How the row of a job is written whose connector can be called at once.
fn first_hold(rule: ReplayRule) -> Hold {
    match rule {
        ReplayRule::SameKey { .. } | ReplayRule::LookUp(_) => Hold::BeginCall,
        ReplayRule::Never => Hold::Lease,
    }
}

/// Whether a job is called for at once.
enum Admission {
    Call(Permit),
    Park,
}

/// How long a delivery waits for its connector: so that a quick connector's backlog stays in RabbitMQ and costs no second
/// write.
const ADMISSION: Duration = Duration::from_secs(2);

/// A message that came back so often is processed alone. It is no evidence against it: restarts and reconnects do the same.
const SUSPICIOUS: u64 = 3;

pub(super) fn merchant_id(delivery: &Delivery) -> &str {
    delivery.header("x-merchant-id").unwrap_or_default()
}

pub(super) fn trace(delivery: &Delivery) -> TraceContext {
    // Whatever else it is, it is passed on as it came; what no header can carry is not.
    let is_sound =
        |value: &&str| (1..=512).contains(&value.len()) && value.bytes().all(|b| (b' '..=b'~').contains(&b));
    let header = |name| delivery.header(name).filter(is_sound);
    TraceContext {
        traceparent: header("traceparent").map(str::to_owned),
        tracestate: header("tracestate").map(str::to_owned),
    }
}

fn conflict(fields: &[String]) -> Rejection {
    let message = if fields.is_empty() {
        "Another request was accepted under this key, or the same one under a fingerprint key that is no longer \
         configured. The first request is erased or cannot be decrypted, so the two cannot be compared."
            .into()
    } else {
        format!("Another request was accepted under this key; these fields differ: {}.", fields.join(", "))
    };
    Rejection {
        code: RejectionCode::IdempotencyConflict,
        message,
        field: (!fields.is_empty()).then(|| fields.join(", ")),
    }
}
