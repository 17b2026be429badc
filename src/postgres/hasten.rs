//! `hasten`, `hasten_question`: an operator wants an open record to be processed, or a link to be asked about, at once.

use serde_json::json;
use uuid::Uuid;

use super::{
    Store,
    connect::answered,
    error::StoreError,
    operator_actions::{self, Operator},
};

impl Store {
    /// Makes an open record due at once whose outcome is unknown so far, and stores the act. Returns false if it is not open
    /// and waiting any more. A worker decides what is next, as it would at the record's time.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn hasten(&self, id: Uuid, operator: &Operator) -> Result<bool, StoreError> {
        let hastened = async {
            let mut transaction = self.pool.begin().await?;
            let due = sqlx::query!(
                "UPDATE payout_links SET due_at = now()
                 WHERE id = $1 AND state = 'open' AND holder IS NULL
                    AND (in_doubt_since IS NOT NULL OR connector_payout_id IS NOT NULL)",
                id
            )
            .execute(&mut *transaction)
            .await?;
            if due.rows_affected() == 0 {
                return Ok(false);
            }
            operator_actions::write(&mut transaction, operator, "look-up", Some(id), &json!({})).await?;
            transaction.commit().await?;
            Ok::<_, sqlx::Error>(true)
        };
        answered(&self.pool, hastened).await
    }

    /// Makes a created link due to be asked about, also one that is not asked about any more, and stores the act. While a
    /// worker asks about the link, it is asked about once more after that. Returns false if there is no such link.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn hasten_question(&self, id: Uuid, operator: &Operator) -> Result<bool, StoreError> {
        let hastened = async {
            let mut transaction = self.pool.begin().await?;
            let due = sqlx::query!(
                "UPDATE payout_links SET
                    follow_due_at = CASE WHEN follow_holder IS NULL THEN now() ELSE follow_due_at END,
                    ask_again = follow_holder IS NOT NULL
                 WHERE id = $1 AND state = 'created'",
                id
            )
            .execute(&mut *transaction)
            .await?;
            if due.rows_affected() == 0 {
                return Ok(false);
            }
            operator_actions::write(&mut transaction, operator, "look-up", Some(id), &json!({})).await?;
            transaction.commit().await?;
            Ok::<_, sqlx::Error>(true)
        };
        answered(&self.pool, hastened).await
    }
}
