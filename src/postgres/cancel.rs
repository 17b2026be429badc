//! `request_cancel`, `request_cancel_once_created`, `cancel_state`: asks the workers to cancel a link, and reads what became of it.

use serde_json::json;
use uuid::Uuid;

use super::{
    Store,
    connect::answered,
    error::StoreError,
    operator_actions::{self, Operator},
};
use crate::domain::{LinkStatus, PayoutLinkState};

/// The state of a record whose link is to be cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CancelState {
    /// The state of the record.
    pub state: PayoutLinkState,
    /// The status that was announced last.
    pub status: LinkStatus,
    /// Whether the request waits for the provider's answer.
    pub is_requested: bool,
}

impl Store {
    /// Stores the request to cancel a created link, and makes the link due at once. Changes nothing, and returns false, if the
    /// link is not unclaimed any more, or if a request waits already.
    ///
    /// A worker that asks about the link at this moment does not know of the request: its answer is dropped.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn request_cancel(&self, id: Uuid, operator: &Operator) -> Result<bool, StoreError> {
        let requested = async {
            let mut transaction = self.pool.begin().await?;
            let requested = sqlx::query!(
                "UPDATE payout_links SET cancel_requested_at = now(), follow_due_at = now(), follow_holder = NULL
                 WHERE id = $1 AND state = 'created' AND coalesce(link_status, 'unclaimed') = 'unclaimed'
                    AND cancel_requested_at IS NULL",
                id
            )
            .execute(&mut *transaction)
            .await?;
            commit_request(transaction, requested.rows_affected() > 0, id, operator).await
        };
        answered(&self.pool, requested).await
    }

    /// Stores the request to cancel the link of a record that is not settled: a worker carries it out once the record is
    /// created, and ends a record whose provider was never called without a call. Stores no second request, and returns false
    /// if one waits already.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn request_cancel_once_created(
        &self,
        id: Uuid,
        operator: &Operator,
    ) -> Result<bool, StoreError> {
        let requested = async {
            let mut transaction = self.pool.begin().await?;
            let requested = sqlx::query!(
                "INSERT INTO link_requests (id, payout_link_id, kind, reason)
                 SELECT $2, p.id, 'cancel', $3 FROM payout_links p
                 WHERE p.id = $1 AND NOT EXISTS (
                    SELECT FROM link_requests r WHERE r.payout_link_id = p.id AND r.kind = 'cancel' AND r.reply_to IS NULL
                 )",
                id,
                Uuid::now_v7(),
                operator.reason,
            )
            .execute(&mut *transaction)
            .await?;
            commit_request(transaction, requested.rows_affected() > 0, id, operator).await
        };
        answered(&self.pool, requested).await
    }

    /// Reads what became of a request to cancel a link.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn cancel_state(&self, id: Uuid) -> Result<CancelState, StoreError> {
        let row = sqlx::query!(
            r#"
            SELECT state, link_status, cancel_requested_at IS NOT NULL OR EXISTS (
                SELECT FROM link_requests r WHERE r.payout_link_id = p.id AND r.kind = 'cancel'
            ) AS "is_requested!"
            FROM payout_links p WHERE id = $1
            "#,
            id
        )
        .fetch_one(&self.pool);
        let row = answered(&self.pool, row).await?;
        // A link of an earlier version: nothing was announced after its creation.
        let status = row.link_status.map_or(Some(LinkStatus::Unclaimed), |name| LinkStatus::parse(&name));
        let status = status.ok_or_else(|| {
            StoreError::inconsistent("payout_links", "link_status", id, "a later version wrote it")
        })?;
        let state = PayoutLinkState::parse(&row.state).ok_or_else(|| {
            StoreError::inconsistent("payout_links", "state", id, "a later version wrote it")
        })?;
        Ok(CancelState { state, status, is_requested: row.is_requested })
    }
}

/// Stores the operator's act together with its request, if a request is stored. Returns whether it is.
async fn commit_request(
    mut transaction: sqlx::PgTransaction<'_>,
    is_stored: bool,
    id: Uuid,
    operator: &Operator,
) -> Result<bool, sqlx::Error> {
    if is_stored {
        operator_actions::write(&mut transaction, operator, "cancel", Some(id), &json!({})).await?;
    }
    transaction.commit().await?;
    Ok(is_stored)
}
