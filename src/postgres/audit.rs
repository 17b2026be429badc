//! `audit_page`: reads records for the history checker, a page at a time. It never decrypts anything.

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, connect::answered, error::StoreError};

/// A record and its event, with the values that the rules compare.
#[derive(Debug)]
pub struct Audited {
    /// The id of the record.
    pub id: Uuid,
    /// `x-merchant-id` of the job; empty if it has none.
    pub merchant_id: String,
    /// The merchant's identifier of the payout.
    pub merchant_payout_id: String,
    /// Minor units of `currency`.
    pub amount_minor: i64,
    /// ISO 4217 code of the amount.
    pub currency: String,
    /// `open`, `created`, `failed` or `unknown`.
    pub state: String,
    /// The provider's id of the payout, once it is known.
    pub connector_payout_id: Option<String>,
    /// Whether the outcome of a `create` call is unknown.
    pub is_unknown: bool,
    /// Whether a worker has claimed it.
    pub leased: bool,
    /// Whether its `due_at` has passed.
    pub due: bool,
    /// When the job was accepted.
    pub created_at: OffsetDateTime,
    /// Outcomes of the `create` attempts, in their order.
    pub calls: Vec<String>,
    /// The event of the conclusion.
    pub event: Option<AuditedEvent>,
    /// All stored text of the record, if it was asked for.
    pub text: Option<Vec<u8>>,
}

/// The event of an [`Audited`] record.
#[derive(Debug)]
pub struct AuditedEvent {
    /// `message_id` of the result.
    pub id: Uuid,
    /// The type: `payout_link.created`.
    pub r#type: String,
    /// Whether its result is published.
    pub published: bool,
    /// Whether its `due_at` has passed.
    pub due: bool,
    /// Whether a worker has claimed it.
    pub leased: bool,
    /// `none`, `pending`, `delivered` or `abandoned`.
    pub webhook_state: String,
    /// Attempts to deliver the webhook.
    pub webhook_attempts: i32,
}

/// An act of an operator after which a record is concluded again.
#[derive(Debug)]
pub struct AuditedAction {
    /// `x-merchant-id` of the job; empty if it has none.
    pub merchant_id: String,
    /// The merchant's identifier of the payout.
    pub merchant_payout_id: String,
    /// The command: `resolve`, `retry` or `look-up`.
    pub command: String,
}

/// The event of a conclusion that another one followed.
#[derive(Debug)]
pub struct AuditedEarlier {
    /// `x-merchant-id` of the job; empty if it has none.
    pub merchant_id: String,
    /// The merchant's identifier of the payout.
    pub merchant_payout_id: String,
    /// The event that is not the newest conclusion's.
    pub event: AuditedEvent,
}

/// An event that came after the conclusion of its record.
#[derive(Debug)]
pub struct AuditedLater {
    /// `x-merchant-id` of the record.
    pub merchant_id: String,
    /// `merchant_payout_id` of the record.
    pub merchant_payout_id: String,
    /// The event itself.
    pub event: AuditedEvent,
    /// All stored text of the event, if it was asked for.
    pub text: Option<Vec<u8>>,
}

impl Store {
    /// Reads at most `limit` events that came after the conclusions of their records, of records created at `since` or
    /// later, in the order of their ids, beginning after `after`.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn audit_later(
        &self,
        since: Option<OffsetDateTime>,
        after: Uuid,
        limit: i64,
        with_text: bool,
    ) -> Result<Vec<AuditedLater>, StoreError> {
        let rows = sqlx::query!(
            r#"
            SELECT
                p.merchant_id, p.merchant_payout_id, e.id, e.type, e.published_at IS NOT NULL AS "published!",
                e.due_at IS NOT NULL AS "due!", e.holder IS NOT NULL AS "leased!", e.webhook_state, e.webhook_attempts,
                CASE WHEN $4 THEN convert_to(row_to_json(e)::text, 'UTF8') END AS text
            FROM events e JOIN payout_links p ON p.id = ANY (ARRAY[e.payout_link_id])
            WHERE e.id > $2 AND e.sequence > 1 AND e.id IS DISTINCT FROM p.event_id AND e.earlier_result IS NULL
                AND coalesce(p.created_at >= $1, true)
            ORDER BY e.id LIMIT $3
            "#,
            since,
            after,
            limit,
            with_text,
        )
        .fetch_all(&self.pool);
        let rows = answered(&self.pool, rows).await?;
        let later = rows.into_iter().map(|row| AuditedLater {
            merchant_id: row.merchant_id,
            merchant_payout_id: row.merchant_payout_id,
            event: AuditedEvent {
                id: row.id,
                r#type: row.r#type,
                published: row.published,
                due: row.due,
                leased: row.leased,
                webhook_state: row.webhook_state,
                webhook_attempts: row.webhook_attempts,
            },
            text: row.text,
        });
        Ok(later.collect())
    }

    /// Reads the keys of links that are still asked about, of records created at `since` or later: their last statuses may
    /// be unknown so far.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn audit_followed(
        &self,
        since: Option<OffsetDateTime>,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let rows = sqlx::query!(
            "SELECT merchant_id, merchant_payout_id FROM payout_links
             WHERE follow_due_at IS NOT NULL AND coalesce(created_at >= $1, true)",
            since
        )
        .fetch_all(&self.pool);
        let rows = answered(&self.pool, rows).await?;
        Ok(rows.into_iter().map(|row| (row.merchant_id, row.merchant_payout_id)).collect())
    }

    /// Reads the acts of operators that conclude records again, about records created at `since` or later. They are few.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn audit_actions(
        &self,
        since: Option<OffsetDateTime>,
    ) -> Result<Vec<AuditedAction>, StoreError> {
        let actions = sqlx::query_as!(
            AuditedAction,
            "SELECT p.merchant_id, p.merchant_payout_id, a.command
             FROM operator_actions a JOIN payout_links p ON p.id = ANY (ARRAY[a.payout_link_id])
             WHERE (a.command = 'retry' OR a.command IN ('resolve', 'look-up') AND a.details->>'to' IS NOT NULL)
                AND coalesce(p.created_at >= $1, true)
             ORDER BY a.id",
            since
        )
        .fetch_all(&self.pool);
        answered(&self.pool, actions).await
    }

    /// Reads the events of conclusions that others followed, of records created at `since` or later, in order. They are few.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn audit_earlier(
        &self,
        since: Option<OffsetDateTime>,
    ) -> Result<Vec<AuditedEarlier>, StoreError> {
        let rows = sqlx::query!(
            r#"
            SELECT
                p.merchant_id, p.merchant_payout_id, e.id, e.type, e.published_at IS NOT NULL AS "published!",
                e.due_at IS NOT NULL AS "due!", e.holder IS NOT NULL AS "leased!", e.webhook_state, e.webhook_attempts
            FROM events e JOIN payout_links p ON p.id = ANY (ARRAY[e.payout_link_id])
            WHERE e.earlier_result IS NOT NULL AND coalesce(p.created_at >= $1, true)
            ORDER BY e.payout_link_id, e.sequence
            "#,
            since
        )
        .fetch_all(&self.pool);
        let rows = answered(&self.pool, rows).await?;
        let earlier = rows.into_iter().map(|row| AuditedEarlier {
            merchant_id: row.merchant_id,
            merchant_payout_id: row.merchant_payout_id,
            event: AuditedEvent {
                id: row.id,
                r#type: row.r#type,
                published: row.published,
                due: row.due,
                leased: row.leased,
                webhook_state: row.webhook_state,
                webhook_attempts: row.webhook_attempts,
            },
        });
        Ok(earlier.collect())
    }

    /// Reads at most `limit` records in the order of their ids, beginning after `after`.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn audit_page(
        &self,
        after: Uuid,
        limit: i64,
        with_text: bool,
    ) -> Result<Vec<Audited>, StoreError> {
        let rows = sqlx::query!(
            r#"
            SELECT
                p.id, merchant_id, merchant_payout_id, amount_minor, currency, state, connector_payout_id,
                in_doubt_since IS NOT NULL AS "is_unknown!", p.holder IS NOT NULL AS "leased!",
                p.due_at IS NOT NULL AS "due!", created_at,
                CASE WHEN p.took_ms IS NULL THEN '{}' ELSE ARRAY['created'] END || ARRAY(
                    SELECT outcome FROM attempts a WHERE a.payout_link_id = p.id AND kind = 'create'
                    ORDER BY started_at
                ) AS "calls!",
                e.id AS "event_id?", e.type AS "type?", published_at IS NOT NULL AS "published!",
                e.due_at IS NOT NULL AS "event_due!", e.holder IS NOT NULL AS "event_leased!",
                webhook_state AS "webhook_state?", webhook_attempts AS "webhook_attempts?",
                CASE WHEN $3 THEN convert_to(
                    row_to_json(p)::text || coalesce(row_to_json(e)::text, '')
                    || coalesce((SELECT json_agg(a)::text FROM attempts a WHERE a.payout_link_id = p.id), ''), 'UTF8'
                ) || coalesce(request, '') || coalesce(result, '') END AS text
            FROM payout_links p LEFT JOIN events e ON e.id = p.event_id
            WHERE p.id > $1 ORDER BY p.id LIMIT $2
            "#,
            after,
            limit,
            with_text,
        )
        .fetch_all(&self.pool);
        let rows = answered(&self.pool, rows).await?;
        Ok(rows
            .into_iter()
            .map(|row| Audited {
                id: row.id,
                merchant_id: row.merchant_id,
                merchant_payout_id: row.merchant_payout_id,
                amount_minor: row.amount_minor,
                currency: row.currency,
                state: row.state,
                connector_payout_id: row.connector_payout_id,
                is_unknown: row.is_unknown,
                leased: row.leased,
                due: row.due,
                created_at: row.created_at,
                calls: row.calls,
                event: row.event_id.zip(row.r#type).map(|(id, r#type)| AuditedEvent {
                    id,
                    r#type,
                    published: row.published,
                    due: row.event_due,
                    leased: row.event_leased,
                    webhook_state: row.webhook_state.unwrap_or_default(),
                    webhook_attempts: row.webhook_attempts.unwrap_or_default(),
                }),
                text: row.text,
            })
            .collect())
    }
}
