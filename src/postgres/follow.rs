//! `claim_followed`: gives links that are due to be asked about a lease under a new holder.

use tokio::time::Instant;
use uuid::Uuid;

use super::{Store, connect::answered, error::StoreError, numbers::millis, record_id::Identity};
use crate::{
    contract,
    domain::{AccountId, CreateLink, Followed, Lease, LinkStatus, follow::CancelReason},
};

/// A created link that this worker may ask about while its lease runs.
#[derive(Debug, Clone)]
pub struct FollowedLink {
    /// The id of the record.
    pub id: Uuid,
    /// `x-merchant-id` of the job; empty if it has none.
    pub merchant_id: String,
    /// The merchant's identifier of the payout.
    pub merchant_payout_id: String,
    /// The provider's id of the link.
    pub connector_payout_id: String,
    /// The provider's id of the payout or transaction that came of the link.
    pub provider_payout_id: Option<String>,
    /// The account that the link was created in; `None` for a record of an earlier version.
    pub account: Option<AccountId>,
    /// The state that decides about the next question.
    pub followed: Followed,
    /// How long this worker may act on it.
    pub lease: Lease,
}

impl Store {
    /// Claims at most `limit` links of a connector that are due to be asked about, the longest due first.
    ///
    /// Nothing is lost if the worker dies: after the lease another worker asks.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`. Nothing is claimed then; if only the answer was lost, the claim expires.
    pub async fn claim_followed(
        &self,
        connector: &str,
        limit: usize,
    ) -> Result<Vec<FollowedLink>, StoreError> {
        let (holder, asked_at) = (self.worker.claim_id(), Instant::now());
        let rows = sqlx::query!(
            r#"
            WITH due AS (
                SELECT id FROM payout_links
                WHERE connector = $1 AND follow_due_at <= now()
                ORDER BY follow_due_at LIMIT $2
                FOR UPDATE SKIP LOCKED
            )
            UPDATE payout_links p SET
                follow_holder = $3, follow_due_at = now() + $4::bigint * interval '1 millisecond', ask_again = false
            FROM due WHERE p.id = ANY (ARRAY[due.id])
            RETURNING
                p.id, merchant_id, merchant_payout_id, connector_payout_id AS "connector_payout_id!",
                provider_payout_id, account, link_status, expires_at, expiring_announced, follow_failures,
                cancel_requested_at IS NOT NULL AS "cancel_is_requested!", cancelled_at, cancelled_because,
                coalesce(status_changed_at, concluded_at, created_at) AS "changed_at!", now() AS "now!"
            "#,
            connector,
            i64::try_from(limit).unwrap_or(i64::MAX),
            holder,
            millis(self.settings.lease),
        )
        .fetch_all(&self.pool);
        let rows = answered(&self.pool, rows).await?;
        let answered_at = Instant::now();
        Ok(rows
            .into_iter()
            .map(|row| FollowedLink {
                id: row.id,
                merchant_id: row.merchant_id,
                merchant_payout_id: row.merchant_payout_id,
                connector_payout_id: row.connector_payout_id,
                provider_payout_id: row.provider_payout_id,
                account: row.account.as_deref().map(AccountId::stored),
                followed: Followed {
                    // A link of an earlier version: nothing was announced after its creation.
                    status: row
                        .link_status
                        .and_then(|name| LinkStatus::parse(&name))
                        .unwrap_or(LinkStatus::Unclaimed),
                    changed_at: row.changed_at,
                    expires_at: row.expires_at,
                    expiring_is_announced: row.expiring_announced,
                    cancel_is_requested: row.cancel_is_requested,
                    cancelled: row
                        .cancelled_at
                        .zip(row.cancelled_because.and_then(|name| CancelReason::parse(&name))),
                    failures: u32::try_from(row.follow_failures).unwrap_or_default(),
                },
                lease: Lease {
                    holder,
                    granted_at: row.now,
                    asked_at,
                    answered_at,
                    length: self.settings.lease,
                },
            })
            .collect())
    }

    /// Stores that this worker begins to cancel a link, before it calls the provider. Renews the lease for two calls: the
    /// cancel, and the question whether it had an effect.
    ///
    /// # Errors
    ///
    /// `LeaseLost` if the link belongs to another claim, or any other [`StoreError`].
    pub async fn begin_cancel(
        &self,
        link: &mut FollowedLink,
        reason: CancelReason,
    ) -> Result<(), StoreError> {
        let (asked_at, length) = (Instant::now(), self.settings.lease * 2);
        let cancelled = sqlx::query_scalar!(
            r#"UPDATE payout_links SET
                cancelled_at = now(), cancelled_because = $3,
                follow_due_at = now() + $4::bigint * interval '1 millisecond'
             WHERE id = $1 AND follow_holder = $2
             RETURNING now() AS "now!""#,
            link.id,
            link.lease.holder,
            reason.as_str(),
            millis(length),
        )
        .fetch_optional(&self.pool);
        let granted_at = answered(&self.pool, cancelled).await?.ok_or(StoreError::LeaseLost)?;
        link.followed.cancelled = Some((granted_at, reason));
        let holder = link.lease.holder;
        link.lease = Lease { holder, granted_at, asked_at, answered_at: Instant::now(), length };
        Ok(())
    }

    /// Returns the job of a link, for the secrets that a provider's text may repeat; `None` if its request is erased or
    /// cannot be decrypted.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost` and `Inconsistent`.
    pub async fn job_of(
        &self,
        link: &FollowedLink,
        connector: &str,
    ) -> Result<Option<CreateLink>, StoreError> {
        let request = sqlx::query_scalar!("SELECT request FROM payout_links WHERE id = $1", link.id)
            .fetch_optional(&self.pool);
        let Some(sealed) = answered(&self.pool, request).await?.flatten() else { return Ok(None) };
        let (merchant_id, merchant_payout_id) = (&*link.merchant_id, &*link.merchant_payout_id);
        let identity = Identity { merchant_id, merchant_payout_id, connector };
        let request = self.keys.open_request(link.id, identity, &sealed).ok();
        Ok(request.and_then(|request| contract::stored_request(&request).ok()))
    }
}
