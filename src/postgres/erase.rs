//! `erase`: removes a person's data from a record. What the books need stays: ids, amount, currencies, states and times.

use serde_json::json;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Store,
    acted::ActedRecord,
    connect::answered,
    error::StoreError,
    operator_actions::{self, Operator},
    seal::Column,
};
use crate::contract;

/// Whether a record was erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Erased {
    /// Its request, results and secrets are erased.
    Done {
        /// When it was erased before; `None`: never.
        before: Option<OffsetDateTime>,
    },
    /// The record is open, or is not as it was when it was read. Nothing is erased.
    Changed,
    /// A result or a webhook of the record is not delivered yet. Nothing is erased.
    Undelivered,
}

impl Store {
    /// Erases the request, the attempts, and the link and the provider's texts in every stored result. Stores the act in the
    /// same transaction. Erasing a record again erases what was added since.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`. `Inconsistent`: a result cannot be decrypted, and nothing is erased. After
    /// `Unavailable` the record may be erased.
    pub async fn erase(&self, record: &ActedRecord, operator: &Operator) -> Result<Erased, StoreError> {
        let erased = async {
            let mut transaction = self.pool.begin().await?;
            let row = sqlx::query!(
                "SELECT result, event_id, erased_at FROM payout_links
                 WHERE id = $1 AND state <> 'open' AND coalesce(newest_event_id, event_id) = $2
                 FOR UPDATE",
                record.id,
                record.last_event,
            )
            .fetch_optional(&mut *transaction)
            .await?;
            let Some(row) = row else { return Ok(Erased::Changed) };
            if is_undelivered(&mut transaction, record.id, row.event_id).await? {
                return Ok(Erased::Undelivered);
            }
            let earlier = sqlx::query!(
                r#"SELECT id, earlier_result AS "earlier_result!" FROM events
                 WHERE payout_link_id = $1 AND earlier_result IS NOT NULL"#,
                record.id
            )
            .fetch_all(&mut *transaction)
            .await?;
            for event in earlier {
                sqlx::query!(
                    "UPDATE events SET earlier_result = $2 WHERE id = $1",
                    event.id,
                    self.anonymous(record.id, &event.earlier_result)?,
                )
                .execute(&mut *transaction)
                .await?;
            }
            let result = row.result.as_deref().map(|sealed| self.anonymous(record.id, sealed)).transpose()?;
            sqlx::query!(
                "UPDATE payout_links SET
                    request = NULL, result = $2, fresh_webhook_url = NULL, reply_to = NULL, status_error = NULL,
                    erased_at = coalesce(erased_at, now())
                 WHERE id = $1",
                record.id,
                result,
            )
            .execute(&mut *transaction)
            .await?;
            sqlx::query!(
                "UPDATE events SET error = NULL WHERE payout_link_id = $1 AND sequence > 1",
                record.id
            )
            .execute(&mut *transaction)
            .await?;
            sqlx::query!("DELETE FROM attempts WHERE payout_link_id = $1", record.id)
                .execute(&mut *transaction)
                .await?;
            operator_actions::write(&mut transaction, operator, "erase", Some(record.id), &json!({})).await?;
            transaction.commit().await?;
            Ok::<_, StoreError>(Erased::Done { before: row.erased_at })
        };
        answered(&self.pool, erased).await
    }

    /// Returns a stored result without the link and the provider's texts, encrypted.
    fn anonymous(&self, record: Uuid, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        let unreadable = |reason: String| StoreError::inconsistent("payout_links", "result", record, reason);
        let result =
            self.keys.open(Column::Result, record, sealed).map_err(|error| unreadable(error.to_string()))?;
        let anonymous = contract::anonymous(&result).ok_or_else(|| unreadable("not JSON".into()))?;
        Ok(self.keys.seal(Column::Result, record, &anonymous))
    }
}

/// Returns whether an event of the record is due: its content is still needed.
async fn is_undelivered(
    connection: &mut PgConnection,
    record: Uuid,
    event: Option<Uuid>,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT
            EXISTS (SELECT FROM events WHERE id = $2 AND due_at IS NOT NULL)
            OR EXISTS (SELECT FROM events WHERE payout_link_id = $1 AND sequence > 1 AND due_at IS NOT NULL)
            OR EXISTS (
                SELECT FROM events WHERE payout_link_id = $1 AND earlier_result IS NOT NULL AND due_at IS NOT NULL
            ) AS "undelivered!""#,
        record,
        event,
    )
    .fetch_one(connection)
    .await
}
