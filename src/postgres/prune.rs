//! `erase_requests`, `delete_events`, `delete_attempts`, `delete_provider_webhooks`: delete rows that are past their retention, a small batch at
//! a time.
//!
//! Locked rows are skipped, never waited for. The record and its sealed result are never deleted: replays and
//! conflicts need them.

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, connect::answered, error::StoreError};

/// The result of one batch, and where the next one begins. A pass looks at each row once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// Rows deleted.
    pub rows: usize,
    /// The last row looked at.
    pub last: Option<Uuid>,
}

impl Store {
    /// Erases the requests of at most `limit` records that were concluded at least `days` days ago.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn erase_requests(&self, days: u32, limit: u32) -> Result<Batch, StoreError> {
        let erased = sqlx::query!(
            "UPDATE payout_links SET request = NULL
             WHERE id = ANY(ARRAY(
                 SELECT id FROM payout_links
                 WHERE request IS NOT NULL AND state <> 'open' AND concluded_at <= now() - $1::bigint * interval '1 day'
                 ORDER BY concluded_at LIMIT $2
                 FOR UPDATE SKIP LOCKED
             ))",
            i64::from(days),
            i64::from(limit),
        )
        .execute(&self.pool);
        let erased = answered(&self.pool, erased).await?;
        Ok(Batch { rows: usize::try_from(erased.rows_affected()).unwrap_or(usize::MAX), last: None })
    }

    /// Deletes at most `limit` completely delivered events from before `cut_off`. The newest event of a link that is asked
    /// about stays: it has the URL of the next webhook.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn delete_events(
        &self,
        cut_off: OffsetDateTime,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Batch, StoreError> {
        let deleted = sqlx::query_scalar!(
            "DELETE FROM events
             WHERE id = ANY(ARRAY(
                 SELECT id FROM events
                 WHERE id > $1 AND id < $2 AND due_at IS NULL AND NOT EXISTS (
                     SELECT FROM payout_links p
                     WHERE p.id = ANY (ARRAY[events.payout_link_id]) AND p.follow_due_at IS NOT NULL
                         AND coalesce(p.newest_event_id, p.event_id) = events.id
                 )
                 ORDER BY id LIMIT $3
                 FOR UPDATE SKIP LOCKED
             ))
             RETURNING id",
            after.unwrap_or(Uuid::nil()),
            first_id_of(cut_off),
            i64::from(limit),
        )
        .fetch_all(&self.pool);
        let deleted = answered(&self.pool, deleted).await?;
        Ok(Batch { rows: deleted.len(), last: deleted.into_iter().max() })
    }

    /// Deletes at most `limit` attempts from before `cut_off`. Their records are older, so only old records are
    /// searched. Rows are not locked first: a lock needs the UPDATE privilege, which the role may lack.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn delete_attempts(
        &self,
        cut_off: OffsetDateTime,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Batch, StoreError> {
        let deleted = sqlx::query_scalar!(
            "DELETE FROM attempts
             WHERE ctid = ANY(ARRAY(
                 SELECT ctid FROM attempts
                 WHERE payout_link_id >= $1 AND payout_link_id < $2 AND started_at < $3
                 ORDER BY payout_link_id LIMIT $4
             ))
             RETURNING payout_link_id",
            after.unwrap_or(Uuid::nil()),
            first_id_of(cut_off),
            cut_off,
            i64::from(limit),
        )
        .fetch_all(&self.pool);
        let deleted = answered(&self.pool, deleted).await?;
        Ok(Batch { rows: deleted.len(), last: deleted.into_iter().max() })
    }

    /// Deletes at most `limit` webhooks of providers from before `cut_off`. A repeat after that leads to one more
    /// question.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn delete_provider_webhooks(
        &self,
        cut_off: OffsetDateTime,
        limit: u32,
    ) -> Result<Batch, StoreError> {
        let deleted = sqlx::query!(
            "DELETE FROM provider_webhooks
             WHERE ctid = ANY(ARRAY(
                 SELECT ctid FROM provider_webhooks WHERE received_at < $1 ORDER BY received_at LIMIT $2
             ))",
            cut_off,
            i64::from(limit),
        )
        .execute(&self.pool);
        let deleted = answered(&self.pool, deleted).await?;
        Ok(Batch { rows: usize::try_from(deleted.rows_affected()).unwrap_or(usize::MAX), last: None })
    }
}

/// Returns the smallest UUIDv7 of a moment.
pub(super) fn first_id_of(moment: OffsetDateTime) -> Uuid {
    let millis = u128::try_from(moment.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
    Uuid::from_u128(millis << 80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_made_later_are_greater_and_earlier_ones_less() {
        let before = Uuid::now_v7();
        let soon = OffsetDateTime::now_utc() + std::time::Duration::from_secs(1);
        let past = OffsetDateTime::now_utc() - std::time::Duration::from_secs(1);
        assert!(first_id_of(past) < before && before < first_id_of(soon));
        assert_eq!(first_id_of(OffsetDateTime::UNIX_EPOCH - std::time::Duration::from_secs(1)), Uuid::nil());
    }
}
