//! One job, from its delivery to its delivered webhook. The pipeline is read from here: each step is a verb with its own
//! file.
//!
//! | step | file | other outcome |
//! | --- | --- | --- |
//! | `read` | `reading.rs` | an invalid job is rejected (`reject.rs`), a suspect one is read alone (`suspects.rs`) |
//! | `admit` | `intake.rs` | a job that cannot be called now is parked: its connector has no permit, is at its rate limit or paused, or its merchant has its share |
//! | `accept` | `intake.rs` | a duplicate gets its record's result |
//! | `settle` | `intake.rs` | a job without a row returns to the queue, is rejected, or becomes a dead letter |
//! | `create_link` | `create_link.rs` | a record whose next call is far away is postponed |
//! | `deliver` | `outbox.rs` | what is not published or delivered becomes due again |
//!
//! A message that cancels a link or asks for its status is stored, and the steps above do not run for it
//! (`link_requests.rs`).
//!
//! The sweeper enters with `process_record` and `deliver_due`, so recovery has no code path of its own. A permit is part of
//! the value that needs it ([`Incoming`], [`Work`], [`Deliverable`](super::work::Deliverable)), and is free again once
//! that value is dropped.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tracing::Instrument;

use super::{
    Pipeline,
    reading::Readable,
    work::{Incoming, Work},
};
use crate::{
    domain::{LinkRequestKind, Rejection},
    rabbitmq::{Delivery, Source},
};

/// Limit of a delivery's wait for its connector. With it, the backlog of a fast connector stays in RabbitMQ and costs no
/// second write.
const ADMISSION: Duration = Duration::from_secs(2);

impl Pipeline {
    /// Processes one delivery completely.
    pub(super) async fn process(self: Arc<Self>, incoming: Incoming) {
        // The message and its permit end with this step: a record that waits for a connector needs neither.
        let Some(work) = self.take_in(incoming).await else { return };
        self.process_record(work).await;
    }

    /// Turns a delivery into a record, and settles it. Returns the record if it can be processed at once.
    async fn take_in(&self, incoming: Incoming) -> Option<Work<'_>> {
        let delivery = &incoming.delivery;
        let taken = AssertUnwindSafe(self.take(delivery)).catch_unwind().await;
        taken.unwrap_or_else(|_| {
            tracing::error!("delivery handler panicked, delivery requeued");
            self.metrics.abandoned("panic");
            delivery.give_back();
            None
        })
    }

    /// Takes a delivery. Rare steps are boxed, because the future of every waiting job is as large as its largest step.
    async fn take(&self, delivery: &Delivery) -> Option<Work<'_>> {
        if delivery.is_stale() {
            return None;
        }
        let request = match delivery.source {
            Source::Jobs => None,
            Source::Cancel => Some(LinkRequestKind::Cancel),
            Source::Status => Some(LinkRequestKind::Status),
        };
        if let Some(kind) = request {
            Box::pin(self.take_link_request(delivery, kind)).await;
            return None;
        }
        if delivery.is_suspect() {
            return Box::pin(self.take_suspect(delivery)).await;
        }
        if delivery.is_redelivered && Box::pin(self.is_rejected_again(delivery)).await? {
            return None;
        }
        let readable = self.read_beside_no_suspect(delivery).await;
        self.take_read(delivery, readable, ADMISSION).await
    }

    /// Takes a delivery that was read. `patience`: limit of the wait for its connector.
    pub(super) async fn take_read<'a>(
        &'a self,
        delivery: &Delivery,
        readable: Result<Readable<'a>, Rejection>,
        patience: Duration,
    ) -> Option<Work<'a>> {
        let job = self.unless_rejected(delivery, readable).await?;
        let admission = self.admit(delivery, &job, patience).await?;
        let stored = self.accept(delivery, job, admission).await?;
        self.settle(delivery, stored).await
    }

    /// Processes an open record: creates its link, then delivers its event.
    ///
    /// Not an `async fn`, because its future would store the arguments twice.
    pub(super) fn process_record<'a>(&'a self, work: Work<'a>) -> impl Future<Output = ()> + Send + 'a {
        let span = work.span();
        async move {
            match self.create_link(work).await {
                // Boxed: otherwise every record that waits for a connector would need three times the memory.
                Ok(Some(event)) => Box::pin(self.deliver(event)).await,
                Ok(None) => {}
                Err(error) => self.report(&error),
            }
        }
        .instrument(span)
    }
}
