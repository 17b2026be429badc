//! Takes messages that cancel a link or ask for its status, and answers them once their answer is known.
//!
//! A message is stored before it is acknowledged. The followers carry it out: a link that is to be cancelled or asked
//! about becomes due at once. An answer goes to `reply_to` alone, at least once, under the same id.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Pipeline,
    headers::{merchant_id, trace},
    reject::message_digest,
};
use crate::{
    contract,
    domain::{
        EventType, LinkRequest, LinkRequestAnswer, LinkRequestKind, Rejection, RejectionCode,
        link_request_answer, retry::jittered,
    },
    postgres::{AnsweredRequest, NewLinkRequest, StoreError},
    rabbitmq::{Delivery, ResultMessage},
};

/// Pause between two rounds without an answer.
const INTERVAL: Duration = Duration::from_secs(1);

impl Pipeline {
    /// Takes a message about a link: stores it, then acknowledges it. An invalid one, and one about an unknown record, is
    /// rejected.
    pub(super) async fn take_link_request(&self, delivery: &Delivery, kind: LinkRequestKind) {
        if delivery.is_suspect() {
            return Box::pin(self.take_suspect_request(delivery, kind)).await;
        }
        let request = {
            let _no_suspect = self.suspects.read().await;
            self.read_link_request(delivery, kind)
        };
        self.store_link_request(delivery, kind, request).await;
    }

    /// Stores a message about a link that was read, or rejects it.
    pub(super) async fn store_link_request(
        &self,
        delivery: &Delivery,
        kind: LinkRequestKind,
        request: Result<LinkRequest, Rejection>,
    ) {
        let request = match request {
            Ok(request) => request,
            Err(rejection) => {
                let merchant_payout_id = contract::claimed_identifier(&delivery.body, None);
                return self.reject_as(delivery, &rejection, merchant_payout_id.as_deref()).await;
            }
        };
        let trace = trace(delivery);
        let new = NewLinkRequest {
            id: request_id(delivery, kind),
            merchant_id: merchant_id(delivery),
            request: &request,
            reply_to: delivery.reply_to(),
            correlation_id: delivery.correlation_id().or(delivery.message_id()),
            trace: &trace,
        };
        match self.until_long_stopped(Box::pin(self.store.accept_link_request(&new))).await {
            // The delivery returns to the queue with its session.
            None => {}
            Some(Ok(true)) => {
                delivery.acknowledge();
                self.answer_soon.notify_one();
            }
            Some(Ok(false)) => {
                let rejection = Rejection {
                    code: RejectionCode::NotFound,
                    message: "The merchant has no payout of this merchant_payout_id.".into(),
                    field: Some("merchant_payout_id".into()),
                };
                self.reject_as(delivery, &rejection, Some(request.merchant_payout_id.as_str())).await;
            }
            Some(Err(error)) => self.not_accepted(delivery, error).await,
        }
    }

    /// Rejects a message without reading it, unless it was stored before.
    pub(super) async fn reject_request_unless_stored(
        &self,
        delivery: &Delivery,
        kind: LinkRequestKind,
        rejection: &Rejection,
    ) {
        match self.store.is_link_request_stored(request_id(delivery, kind)).await {
            Ok(true) => delivery.acknowledge(),
            Ok(false) => self.reject_as(delivery, rejection, None).await,
            Err(error) => self.report(&error),
        }
    }

    pub(super) fn read_link_request(
        &self,
        delivery: &Delivery,
        kind: LinkRequestKind,
    ) -> Result<LinkRequest, Rejection> {
        self.read_properties(delivery)?;
        contract::link_request(&delivery.body, kind, &self.settings.decode)
    }

    /// Answers a request, then deletes it. A reply queue that accepts nothing is tried again after a lease.
    async fn answer_request(&self, request: &AnsweredRequest) -> Result<(), StoreError> {
        let answer = link_request_answer(request.kind, request.state, request.status, request.is_known);
        let (event_type, body, code) = match answer {
            LinkRequestAnswer::Rejected(rejection) => {
                let body = contract::rejection(Some(&request.merchant_payout_id), &rejection);
                (EventType::Rejected, body, Some(rejection.code))
            }
            LinkRequestAnswer::NewestEvent => {
                let (event_type, result) = self.store.newest_event(request).await?;
                (event_type, Bytes::from(result), None)
            }
        };
        tracing::info!(
            merchant.id = request.merchant_id,
            merchant_payout_id = request.merchant_payout_id,
            request.kind = request.kind.as_str(),
            event.type = event_type.as_str(),
            error.code = code.map(RejectionCode::as_str).unwrap_or_default(),
            "link request answered"
        );
        let result = ResultMessage {
            id: request.id,
            event_type,
            timestamp: OffsetDateTime::now_utc().unix_timestamp(),
            body,
            reply_to: request.reply_to.as_deref(),
            correlation_id: request.correlation_id.as_deref(),
            merchant_id: &request.merchant_id,
            connector: Some(&request.connector),
            trace: &request.trace,
            replayed: false,
        };
        if let Err(error) = self.reply(&result).await {
            tracing::warn!(%error, event.id = %request.id, "answer to a link request not published, will retry");
            return Ok(());
        }
        self.store.finish_link_request(request.id, code == Some(RejectionCode::ConnectorUnavailable)).await
    }
}

/// The service that answers requests.
pub(super) struct LinkRequests {
    pipeline: Arc<Pipeline>,
    /// The accounts that follow their links.
    connectors: Vec<String>,
    is_failure_logged: bool,
}

impl LinkRequests {
    pub(super) fn new(pipeline: Arc<Pipeline>) -> Self {
        let following = pipeline.connectors.iter().filter(|account| account.follow.enabled);
        let connectors = following.map(|account| account.name.to_string()).collect();
        Self { pipeline, connectors, is_failure_logged: false }
    }

    /// Answers requests until the pipeline is stopped.
    pub(super) async fn run(mut self) {
        while !self.pipeline.is_stopping() {
            let answered = self.run_once().await;
            match answered {
                Ok(count) if count > 0 => {}
                Ok(_) => self.wait().await,
                Err(error) => {
                    self.report(&error);
                    self.wait().await;
                }
            }
        }
    }

    /// Carries requests out and answers those that can be answered. Returns how many were.
    async fn run_once(&mut self) -> Result<usize, StoreError> {
        let pipeline = &self.pipeline;
        if pipeline.store.carry_out_link_requests(&self.connectors).await? > 0 {
            pipeline.follow_soon.wake_all();
            pipeline.look_soon.notify_one();
        }
        let max_age = pipeline.settings.retry.max_age;
        let requests = pipeline.store.claim_link_answers(&self.connectors, max_age).await?;
        for request in &requests {
            pipeline.answer_request(request).await?;
        }
        self.is_failure_logged = false;
        Ok(requests.len())
    }

    fn report(&mut self, error: &StoreError) {
        if let StoreError::Unusable(_) = error {
            return self.pipeline.report(error);
        }
        if self.is_failure_logged {
            tracing::debug!(%error, "link requests not answered");
        } else {
            tracing::warn!(%error, "link requests not answered, will retry");
            self.is_failure_logged = true;
        }
    }

    async fn wait(&self) {
        let pause = self.pipeline.sleep(jittered(INTERVAL, INTERVAL * 2));
        let woken = self.pipeline.answer_soon.notified();
        tokio::select! {
            () = pause => {}
            () = woken => {}
        }
    }
}

/// Returns the id of a request: the same in every delivery of one message, so that its answer is too.
fn request_id(delivery: &Delivery, kind: LinkRequestKind) -> Uuid {
    let purpose = format!("{} {}", kind.as_str(), delivery.reply_to().unwrap_or_default());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&message_digest(delivery, &purpose)[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}
