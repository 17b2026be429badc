//! `accept_link_request`, `carry_out_link_requests`, `claim_link_answers`, `finish_link_request`: messages that cancel a
//! link or ask for its status wait in a table of their own until their answer is known.
//!
//! Records are found by `= ANY (ARRAY[…])`, so that no plan reads all of them.

use std::time::Duration;

use uuid::Uuid;

use super::{
    Store,
    accepted::Accepted,
    connect::answered,
    duplicate::{Key, find},
    error::StoreError,
    numbers::millis,
};
use crate::domain::{EventType, LinkRequest, LinkRequestKind, LinkStatus, PayoutLinkState, TraceContext};

/// A message about a link, to be stored.
#[derive(Debug)]
pub struct NewLinkRequest<'a> {
    /// The same for each delivery of one message: `message_id` of the answer.
    pub id: Uuid,
    /// `x-merchant-id` of the job; empty if it has none.
    pub merchant_id: &'a str,
    /// The message, decoded.
    pub request: &'a LinkRequest,
    /// The queue that the requester wants the result in.
    pub reply_to: Option<&'a str>,
    /// Returned to the requester unchanged.
    pub correlation_id: Option<&'a str>,
    /// The trace of the job, continued in results, calls and webhooks.
    pub trace: &'a TraceContext,
}

/// A request whose answer is known, or that has waited too long for one.
#[derive(Debug)]
pub struct AnsweredRequest {
    /// `message_id` of the answer.
    pub id: Uuid,
    /// Whether it cancels or asks.
    pub kind: LinkRequestKind,
    /// `x-merchant-id` of the job; empty if it has none.
    pub merchant_id: String,
    /// The merchant's identifier of the payout.
    pub merchant_payout_id: String,
    /// The name of the connector account.
    pub connector: String,
    /// The state of the record.
    pub state: PayoutLinkState,
    /// The status of the link that was announced last.
    pub status: LinkStatus,
    /// Whether the status is as new as the request wants it.
    pub is_known: bool,
    /// The queue that the requester wants the result in.
    pub reply_to: Option<String>,
    /// Returned to the requester unchanged.
    pub correlation_id: Option<String>,
    /// The trace of the job, continued in results, calls and webhooks.
    pub trace: TraceContext,
}

/// Maximum number of answers in one claim.
const MAX_ANSWERS: i64 = 100;

impl Store {
    /// Stores a message about a link, once for each id. Returns false if the merchant has no such record. Tries until
    /// the database answers.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `Unavailable` and `LeaseLost`.
    pub async fn accept_link_request(&self, new: &NewLinkRequest<'_>) -> Result<bool, StoreError> {
        self.patiently(|| async {
            let stored = sqlx::query_scalar!(
                r#"
                WITH record AS (
                    SELECT id FROM payout_links WHERE merchant_payout_id = ANY (ARRAY[$3]) AND merchant_id = $2
                ), stored AS (
                    INSERT INTO link_requests (
                        id, payout_link_id, kind, refresh, reason, reply_to, correlation_id, traceparent, tracestate
                    )
                    SELECT $1, record.id, $4, $5, $6, $7, $8, $9, $10 FROM record
                    ON CONFLICT (id) DO NOTHING
                )
                SELECT EXISTS (SELECT FROM record) AS "exists!"
                "#,
                new.id,
                new.merchant_id,
                new.request.merchant_payout_id.as_str(),
                new.request.kind.as_str(),
                new.request.refresh,
                new.request.reason.as_deref(),
                new.reply_to,
                new.correlation_id,
                new.trace.traceparent.as_deref(),
                new.trace.tracestate.as_deref(),
            )
            .fetch_one(&self.pool);
            answered(&self.pool, stored).await
        })
        .await
    }

    /// Returns whether a message about a link is stored and waits for its answer.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn is_link_request_stored(&self, id: Uuid) -> Result<bool, StoreError> {
        let stored = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM link_requests WHERE id = $1) AS "exists!""#,
            id
        )
        .fetch_one(&self.pool);
        answered(&self.pool, stored).await
    }

    /// Makes the links due that requests wait for: a link to cancel, once it is created, and a link whose status is to be
    /// asked for. A record whose provider was never called is due too: it ends without a call. `connectors`: the accounts
    /// that follow their links. Returns how many.
    ///
    /// A question that failed is not brought forward again: it is repeated after the pauses of the account.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn carry_out_link_requests(&self, connectors: &[String]) -> Result<u64, StoreError> {
        let due = sqlx::query!(
            r#"
            WITH requested AS (
                SELECT
                    payout_link_id, bool_or(kind = 'cancel') AS cancels, max(requested_at) FILTER (WHERE refresh) AS refresh_at
                FROM link_requests GROUP BY payout_link_id
            ), waiting AS (
                SELECT p.id, requested.cancels AND coalesce(p.link_status, 'unclaimed') = 'unclaimed' AS cancels
                FROM requested JOIN payout_links p ON p.id = ANY (ARRAY[requested.payout_link_id])
                WHERE (
                    requested.cancels AND p.state = 'open' AND p.holder IS NULL AND p.attempts = 0
                    AND p.in_doubt_since IS NULL AND p.connector_payout_id IS NULL AND p.cancel_requested_at IS NULL
                ) OR p.state = 'created' AND p.connector = ANY ($1) AND (
                    (
                        requested.cancels AND coalesce(p.link_status, 'unclaimed') = 'unclaimed'
                        AND p.cancel_requested_at IS NULL
                    ) OR (
                        requested.refresh_at > greatest(p.asked_at, p.concluded_at)
                        AND p.follow_holder IS NULL AND coalesce(p.follow_due_at > now(), true)
                    )
                )
                FOR UPDATE OF p SKIP LOCKED
            )
            UPDATE payout_links p SET
                cancel_requested_at = CASE
                    WHEN waiting.cancels THEN coalesce(p.cancel_requested_at, now()) ELSE p.cancel_requested_at
                END,
                follow_due_at = CASE WHEN p.state = 'created' THEN now() END, follow_holder = NULL
            FROM waiting WHERE p.id = ANY (ARRAY[waiting.id])
            "#,
            connectors,
        )
        .execute(&self.pool);
        Ok(answered(&self.pool, due).await?.rows_affected())
    }

    /// Claims requests whose answer is known, and those that are older than `max_age` or about an account that follows no
    /// links. A claim lasts one lease: if the worker dies, another one repeats the answer under the same id.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn claim_link_answers(
        &self,
        connectors: &[String],
        max_age: Duration,
    ) -> Result<Vec<AnsweredRequest>, StoreError> {
        let rows = sqlx::query!(
            r#"
            WITH settled AS (
                SELECT r.id, r.payout_link_id, p.state <> 'open' AND (
                    p.state <> 'created' OR NOT r.refresh
                    OR (greatest(p.asked_at, p.concluded_at) >= r.requested_at AND p.follow_failures = 0)
                ) AS is_known
                FROM link_requests r JOIN payout_links p ON p.id = ANY (ARRAY[r.payout_link_id])
                WHERE r.due_at <= now() AND (
                    r.requested_at < now() - $2::bigint * interval '1 millisecond'
                    OR p.state = 'failed'
                    -- A cancel waits until an operator has resolved the record.
                    OR (p.state = 'unknown' AND r.kind = 'status')
                    OR (p.state = 'created' AND (
                        (r.kind = 'cancel' AND coalesce(p.link_status, 'unclaimed') <> 'unclaimed')
                        OR (r.kind = 'status' AND NOT r.refresh)
                        OR (
                            r.kind = 'status' AND greatest(p.asked_at, p.concluded_at) >= r.requested_at
                            AND p.follow_failures = 0
                        )
                        OR p.connector <> ALL ($1)
                    ))
                )
                ORDER BY r.requested_at LIMIT $3
                FOR UPDATE OF r SKIP LOCKED
            )
            UPDATE link_requests r SET due_at = now() + $4::bigint * interval '1 millisecond'
            FROM settled, payout_links p
            WHERE r.id = settled.id AND p.id = ANY (ARRAY[settled.payout_link_id])
            RETURNING
                r.id, r.kind, r.reply_to, r.correlation_id, r.traceparent, r.tracestate, settled.is_known AS "is_known!",
                p.merchant_id, p.merchant_payout_id, p.connector, p.state, p.link_status
            "#,
            connectors,
            millis(max_age),
            MAX_ANSWERS,
            millis(self.settings.event_lease),
        )
        .fetch_all(&self.pool);
        let rows = answered(&self.pool, rows).await?;
        rows.into_iter()
            .map(|row| {
                let unknown = |column| {
                    StoreError::inconsistent("payout_links", column, row.id, "a later version wrote it")
                };
                let status =
                    row.link_status.map_or(Some(LinkStatus::Unclaimed), |name| LinkStatus::parse(&name));
                Ok(AnsweredRequest {
                    id: row.id,
                    kind: LinkRequestKind::parse(&row.kind).ok_or_else(|| unknown("kind"))?,
                    state: PayoutLinkState::parse(&row.state).ok_or_else(|| unknown("state"))?,
                    status: status.ok_or_else(|| unknown("link_status"))?,
                    is_known: row.is_known,
                    merchant_id: row.merchant_id,
                    merchant_payout_id: row.merchant_payout_id,
                    connector: row.connector,
                    reply_to: row.reply_to,
                    correlation_id: row.correlation_id,
                    trace: TraceContext { traceparent: row.traceparent, tracestate: row.tracestate },
                })
            })
            .collect()
    }

    /// Returns the type and the result of the newest event of a request's record, as a duplicate of the job gets them.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn newest_event(&self, request: &AnsweredRequest) -> Result<(EventType, Vec<u8>), StoreError> {
        let key: Key<'_> = (&request.merchant_id, &request.merchant_payout_id);
        let found = async {
            let mut connection = self.pool.acquire().await.map_err(StoreError::from)?;
            find(&mut connection, &[key]).await
        };
        let found = answered(&self.pool, found).await?.remove(&key);
        match found.map(|found| self.replayed(found)).transpose()?.flatten() {
            Some(Accepted::Finished { event_type, result, .. }) => Ok((event_type, result)),
            _ => Err(StoreError::inconsistent("payout_links", "result", request.id, "there is none")),
        }
    }

    /// Deletes a request that was answered. `is_given_up`: nobody waits for its link any more, so a request to cancel it
    /// ends, unless another one waits.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn finish_link_request(&self, id: Uuid, is_given_up: bool) -> Result<(), StoreError> {
        let finished = sqlx::query!(
            r#"
            WITH finished AS (DELETE FROM link_requests WHERE id = $1 RETURNING payout_link_id, kind)
            UPDATE payout_links p SET cancel_requested_at = NULL, cancelled_at = NULL, cancelled_because = NULL
            FROM finished
            WHERE $2 AND finished.kind = 'cancel' AND p.id = ANY (ARRAY[finished.payout_link_id]) AND NOT EXISTS (
                SELECT FROM link_requests other
                WHERE other.payout_link_id = p.id AND other.kind = 'cancel' AND other.id <> $1
            )
            "#,
            id,
            is_given_up,
        )
        .execute(&self.pool);
        answered(&self.pool, finished).await?;
        Ok(())
    }
}
