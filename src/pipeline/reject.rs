//! Answers to deliveries that become no record: rejections with their dead letters, and replays.
//!
//! Each step is done once it is confirmed, and is not repeated for the sake of the next. All of it is bounded in time; a
//! reply queue that takes nothing is nobody's wait but its own.

use std::{pin::pin, time::Duration};

use aws_lc_rs::digest;
use bytes::Bytes;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{
    Pipeline,
    intake::{merchant_id, trace},
    outbox::Outgoing,
};
use crate::{
    contract::{self, DecodePolicy, Rejection, UnknownFields},
    domain::{EventType, TraceContext},
    postgres::StoreError,
    rabbitmq::{Delivery, Message, PublishError, REJECTED_AT, Route},
};

/// How answering a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Published {
    /// Published, and dead-lettered where that was wanted: the delivery may be acknowledged.
    Yes,
    /// Published; the broker is to make the dead letter, from the message that it has.
    LeftToTheBroker,
    /// Nothing can be published at present.
    No,
    /// The pipeline was stopped: the delivery goes back with its session.
    Stopped,
}

/// How long a delivery is held for its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one confirm is waited for.
const CONFIRM: Duration = Duration::from_secs(3);
/// The session that a message was delivered in before has ended, and its worker may still be writing the record.
const LATE_WRITE: Duration = Duration::from_secs(1);
/// After the first try; the pause doubles, since a queue that takes the answer gets it once more with each try.
const PAUSE: Duration = Duration::from_millis(500);

impl Pipeline {
    /// Rejects a job, unless it was accepted before the configuration made it one to be rejected.
    pub(super) async fn reject_unless_accepted(&self, delivery: &Delivery, rejection: &Rejection) {
        let permissive = DecodePolicy { allow_http_webhooks: true, unknown_fields: UnknownFields::Ignore };
        let is_sound = !delivery.is_unreadable && delivery.withheld.is_none();
        if is_sound
            && let Ok(job) = contract::create_link(&delivery.body, delivery.message_id(), &permissive)
            && !["x-merchant-id", "x-connector"].into_iter().any(|name| delivery.is_unclear(name))
        {
            if delivery.is_redelivered {
                self.sleep(LATE_WRITE).await;
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
                // It has no row, then: such values are refused wherever they stand in a statement.
                Some(Err(StoreError::Rejected(_))) => {}
                Some(Err(error)) => return self.not_accepted(delivery, error).await,
            }
            return self.reject_for_now(delivery, rejection).await;
        }
        self.reject(delivery, rejection).await;
    }

    /// Rejects a message again that was rejected before, and whose acknowledgement was lost. `None`: stopped meanwhile.
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

    /// Rejects for a reason that another configuration, or another database, would not give.
    pub(super) async fn reject_for_now(&self, delivery: &Delivery, rejection: &Rejection) {
        let digest = message_digest(delivery, "rejected");
        match self.until_long_stopped(Box::pin(self.store.note_rejection(&digest, rejection))).await {
            None => {}
            Some(Ok(())) => self.reject(delivery, rejection).await,
            Some(Err(error)) => {
                self.report(&error);
                delivery.give_back();
            }
        }
    }

    /// Rejects a job: the rejection is published, then the job dead-lettered with the reason, then acknowledged. A crash in
    /// between makes a second copy, never a loss.
    pub(super) async fn reject(&self, delivery: &Delivery, rejection: &Rejection) {
        let merchant_payout_id = contract::claimed_identifier(&delivery.body, delivery.message_id());
        self.reject_as(delivery, rejection, merchant_payout_id.as_deref()).await;
    }

    /// The same, under an identifier that was read before.
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
            merchant_payout_id = merchant_payout_id.unwrap_or_default(),
            reason = rejection.message,
            "job refused"
        );
        let trace = trace(delivery);
        let to = Outgoing::to(delivery, &trace);
        let result = Outgoing {
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

    /// Dead-letters a delivery without a rejection.
    pub(super) async fn set_aside(&self, delivery: &Delivery, code: &str, reason: &str) {
        let Some(letter) = delivery.dead_letter(&self.settings.names.dead_exchange, code, reason) else {
            return delivery.reject();
        };
        match self.publisher.publish(letter, PATIENCE).await {
            Ok(Route::Queued) => delivery.acknowledge(),
            Ok(Route::Returned) | Err(_) => delivery.give_back(),
        }
    }

    /// Publishes the answer to a delivery, and its dead letter, within [`PATIENCE`].
    pub(super) async fn publish_reply(
        &self,
        result: &Outgoing<'_>,
        mut dead_letter: Option<Box<Message>>,
    ) -> Published {
        let answered = async {
            let (started, mut is_published, mut pause) = (Instant::now(), false, PAUSE);
            loop {
                let late = started.elapsed() >= PATIENCE;
                if !is_published {
                    // Someone's queue that is bound to the results exchange may refuse everything. The unrouted queue is
                    // the worker's own.
                    let exchange = if late {
                        self.publish_unrouted(result, CONFIRM).await
                    } else {
                        self.publish(result, CONFIRM).await
                    };
                    match exchange {
                        Ok(()) => {
                            is_published = true;
                            self.reply_once(result).await;
                        }
                        Err(error) => tracing::warn!(%error, "answer not published"),
                    }
                }
                if is_published {
                    let Some(letter) = &dead_letter else { return Published::Completely };
                    match self.publish_dead_letter(letter.clone()).await {
                        Ok(()) => {
                            dead_letter = None;
                            continue;
                        }
                        Err(error) => tracing::warn!(%error, "dead letter not published"),
                    }
                }
                if late {
                    // A dead letter that the broker does not take from us it can make by itself.
                    return if is_published { Published::LeftToTheBroker } else { Published::Not };
                }
                sleep(pause.min(PATIENCE.saturating_sub(started.elapsed()))).await;
                pause *= 2;
            }
        };
        let answered = self.unless_stopped(pin!(answered)).await.unwrap_or(Published::Stopped);
        if answered == Published::Not {
            // Whatever else has to be answered would only come again and again.
            self.replies_blocked.send_replace(true);
        }
        answered
    }

    /// A dead letter that no queue takes is none: the queue is declared again, and the letter published again.
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

impl<'a> Outgoing<'a> {
    /// An answer to a delivery.
    pub(super) fn to(delivery: &'a Delivery, trace: &'a TraceContext) -> Self {
        Self {
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
}

/// What is repeated of it where it is rejected: not more than would have been taken.
const MAX_ECHOED: usize = 255;

/// The same for every repeat of one rejection, so that repeats can be told apart: nothing of a rejected job is stored.
fn rejection_id(delivery: &Delivery, code: &str) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&message_digest(delivery, code)[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// What identifies a message, for one purpose.
pub(super) fn message_digest(delivery: &Delivery, purpose: &str) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    let body = delivery.body_sha256();
    let parts = [
        merchant_id(delivery).as_bytes(),
        delivery.message_id().unwrap_or_default().as_bytes(),
        delivery.correlation_id().unwrap_or_default().as_bytes(),
        // A dead letter that was moved back is a new try.
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
