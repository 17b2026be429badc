//! `record_open_breakers`, `open_breakers`: the open circuit breakers of all workers, for `status`.

use serde::Serialize;
use time::OffsetDateTime;

use super::{Store, connect::answered, error::StoreError, reader::Reader, worker::LOCK_CLASS};

/// The open circuit breakers of one connector account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OpenBreaker {
    /// The name of the connector account.
    pub connector: String,
    /// How many workers have it open.
    pub workers: i64,
    /// When the first of them opened it.
    #[serde(with = "time::serde::rfc3339")]
    pub opened_at: OffsetDateTime,
}

impl Store {
    /// Stores which of this worker's circuit breakers are open, and deletes the rows of workers that are gone.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn record_open_breakers(&self, connectors: &[String]) -> Result<(), StoreError> {
        let recorded = sqlx::query!(
            "WITH closed AS (
                DELETE FROM open_breakers WHERE (worker = $1 AND connector <> ALL ($2)) OR (
                    worker <> $1 AND worker NOT IN (
                        SELECT objid::bigint FROM pg_locks
                        WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid::bigint = $3
                            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                    )
                )
             )
             INSERT INTO open_breakers (worker, connector) SELECT $1, unnest($2::text[]) ON CONFLICT DO NOTHING",
            self.worker.objid(),
            connectors,
            i64::from(LOCK_CLASS),
        )
        .execute(&self.pool);
        answered(&self.pool, recorded).await?;
        Ok(())
    }
}

impl Reader {
    /// Reads the open circuit breakers of the workers that run. A standby does not show which workers run: there all rows
    /// count.
    pub(super) async fn open_breakers(&self) -> Result<Vec<OpenBreaker>, StoreError> {
        let read = sqlx::query_as!(
            OpenBreaker,
            r#"
            SELECT connector, count(*) AS "workers!", min(opened_at) AS "opened_at!" FROM open_breakers
            WHERE pg_is_in_recovery() OR worker IN (
                SELECT objid::bigint FROM pg_locks
                WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid::bigint = $1
                    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            )
            GROUP BY connector ORDER BY connector
            "#,
            i64::from(LOCK_CLASS),
        )
        .fetch_all(&self.pool);
        answered(&self.pool, read).await
    }
}
