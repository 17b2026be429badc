//! `record_seals`: counts the values that each key has encrypted, by all workers together.
//!
//! Nonces are random, so a key may encrypt 2³² values (NIST SP 800-38D, 8.3). Each worker counts in memory and adds
//! its count to the key's row once a minute. No job waits for that. A worker that is killed loses at most the count
//! of one minute.

use super::{Store, connect::answered, error::StoreError};

/// Number of values that a key may encrypt.
pub const MAX_SEALS: u64 = 1 << 32;
/// A quarter of the limit: from here on a warning is logged. At 1000 jobs a second more than two weeks are left.
pub const MANY_SEALS: u64 = MAX_SEALS / 4;

impl Store {
    /// Adds the values encrypted since the last call to the first key's row, and returns that key's total.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`. The count is then added by the next call.
    pub async fn record_seals(&self) -> Result<u64, StoreError> {
        let (key, seals) = self.keys.take_seals();
        let added = sqlx::query_scalar!(
            "INSERT INTO sealing_keys (key_id, seals) VALUES ($1, $2)
             ON CONFLICT (key_id) DO UPDATE SET seals = sealing_keys.seals + $2, updated_at = now()
             RETURNING seals",
            key,
            i64::try_from(seals).unwrap_or(i64::MAX),
        )
        .fetch_one(&self.pool);
        match answered(&self.pool, added).await {
            Ok(all) => Ok(u64::try_from(all).unwrap_or_default()),
            Err(error) => {
                // If the commit succeeded and its answer was lost, the values are counted twice. That is the safe side.
                self.keys.give_seals_back(seals);
                Err(error)
            }
        }
    }

    /// Returns how many values each key has encrypted, as recorded by the workers.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn seals(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let rows =
            sqlx::query!("SELECT key_id, seals FROM sealing_keys ORDER BY key_id").fetch_all(&self.pool);
        let rows = answered(&self.pool, rows).await?;
        Ok(rows.into_iter().map(|row| (row.key_id, u64::try_from(row.seals).unwrap_or_default())).collect())
    }
}
