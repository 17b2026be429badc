//! Is there a record under this key? Asked before a job is refused unread.

use super::{Store, StoreError, connect::answered};

impl Store {
    pub async fn knows(&self, merchant_id: &str, merchant_payout_id: &str) -> Result<bool, StoreError> {
        let known = sqlx::query_scalar!(
            r#"
            SELECT EXISTS (
                SELECT FROM payout_links WHERE merchant_id = $1 AND merchant_payout_id = $2
            ) AS "known!"
            "#,
            merchant_id,
            merchant_payout_id
        );
        answered(&self.pool, known.fetch_one(&self.pool)).await
    }
}
