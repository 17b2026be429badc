//! `lock_acts`, `last_act`, `link_of`: keeps two operators from acting on the same messages at once, and lets the second
//! one know what the first one did.

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{Store, connect::answered, error::StoreError, operator_actions::OperatorAction};

/// Held while an operator acts. It ends with its session, so also with the program.
pub struct ActLock {
    connection: PgConnection,
}

impl ActLock {
    /// Ends it.
    ///
    /// # Errors
    ///
    /// `Unavailable`: it ends when the database notices that the session is gone.
    pub async fn end(self) -> Result<(), StoreError> {
        Ok(self.connection.close().await?)
    }
}

impl Store {
    /// Takes the lock of a name; `None` if another operator has it.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn lock_acts(&self, name: &str) -> Result<Option<ActLock>, StoreError> {
        // Out of the pool: the session belongs to the lock.
        let connection = answered(&self.pool, self.pool.acquire()).await?;
        let mut connection = connection.detach();
        let locked = sqlx::query_scalar!(
            r#"SELECT pg_try_advisory_lock(hashtextextended('operator acts: ' || $1, 0)) AS "locked!""#,
            name
        )
        .fetch_one(&mut connection);
        Ok(answered(&self.pool, locked).await?.then_some(ActLock { connection }))
    }

    /// Reads the last act of a command within an hour.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn last_act(&self, command: &str) -> Result<Option<OperatorAction>, StoreError> {
        let last = sqlx::query_as!(
            OperatorAction,
            "SELECT id, at, actor, reason, command, payout_link_id, details FROM operator_actions
             WHERE command = $1 AND at > now() - interval '1 hour' ORDER BY id DESC LIMIT 1",
            command
        )
        .fetch_optional(&self.pool);
        answered(&self.pool, last).await
    }

    /// Returns the record of a key, if there is one.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn link_of(
        &self,
        merchant_id: &str,
        merchant_payout_id: &str,
    ) -> Result<Option<Uuid>, StoreError> {
        let id = sqlx::query_scalar!(
            "SELECT id FROM payout_links WHERE merchant_id = $1 AND merchant_payout_id = $2",
            merchant_id,
            merchant_payout_id
        )
        .fetch_optional(&self.pool);
        answered(&self.pool, id).await
    }
}
