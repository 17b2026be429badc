//! Accepts or rejects a delivery, and settles it only after that. It never waits longer than a few seconds.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use bytes::Bytes;
use time::OffsetDateTime;
use tokio::time::timeout;
use tracing::Instrument;
use uuid::Uuid;

use super::{
    Pipeline,
    headers::{logged_merchant_id, merchant_id, trace},
    reading::Readable,
    reject::{Published, result_for},
    work::{CallPermit, Work},
};
use crate::{
    connectors::Account,
    contract,
    domain::{EventType, Rejection, RejectionCode, ReplayRule, event_time},
    postgres::{Accepted, Hold, NewLink, StoreError},
    rabbitmq::{Delivery, ResultMessage},
};

/// Jobs of one merchant that may wait for permits of a connector: one for so many permits.
const WAITING_SHARE: usize = 4;

/// Whether the first call of a job is made at once, and how its row is stored.
pub(super) struct Admission<'a> {
    hold: Hold,
    /// The permit for the first call; `None` for a job that is parked.
    call: Option<CallPermit<'a>>,
    lost_call_from: Option<OffsetDateTime>,
}

/// The database's answer about a job.
pub(super) struct Stored<'a> {
    accepted: Result<Accepted, StoreError>,
    account: &'a Account,
    call: Option<CallPermit<'a>>,
}

impl Pipeline {
    /// Returns the job that was read. An invalid one is rejected, unless it was accepted before.
    pub(super) async fn unless_rejected<'a>(
        &self,
        delivery: &Delivery,
        readable: Result<Readable<'a>, Rejection>,
    ) -> Option<Readable<'a>> {
        match readable {
            Ok(job) => Some(job),
            Err(rejection) => {
                Box::pin(self.reject_unless_accepted(delivery, &rejection)).await;
                None
            }
        }
    }

    /// Admits a job to its first call, or parks it. `None`: the pipeline is stopped, or the delivery's session has
    /// ended, and the delivery stays with the broker.
    pub(super) async fn admit<'a>(
        &self,
        delivery: &Delivery,
        job: &Readable<'a>,
        patience: Duration,
    ) -> Option<Admission<'a>> {
        let account = job.account;
        let call = match self.is_creation_paused(&account.name, merchant_id(delivery)) {
            true => None,
            false => self.take_call_permit(account, merchant_id(delivery), patience).await?,
        };
        if delivery.is_stale() {
            return None;
        }
        let lost_call_from = self.lost_call_from(delivery);
        // A look-up comes first, as for an unknown outcome.
        let call = call.filter(|_| lost_call_from.is_none());
        let hold = match call {
            Some(_) => first_hold(account.connector.replay_rule()),
            None => Hold::Park(Duration::ZERO),
        };
        Some(Admission { hold, call, lost_call_from })
    }

    /// Stores a job. `None`: the pipeline is stopped before the database has answered.
    pub(super) async fn accept<'a>(
        &self,
        delivery: &Delivery,
        job: Readable<'a>,
        admission: Admission<'a>,
    ) -> Option<Stored<'a>> {
        let Readable { job, account } = job;
        let Admission { hold, call, lost_call_from } = admission;
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
        Some(Stored { accepted, account, call })
    }

    /// Settles the delivery of a job that the database has answered about. Returns the record if it can be processed
    /// at once.
    pub(super) async fn settle<'a>(&self, delivery: &Delivery, stored: Stored<'a>) -> Option<Work<'a>> {
        let Stored { accepted, account, call } = stored;
        match accepted.inspect(|accepted| self.metrics.accepted(accepted)) {
            Ok(Accepted::New(link)) => {
                delivery.acknowledge();
                return Some(Work { link, account, call: call? });
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
        lost_call_from(delivery.timestamp(), self.settings.retry.ask_before_calling_since)
    }

    /// Takes a permit of a connector, and one call of its rate limit. If that takes longer than `patience`, there is
    /// none, and the job is claimed in the order of service. `None`: the pipeline is stopped.
    async fn take_call_permit<'a>(
        &self,
        account: &'a Account,
        merchant_id: &str,
        patience: Duration,
    ) -> Option<Option<CallPermit<'a>>> {
        let started = Instant::now();
        self.merchants_seen.note(merchant_id);
        // Do not wait for an open circuit breaker, or for a connector whose due records already wait.
        if account.breaker.allowed_calls(started) == 0
            || account.permits.is_saturated()
            || account.rate.wait(started) > patience
            || self.has_its_share(account, merchant_id)
        {
            return Some(None);
        }
        let Some(merchant) = account.merchants.try_take(merchant_id, started) else { return Some(None) };
        let permit = match account.permits.try_take() {
            Some(permit) => permit,
            None => {
                let waiting = self.unless_stopped(pin!(timeout(patience, account.permits.take()))).await?;
                let Ok(permit) = waiting else { return Some(None) };
                permit
            }
        };
        let left = patience.saturating_sub(started.elapsed());
        let Ok(wait) = account.rate.reserve(Instant::now(), left) else { return Some(None) };
        let call = CallPermit::reserved(account, permit, merchant);
        self.sleep(wait).await;
        Some(Some(call))
    }

    /// Returns whether a merchant's jobs wait for its own limit, or for all permits of the connector. Its next jobs are
    /// parked then: jobs of other merchants behind them in the queue are reached, and claimed in turns.
    fn has_its_share(&self, account: &Account, merchant_id: &str) -> bool {
        let all = account.permits.all();
        account.merchants.is_waiting(merchant_id)
            || self.merchants_seen.are_several()
                && account.merchants.taken(merchant_id) >= all + all.div_ceil(WAITING_SHARE)
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
        let result = ResultMessage {
            id: event_id,
            event_type,
            timestamp: event_time(event_id).unix_timestamp(),
            body,
            connector: Some(connector),
            replayed: true,
            ..result_for(delivery, &trace)
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

/// Decides [`Pipeline::lost_call_from`]. `since`: writes before this time may be lost.
fn lost_call_from(
    published_at: Option<OffsetDateTime>,
    since: Option<OffsetDateTime>,
) -> Option<OffsetDateTime> {
    let published_at = published_at.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    (published_at < since?).then_some(published_at)
}

/// Returns how the row of a job is stored whose connector can be called at once.
fn first_hold(rule: ReplayRule) -> Hold {
    match rule {
        ReplayRule::SameKey { .. } | ReplayRule::LookUp(_) => Hold::BeginCall,
        ReplayRule::Never => Hold::Lease,
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

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::domain::LookUp;

    #[test]
    fn a_call_begins_with_its_row_only_where_a_lost_one_can_be_resolved() {
        let look_up = LookUp { settle: Duration::from_mins(1) };
        let same_key = ReplayRule::SameKey { window: ReplayRule::NO_END, look_up: None };
        assert_eq!(first_hold(same_key), Hold::BeginCall);
        assert_eq!(first_hold(ReplayRule::LookUp(look_up)), Hold::BeginCall);
        assert_eq!(first_hold(ReplayRule::Never), Hold::Lease);
    }

    #[test]
    fn a_call_may_be_lost_for_a_message_from_before_the_restore_or_of_any_age() {
        let (before, since, after) = (
            datetime!(2026-12-01 11:59 UTC),
            datetime!(2026-12-01 12:00 UTC),
            datetime!(2026-12-01 12:01 UTC),
        );
        assert_eq!(lost_call_from(Some(before), None), None);
        assert_eq!(lost_call_from(None, None), None);
        assert_eq!(lost_call_from(Some(before), Some(since)), Some(before));
        assert_eq!(lost_call_from(Some(since), Some(since)), None);
        assert_eq!(lost_call_from(Some(after), Some(since)), None);
        assert_eq!(lost_call_from(None, Some(since)), Some(OffsetDateTime::UNIX_EPOCH));
    }

    #[test]
    fn a_conflict_names_the_fields_that_differ_where_they_are_known() {
        let fields = ["amount.minor_amount".to_owned(), "x-connector".to_owned()];
        let known = conflict(&fields);
        assert_eq!(known.field.as_deref(), Some("amount.minor_amount, x-connector"));
        assert!(known.message.ends_with("these fields differ: amount.minor_amount, x-connector."));
        let unknown = conflict(&[]);
        assert_eq!((unknown.code, unknown.field), (RejectionCode::IdempotencyConflict, None));
    }
}
