//! `due_records`, `oldest_due_event`: how much waits, and since when. One index probe for each kind of due work.

use std::{collections::HashMap, time::Duration};

use super::{Store, connect::answered, error::StoreError};
use crate::domain::SERVICE_RANKS;

impl Store {
    /// Returns the connectors that have due records, and for how long the oldest has been due.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn due_records(&self, connectors: &[String]) -> Result<HashMap<String, Duration>, StoreError> {
        let due = sqlx::query!(
            r#"
            SELECT
                connector AS "connector!",
                (extract(epoch FROM now() - min(next.due_at)) * 1000)::bigint AS "overdue_ms!"
            FROM unnest($1::text[]) AS connectors (connector)
            CROSS JOIN unnest($2::smallint[]) AS ranks (rank)
            CROSS JOIN LATERAL (
                SELECT due_at FROM payout_links p
                WHERE state = 'open' AND p.connector = connectors.connector AND service_rank = rank
                    AND due_at <= now()
                ORDER BY due_at LIMIT 1
            ) AS next
            GROUP BY connector
            "#,
            connectors,
            &SERVICE_RANKS[..],
        )
        .fetch_all(&self.pool);
        let due = answered(&self.pool, due).await?;
        Ok(due.into_iter().map(|row| (row.connector, millis(row.overdue_ms))).collect())
    }

    /// Returns for how long the oldest due event has been due, if there is one.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn oldest_due_event(&self) -> Result<Option<Duration>, StoreError> {
        let oldest = sqlx::query_scalar!(
            r#"
            SELECT (extract(epoch FROM now() - due_at) * 1000)::bigint AS "overdue_ms!" FROM events
            WHERE due_at <= now() ORDER BY due_at LIMIT 1
            "#
        )
        .fetch_optional(&self.pool);
        Ok(answered(&self.pool, oldest).await?.map(millis))
    }
}

fn millis(overdue_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(overdue_ms).unwrap_or_default())
}
