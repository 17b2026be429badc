//! `show`: reads a record for an operator, without its secrets.

use uuid::Uuid;

use super::{
    connect::answered,
    error::StoreError,
    reader::Reader,
    shown::{Shown, ShownAttempt, ShownEvent, ShownLink, ShownRequest, ShownWebhook},
};
use crate::domain::PayoutLinkState;

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
                p.due_at, p.holder, created_at, concluded_at, first_called_at, last_called_at, refreshed_at,
                e.id AS "event_id?", e.type AS "type?", published_at, webhook_state AS "webhook_state?",
                webhook_attempts AS "webhook_attempts?", e.due_at AS event_due_at,
                p.link_status, p.provider_status, p.provider_payout_id, p.expires_at, p.asked_at, p.follow_due_at,
                p.follow_failures, p.cancel_requested_at, p.cancelled_at, p.cancelled_because, p.status_changed_at,
                p.erased_at
            -- After an operator's act, event_id is a later event or none. Each event names the one before it.
            FROM payout_links p LEFT JOIN events e ON e.id = coalesce(
                (SELECT previous_event_id FROM events WHERE payout_link_id = p.id AND sequence = 2),
                CASE WHEN p.sequence = 1 THEN coalesce(p.event_id, p.newest_event_id) END,
                p.event_id
            ) AND e.sequence = 1
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
            let payout = (row.merchant_id.as_str(), row.merchant_payout_id.as_str());
            let operator_actions = self.actions_of(row.id, payout).await?;
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
                leased: row.holder.is_some(),
                worker: row.holder.and_then(worker_of),
                first_called_at: row.first_called_at,
                last_called_at: row.last_called_at,
                refreshed_at: row.refreshed_at,
                created_at: row.created_at,
                concluded_at: row.concluded_at,
                erased_at: row.erased_at,
                link: row.link_status.map(|status| ShownLink {
                    status,
                    provider_status: row.provider_status,
                    provider_payout_id: row.provider_payout_id,
                    expires_at: row.expires_at,
                    asked_at: row.asked_at,
                    ask_at: row.follow_due_at,
                    failures: row.follow_failures,
                    cancel_requested_at: row.cancel_requested_at,
                    cancelled_at: row.cancelled_at,
                    cancelled_because: row.cancelled_because,
                    status_changed_at: row.status_changed_at,
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
                provider_webhooks: self.provider_webhooks_of(row.id).await?,
                link_requests: self.link_requests_of(row.id).await?,
                operator_actions,
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
        let rows = sqlx::query!(
            r#"
            SELECT
                kind AS "kind!", number AS "number!", started_at AS "started_at!", took_ms AS "took_ms!",
                status_code AS "status_code!", outcome AS "outcome!", detail, caller
            FROM attempts WHERE payout_link_id = $1
            UNION ALL
            SELECT 'create', 1, first_called_at, took_ms, status_code, 'created', connector_payout_id, concluded_by
            FROM payout_links WHERE id = $1 AND took_ms IS NOT NULL
            UNION ALL
            SELECT 'post', 1, e.posted_at, e.took_ms, e.status_code, 'delivered', NULL, e.delivered_by
            FROM payout_links p JOIN events e ON e.sequence = 1 AND e.id = coalesce(
                (SELECT previous_event_id FROM events WHERE payout_link_id = p.id AND sequence = 2), p.event_id,
                -- Of a record that is tried again.
                CASE WHEN p.sequence = 1 THEN p.newest_event_id END
            )
            WHERE p.id = $1 AND e.took_ms IS NOT NULL
            UNION ALL
            SELECT 'post', 1, posted_at, took_ms, status_code, 'delivered', NULL, delivered_by
            FROM events WHERE payout_link_id = $1 AND sequence > 1 AND took_ms IS NOT NULL
            ORDER BY 3, 2
            "#,
            payout_link_id
        )
        .fetch_all(&self.pool);
        let rows = answered(&self.pool, rows).await?;
        Ok(rows
            .into_iter()
            .map(|row| ShownAttempt {
                kind: row.kind,
                number: row.number,
                started_at: row.started_at,
                took_ms: row.took_ms,
                status_code: row.status_code,
                outcome: row.outcome,
                detail: row.detail,
                worker: row.caller.and_then(worker_of),
            })
            .collect())
    }

    async fn provider_webhooks_of(&self, payout_link_id: Uuid) -> Result<Vec<ShownWebhook>, StoreError> {
        let webhooks = sqlx::query_as!(
            ShownWebhook,
            "SELECT event_type, received_at FROM provider_webhooks WHERE payout_link_id = $1 ORDER BY received_at",
            payout_link_id
        )
        .fetch_all(&self.pool);
        answered(&self.pool, webhooks).await
    }

    async fn link_requests_of(&self, payout_link_id: Uuid) -> Result<Vec<ShownRequest>, StoreError> {
        let requests = sqlx::query_as!(
            ShownRequest,
            "SELECT kind, reason, requested_at FROM link_requests WHERE payout_link_id = $1 ORDER BY id",
            payout_link_id
        )
        .fetch_all(&self.pool);
        answered(&self.pool, requests).await
    }

    /// Looks for the record whose merchant and identifier satisfy a test, among the newest `scan` records.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn find(&self, scan: u32, is_it: impl Fn(&str, &str) -> bool) -> Result<Search, StoreError> {
        let (mut before, mut left) = (Uuid::max(), scan);
        while left > 0 {
            let page = left.min(SEARCH_PAGE);
            let rows = sqlx::query!(
                "SELECT id, merchant_id, merchant_payout_id FROM payout_links WHERE id < $1 ORDER BY id DESC LIMIT $2",
                before,
                i64::from(page)
            )
            .fetch_all(&self.pool);
            let rows = answered(&self.pool, rows).await?;
            if let Some(row) = rows.iter().find(|row| is_it(&row.merchant_id, &row.merchant_payout_id)) {
                return Ok(Search::Found(row.id));
            }
            match rows.last() {
                Some(last) if rows.len() == page as usize => before = last.id,
                Some(_) | None => return Ok(Search::NotThere),
            }
            left -= page;
        }
        Ok(Search::Stopped)
    }
}

/// The outcome of a search among records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// The first record that satisfies the test.
    Found(Uuid),
    /// No record satisfies the test.
    NotThere,
    /// There are more records than were looked at.
    Stopped,
}

/// Records that are read at once.
const SEARCH_PAGE: u32 = 10_000;

/// Returns the number of the worker that made a claim.
fn worker_of(holder: Uuid) -> Option<String> {
    let number = u32::try_from(holder.as_u128() >> 96).unwrap_or_default();
    (holder.get_version_num() == 8).then(|| format!("{number:08x}"))
}
