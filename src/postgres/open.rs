//! `open_records`: counts open records by connector and account.

use super::{Store, connect::answered, error::StoreError};
use crate::domain::AccountId;

/// The number of open records of one connector whose calls went to one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRecords {
    /// Name of the connector.
    pub connector: String,
    /// `None`: no call has begun, or an earlier version began it.
    pub account: Option<AccountId>,
    /// At most [`MAX_COUNTED`] a connector.
    pub count: i64,
}

/// Limit of the count, so that a long backlog costs no more. Records with calls come first in the order of service.
pub const MAX_COUNTED: i64 = 10_000;

impl Store {
    /// Counts the open records of every connector, also of connectors that are not configured. It reads the index of
    /// open rows, and at most [`MAX_COUNTED`] rows a connector.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn open_records(&self) -> Result<Vec<OpenRecords>, StoreError> {
        // A loose index scan over the names: one index probe for each.
        let counted = sqlx::query!(
            r#"
            WITH RECURSIVE names AS (
                (SELECT connector FROM payout_links WHERE state = 'open' ORDER BY connector LIMIT 1)
                UNION ALL
                SELECT (
                    SELECT p.connector FROM payout_links p
                    WHERE state = 'open' AND p.connector > names.connector ORDER BY p.connector LIMIT 1
                )
                FROM names WHERE names.connector IS NOT NULL
            )
            SELECT names.connector AS "connector!", open.account, count(*) AS "count!"
            FROM names
            CROSS JOIN LATERAL (
                SELECT account FROM payout_links p
                WHERE state = 'open' AND p.connector = names.connector
                ORDER BY service_rank LIMIT $1
            ) AS open
            WHERE names.connector IS NOT NULL
            GROUP BY names.connector, open.account
            ORDER BY names.connector, open.account
            "#,
            MAX_COUNTED,
        )
        .fetch_all(&self.pool);
        let counted = answered(&self.pool, counted).await?;
        Ok(counted
            .into_iter()
            .map(|row| OpenRecords {
                connector: row.connector,
                account: row.account.as_deref().map(AccountId::stored),
                count: row.count,
            })
            .collect())
    }
}
