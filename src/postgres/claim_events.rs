//! `claim_events`: claims events that are due.
//!
//! An event enters the turns of merchants once it waits. Until then it has a lease, of the worker that wrote it. Such a lease is
//! found by its time when it expires.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Store,
    connect::answered,
    due_event::{DueEvent, WebhookState},
    error::StoreError,
    numbers::millis,
};
use crate::{
    contract::StatusUpdate,
    domain::{EventType, Lease, Share, TraceContext, Turn, event_priority},
};

/// Expired leases are searched among so many of the oldest and so many of the newest due events.
const WINDOW: i64 = 1024;

/// A result whose previous one is not published yet looks again after this time, if nobody woke it.
const PREVIOUS_RESULT_CHECK: Duration = Duration::from_millis(250);

impl Store {
    /// Claims at most `limit` due events of one turn. While the broker is away, events that only wait to be published are
    /// not claimed. An event that cannot be read (its key is missing from the ring) is returned as an error and set
    /// aside.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn claim_events(
        &self,
        limit: usize,
        broker_is_up: bool,
        turn: &Turn,
    ) -> Result<Vec<Result<Box<DueEvent>, StoreError>>, StoreError> {
        let (priority, shares): (Option<i16>, &[Share]) = match turn {
            Turn::ExpiredLeases => (None, &[]),
            Turn::Waiting { ranks, shares } => (ranks.first().map(|rank| event_priority(*rank)), shares),
        };
        let whole = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let (holder, asked_at) = (self.worker.claim_id(), Instant::now());
        let rows = sqlx::query!(
            r#"
            WITH ends AS (
                -- Without a merchant: leases that expired. Behind many events that wait, they are among the newest. Events that
                -- cannot be claimed now are left out: they would fill both ends for as long as the broker is away.
                (
                    SELECT id FROM events
                    WHERE $5::smallint IS NULL AND due_at <= now() AND ($4 OR webhook_due_at <= now())
                    ORDER BY due_at LIMIT $8
                )
                UNION
                (
                    SELECT id FROM events
                    WHERE $5::smallint IS NULL AND due_at <= now() AND ($4 OR webhook_due_at <= now())
                    ORDER BY due_at DESC LIMIT $8
                )
            ), due AS (
                SELECT * FROM (
                    SELECT e.id FROM ends JOIN events e ON e.id = ANY (ARRAY[ends.id])
                    WHERE due_at <= now() AND turn_merchant_id IS NULL
                    ORDER BY due_at LIMIT $1
                    FOR UPDATE OF e SKIP LOCKED
                ) AS expired
                UNION ALL
                -- The comparison of rows is one range of events_turns.
                SELECT next.id FROM unnest($6::text[], $7::bigint[]) AS share (merchant_id, events)
                CROSS JOIN LATERAL (
                    SELECT id FROM events e
                    WHERE due_at IS NOT NULL AND turn_merchant_id IS NOT NULL AND turn_priority = $5
                        AND (e.turn_merchant_id COLLATE "C", e.due_at) >= (share.merchant_id, '-infinity'::timestamptz)
                        AND (e.turn_merchant_id COLLATE "C", e.due_at) <= (share.merchant_id, now())
                        AND ($4 OR webhook_due_at <= now())
                    ORDER BY e.turn_merchant_id COLLATE "C", e.due_at LIMIT share.events
                    FOR UPDATE SKIP LOCKED
                ) AS next
            ), taken AS (
                UPDATE events e SET holder = $2, due_at = now() + $3::bigint * interval '1 millisecond'
                FROM due WHERE e.id = ANY (ARRAY[due.id])
                RETURNING e.*
            )
            SELECT
                e.sequence AS "sequence!", e.new_payout_status, e.occurred_at, e.error,
                e.webhook_waits AND EXISTS (
                    SELECT FROM events before WHERE before.id = e.previous_event_id AND before.webhook_state = 'pending'
                ) AS "webhook_waits!",
                e.id AS "id!", e.payout_link_id AS "payout_link_id!", e.type AS "event_type!", e.published_at,
                e.reply_due AS "reply_due!", e.publish_attempts AS "publish_attempts!", e.webhook_url, e.webhook_state AS "webhook_state!", e.webhook_attempts AS "webhook_attempts!",
                e.redelivered_after AS "redelivered_after!",
                coalesce(e.webhook_due_at <= now(), false) AS "webhook_is_due!",
                coalesce(
                    ceil(extract(epoch FROM greatest(e.webhook_due_at - now(), interval '0')) * 1000), 0
                )::bigint AS "webhook_due_in_ms!",
                -- greatest() ignores NULL.
                coalesce(ceil(extract(epoch FROM greatest(
                    e.publish_due_at - now(), interval '0', before.publish_due_at - now(),
                    CASE WHEN before.id IS NOT NULL THEN $9::bigint * interval '1 millisecond' END
                )) * 1000), 0)::bigint AS "publish_due_in_ms!",
                before.id IS NOT NULL AS "result_waits!",
                p.merchant_id, p.merchant_payout_id, p.connector, coalesce(e.earlier_result, p.result) AS result,
                p.reply_to, p.reply_sequence, p.correlation_id,
                p.traceparent, p.tracestate, now() AS "now!"
            FROM taken e JOIN payout_links p ON p.id = ANY (ARRAY[e.payout_link_id])
            -- The condition on due_at stays outside: it would let the planner read all of events_due.
            LEFT JOIN LATERAL (
                SELECT id, publish_due_at, published_at, due_at FROM events
                WHERE id = ANY (ARRAY[e.previous_event_id]) AND e.published_at IS NULL
                OFFSET 0
            ) AS before ON before.published_at IS NULL AND before.due_at IS NOT NULL
            "#,
            whole(limit),
            holder,
            millis(self.settings.event_lease),
            broker_is_up,
            priority,
            &shares.iter().map(|share| share.merchant_id.clone()).collect::<Vec<_>>(),
            &shares.iter().map(|share| whole(share.records)).collect::<Vec<_>>(),
            WINDOW,
            millis(PREVIOUS_RESULT_CHECK),
        )
        .fetch_all(&self.pool);
        let rows = answered(&self.pool, rows).await?;
        let answered_at = Instant::now();
        let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
        let events: Vec<Result<Box<DueEvent>, StoreError>> = rows
            .into_iter()
            .map(|row| {
                let inconsistent = |table, column, reason: &str| {
                    StoreError::inconsistent(table, column, row.payout_link_id, reason)
                };
                let sequence = u32::try_from(row.sequence).unwrap_or_default();
                let update =
                    row.new_payout_status.zip(row.occurred_at).map(|(payout_status, occurred_at)| {
                        StatusUpdate { sequence, payout_status, occurred_at, error: row.error }
                    });
                let result = self.event_result(row.payout_link_id, row.result.as_deref(), update.as_ref())?;
                Ok(Box::new(DueEvent {
                    id: row.id,
                    payout_link_id: row.payout_link_id,
                    event_type: EventType::parse(&row.event_type)
                        .ok_or_else(|| inconsistent("events", "type", "unknown"))?,
                    merchant_id: row.merchant_id,
                    connector: row.connector,
                    merchant_payout_id: row.merchant_payout_id,
                    sequence,
                    result,
                    // Only the requester of the job waits, and only for the conclusion.
                    reply_to: row.reply_to.filter(|_| row.sequence == row.reply_sequence),
                    correlation_id: row.correlation_id,
                    trace: TraceContext { traceparent: row.traceparent, tracestate: row.tracestate },
                    published: row.published_at.is_some(),
                    reply_due: row.reply_due,
                    publish_attempts: u32::try_from(row.publish_attempts).unwrap_or_default(),
                    publish_due_in: Duration::from_millis(
                        row.publish_due_in_ms.try_into().unwrap_or_default(),
                    ),
                    result_waits: row.result_waits,
                    webhook: [WebhookState::None, WebhookState::Pending, WebhookState::Delivered]
                        .into_iter()
                        .find(|state| state.as_str() == row.webhook_state)
                        .unwrap_or(WebhookState::Abandoned),
                    webhook_url: row
                        .webhook_url
                        .map(|url| url.parse())
                        .transpose()
                        .map_err(|_| inconsistent("events", "webhook_url", "not a URL"))?,
                    webhook_is_due: row.webhook_is_due,
                    webhook_due_in: Duration::from_millis(
                        row.webhook_due_in_ms.try_into().unwrap_or_default(),
                    ),
                    webhook_waits: row.webhook_waits,
                    redelivered_after: u32::try_from(row.redelivered_after).unwrap_or_default(),
                    webhook_attempts: u32::try_from(row.webhook_attempts).unwrap_or_default(),
                    lease: Lease {
                        holder,
                        granted_at: row.now,
                        asked_at,
                        answered_at,
                        length: self.settings.event_lease,
                    },
                }))
            })
            .collect();
        let read = ids.into_iter().zip(&events);
        let unreadable: Vec<Uuid> = read.filter_map(|(id, event)| event.is_err().then_some(id)).collect();
        if !unreadable.is_empty() {
            self.set_events_aside(&unreadable, holder).await?;
        }
        Ok(events)
    }

    /// Postpones events that cannot be read by five minutes.
    async fn set_events_aside(&self, ids: &[Uuid], holder: Uuid) -> Result<(), StoreError> {
        let statement = sqlx::query!(
            "UPDATE events SET holder = NULL, due_at = now() + interval '5 minutes'
             WHERE id = ANY($1) AND holder = $2",
            ids,
            holder
        )
        .execute(&self.pool);
        answered(&self.pool, statement).await?;
        Ok(())
    }
}
