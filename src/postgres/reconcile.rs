//! `booked`, `created_page`: the created records of one account, for a comparison with the provider's statement.

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{connect::answered, error::StoreError, filter::first_id_at, reader::Reader};

/// A record that exists at the provider.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct BookedRecord {
    /// The record's id.
    pub id: Uuid,
    /// Value of `x-merchant-id`; may be empty.
    pub merchant_id: String,
    /// The caller's id of the payout.
    pub merchant_payout_id: String,
    /// The provider's id of the link.
    pub connector_payout_id: String,
    /// The provider's id of the payout that came of the link.
    pub provider_payout_id: Option<String>,
    /// Minor units of `currency`.
    pub amount_minor: i64,
    /// ISO 4217.
    pub currency: String,
    /// The last status of the link, if it is followed.
    pub link_status: Option<String>,
    /// When the creation of the link ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub concluded_at: Option<OffsetDateTime>,
    /// When the link's status changed last.
    #[serde(with = "time::serde::rfc3339::option")]
    pub status_changed_at: Option<OffsetDateTime>,
}

/// Rows of one page.
const PAGE: i64 = 5_000;

/// A page of records in the order of their ids.
#[derive(Debug)]
pub struct BookedPage {
    /// Those of the account that exist at the provider.
    pub records: Vec<BookedRecord>,
    /// Where the next page begins; `None` if this is the last one.
    pub next: Option<Uuid>,
}

impl Reader {
    /// Finds the records of an account by the ids that the provider gave to the link, or to the payout that came of it.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn booked(&self, account: &str, ids: &[String]) -> Result<Vec<BookedRecord>, StoreError> {
        let found = sqlx::query_as!(
            BookedRecord,
            r#"
            SELECT id AS "id!", merchant_id AS "merchant_id!", merchant_payout_id AS "merchant_payout_id!",
                connector_payout_id AS "connector_payout_id!", provider_payout_id, amount_minor AS "amount_minor!",
                currency AS "currency!", link_status, concluded_at, status_changed_at
            FROM payout_links WHERE connector = $1 AND connector_payout_id = ANY ($2)
            UNION
            SELECT id, merchant_id, merchant_payout_id, connector_payout_id, provider_payout_id, amount_minor, currency,
                link_status, concluded_at, status_changed_at
            FROM payout_links
            WHERE connector = $1 AND provider_payout_id = ANY ($2) AND connector_payout_id IS NOT NULL
            "#,
            account,
            ids,
        )
        .fetch_all(&self.pool);
        answered(&self.pool, found).await
    }

    /// Reads a page of the records of an account that exist at the provider and were accepted in a range of time.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn booked_page(
        &self,
        account: &str,
        since: OffsetDateTime,
        until: OffsetDateTime,
        after: Option<Uuid>,
    ) -> Result<BookedPage, StoreError> {
        // Every row of the range is read, also those of other accounts: the page has a limit of rows, not of matches.
        let read = sqlx::query!(
            r#"
            SELECT id, connector, state, merchant_id, merchant_payout_id, connector_payout_id, provider_payout_id,
                amount_minor, currency, link_status, concluded_at, status_changed_at
            FROM payout_links WHERE id >= $1 AND id < $2 AND id > $3 ORDER BY id LIMIT $4
            "#,
            first_id_at(since),
            first_id_at(until),
            after.unwrap_or_default(),
            PAGE,
        )
        .fetch_all(&self.pool);
        let rows = answered(&self.pool, read).await?;
        let is_full = i64::try_from(rows.len()).is_ok_and(|rows| rows == PAGE);
        let next = rows.last().map(|row| row.id).filter(|_| is_full);
        let booked = rows.into_iter().filter(|row| row.connector == account && row.state == "created");
        let records = booked
            .filter_map(|row| {
                Some(BookedRecord {
                    id: row.id,
                    merchant_id: row.merchant_id,
                    merchant_payout_id: row.merchant_payout_id,
                    connector_payout_id: row.connector_payout_id?,
                    provider_payout_id: row.provider_payout_id,
                    amount_minor: row.amount_minor,
                    currency: row.currency,
                    link_status: row.link_status,
                    concluded_at: row.concluded_at,
                    status_changed_at: row.status_changed_at,
                })
            })
            .collect();
        Ok(BookedPage { records, next })
    }
}
