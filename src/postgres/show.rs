//! `show`: reads a record for an operator, without its secrets.

use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{connect::answered, error::StoreError, reader::Reader};
use crate::domain::PayoutLinkState;

/// A record with its event and its attempts. Nothing is decrypted for it.
#[derive(Debug, Serialize)]
pub struct Shown {
    pub id: Uuid,
    pub merchant_id: String,
    pub merchant_payout_id: String,
    pub connector: String,
    /// Minor units of `currency`.
    pub amount_minor: i64,
    pub currency: String,
    pub destination_currency: String,
    #[serde(serialize_with = "as_text")]
    pub state: PayoutLinkState,
    pub payout_status: Option<String>,
    pub connector_payout_id: Option<String>,
    pub status_code: i32,
    pub error_code: Option<String>,
    /// `create` attempts begun.
    pub attempts: i32,
    #[serde(with = "time::serde::rfc3339::option")]
    pub in_doubt_since: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub due_at: Option<OffsetDateTime>,
    pub leased: bool,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    pub concluded_at: Option<OffsetDateTime>,
    /// The event of the conclusion.
    pub event: Option<ShownEvent>,
    /// The link, if one was created.
    pub link: Option<ShownLink>,
    /// The later events, in order.
    pub later_events: Vec<ShownEvent>,
    pub timeline: Vec<ShownAttempt>,
}

/// The created link of a [`Shown`] record.
#[derive(Debug, Serialize)]
pub struct ShownLink {
    /// The status that was announced last.
    pub status: String,
    /// The provider's own word.
    pub provider_status: Option<String>,
    /// The provider's id of the payout or transaction that came of the link.
    pub provider_payout_id: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// When the provider was asked last.
    #[serde(with = "time::serde::rfc3339::option")]
    pub asked_at: Option<OffsetDateTime>,
    /// When the provider is asked next; empty if it is not asked any more.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ask_at: Option<OffsetDateTime>,
    /// Questions without an answer since the last one.
    pub failures: i32,
    #[serde(with = "time::serde::rfc3339::option")]
    pub cancel_requested_at: Option<OffsetDateTime>,
}

/// An event of a [`Shown`] record.
#[derive(Debug, Serialize)]
pub struct ShownEvent {
    pub id: Uuid,
    /// Counted from 1.
    pub sequence: i32,
    pub r#type: String,
    #[serde(with = "time::serde::rfc3339::option")]
    pub published_at: Option<OffsetDateTime>,
    pub webhook_state: String,
    pub webhook_attempts: i32,
    #[serde(with = "time::serde::rfc3339::option")]
    pub due_at: Option<OffsetDateTime>,
}

/// One attempt of a [`Shown`] record.
#[derive(Debug, Serialize)]
pub struct ShownAttempt {
    /// `create`, `look_up` or `post`.
    pub kind: String,
    pub number: i32,
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    pub took_ms: i32,
    pub status_code: i32,
    /// As text: a later version may write outcomes that this one does not know, and marks those of lost claims as late.
    pub outcome: String,
    pub detail: Option<String>,
}

impl Reader {
    /// Reads the records that have this id: record id, event id, `merchant_payout_id`, `connector_payout_id` or the
    /// provider's id of the payout that came of the link. There may be several, because several merchants may use one `merchant_payout_id`.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn show(&self, id: &str) -> Result<Vec<Shown>, StoreError> {
        let rows = sqlx::query!(
            r#"
            SELECT
                p.id, merchant_id, merchant_payout_id, connector, amount_minor, currency, destination_currency,
                state, payout_status, connector_payout_id, p.status_code, error_code, attempts, in_doubt_since,
                p.due_at, p.holder IS NOT NULL AS "leased!", created_at, concluded_at,
                e.id AS "event_id?", e.type AS "type?", published_at, webhook_state AS "webhook_state?",
                webhook_attempts AS "webhook_attempts?", e.due_at AS event_due_at,
                p.link_status, p.provider_status, p.provider_payout_id, p.expires_at, p.asked_at, p.follow_due_at,
                p.follow_failures, p.cancel_requested_at
            FROM payout_links p LEFT JOIN events e ON e.id = p.event_id
            WHERE p.id IN (
                SELECT id FROM payout_links WHERE id = $1
                UNION ALL SELECT payout_link_id FROM events WHERE id = $1
                UNION ALL SELECT id FROM payout_links WHERE merchant_payout_id = $2
                UNION ALL SELECT id FROM payout_links WHERE connector_payout_id = $2
                UNION ALL SELECT id FROM payout_links WHERE provider_payout_id = $2
            )
            ORDER BY created_at
            "#,
            Uuid::parse_str(id).ok(),
            id
        )
        .fetch_all(&self.pool);
        let rows = answered(&self.pool, rows).await?;
        let mut shown = Vec::with_capacity(rows.len());
        for row in rows {
            shown.push(Shown {
                id: row.id,
                merchant_id: row.merchant_id,
                merchant_payout_id: row.merchant_payout_id,
                connector: row.connector,
                amount_minor: row.amount_minor,
                currency: row.currency,
                destination_currency: row.destination_currency,
                state: PayoutLinkState::parse(&row.state).ok_or_else(|| {
                    StoreError::inconsistent("payout_links", "state", row.id, format!("{:?}", row.state))
                })?,
                payout_status: row.payout_status,
                connector_payout_id: row.connector_payout_id,
                status_code: row.status_code,
                error_code: row.error_code,
                attempts: row.attempts,
                in_doubt_since: row.in_doubt_since,
                due_at: row.due_at,
                leased: row.leased,
                created_at: row.created_at,
                concluded_at: row.concluded_at,
                link: row.link_status.map(|status| ShownLink {
                    status,
                    provider_status: row.provider_status,
                    provider_payout_id: row.provider_payout_id,
                    expires_at: row.expires_at,
                    asked_at: row.asked_at,
                    ask_at: row.follow_due_at,
                    failures: row.follow_failures,
                    cancel_requested_at: row.cancel_requested_at,
                }),
                later_events: self.later_events(row.id).await?,
                event: row.event_id.map(|id| ShownEvent {
                    id,
                    sequence: 1,
                    r#type: row.r#type.unwrap_or_default(),
                    published_at: row.published_at,
                    webhook_state: row.webhook_state.unwrap_or_default(),
                    webhook_attempts: row.webhook_attempts.unwrap_or_default(),
                    due_at: row.event_due_at,
                }),
                timeline: self.timeline(row.id).await?,
            });
        }
        Ok(shown)
    }

    async fn later_events(&self, payout_link_id: Uuid) -> Result<Vec<ShownEvent>, StoreError> {
        let events = sqlx::query_as!(
            ShownEvent,
            "SELECT id, sequence, type, published_at, webhook_state, webhook_attempts, due_at FROM events
             WHERE payout_link_id = $1 AND sequence > 1 ORDER BY sequence",
            payout_link_id
        )
        .fetch_all(&self.pool);
        answered(&self.pool, events).await
    }

    async fn timeline(&self, payout_link_id: Uuid) -> Result<Vec<ShownAttempt>, StoreError> {
        Ok(sqlx::query_as!(
            ShownAttempt,
            r#"
            SELECT
                kind AS "kind!", number AS "number!", started_at AS "started_at!", took_ms AS "took_ms!",
                status_code AS "status_code!", outcome AS "outcome!", detail
            FROM attempts WHERE payout_link_id = $1
            UNION ALL
            SELECT 'create', 1, first_called_at, took_ms, status_code, 'created', connector_payout_id
            FROM payout_links WHERE id = $1 AND took_ms IS NOT NULL
            UNION ALL
            SELECT 'post', 1, e.posted_at, e.took_ms, e.status_code, 'delivered', NULL
            FROM payout_links p JOIN events e ON e.id = p.event_id WHERE p.id = $1 AND e.took_ms IS NOT NULL
            UNION ALL
            SELECT 'post', 1, posted_at, took_ms, status_code, 'delivered', NULL
            FROM events WHERE payout_link_id = $1 AND sequence > 1 AND took_ms IS NOT NULL
            ORDER BY 3, 2
            "#,
            payout_link_id
        )
        .fetch_all(&self.pool)
        .await?)
    }
}

fn as_text<S: Serializer>(state: &PayoutLinkState, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(state.as_str())
}
