//! Accepts or rejects a delivery, and settles it only after that. It never waits longer than a few seconds.

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
use tracing::Instrument;
use uuid::Uuid;

use super::{Pipeline, Work, outbox::Outgoing, reading::Readable, reject::Published};
use crate::{
    connectors::Account,
    contract::{self, Rejection, RejectionCode},
    domain::{EventType, ReplayRule, TraceContext, event_time},
    limits::{Permit, PooledPermit},
    postgres::{Accepted, Hold, NewLink, StoreError},
    rabbitmq::Delivery,
};

impl Pipeline {
    /// Processes one delivery completely. `permit` is its permit among the deliveries being accepted.
    pub(super) async fn take(self: Arc<Self>, delivery: Box<Delivery>, permit: PooledPermit) {
        let taken = AssertUnwindSafe(self.take_in(&delivery)).catch_unwind().await;
        drop(permit);
        match taken {
            Ok(Some(work)) => {
                // A record that waits for a connector does not need the message.
                drop(delivery);
                self.finish(work).await;
            }
            Ok(None) => {}
            Err(_) => {
                tracing::error!("delivery handler panicked, delivery requeued");
                self.metrics.abandoned("panic");
                delivery.give_back();
            }
        }
    }

    /// Accepts or rejects a delivery, and settles it. Returns the record if it can be processed at once.
    ///
    /// Rare steps are boxed: the future of every waiting job is as large as its largest step.
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
        // While a suspect message is processed no other is decoded: a crash is then evidence against the suspect.
        let readable = {
            let _no_suspect = self.suspects.read().await;
            self.read(delivery)
        };
        self.process(delivery, readable, ADMISSION).await
    }

    /// Processes a message that came back several times: alone, and after its begin is stored.
    async fn take_suspect(&self, delivery: &Delivery) -> Option<Work<'_>> {
        let _alone = self.suspects.write().await;
        if delivery.is_stale() {
            return None;
        }
        let digest = super::reject::message_digest(delivery, "suspect");
        let unfinished = match self.store.begin_suspect(&digest).await {
            Ok(unfinished) => unfinished,
            Err(error) => {
                self.report(&error);
                return None;
            }
        };
        let work = self.process_suspect(delivery, unfinished).await;
        // The worker survived it: its next delivery counts from zero.
        let ended = self.until_long_stopped(Box::pin(self.store.end_suspect(&digest))).await;
        if let Some(Err(error)) = ended {
            self.report(&error);
        }
        work
    }

    /// Processes a suspect message. `unfinished`: how often its processing began before without an end.
    async fn process_suspect(&self, delivery: &Delivery, unfinished: u32) -> Option<Work<'_>> {
        let limit = self.settings.max_unfinished_begins;
        if unfinished < limit {
            if Box::pin(self.is_rejected_again(delivery)).await? {
                return None;
            }
            // It waits for no permit, because all other deliveries wait for it.
            return self.process(delivery, self.read(delivery), Duration::ZERO).await;
        }
        let message = format!(
            "Processing of this message began {unfinished} times and never ended. Correct the message, or report a \
             defect of the worker, before publishing it again."
        );
        let poison = Rejection { code: RejectionCode::InvalidJob, message, field: None };
        if unfinished == limit {
            // Another version may have accepted it before. Finding out requires reading it: once.
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
        // If the pipeline is stopped first, the delivery stays with the broker.
        let admission = self.admit(account, patience).await?;
        if delivery.is_stale() {
            return None;
        }
        let lost_call_from = self.lost_call_from(delivery);
        let (hold, admitted) = match admission {
            // A look-up comes first, as for an unknown outcome.
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
        // While the database is away nothing is accepted or acknowledged. If the worker stops meanwhile, the delivery
        // returns to the queue. If its row was stored, it is then a duplicate.
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

    /// Replies to a duplicate, or rejects a job whose key belongs to another request.
    pub(super) async fn answer_duplicate(&self, delivery: &Delivery, accepted: Accepted) {
        match accepted {
            Accepted::New(_) | Accepted::Parked | Accepted::InProgress => delivery.acknowledge(),
            Accepted::Finished { event_id, event_type, connector, result } => {
                self.replay(delivery, &connector, event_id, event_type, result.into()).await;
            }
            Accepted::Conflict { fields } => self.reject(delivery, &conflict(&fields)).await,
        }
    }

    /// Settles a delivery that has no row in the database.
    pub(super) async fn not_accepted(&self, delivery: &Delivery, error: StoreError) {
        let merchant_payout_id = contract::claimed_identifier(&delivery.body, delivery.message_id());
        let span = tracing::info_span!("job", merchant.id = logged_merchant_id(delivery), merchant_payout_id);
        self.settle_not_accepted(delivery, error).instrument(span).await;
    }

    async fn settle_not_accepted(&self, delivery: &Delivery, error: StoreError) {
        match error {
            // A value of the job: a retry would not help.
            StoreError::Rejected(reason) => {
                tracing::error!(reason, "job rejected by the database");
                let message = "The database cannot store this job: a value is out of range. Correct the job \
                               (characters, lengths) and publish it again."
                    .to_owned();
                let rejection = Rejection { code: RejectionCode::InvalidJob, message, field: None };
                self.reject_for_now(delivery, &rejection).await;
            }
            // A duplicate whose record cannot be read (a key is missing from the ring). The job was accepted, so it
            // gets no rejection; its dead letter can be published again.
            StoreError::Inconsistent { .. } => {
                self.report(&error);
                self.set_aside(delivery, "RECORD_UNREADABLE", &error.to_string()).await;
            }
            // The worker stops; the delivery returns to the queue with its connection.
            StoreError::Unusable(_) => self.report(&error),
            StoreError::Unavailable(_) | StoreError::LeaseLost => {
                self.report(&error);
                delivery.give_back();
            }
        }
    }

    /// Returns the earliest time at which a worker whose writes are lost may have made a call for this message. A
    /// message without a publication time may be of any age.
    fn lost_call_from(&self, delivery: &Delivery) -> Option<OffsetDateTime> {
        let time = self.settings.retry.ask_before_calling_since?;
        let published_at = delivery.timestamp().unwrap_or(OffsetDateTime::UNIX_EPOCH);
        (published_at < time).then_some(published_at)
    }

    /// Admits a job to its first call: with a permit of its connector, and within the rate limit. If that takes
    /// longer than `patience`, the job is parked, and claimed in the order of service. `None`: the pipeline is
    /// stopped.
    async fn admit(&self, account: &Account, patience: Duration) -> Option<Admission> {
        let started = Instant::now();
        // Do not wait for an open circuit breaker, or for a connector whose due records already wait.
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

    /// Publishes the stored result again to a duplicate. No second webhook is sent.
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
        match self.publish_reply(&result, None).await {
            Published::Completely => {
                delivery.acknowledge();
                self.metrics.replayed();
            }
            Published::LeftToTheBroker | Published::Not => delivery.give_back(),
            Published::Stopped => {}
        }
    }
}

/// Returns how the row of a job is stored whose connector can be called at once.
fn first_hold(rule: ReplayRule) -> Hold {
    match rule {
        ReplayRule::SameKey { .. } | ReplayRule::LookUp(_) => Hold::BeginCall,
        ReplayRule::Never => Hold::Lease,
    }
}

/// Whether the first call of a job is made at once.
enum Admission {
    Call(Permit),
    Park,
}

/// Limit of a delivery's wait for its connector. With it, the backlog of a fast connector stays in RabbitMQ and costs no
/// second write.
const ADMISSION: Duration = Duration::from_secs(2);

/// A message that came back this often is processed alone. The count is no evidence: restarts and reconnects raise it too.
const SUSPICIOUS: u64 = 3;

/// Returns the merchant's id for a log line. An id that is longer than a valid one is left out.
pub(super) fn logged_merchant_id(delivery: &Delivery) -> &str {
    Some(merchant_id(delivery)).filter(|id| id.len() <= 255).unwrap_or_default()
}

pub(super) fn merchant_id(delivery: &Delivery) -> &str {
    delivery.header("x-merchant-id").unwrap_or_default()
}

pub(super) fn trace(delivery: &Delivery) -> TraceContext {
    // Passed on unchanged, unless a header cannot carry it.
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
