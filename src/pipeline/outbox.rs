//! Delivers events: publishes the result and delivers the webhook, neither waiting for the other.

use std::{pin::pin, time::Duration};

use tokio::{
    join,
    task::yield_now,
    time::{Instant, timeout},
};
use tracing::Instrument;

use super::{Pipeline, work::Deliverable};
use crate::{
    contract,
    domain::{Attempt, AttemptKind, AttemptOutcome, event_time, retry::jittered},
    limits::{Lane, PooledPermit},
    postgres::{DueEvent, EventProgress, StoreError, WebhookState},
    rabbitmq::{PublishError, ResultMessage, Route},
    webhooks::{Admitted, Post, Posted, Then},
};

/// How far the publication of an event has come.
#[derive(Clone, Copy)]
struct Publication {
    published: bool,
    reply_due: bool,
    attempts: u32,
    again_after: Option<Duration>,
}

/// The state of a webhook after an attempt.
struct PostedWebhook {
    state: WebhookState,
    attempts: u32,
    again_after: Option<Duration>,
    attempt: Option<Attempt>,
    /// The webhook of the record's previous event goes first.
    waits: bool,
}

/// If a webhook takes longer than this, the publication is stored first.
const TOGETHER: Duration = Duration::from_millis(500);
/// The pause between two publications of one event doubles up to this.
const MAX_PUBLISH_PAUSE: Duration = Duration::from_mins(5);

impl Pipeline {
    /// Delivers an event. Its permit is released as soon as the result is published, so a slow webhook receiver delays
    /// no other results.
    pub(super) async fn deliver(&self, deliverable: Deliverable) {
        let Deliverable { event, publishing, lane } = deliverable;
        if let Err(error) = self.deliver_event(&event, publishing, lane).await {
            self.report(&error);
        }
    }

    /// Delivers an event that the sweeper claimed, in a span of its own.
    pub(super) async fn deliver_due(&self, deliverable: Deliverable) {
        let event = &deliverable.event;
        let span = tracing::info_span!(
            "event",
            payout_link.id = %event.payout_link_id,
            merchant.id = event.merchant_id,
            merchant_payout_id = event.merchant_payout_id,
            connector.name = event.connector,
            event.id = %event.id,
        );
        self.deliver(deliverable).instrument(span).await;
    }

    /// Publishes the result and delivers the webhook as far as they are due, then stores the progress. The rest
    /// becomes due again under the same id.
    async fn deliver_event(
        &self,
        event: &DueEvent,
        publishing: PooledPermit,
        lane: Lane,
    ) -> Result<(), StoreError> {
        // The result is published first: its recipient should not wait for the webhook.
        let mut post_event = pin!(async {
            yield_now().await;
            self.post_event(event, lane).await
        });
        let publish_event = async {
            let publication = self.publish_event(event).await;
            drop(publishing);
            publication
        };
        let (publication, posted) = join!(publish_event, timeout(TOGETHER, &mut post_event));
        let posted = match posted {
            Ok(posted) => posted,
            Err(_) => {
                self.store.delivered(event, published_alone(event, publication)).await?;
                post_event.await
            }
        };
        let progress = EventProgress {
            published: publication.published,
            reply_due: publication.reply_due,
            publish_attempts: publication.attempts,
            keeps_lease: false,
            webhook: posted.state,
            webhook_attempts: posted.attempts,
            webhook_calls: posted.attempt.into_iter().collect(),
            publish_after: publication.again_after,
            webhook_after: posted.again_after,
            webhook_waits: posted.waits,
            result_waits: event.result_waits,
        };
        if self.store.delivered(event, progress).await? {
            self.look_soon.notify_one();
        }
        Ok(())
    }

    async fn publish_event(&self, event: &DueEvent) -> Publication {
        let mut publication = Publication {
            published: event.published,
            reply_due: event.reply_due,
            attempts: event.publish_attempts,
            again_after: None,
        };
        if event.published && !event.reply_due {
            return publication;
        }
        // The event is due for its webhook, or its result waits for the previous one. A queue that rejected the result is not
        // tried early, because every other queue would get the result once more.
        if !event.publish_due_in.is_zero() {
            publication.again_after = Some(event.publish_due_in);
            return publication;
        }
        let result = ResultMessage {
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
        // Both at once. If one of them succeeds, it is not published again when the other is retried.
        let on_the_exchange = async {
            if event.published { Ok(()) } else { self.publish(&result, self.settings.publish_patience).await }
        };
        // Boxed: few jobs have a `reply_to`.
        let to_the_requester = async {
            match result.reply_to {
                Some(_) => Box::pin(self.reply(&result)).await,
                None => Ok(()),
            }
        };
        let (published, replied) = join!(on_the_exchange, to_the_requester);
        publication.published = published.is_ok();
        publication.reply_due = replied.is_err() && !self.is_too_old_for_a_reply(event);
        if let Err(error) = &published {
            tracing::warn!(%error, "result not published, will retry");
        }
        if let Err(error) = &replied {
            tracing::warn!(%error, will_retry = publication.reply_due, "reply not published");
        }
        if !publication.published || publication.reply_due {
            // Only a rejection counts, not a broker that is away.
            if self.publisher.is_up() {
                publication.attempts = publication.attempts.saturating_add(1);
            }
            publication.again_after = Some(self.publish_pause(publication.attempts));
        }
        publication
    }

    /// Returns whether the event is so old that its requester no longer waits for the reply.
    fn is_too_old_for_a_reply(&self, event: &DueEvent) -> bool {
        event.lease.time_at(Instant::now()) - event_time(event.id) >= self.settings.retry.max_age
    }

    fn publish_pause(&self, attempts: u32) -> Duration {
        jittered(doubled(self.settings.publish_pause, attempts), MAX_PUBLISH_PAUSE)
    }

    /// Publishes to the results exchange. A result without a queue goes to the unrouted queue.
    pub(super) async fn publish(
        &self,
        result: &ResultMessage<'_>,
        patience: Duration,
    ) -> Result<(), PublishError> {
        let exchange = &self.settings.names.results_exchange;
        let message = result.for_route(exchange, result.event_type.as_str());
        let published = match self.publisher.publish(message, patience).await {
            Ok(Route::Queued) => Ok(Route::Queued),
            Ok(Route::Returned) => self.publish_unrouted(result, patience).await.map(|()| Route::Returned),
            Err(error) => Err(error),
        };
        self.metrics.published(&published);
        published.map(drop)
    }

    /// Publishes to the worker's own queue for results without a queue.
    pub(super) async fn publish_unrouted(
        &self,
        result: &ResultMessage<'_>,
        patience: Duration,
    ) -> Result<(), PublishError> {
        let message = result.for_route(&self.settings.names.unrouted_exchange, result.event_type.as_str());
        match self.publisher.publish(message, patience).await? {
            Route::Queued => Ok(()),
            Route::Returned => {
                self.publisher.declare_topology();
                Err(PublishError::NotConfirmed("no queue is bound to the unrouted exchange".into()))
            }
        }
    }

    /// Publishes to `reply_to`. A queue that no longer exists is not an error.
    pub(super) async fn reply(&self, result: &ResultMessage<'_>) -> Result<(), PublishError> {
        let Some(reply_to) = result.reply_to else { return Ok(()) };
        let routed =
            self.publisher.publish(result.for_route("", reply_to), self.settings.publish_patience).await?;
        // For a direct reply-to, the broker also returns messages that it delivers.
        if routed == Route::Returned && !reply_to.starts_with("amq.rabbitmq.reply-to") {
            tracing::info!(event.id = %result.id, "reply queue is gone, reply dropped");
        }
        Ok(())
    }

    /// Publishes a reply that is not stored: once, with a short limit.
    pub(super) async fn reply_once(&self, result: &ResultMessage<'_>) {
        if result.reply_to.is_none() {
            return;
        }
        let replied = timeout(Duration::from_secs(2), self.reply(result)).await;
        if !matches!(replied, Ok(Ok(()))) {
            tracing::warn!(event.id = %result.id, "reply dropped: its queue did not accept it");
            self.metrics.reply_dropped();
        }
    }

    async fn post_event(&self, event: &DueEvent, lane: Lane) -> PostedWebhook {
        let left = |again_after| PostedWebhook {
            state: event.webhook,
            attempts: event.webhook_attempts,
            again_after,
            attempt: None,
            waits: false,
        };
        let Some(url) = event.webhook_url.as_ref().filter(|_| event.webhook == WebhookState::Pending) else {
            return left(None);
        };
        if event.webhook_waits {
            return PostedWebhook { waits: true, ..left(None) };
        }
        if !event.webhook_is_due {
            return left(Some(event.webhook_due_in));
        }
        // A webhook that waits for a permit of its host holds no permit that another needs.
        let Some(_delivering) = self.delivering.try_take(lane) else { return left(Some(NO_PERMIT_DELAY)) };
        let most = event.lease.left_at(Instant::now()).saturating_sub(self.webhooks.longest_post());
        let permits = match self.webhooks.admit(&event.merchant_id, url, lane, most).await {
            Admitted::Yes(permits) => permits,
            Admitted::Later(after) => return left(Some(after)),
        };
        // A webhook attempt that outlasts the lease could be made twice.
        if event.lease.left_at(Instant::now()) <= self.webhooks.longest_post() {
            return left(Some(Duration::ZERO));
        }
        let post = Post {
            id: event.id,
            merchant_id: &event.merchant_id,
            url,
            body: contract::webhook(event.event_type, event_time(event.id), &event.result),
            trace: &event.trace,
        };
        let (started_at, started) = (event.lease.time_at(Instant::now()), Instant::now());
        let posted = self.webhooks.post(permits, post).await;
        let number = event.webhook_attempts + 1;
        let (state, again_after, status_code, outcome, detail) = match posted {
            Posted::Delivered { status_code, body } => {
                (WebhookState::Delivered, None, status_code, AttemptOutcome::Delivered, body)
            }
            Posted::Gone { status_code } => {
                tracing::warn!(attempt.number = number, "webhook abandoned: the merchant answered 410 Gone");
                (WebhookState::Abandoned, None, status_code, AttemptOutcome::Gone, None)
            }
            Posted::Failed { status_code, error, retry_after } => {
                match self.webhooks.then(number.saturating_sub(event.redelivered_after), retry_after) {
                    Then::Again(after) => {
                        tracing::info!(attempt.number = number, error, "webhook delivery failed, will retry");
                        (WebhookState::Pending, Some(after), status_code, AttemptOutcome::Failed, Some(error))
                    }
                    Then::GiveUp => {
                        tracing::warn!(
                            attempt.number = number,
                            error,
                            "webhook abandoned: the last attempt failed"
                        );
                        (WebhookState::Abandoned, None, status_code, AttemptOutcome::Failed, Some(error))
                    }
                }
            }
        };
        self.metrics.posted(state);
        let (kind, took) = (AttemptKind::Post, started.elapsed());
        let attempt = Attempt { kind, number, started_at, took, status_code, outcome, detail };
        PostedWebhook { state, attempts: number, again_after, attempt: Some(attempt), waits: false }
    }
}

/// Returns the pause after the `attempts`th publication that failed.
fn doubled(first: Duration, attempts: u32) -> Duration {
    let times = 1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
    first.saturating_mul(times).min(MAX_PUBLISH_PAUSE)
}

fn published_alone(event: &DueEvent, publication: Publication) -> EventProgress {
    EventProgress {
        published: publication.published,
        reply_due: publication.reply_due,
        publish_attempts: publication.attempts,
        keeps_lease: true,
        webhook: event.webhook,
        webhook_attempts: event.webhook_attempts,
        webhook_calls: Vec::new(),
        publish_after: None,
        webhook_after: None,
        webhook_waits: false,
        result_waits: false,
    }
}

/// Delay of a webhook when too many wait for a permit.
const NO_PERMIT_DELAY: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_between_publications_doubles_up_to_five_minutes() {
        let seconds = [0, 1, 2, 3, 4, 8, 9, 10, 33, u32::MAX]
            .map(|attempts| doubled(Duration::from_secs(1), attempts).as_secs());
        assert_eq!(seconds, [1, 1, 2, 4, 8, 128, 256, 300, 300, 300]);
    }
}
