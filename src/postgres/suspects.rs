//! `begin_suspect`, `end_suspect`: durable evidence that processing one message brings workers down.
//!
//! Before a message that came back several times is decoded, the database counts a begin. The count is removed once
//! the message is settled. Only begins without an end are evidence; a redelivery alone is not.

use super::{Store, connect::answered, error::StoreError};

impl Store {
    /// Counts a begin, and returns the number of earlier begins without an end. Tries until the database answers.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `Unavailable` and `LeaseLost`.
    pub async fn begin_suspect(&self, digest: &[u8; 32]) -> Result<u32, StoreError> {
        let begun = self
            .patiently(|| async {
                let begun = sqlx::query_scalar!(
                    r#"
                    INSERT INTO suspect_messages AS suspect (digest, begun) VALUES ($1, 1)
                    ON CONFLICT (digest) DO UPDATE SET begun = suspect.begun + 1, last_begun_at = now()
                    RETURNING begun
                    "#,
                    &digest[..]
                )
                .fetch_one(&self.pool);
                answered(&self.pool, begun).await
            })
            .await?;
        Ok(u32::try_from(begun).unwrap_or_default().saturating_sub(1))
    }

    /// Deletes the count of a message that was settled: a later delivery starts from zero. Tries until the database answers.
    ///
    /// # Errors
    ///
    /// As [`Store::begin_suspect`].
    pub async fn end_suspect(&self, digest: &[u8; 32]) -> Result<(), StoreError> {
        self.patiently(|| async {
            let ended = sqlx::query!("DELETE FROM suspect_messages WHERE digest = $1", &digest[..])
                .execute(&self.pool);
            answered(&self.pool, ended).await
        })
        .await?;
        Ok(())
    }
}
