//! `record_seals`: how much each key has encrypted, by all workers together.
//!
//! Nonces are random, so a key may encrypt 2³² values (NIST SP 800-38D, 8.3). Each worker counts its own in memory and adds them to the
//! key's row once a minute: no job waits for it. A worker that is killed takes a minute's count with it at most.

use super::{Store, StoreError, connect::answered};

/// Values that a key may encrypt.
pub const MAX_SEALS: u64 = 1 << 32;
/// From here on a warning is logged: a quarter. At 1000 jobs a second it leaves more than two weeks for a rotation.
pub const MANY_SEALS: u64 = MAX_SEALS / 4;

impl Store {
    /// Adds what was encrypted since the last time to the first key's row, and returns what that key has encrypted in all.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`. What was to be added is added the next time.
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
                // If the commit went unheard it is counted twice: too many is the safe side.
                self.keys.give_seals_back(seals);
                Err(error)
            }
        }
    }

    /// Returns what each key has encrypted so far, as the workers have recorded it.
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
