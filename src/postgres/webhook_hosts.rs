//! `paused_hosts`, `pause_host`, `resume_host`, `webhook_hosts`: merchants' hosts, and what waits for them.

use serde::Serialize;
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Store,
    connect::answered,
    error::StoreError,
    operator_actions::{self, Operator},
    reader::Reader,
};

/// Merchants whose names an operator reads for each host.
pub const NAMED_MERCHANTS: usize = 3;

/// A host that webhooks go to.
#[derive(Debug, Serialize)]
pub struct WebhookHost {
    /// The host of the URL.
    pub host: String,
    /// Webhooks that are not delivered yet.
    pub waiting: i64,
    /// Those of them that were attempted.
    pub retrying: i64,
    /// Since the time that was asked for.
    pub delivered: i64,
    /// Webhooks that were abandoned since then.
    pub abandoned: i64,
    /// Attempts for the webhooks that are counted here.
    pub attempts: i64,
    /// The merchants of those that were abandoned or are retried, the one with the most first: one more than
    /// [`NAMED_MERCHANTS`] at most. An empty name stands for jobs without `x-merchant-id`.
    pub failing_merchants: Vec<String>,
    /// When the next attempt is due.
    #[serde(with = "time::serde::rfc3339::option")]
    pub next_attempt_at: Option<OffsetDateTime>,
    /// The last attempt that failed.
    pub last_error: Option<String>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_error_at: Option<OffsetDateTime>,
    /// Since when an operator pauses it; `None` if nobody does.
    #[serde(with = "time::serde::rfc3339::option")]
    pub paused_at: Option<OffsetDateTime>,
    /// The person who paused it.
    pub paused_by: Option<String>,
    /// Why, in the person's words.
    pub paused_because: Option<String>,
}

impl Reader {
    /// Counts webhooks by host: all that wait, those of events since `since`, and those that were abandoned since then. The
    /// hosts with the most waiting come first.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn webhook_hosts(
        &self,
        host: Option<&str>,
        since: OffsetDateTime,
    ) -> Result<Vec<WebhookHost>, StoreError> {
        let hosts = sqlx::query_as!(
            WebhookHost,
            r#"
            WITH webhooks AS (
                SELECT
                    id, payout_link_id, webhook_state AS state, webhook_attempts AS attempts, redelivered_after, webhook_due_at,
                    lower(substring(webhook_url from '^[a-z]+://(?:[^/@]*@)?(\[[^]]*\]|[^/:?#]+)')) AS host
                FROM events WHERE webhook_url IS NOT NULL AND (
                    id >= $2 OR due_at IS NOT NULL
                    -- The schedule takes days, so an abandoned webhook belongs to an old event.
                    OR (webhook_state = 'abandoned' AND EXISTS (
                        SELECT FROM attempts
                        WHERE attempts.payout_link_id = events.payout_link_id AND kind = 'post' AND started_at >= $4
                    ))
                )
            ), hosts AS (
                SELECT
                    host,
                    count(*) FILTER (WHERE state = 'pending') AS waiting,
                    count(*) FILTER (WHERE state = 'pending' AND attempts > redelivered_after) AS retrying,
                    count(*) FILTER (WHERE state = 'delivered') AS delivered,
                    count(*) FILTER (WHERE state = 'abandoned') AS abandoned,
                    sum(attempts) AS attempts,
                    min(webhook_due_at) AS next_attempt_at,
                    -- uuid has no max() before PostgreSQL 18.
                    max(id::text) FILTER (
                        WHERE state = 'abandoned' OR attempts > 1 OR (state = 'pending' AND attempts > 0)
                    )::uuid AS failing
                FROM webhooks WHERE $1::text IS NULL OR host = $1 GROUP BY host
            ), failing AS (
                SELECT host, merchant_id, count(*) AS webhooks
                FROM webhooks JOIN payout_links ON payout_links.id = payout_link_id
                WHERE ($1::text IS NULL OR host = $1)
                    AND (webhooks.state = 'abandoned'
                        OR (webhooks.state = 'pending' AND webhooks.attempts > redelivered_after))
                GROUP BY host, merchant_id
            ), merchants AS (
                SELECT host, (array_agg(merchant_id ORDER BY webhooks DESC, merchant_id))[1:$3] AS names
                FROM failing GROUP BY host
            )
            SELECT
                coalesce(hosts.host, paused.host) AS "host!", coalesce(waiting, 0) AS "waiting!",
                coalesce(retrying, 0) AS "retrying!", coalesce(delivered, 0) AS "delivered!",
                coalesce(abandoned, 0) AS "abandoned!", coalesce(attempts, 0) AS "attempts!", next_attempt_at,
                coalesce(merchants.names, '{}') AS "failing_merchants!",
                error.detail AS "last_error?", error.started_at AS "last_error_at?",
                paused.paused_at AS "paused_at?", paused.actor AS "paused_by?", paused.reason AS "paused_because?"
            FROM hosts
            FULL JOIN (SELECT * FROM paused_webhook_hosts WHERE $1::text IS NULL OR host = $1) AS paused
                ON paused.host = hosts.host
            LEFT JOIN merchants ON merchants.host = hosts.host
            LEFT JOIN LATERAL (
                SELECT coalesce(detail, outcome) AS detail, started_at FROM attempts
                WHERE payout_link_id = (SELECT payout_link_id FROM events WHERE id = failing)
                    AND kind = 'post' AND outcome <> 'delivered'
                ORDER BY started_at DESC LIMIT 1
            ) AS error ON true
            ORDER BY waiting DESC NULLS LAST, 1
            "#,
            host,
            super::prune::first_id_of(since),
            // As in the documentation of the field.
            i32::try_from(NAMED_MERCHANTS + 1).unwrap_or(i32::MAX),
            since,
        )
        .fetch_all(&self.pool);
        answered(&self.pool, hosts).await
    }
}

impl Store {
    /// Reads the hosts that operators paused.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn paused_hosts(&self) -> Result<Vec<String>, StoreError> {
        let hosts = sqlx::query_scalar!("SELECT host FROM paused_webhook_hosts").fetch_all(&self.pool);
        answered(&self.pool, hosts).await
    }

    /// Pauses a host. Returns who paused it before, and why, if it is paused already.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn pause_host(&self, host: &str, operator: &Operator) -> Result<Option<Operator>, StoreError> {
        let paused = async {
            let mut transaction = self.pool.begin().await?;
            let inserted = sqlx::query!(
                "INSERT INTO paused_webhook_hosts (host, actor, reason) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                host,
                operator.actor,
                operator.reason
            )
            .execute(&mut *transaction)
            .await?;
            if inserted.rows_affected() == 0 {
                let before = sqlx::query_as!(
                    Operator,
                    "SELECT actor, reason FROM paused_webhook_hosts WHERE host = $1",
                    host
                );
                return before.fetch_optional(&mut *transaction).await;
            }
            let details = json!({ "host": host });
            operator_actions::write(&mut transaction, operator, "webhooks pause-host", None, &details)
                .await?;
            transaction.commit().await?;
            Ok(None)
        };
        answered(&self.pool, paused).await
    }

    /// Ends the pause of a host, and makes its webhooks due. Returns how many; `None` if it was not paused.
    ///
    /// They are due after a few seconds, when every worker knows that the pause has ended.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn resume_host(&self, host: &str, operator: &Operator) -> Result<Option<u64>, StoreError> {
        let resumed = async {
            let mut transaction = self.pool.begin().await?;
            let deleted = sqlx::query!("DELETE FROM paused_webhook_hosts WHERE host = $1", host)
                .execute(&mut *transaction)
                .await?;
            if deleted.rows_affected() == 0 {
                return Ok::<_, sqlx::Error>(false);
            }
            let details = json!({ "host": host });
            operator_actions::write(&mut transaction, operator, "webhooks resume-host", None, &details)
                .await?;
            transaction.commit().await?;
            Ok(true)
        };
        if !answered(&self.pool, resumed).await? {
            return Ok(None);
        }
        let (mut all, mut after) = (0, Uuid::nil());
        loop {
            let due = sqlx::query_scalar!(
                r#"
                UPDATE events SET webhook_due_at = now() + interval '5 seconds', due_at = least(due_at, now() + interval '5 seconds')
                WHERE id = ANY(ARRAY(
                    SELECT id FROM events
                    WHERE due_at IS NOT NULL AND id > $2 AND webhook_state = 'pending' AND holder IS NULL AND NOT webhook_waits
                        AND lower(substring(webhook_url from '^[a-z]+://(?:[^/@]*@)?(\[[^]]*\]|[^/:?#]+)')) = $1
                    ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED
                ))
                RETURNING id
                "#,
                host,
                after
            )
            .fetch_all(&self.pool);
            let due = answered(&self.pool, due).await?;
            all += due.len() as u64;
            match due.into_iter().max() {
                Some(last) => after = last,
                None => return Ok(Some(all)),
            }
        }
    }
}
