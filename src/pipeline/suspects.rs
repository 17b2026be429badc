//! Processes messages that came back several times: alone, so that a crash is evidence against them.

use std::time::Duration;

use super::{Pipeline, reading::Readable, reject::message_digest, work::Work};
use crate::{
    domain::{LinkRequestKind, Rejection, RejectionCode},
    rabbitmq::Delivery,
};

impl Pipeline {
    /// Reads a delivery while no suspect message is processed: a crash is then evidence against the suspect.
    pub(super) async fn read_beside_no_suspect(
        &self,
        delivery: &Delivery,
    ) -> Result<Readable<'_>, Rejection> {
        let _no_suspect = self.suspects.read().await;
        self.read(delivery)
    }

    /// Processes a message that came back several times: alone, and after its begin is stored.
    pub(super) async fn take_suspect(&self, delivery: &Delivery) -> Option<Work<'_>> {
        let _alone = self.suspects.write().await;
        if delivery.is_stale() {
            return None;
        }
        let digest = message_digest(delivery, "suspect");
        let unfinished = self.begin_suspect(&digest).await?;
        let work = self.process_suspect(delivery, unfinished).await;
        self.end_suspect(&digest).await;
        work
    }

    /// Processes a message about a link that came back several times, as [`Pipeline::take_suspect`] does with a job.
    pub(super) async fn take_suspect_request(&self, delivery: &Delivery, kind: LinkRequestKind) {
        let _alone = self.suspects.write().await;
        if delivery.is_stale() {
            return;
        }
        let digest = message_digest(delivery, "suspect");
        let Some(unfinished) = self.begin_suspect(&digest).await else { return };
        if unfinished < self.settings.max_unfinished_begins {
            self.store_link_request(delivery, kind, self.read_link_request(delivery, kind)).await;
        } else {
            self.reject_request_unless_stored(delivery, kind, &poison(unfinished)).await;
        }
        self.end_suspect(&digest).await;
    }

    async fn begin_suspect(&self, digest: &[u8; 32]) -> Option<u32> {
        match self.store.begin_suspect(digest).await {
            Ok(unfinished) => Some(unfinished),
            Err(error) => {
                self.report(&error);
                None
            }
        }
    }

    /// Deletes the evidence about a message that the worker survived. Its next delivery counts from zero.
    async fn end_suspect(&self, digest: &[u8; 32]) {
        let ended = self.until_long_stopped(Box::pin(self.store.end_suspect(digest))).await;
        if let Some(Err(error)) = ended {
            self.report(&error);
        }
    }

    /// Processes a suspect message. `unfinished`: how often its processing began before without an end.
    async fn process_suspect(&self, delivery: &Delivery, unfinished: u32) -> Option<Work<'_>> {
        let limit = self.settings.max_unfinished_begins;
        if unfinished < limit {
            if Box::pin(self.is_rejected_again(delivery)).await? {
                return None;
            }
            // It waits for no permit, because all other deliveries wait for it.
            return self.take_read(delivery, self.read(delivery), Duration::ZERO).await;
        }
        let poison = poison(unfinished);
        if unfinished == limit {
            // Another version may have accepted it before. Finding out requires reading it: once.
            self.reject_unless_accepted(delivery, &poison).await;
        } else {
            self.reject_unread(delivery, &poison).await;
        }
        None
    }
}

/// Returns the rejection of a message whose processing began `unfinished` times without an end.
fn poison(unfinished: u32) -> Rejection {
    let message = format!(
        "Processing of this message began {unfinished} times and never ended. Correct the message, or report a \
         defect of the worker, before publishing it again."
    );
    Rejection { code: RejectionCode::InvalidJob, message, field: None }
}

/// A message that came back this often is processed alone. The count is no evidence: restarts and reconnects raise it too.
const SUSPICIOUS: u64 = 3;

impl Delivery {
    /// Returns whether the message came back so often that it is processed alone.
    pub(super) fn is_suspect(&self) -> bool {
        self.deliveries_before() >= SUSPICIOUS
    }
}
