//! Rejects jobs and publishes replies: rejections with their dead letters, and replays.
//!
//! A step that is confirmed is not repeated when the next one fails. Every step has a time limit, and a blocked reply
//! queue delays nothing else.

use std::{pin::pin, time::Duration};

use aws_lc_rs::digest;
use bytes::Bytes;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{
    Pipeline,
    headers::{logged_merchant_id, merchant_id, trace},
};
use crate::{
    contract::{self, DecodePolicy, UnknownFields},
    domain::{EventType, Rejection, TraceContext},
    postgres::StoreError,
    rabbitmq::{Delivery, Message, PublishError, REJECTED_AT, ResultMessage, Route},
};

/// How far the reply to a delivery was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Published {
    /// Published, and dead-lettered if requested: the delivery may be acknowledged.
    Completely,
    /// Published; the broker has to dead-letter the message itself.
    LeftToTheBroker,
    /// Nothing could be published.
    Not,
    /// The pipeline was stopped: the delivery returns to the queue with its session.
    Stopped,
}

/// Limit for publishing a reply.
const PATIENCE: Duration = Duration::from_secs(5);
/// Limit of the wait for one confirm.
const CONFIRM: Duration = Duration::from_secs(3);
/// Wait for the worker of an earlier, ended session, which may still be storing the record.
const LATE_WRITE: Duration = Duration::from_secs(1);
/// Pause after the first try. It doubles, because a queue that accepts the result gets it once more with each try.
const PAUSE: Duration = Duration::from_millis(500);

impl Pipeline {
    /// Rejects a job, unless it was accepted earlier, under another configuration.
    pub(super) async fn reject_unless_accepted(&self, delivery: &Delivery, rejection: &Rejection) {
        let permissive = DecodePolicy { allow_http_webhooks: true, unknown_fields: UnknownFields::Ignore };
        let is_sound = !delivery.is_unreadable && delivery.withheld.is_none();
        if is_sound
            && let Ok(job) = contract::create_link(&delivery.body, delivery.message_id(), &permissive)
            && !["x-merchant-id", "x-connector"].into_iter().any(|name| delivery.is_unclear(name))
        {
            if delivery.is_redelivered {
                // From the delivery on: suspect messages are processed one by one, and must not wait one by one too.
                self.sleep(LATE_WRITE.saturating_sub(delivery.received_at.elapsed())).await;
                if self.is_stopping() || delivery.is_stale() {
                    return;
                }
            }
            let reply_to = delivery.reply_to().filter(|queue| !self.settings.names.is_own_queue(queue));
            let correlation_id = delivery.correlation_id().or(delivery.message_id());
            let connector = delivery.header("x-connector");
            let before =
                self.store.accepted_before(merchant_id(delivery), &job, connector, reply_to, correlation_id);
            match self.until_long_stopped(Box::pin(before)).await {
                None => return,
                Some(Ok(None)) => {}
                Some(Ok(Some(accepted))) => {
                    self.metrics.accepted(&accepted);
                    return self.answer_duplicate(delivery, accepted).await;
                }
                // The job has no row: the database rejects such values in every statement.
                Some(Err(StoreError::Rejected(_))) => {}
                Some(Err(error)) => return self.not_accepted(delivery, error).await,
            }
            return self.reject_for_now(delivery, rejection).await;
        }
        self.reject(delivery, rejection).await;
    }

    /// Rejects a message again whose acknowledgement was lost after a rejection. `None`: the pipeline is stopped.
    pub(super) async fn is_rejected_again(&self, delivery: &Delivery) -> Option<bool> {
        let digest = message_digest(delivery, "rejected");
        match self.until_long_stopped(Box::pin(self.store.rejection_of(&digest))).await? {
            Ok(None) => Some(false),
            Ok(Some(rejection)) => {
                self.reject_unless_accepted(delivery, &rejection).await;
                Some(true)
            }
            Err(error) => {
                self.report(&error);
                None
            }
        }
    }

    /// Rejects for a reason that depends on the configuration or the database, and stores the rejection first.
    pub(super) async fn reject_for_now(&self, delivery: &Delivery, rejection: &Rejection) {
        if self.note_rejection(delivery, rejection).await {
            self.reject(delivery, rejection).await;
        }
    }

    /// Rejects a message without reading it, and stores the rejection first.
    pub(super) async fn reject_unread(&self, delivery: &Delivery, rejection: &Rejection) {
        if self.note_rejection(delivery, rejection).await {
            self.reject_as(delivery, rejection, None).await;
        }
    }

    /// Stores a rejection, so that every worker rejects the message if it is delivered again. Returns false if that was not
    /// possible: the delivery returns to the queue then.
    async fn note_rejection(&self, delivery: &Delivery, rejection: &Rejection) -> bool {
        let digest = message_digest(delivery, "rejected");
        match self.until_long_stopped(Box::pin(self.store.note_rejection(&digest, rejection))).await {
            None => false,
            Some(Ok(())) => true,
            Some(Err(error)) => {
                self.report(&error);
                delivery.give_back();
                false
            }
        }
    }

    /// Rejects a job: publishes the rejection, then dead-letters the job with the reason, then acknowledges it. A
    /// crash in between causes a second copy, never a loss.
    pub(super) async fn reject(&self, delivery: &Delivery, rejection: &Rejection) {
        let merchant_payout_id = contract::claimed_identifier(&delivery.body, delivery.message_id());
        self.reject_as(delivery, rejection, merchant_payout_id.as_deref()).await;
    }

    /// Does the same with a known identifier.
    pub(super) async fn reject_as(
        &self,
        delivery: &Delivery,
        rejection: &Rejection,
        merchant_payout_id: Option<&str>,
    ) {
        let code = rejection.code.as_str();
        let field = rejection.field.as_deref().unwrap_or_default();
        tracing::warn!(
            error.code = code,
            error.field = field,
            merchant.id = logged_merchant_id(delivery),
            merchant_payout_id = merchant_payout_id.unwrap_or_default(),
            reason = rejection.message,
            "job rejected"
        );
        let trace = trace(delivery);
        let to = result_for(delivery, &trace);
        let result = ResultMessage {
            id: rejection_id(delivery, code),
            event_type: EventType::Rejected,
            timestamp: OffsetDateTime::now_utc().unix_timestamp(),
            body: contract::rejection(merchant_payout_id, rejection),
            reply_to: to.reply_to.filter(|queue| !self.settings.names.is_own_queue(queue)),
            ..to
        };
        let reason = match field {
            "" => rejection.message.clone(),
            field => format!("{field}: {}", rejection.message),
        };
        let dead_letter = delivery.dead_letter(&self.settings.names.dead_exchange, code, &reason);
        let is_ours_to_publish = dead_letter.is_some();
        match self.publish_reply(&result, dead_letter).await {
            Published::Completely if is_ours_to_publish => delivery.acknowledge(),
            Published::Completely | Published::LeftToTheBroker => delivery.reject(),
            Published::Not => return delivery.give_back(),
            Published::Stopped => return,
        }
        self.metrics.rejected(rejection.code);
    }

    /// Moves a delivery to the dead letters without a rejection, within [`PATIENCE`].
    pub(super) async fn set_aside(&self, delivery: &Delivery, code: &str, reason: &str) {
        let Some(letter) = delivery.dead_letter(&self.settings.names.dead_exchange, code, reason) else {
            return delivery.reject();
        };
        let publishing = self.publish_patiently(None, Some(letter));
        match self.until_long_stopped(pin!(publishing)).await {
            // The delivery returns to the queue with its session.
            None | Some(Published::Stopped) => {}
            Some(Published::Completely) => delivery.acknowledge(),
            Some(Published::LeftToTheBroker) => delivery.reject(),
            Some(Published::Not) => {
                self.replies_blocked.send_replace(true);
                delivery.give_back();
            }
        }
    }

    /// Publishes the reply to a delivery, and its dead letter, within [`PATIENCE`].
    pub(super) async fn publish_reply(
        &self,
        result: &ResultMessage<'_>,
        dead_letter: Option<Box<Message>>,
    ) -> Published {
        let answered = async {
            let published = self.publish_patiently(Some(result), dead_letter).await;
            // Last, because a queue that takes nothing must not use up the time of the dead letter.
            if published != Published::Not {
                self.reply_once(result).await;
            }
            published
        };
        // If a stop ended it between the result and the dead letter, the next worker would reject the job once more.
        let answered = self.until_long_stopped(pin!(answered)).await.unwrap_or(Published::Stopped);
        if answered == Published::Not {
            // Every other delivery that needs a reply would be requeued again and again.
            self.replies_blocked.send_replace(true);
        }
        answered
    }

    /// Publishes a result, if there is one, and then a dead letter.
    async fn publish_patiently(
        &self,
        result: Option<&ResultMessage<'_>>,
        dead_letter: Option<Box<Message>>,
    ) -> Published {
        let event_id = result.map(|result| tracing::field::display(result.id));
        let merchant_id = result.map(|result| result.merchant_id);
        let (started, mut is_published, mut is_answered, mut pause) = (Instant::now(), false, true, PAUSE);
        loop {
            let late = started.elapsed() >= PATIENCE;
            if let Some(result) = result.filter(|_| !is_published) {
                // A queue that is bound to the results exchange may reject everything. The unrouted queue is the
                // worker's own.
                let exchange = if late {
                    self.publish_unrouted(result, CONFIRM).await
                } else {
                    self.publish(result, CONFIRM).await
                };
                match exchange {
                    Ok(()) => is_published = true,
                    Err(error) => {
                        tracing::warn!(event.id = event_id, merchant.id = merchant_id, %error, "result not published, will retry");
                    }
                }
            }
            if is_published || result.is_none() {
                let Some(letter) = &dead_letter else { return Published::Completely };
                match self.publish_dead_letter(letter.clone()).await {
                    Ok(()) => return Published::Completely,
                    Err(error) => {
                        tracing::warn!(event.id = event_id, merchant.id = merchant_id, %error, "dead letter not published, will retry");
                        is_answered = !matches!(error, PublishError::Unanswered);
                    }
                }
            }
            if late {
                // If the broker does not accept our dead letter, it can dead-letter the message itself, without a
                // reason. If it is silent, the dead letter is published with its reason after a redelivery.
                let is_left_to_it = (is_published || result.is_none()) && is_answered;
                return if is_left_to_it { Published::LeftToTheBroker } else { Published::Not };
            }
            sleep(pause.min(PATIENCE.saturating_sub(started.elapsed()))).await;
            pause *= 2;
        }
    }

    /// Publishes a dead letter. If no queue accepts it, the topology is declared again, and the letter is published again later.
    async fn publish_dead_letter(&self, letter: Box<Message>) -> Result<(), PublishError> {
        match self.publisher.publish(letter, CONFIRM).await? {
            Route::Queued => Ok(()),
            Route::Returned => {
                self.publisher.declare_topology();
                Err(PublishError::NotConfirmed("no queue is bound to the dead-letter exchange".into()))
            }
        }
    }
}

/// Makes a result for the requester of a delivery, without its content.
pub(super) fn result_for<'a>(delivery: &'a Delivery, trace: &'a TraceContext) -> ResultMessage<'a> {
    ResultMessage {
        id: Uuid::nil(),
        event_type: EventType::Rejected,
        timestamp: 0,
        body: Bytes::new(),
        reply_to: delivery.reply_to(),
        correlation_id: delivery.correlation_id().or(delivery.message_id()),
        merchant_id: Some(merchant_id(delivery)).filter(|id| id.len() <= MAX_ECHOED).unwrap_or_default(),
        connector: delivery.header("x-connector").filter(|name| name.len() <= MAX_ECHOED),
        trace,
        replayed: false,
    }
}

/// Maximum length of echoed values in a rejection: the longest accepted one.
const MAX_ECHOED: usize = 255;

/// Returns the event id of a rejection. It is the same in every repetition, so that consumers can recognize them.
fn rejection_id(delivery: &Delivery, code: &str) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&message_digest(delivery, code)[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// Returns the digest that identifies a message, for one purpose.
pub(super) fn message_digest(delivery: &Delivery, purpose: &str) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    let body = delivery.body_sha256();
    let parts = [
        merchant_id(delivery).as_bytes(),
        delivery.message_id().unwrap_or_default().as_bytes(),
        delivery.correlation_id().unwrap_or_default().as_bytes(),
        // A dead letter that was moved back is a new message.
        delivery.header(REJECTED_AT).unwrap_or_default().as_bytes(),
        purpose.as_bytes(),
        &body,
    ];
    for part in parts {
        context.update(&part.len().to_be_bytes());
        context.update(part);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}
