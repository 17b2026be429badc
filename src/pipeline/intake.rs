//! A delivery becomes a record, or is refused in public; only then is it acknowledged.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::digest;
use bytes::Bytes;
use time::OffsetDateTime;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::{Pipeline, outbox::Outgoing};
use crate::{
    broker::{Delivery, Message, PublishError},
    connector::Account,
    domain::{CreateLink, EventType, TraceContext, event_time},
    limits::Slot,
    store::{Accepted, Hold, NewLink, StoreError},
    wire::{self, Rejection, RejectionCode},
};

impl Pipeline {
    /// One delivery, from the queue to its end. `place` is its place among the jobs in flight.
    ///
    /// Boxed: what few jobs need. A job that waits takes as much memory as the largest thing that it may come to.
    pub(super) async fn take(self: Arc<Self>, delivery: Box<Delivery>, place: Slot) {
        if delivery.redeliveries() >= self.settings.max_deliveries
            && !Box::pin(self.is_known(&delivery)).await
        {
            let deliveries = delivery.redeliveries() + 1;
            let message = format!("The message was delivered {deliveries} times and never accepted.");
            let poison = Rejection { code: RejectionCode::InvalidJob, message, field: None };
            return Box::pin(self.reject(&delivery, &poison)).await;
        }
        let (job, account) = match self.read(&delivery) {
            Ok(read) => read,
            Err(rejection) => return Box::pin(self.reject(&delivery, &rejection)).await,
        };
        let Some((hold, slot)) = self.hold(account).await else {
            // Stopped before it was taken in: it stays the broker's.
            return;
        };
        let new = NewLink {
            merchant_id: merchant_id(&delivery).to_owned(),
            connector: account.name.to_string(),
            job,
            reply_to: delivery.reply_to().map(str::to_owned),
            correlation_id: delivery.correlation_id().or(delivery.message_id()).map(str::to_owned),
            trace: trace(&delivery),
            hold,
        };
        // While the database is away nothing is accepted and nothing acknowledged; stopped meanwhile, the delivery
        // goes back to the queue, and finds its row there if it was written after all.
        let Some(accepted) = self.until_long_stopped(Box::pin(self.store.accept(new))).await else { return };
        match accepted.inspect(|accepted| self.metrics.accepted(accepted)) {
            Ok(Accepted::New(link)) => {
                delivery.acknowledge();
                drop(delivery);
                if let Some(slot) = slot {
                    self.finish(link, account, slot, Some(place)).await;
                }
            }
            Ok(Accepted::Parked | Accepted::InProgress) => delivery.acknowledge(),
            Ok(Accepted::Finished { event_id, event_type, result }) => {
                Box::pin(self.replay(&delivery, account, event_id, event_type, result.into())).await;
            }
            Ok(Accepted::Conflict { fields }) => Box::pin(self.reject(&delivery, &conflict(&fields))).await,
            // The worker stops: it goes back with its connection.
            Err(error @ StoreError::Unusable(_)) => self.report(&error),
            // It comes again; where that never works, it is taken for poison after so many deliveries, and told.
            Err(error) => {
                self.report(&error);
                self.sleep(self.settings.publish_pause).await;
                delivery.give_back();
            }
        }
    }

    /// Is there a record of it already? Then it was accepted, and only its acknowledgement was lost.
    async fn is_known(&self, delivery: &Delivery) -> bool {
        let id = wire::claimed_identifier(&delivery.body, delivery.message_id());
        let Some(id) = id else { return false };
        let known = pin!(self.store.knows(merchant_id(delivery), &id));
        let asked = self.until_long_stopped(known).await;
        // Where that cannot be told it is not refused.
        !matches!(asked, Some(Ok(false)))
    }

    fn read(&self, delivery: &Delivery) -> Result<(Box<CreateLink>, &Account), Rejection> {
        let invalid = |field: &str, message: &str| Rejection {
            code: RejectionCode::InvalidJob,
            message: message.to_owned(),
            field: Some(field.to_owned()),
        };
        if delivery.content_type().is_some_and(|kind| !is_json(kind)) {
            return Err(invalid("content_type", "The content type is not application/json."));
        }
        // A number that was meant for an identifier, passed over, would make it another merchant's payout.
        for name in ["x-merchant-id", "x-connector"] {
            if delivery.is_unclear(name) {
                return Err(invalid(name, "The header is not one text."));
            }
        }
        // What stands outside the body goes into the record as well.
        for (name, value) in [
            ("x-merchant-id", Some(merchant_id(delivery))),
            ("reply_to", delivery.reply_to()),
            ("correlation_id", delivery.correlation_id()),
        ] {
            if value.is_some_and(|value| value.len() > 255 || value.chars().any(char::is_control)) {
                return Err(invalid(name, "It is longer than 255 bytes or has control characters."));
            }
        }
        if delivery.reply_to().is_some_and(|queue| self.settings.names.is_own_queue(queue)) {
            return Err(invalid("reply_to", "The reply queue is one of the worker's own."));
        }
        let job = Box::new(wire::create_link(&delivery.body, delivery.message_id(), &self.settings.decode)?);
        if let Some(url) = &job.webhook_url
            && let Err(error) = self.webhooks.check(url.url())
        {
            return Err(invalid("webhook_url", &format!("A webhook cannot go there: {error}.")));
        }
        let account = self.connectors.choose(delivery.header("x-connector")).ok_or_else(|| Rejection {
            code: RejectionCode::UnknownConnector,
            message: "No connector of this name is configured.".to_owned(),
            field: Some("x-connector".to_owned()),
        })?;
        account.connector.supports(&job)?;
        Ok((job, account))
    }

    /// A slot to call the connector in. Where the only connector has none, the job waits for one, and those behind
    /// it in RabbitMQ; where another connector may have, it is written down without a lease after a moment, and blocks nobody.
    /// So is a job for a connector that is out of order.
    async fn hold(&self, account: &Account) -> Option<(Hold, Option<Slot>)> {
        if account.breaker.room(Instant::now()) == 0 {
            return Some((Hold::Park(self.settings.sweep_interval), None));
        }
        if let Some(slot) = account.slots.try_take() {
            return Some((Hold::Lease, Some(slot)));
        }
        if self.connectors.is_only_one() {
            let slot = self.unless_stopped(pin!(account.slots.take())).await?;
            return Some((Hold::Lease, Some(slot)));
        }
        match timeout(A_MOMENT, account.slots.take()).await {
            Ok(slot) => Some((Hold::Lease, Some(slot))),
            Err(_) => Some((Hold::Park(self.settings.sweep_interval), None)),
        }
    }

    /// The stored result, told again to whoever asks again. No second webhook.
    async fn replay(
        &self,
        delivery: &Delivery,
        account: &Account,
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
            connector: Some(&account.name),
            replayed: true,
            ..Outgoing::to(delivery, &trace)
        };
        if self.answer(&result, None).await {
            delivery.acknowledge();
            self.metrics.replayed();
        }
    }

    /// Refused in public: the rejection is published, then the job dead-lettered with the reason, then
    /// acknowledged. A crash in between makes a second copy, never a loss.
    async fn reject(&self, delivery: &Delivery, rejection: &Rejection) {
        let code = rejection.code.as_str();
        let field = rejection.field.as_deref().unwrap_or_default();
        let merchant_payout_id = wire::claimed_identifier(&delivery.body, delivery.message_id());
        tracing::warn!(
            error.code = code,
            error.field = field,
            merchant_payout_id = merchant_payout_id.as_deref().unwrap_or_default(),
            reason = rejection.message,
            "job refused"
        );
        let trace = trace(delivery);
        let to = Outgoing::to(delivery, &trace);
        let result = Outgoing {
            id: rejection_id(delivery, code),
            event_type: EventType::Rejected,
            timestamp: OffsetDateTime::now_utc().unix_timestamp(),
            body: wire::rejection(merchant_payout_id.as_deref(), rejection),
            reply_to: to.reply_to.filter(|queue| !self.settings.names.is_own_queue(queue)),
            ..to
        };
        let reason = match field {
            "" => rejection.message.clone(),
            field => format!("{field}: {}", rejection.message),
        };
        let dead_letter = delivery.dead_letter(&self.settings.names.dead_exchange, code, &reason);
        let is_ours_to_publish = dead_letter.is_some();
        if !self.answer(&result, dead_letter).await {
            return;
        }
        if is_ours_to_publish {
            delivery.acknowledge();
        } else {
            delivery.reject();
        }
        self.metrics.rejected(rejection.code);
    }

    /// Answers a delivery that becomes no record, repeating until the broker has it all. Stopped meanwhile, the
    /// delivery is not to be settled: it goes back to the queue.
    async fn answer(&self, result: &Outgoing<'_>, dead_letter: Option<Box<Message>>) -> bool {
        let answered = async {
            while let Err(error) = self.try_answer(result, dead_letter.clone()).await {
                tracing::warn!(%error, "not published yet, trying again");
                sleep(self.settings.publish_pause).await;
            }
        };
        self.unless_stopped(pin!(answered)).await.is_some()
    }

    async fn try_answer(
        &self,
        result: &Outgoing<'_>,
        dead_letter: Option<Box<Message>>,
    ) -> Result<(), PublishError> {
        self.publish(result).await?;
        if let Some(dead_letter) = dead_letter {
            self.publisher.publish(dead_letter, self.settings.publish_patience).await?;
        }
        Ok(())
    }
}

impl<'a> Outgoing<'a> {
    /// An answer to a delivery.
    fn to(delivery: &'a Delivery, trace: &'a TraceContext) -> Self {
        Self {
            id: Uuid::nil(),
            event_type: EventType::Rejected,
            timestamp: 0,
            body: Bytes::new(),
            reply_to: delivery.reply_to(),
            correlation_id: delivery.correlation_id().or(delivery.message_id()),
            merchant_id: Some(merchant_id(delivery)).filter(|id| id.len() <= MOST_ECHOED).unwrap_or_default(),
            connector: delivery.header("x-connector").filter(|name| name.len() <= MOST_ECHOED),
            trace,
            replayed: false,
        }
    }
}

/// While it looks for what is due the sweeper has all slots that are free: no job is to wait for the next sweep for that.
const A_MOMENT: Duration = Duration::from_millis(20);

fn merchant_id(delivery: &Delivery) -> &str {
    delivery.header("x-merchant-id").unwrap_or_default()
}

/// What is told of it again where it is refused: not more than would have been taken.
const MOST_ECHOED: usize = 255;

fn trace(delivery: &Delivery) -> TraceContext {
    // Whatever else it is, it is passed on as it came; what no header can carry is not.
    let is_sound =
        |value: &&str| (1..=512).contains(&value.len()) && value.bytes().all(|b| (b' '..=b'~').contains(&b));
    let header = |name| delivery.header(name).filter(is_sound);
    TraceContext {
        traceparent: header("traceparent").map(str::to_owned),
        tracestate: header("tracestate").map(str::to_owned),
    }
}

fn is_json(content_type: &str) -> bool {
    content_type.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

fn conflict(fields: &[String]) -> Rejection {
    let message = if fields.is_empty() {
        "Another request was accepted under this key; it has been erased since, so the fields cannot be named.".into()
    } else {
        format!("Another request was accepted under this key; these fields differ: {}.", fields.join(", "))
    };
    Rejection {
        code: RejectionCode::IdempotencyConflict,
        message,
        field: (!fields.is_empty()).then(|| fields.join(", ")),
    }
}

/// The same for every repeat of one refusal, so that repeats can be told: nothing of a refused job is stored.
fn rejection_id(delivery: &Delivery, code: &str) -> Uuid {
    let mut context = digest::Context::new(&digest::SHA256);
    let parts = [
        merchant_id(delivery).as_bytes(),
        delivery.message_id().unwrap_or_default().as_bytes(),
        delivery.correlation_id().unwrap_or_default().as_bytes(),
        code.as_bytes(),
        &delivery.body,
    ];
    for part in parts {
        context.update(&part.len().to_be_bytes());
        context.update(part);
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&context.finish().as_ref()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}
