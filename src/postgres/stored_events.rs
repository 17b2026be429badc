//! `stored_events`: the results of published events, to publish them again.

use bytes::Bytes;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, connect::answered, error::StoreError, prune::first_id_of};
use crate::{
    contract::StatusUpdate,
    domain::{EventType, TraceContext},
};

/// Which events.
#[derive(Debug, Clone)]
pub struct EventRange {
    /// Events from this time on.
    pub from: OffsetDateTime,
    /// Events before this time.
    pub to: OffsetDateTime,
    /// Of one merchant only.
    pub merchant_id: Option<String>,
}

/// An event whose result was published.
pub struct StoredEvent {
    /// `message_id` of the result.
    pub id: Uuid,
    /// The type of the event.
    pub event_type: EventType,
    /// `x-merchant-id` of the job; empty if it has none.
    pub merchant_id: String,
    /// The merchant's identifier of the payout.
    pub merchant_payout_id: String,
    /// The name of the connector account.
    pub connector: String,
    /// JSON; holds the link: a secret.
    pub result: Bytes,
    /// Of the event of the conclusion only.
    pub reply_to: Option<String>,
    /// Returned to the requester unchanged.
    pub correlation_id: Option<String>,
    /// The trace of the job, continued in results, calls and webhooks.
    pub trace: TraceContext,
}

impl Store {
    /// Counts the published events of a range.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn count_stored_events(&self, range: &EventRange) -> Result<i64, StoreError> {
        let count = sqlx::query_scalar!(
            r#"
            SELECT count(*) AS "count!" FROM events e JOIN payout_links p ON p.id = e.payout_link_id
            WHERE e.id >= $1 AND e.id < $2 AND e.published_at IS NOT NULL
                AND ($3::text IS NULL OR p.merchant_id = $3)
            "#,
            first_id_of(range.from),
            first_id_of(range.to),
            range.merchant_id,
        )
        .fetch_one(&self.pool);
        answered(&self.pool, count).await
    }

    /// Reads published events of a range in their order, at most `limit` after the event `after`. An event that cannot
    /// be read is returned with the reason.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn stored_events(
        &self,
        range: &EventRange,
        after: Uuid,
        limit: i64,
    ) -> Result<Vec<(Uuid, Result<StoredEvent, StoreError>)>, StoreError> {
        let rows = sqlx::query!(
            r#"
            SELECT
                e.id, e.type AS event_type, e.sequence, e.new_payout_status, e.occurred_at, e.error, p.id AS link,
                p.merchant_id, p.merchant_payout_id, p.connector, coalesce(e.earlier_result, p.result) AS result,
                p.reply_to, p.reply_sequence, p.correlation_id, p.traceparent, p.tracestate
            FROM events e JOIN payout_links p ON p.id = e.payout_link_id
            WHERE e.id >= $1 AND e.id < $2 AND e.id > $4 AND e.published_at IS NOT NULL
                AND ($3::text IS NULL OR p.merchant_id = $3)
            ORDER BY e.id LIMIT $5
            "#,
            first_id_of(range.from),
            first_id_of(range.to),
            range.merchant_id,
            after,
            limit,
        )
        .fetch_all(&self.pool);
        let rows = answered(&self.pool, rows).await?;
        let read = rows.into_iter().map(|row| {
            let inconsistent =
                |table, column, reason: &str| StoreError::inconsistent(table, column, row.link, reason);
            let event = || {
                let sequence = u32::try_from(row.sequence).unwrap_or_default();
                let update =
                    row.new_payout_status.zip(row.occurred_at).map(|(payout_status, occurred_at)| {
                        StatusUpdate { sequence, payout_status, occurred_at, error: row.error }
                    });
                let result = self.event_result(row.link, row.result.as_deref(), update.as_ref())?;
                Ok(StoredEvent {
                    id: row.id,
                    event_type: EventType::parse(&row.event_type)
                        .ok_or_else(|| inconsistent("events", "type", "unknown"))?,
                    merchant_id: row.merchant_id,
                    merchant_payout_id: row.merchant_payout_id,
                    connector: row.connector,
                    result,
                    reply_to: row.reply_to.filter(|_| row.sequence == row.reply_sequence),
                    correlation_id: row.correlation_id,
                    trace: TraceContext { traceparent: row.traceparent, tracestate: row.tracestate },
                })
            };
            (row.id, event())
        });
        Ok(read.collect())
    }
}
