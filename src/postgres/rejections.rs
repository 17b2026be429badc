//! `note_rejection`, `rejection_of`: remember the rejection of a message, so that every worker rejects it again when
//! it is delivered again, also under another configuration.

use super::{Store, connect::answered, error::StoreError};
use crate::domain::{Rejection, RejectionCode};

impl Store {
    /// Stores a rejection before it is published. Tries until the database answers.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `Unavailable` and `LeaseLost`.
    pub async fn note_rejection(&self, digest: &[u8; 32], rejection: &Rejection) -> Result<(), StoreError> {
        self.patiently(|| async {
            // A message is settled within seconds of its rejection: a redelivery after an hour is not expected.
            let noted = sqlx::query!(
                "WITH old AS (DELETE FROM rejected_messages WHERE rejected_at < now() - interval '1 hour')
                 INSERT INTO rejected_messages (digest, code, message, field) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (digest) DO NOTHING",
                &digest[..],
                rejection.code.as_str(),
                rejection.message,
                rejection.field,
            )
            .execute(&self.pool);
            answered(&self.pool, noted).await
        })
        .await?;
        Ok(())
    }

    /// Returns the rejection of a message that was delivered before, if there was one. Tries until the database answers.
    ///
    /// # Errors
    ///
    /// As [`Store::note_rejection`].
    pub async fn rejection_of(&self, digest: &[u8; 32]) -> Result<Option<Rejection>, StoreError> {
        let row = self
            .patiently(|| async {
                let row = sqlx::query!(
                    "SELECT code, message, field FROM rejected_messages WHERE digest = $1",
                    &digest[..]
                )
                .fetch_optional(&self.pool);
                answered(&self.pool, row).await
            })
            .await?;
        Ok(row.and_then(|row| {
            let code = RejectionCode::parse(&row.code)?;
            Some(Rejection { code, message: row.message, field: row.field })
        }))
    }
}
