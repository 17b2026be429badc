//! An event, told: its result published and its webhook posted, each without waiting for the other.

use std::time::Duration;

use bytes::Bytes;
use tokio::{join, task::yield_now, time::Instant};
use uuid::Uuid;

use super::Pipeline;
use crate::{
    broker::{Properties, PublishError, Route},
    domain::{Attempt, AttemptKind, EventType, TraceContext, event_time},
    store::{DueEvent, StoreError, Telling, WebhookState},
    webhook::{Post, Posted, Then},
    wire,
};

/// A result on its way out, whether it comes from the outbox, from a replay or from a refusal.
pub(super) struct Outgoing<'a> {
    pub(super) id: Uuid,
    pub(super) event_type: EventType,
    pub(super) timestamp: i64,
    pub(super) body: Bytes,
    pub(super) reply_to: Option<&'a str>,
    pub(super) correlation_id: Option<&'a str>,
    pub(super) merchant_id: &'a str,
    pub(super) connector: Option<&'a str>,
    pub(super) trace: &'a TraceContext,
    pub(super) replayed: bool,
}

/// How a post left its webhook.
struct PostedWebhook {
    state: WebhookState,
    attempts: u32,
    again_after: Option<Duration>,
    attempt: Option<Attempt>,
}

impl Pipeline {
    /// Publishes and posts what is left of the event, then writes down how far that came. Whatever is left comes
    /// due again, under the same id.
    pub(super) async fn tell_event(&self, event: Box<DueEvent>) -> Result<(), StoreError> {
        // The result is on its way before anything is done for the webhook: who waits for it should not wait for both.
        let post_event = async {
            yield_now().await;
            self.post_event(&event).await
        };
        let (published, posted) = join!(self.publish_event(&event), post_event);
        let telling = Telling {
            published,
            webhook: posted.state,
            webhook_attempts: posted.attempts,
            posts: posted.attempt.into_iter().collect(),
            publish_after: (!published).then_some(self.settings.publish_pause),
            post_after: posted.again_after,
        };
        self.store.delivered(&event, telling).await
    }

    async fn publish_event(&self, event: &DueEvent) -> bool {
        if event.published {
            return true;
        }
        let result = Outgoing {
            id: event.id,
            event_type: event.event_type,
            timestamp: event_time(event.id).unix_timestamp(),
            body: event.result.clone(),
            reply_to: event.reply_to.as_deref(),
            correlation_id: event.correlation_id.as_deref(),
            merchant_id: &event.merchant_id,
            connector: Some(&event.connector),
            trace: &event.trace,
            replayed: false,
        };
        match self.publish(&result).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(event.id = %event.id, %error, "the result is not published yet");
                false
            }
        }
    }

    /// On the results exchange, and to `reply_to` where the job named one. A result that no queue is bound for is
    /// kept in the unrouted queue; a requester that has gone is not waited for.
    pub(super) async fn publish(&self, result: &Outgoing<'_>) -> Result<(), PublishError> {
        let (names, patience) = (&self.settings.names, self.settings.publish_patience);
        let message = |exchange: &str, routing_key: &str| {
            properties(result).message(exchange, routing_key, result.body.clone())
        };
        let on_the_exchange = async {
            let exchange = &names.results_exchange;
            match self.publisher.publish(message(exchange, result.event_type.as_str()), patience).await? {
                route @ Route::Queued => Ok(route),
                route @ Route::Returned => {
                    let exchange = &names.unrouted_exchange;
                    self.publisher.publish(message(exchange, result.event_type.as_str()), patience).await?;
                    Ok(route)
                }
            }
        };
        let to_the_requester = async {
            let Some(reply_to) = result.reply_to else { return Ok(()) };
            let routed = self.publisher.publish(message("", reply_to), patience).await?;
            // The broker also returns what it delivers to a direct reply-to, so this is no certainty there.
            if routed == Route::Returned && !reply_to.starts_with("amq.rabbitmq.reply-to") {
                tracing::info!(event.id = %result.id, "nobody waits for the reply any more");
            }
            Ok(())
        };
        // Boxed: few jobs ask for it.
        let (told, replied) = join!(on_the_exchange, Box::pin(to_the_requester));
        self.metrics.published(&told);
        told.and(replied)
    }

    async fn post_event(&self, event: &DueEvent) -> PostedWebhook {
        let left = |again_after| PostedWebhook {
            state: event.webhook,
            attempts: event.webhook_attempts,
            again_after,
            attempt: None,
        };
        let Some(url) = event.webhook_url.as_ref().filter(|_| event.webhook == WebhookState::Pending) else {
            return left(None);
        };
        if !event.webhook_is_due {
            return left(Some(event.webhook_due_in));
        }
        let post = Post {
            id: event.id,
            merchant_id: &event.merchant_id,
            url,
            body: wire::webhook(event.event_type, event_time(event.id), &event.result),
            trace: &event.trace,
        };
        let (started_at, started) = (event.lease.now(), Instant::now());
        let posted = self.webhooks.post(post).await;
        let number = event.webhook_attempts + 1;
        let (state, again_after, status_code, outcome, detail) = match posted {
            Posted::PutOff => return left(Some(self.settings.publish_pause)),
            Posted::Delivered { status_code, body } => {
                (WebhookState::Delivered, None, status_code, "delivered", body)
            }
            Posted::Gone { status_code } => {
                tracing::warn!(event.id = %event.id, "the merchant wants no more webhooks there (410)");
                (WebhookState::Abandoned, None, status_code, "gone", None)
            }
            Posted::Failed { status_code, error, retry_after } => {
                match self.webhooks.then(number, retry_after) {
                    Then::Again(after) => {
                        tracing::info!(event.id = %event.id, attempt.number = number, error, "webhook failed, to be posted again");
                        (WebhookState::Pending, Some(after), status_code, "failed", Some(error))
                    }
                    Then::GiveUp => {
                        tracing::warn!(event.id = %event.id, attempt.number = number, error, "webhook failed for good");
                        (WebhookState::Abandoned, None, status_code, "failed", Some(error))
                    }
                }
            }
        };
        self.metrics.posted(state);
        let (kind, took) = (AttemptKind::Post, started.elapsed());
        let attempt = Attempt { kind, number, started_at, took, status_code, outcome, detail };
        PostedWebhook { state, attempts: number, again_after, attempt: Some(attempt) }
    }
}

fn properties<'a>(result: &Outgoing<'a>) -> Properties<'a> {
    Properties {
        message_id: result.id.to_string(),
        kind: result.event_type.as_str(),
        correlation_id: result.correlation_id,
        timestamp: result.timestamp,
        headers: [
            ("x-merchant-id", (!result.merchant_id.is_empty()).then_some(result.merchant_id)),
            ("x-connector", result.connector),
            ("x-replayed", result.replayed.then_some("true")),
            ("traceparent", result.trace.traceparent.as_deref()),
            ("tracestate", result.trace.tracestate.as_deref()),
        ],
    }
}
