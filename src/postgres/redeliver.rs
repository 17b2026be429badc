//! `webhook_events`, `redeliver`: webhooks of stored events, and delivering them again.

use serde::Serialize;
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Store,
    connect::answered,
    error::StoreError,
    operator_actions::{self, Operator},
    prune::first_id_of,
    reader::Reader,
};

/// Which webhooks.
#[derive(Debug, Clone, Default)]
pub struct WebhookFilter {
    /// `None`: of every event.
    pub ids: Option<Vec<Uuid>>,
    /// The host of the URL.
    pub host: Option<String>,
    /// `x-merchant-id` of the job; empty if it has none.
    pub merchant_id: Option<String>,
    /// Events from this time on.
    pub from: Option<OffsetDateTime>,
    /// Events before this time.
    pub to: Option<OffsetDateTime>,
    /// `delivered`, `abandoned`, `pending`.
    pub states: Vec<&'static str>,
    /// Only those whose last attempt was answered with 410.
    pub gone: bool,
}

/// The webhook of an event.
#[derive(Debug, Serialize)]
pub struct WebhookEvent {
    /// `message_id` of the result and `webhook-id`.
    pub event_id: Uuid,
    /// The record that the event is of.
    pub payout_link_id: Uuid,
    /// `x-merchant-id` of the job; empty if it has none.
    pub merchant_id: String,
    /// The merchant's identifier of the payout.
    pub merchant_payout_id: String,
    /// The type: `payout_link.created`.
    pub r#type: String,
    /// The event's number in its record, from 1.
    pub sequence: i32,
    /// The host of the URL.
    pub host: String,
    /// `delivered`, `abandoned` or `pending`.
    pub state: String,
    /// Attempts so far.
    pub attempts: i32,
    /// It waits for the webhook of the record's previous event.
    pub waits: bool,
    /// When the next attempt is due; `None` unless it is pending.
    #[serde(with = "time::serde::rfc3339::option")]
    pub next_attempt_at: Option<OffsetDateTime>,
    /// Of the record's last attempt that failed, whichever of its events it was for.
    pub last_error: Option<String>,
}

/// The outcome of one event that is to be delivered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redelivery {
    /// It is due now.
    Due,
    /// A worker delivers it at this moment, or it is waiting already.
    Pending,
    /// The retention has deleted it, or its result cannot be read any more.
    Erased,
}

impl Reader {
    /// Reads webhooks in the order of their events, at most `limit` after the event `after`.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn webhook_events(
        &self,
        filter: &WebhookFilter,
        after: Uuid,
        limit: usize,
    ) -> Result<Vec<WebhookEvent>, StoreError> {
        let events = sqlx::query_as!(
            WebhookEvent,
            r#"
            SELECT
                e.id AS event_id, e.payout_link_id, p.merchant_id, p.merchant_payout_id, e.type, e.sequence,
                coalesce(lower(substring(e.webhook_url from '^[a-z]+://(?:[^/@]*@)?(\[[^]]*\]|[^/:?#]+)')), '') AS "host!",
                e.webhook_state AS state, e.webhook_attempts AS attempts, e.webhook_waits AS waits,
                e.webhook_due_at AS next_attempt_at,
                CASE WHEN e.webhook_attempts > 0 THEN (
                    SELECT coalesce(detail, outcome) FROM attempts a
                    WHERE a.payout_link_id = e.payout_link_id AND a.kind = 'post' AND a.outcome <> 'delivered'
                    ORDER BY started_at DESC LIMIT 1
                ) END AS last_error
            FROM events e JOIN payout_links p ON p.id = e.payout_link_id
            WHERE e.webhook_url IS NOT NULL AND e.id > $1 AND e.webhook_state = ANY($2)
                AND ($3::uuid[] IS NULL OR e.id = ANY($3))
                AND e.id >= $4 AND ($5::uuid IS NULL OR e.id < $5)
                AND ($6::text IS NULL OR p.merchant_id = $6)
                AND ($7::text IS NULL
                    OR lower(substring(e.webhook_url from '^[a-z]+://(?:[^/@]*@)?(\[[^]]*\]|[^/:?#]+)')) = $7)
                AND (NOT $8 OR EXISTS (
                    SELECT FROM attempts a
                    WHERE a.payout_link_id = e.payout_link_id AND a.kind = 'post' AND a.number = e.webhook_attempts
                        AND a.outcome = 'gone'
                ))
            ORDER BY e.id LIMIT $9
            "#,
            after,
            &filter.states as &[&str],
            filter.ids.as_deref(),
            filter.from.map(first_id_of).unwrap_or_default(),
            filter.to.map(first_id_of),
            filter.merchant_id,
            filter.host,
            filter.gone,
            i64::try_from(limit).unwrap_or(i64::MAX),
        )
        .fetch_all(&self.pool);
        answered(&self.pool, events).await
    }
}

impl Store {
    /// Makes finished webhooks due again, under the same ids. The schedule begins anew; the numbers of attempts go on.
    ///
    /// Webhooks of one record keep their order: each waits for the one before it, if that is due as well. Publications
    /// are not touched. An event that a worker holds is left to it.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn redeliver(
        &self,
        operator: &Operator,
        events: &[Uuid],
    ) -> Result<Vec<(Uuid, Redelivery)>, StoreError> {
        let redelivered = async {
            let mut transaction = self.pool.begin().await?;
            // Workers write events in batches: everybody locks them in one order.
            let found = sqlx::query!(
                r#"
                SELECT e.id, e.webhook_state = 'pending' OR (e.holder IS NOT NULL AND e.due_at > now()) AS "is_pending!",
                    EXISTS (SELECT FROM payout_links p WHERE p.id = e.payout_link_id AND coalesce(e.earlier_result, p.result) IS NOT NULL) AS "is_readable!"
                FROM events e WHERE e.id = ANY($1) AND e.webhook_url IS NOT NULL ORDER BY e.id FOR UPDATE
                "#,
                events
            )
            .fetch_all(&mut *transaction)
            .await?;
            let due: Vec<Uuid> =
                found.iter().filter(|row| !row.is_pending && row.is_readable).map(|row| row.id).collect();
            let written = sqlx::query!(
                "UPDATE events e SET
                    webhook_state = 'pending', webhook_due_at = now(), due_at = now(), holder = NULL,
                    turn_priority = (SELECT p.service_rank % 3::smallint FROM payout_links p WHERE p.id = e.payout_link_id),
                    turn_merchant_id = (SELECT p.merchant_id FROM payout_links p WHERE p.id = e.payout_link_id),
                    redelivered_after = webhook_attempts,
                    webhook_waits = EXISTS (
                        SELECT FROM events before WHERE before.id = e.previous_event_id
                            AND (before.webhook_state = 'pending' OR before.id = ANY($1))
                    )
                 WHERE id = ANY($1)
                 RETURNING id, payout_link_id, next_event_id, webhook_attempts",
                &due
            )
            .fetch_all(&mut *transaction)
            .await?;
            let next: Vec<Uuid> = written.iter().filter_map(|row| row.next_event_id).collect();
            sqlx::query!(
                "UPDATE events SET webhook_waits = true
                 WHERE id = ANY($1) AND webhook_state = 'pending' AND NOT webhook_waits AND holder IS NULL",
                &next
            )
            .execute(&mut *transaction)
            .await?;
            for row in &written {
                let details = json!({ "event": row.id, "attempts": row.webhook_attempts });
                let (command, link) = ("webhooks redeliver", Some(row.payout_link_id));
                operator_actions::write(&mut transaction, operator, command, link, &details).await?;
            }
            transaction.commit().await?;
            Ok::<_, sqlx::Error>(
                events
                    .iter()
                    .map(|id| match found.iter().find(|row| row.id == *id) {
                        Some(row) if row.is_pending => (*id, Redelivery::Pending),
                        Some(row) if row.is_readable => (*id, Redelivery::Due),
                        Some(_) | None => (*id, Redelivery::Erased),
                    })
                    .collect(),
            )
        };
        answered(&self.pool, redelivered).await
    }
}
