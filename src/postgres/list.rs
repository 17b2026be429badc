//! `list`, `count`: find records for an operator. A statement looks at a limited number of rows, so it costs the same
//! at ten million records as at ten thousand.
//!
//! A filter has one or more ways into the table ([`Way`]), each a range of an index that is as small as the filter
//! allows. The other conditions are tested on the rows of that range. Ids begin with the time of the job's acceptance,
//! so the order of ids is the order of time.

use sqlx::{FromRow, Postgres, QueryBuilder, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    connect::answered,
    error::StoreError,
    filter::{RecordFilter, Way},
    reader::Reader,
};

/// One record of a list. Nothing is decrypted for it.
#[derive(Debug, Clone, serde::Serialize, FromRow)]
pub struct Listed {
    /// The id of the record.
    pub id: Uuid,
    /// `x-merchant-id` of the job; empty if it has none.
    pub merchant_id: String,
    /// The merchant's identifier of the payout.
    pub merchant_payout_id: String,
    /// The name of the connector account.
    pub connector: String,
    /// Minor units of `currency`.
    pub amount_minor: i64,
    /// ISO 4217 code of the amount.
    pub currency: String,
    /// `open`, `created`, `failed` or `unknown`.
    pub state: String,
    /// The status of the last result, in Prism's words.
    pub payout_status: Option<String>,
    /// The status of the created link.
    pub link_status: Option<String>,
    /// The code of the conclusion.
    pub error_code: Option<String>,
    /// `create` attempts begun.
    pub attempts: i32,
    /// Since when the outcome of a `create` call is unknown.
    #[serde(with = "time::serde::rfc3339::option")]
    pub in_doubt_since: Option<OffsetDateTime>,
    /// When any worker may claim it; `None` unless it is open.
    #[serde(with = "time::serde::rfc3339::option")]
    pub due_at: Option<OffsetDateTime>,
    /// Whether a worker has claimed it.
    pub leased: bool,
    /// When the job was accepted.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When the record was concluded.
    #[serde(with = "time::serde::rfc3339::option")]
    pub concluded_at: Option<OffsetDateTime>,
}

const COLUMNS: &str = "id, merchant_id, merchant_payout_id, connector, amount_minor, currency, state, payout_status, \
    link_status, error_code, attempts, in_doubt_since, due_at, holder IS NOT NULL AS leased, created_at, concluded_at, \
    service_rank, erased_at";

/// Which part of a list is read.
#[derive(Debug, Clone, Copy)]
pub struct PageRequest {
    /// Otherwise the oldest come first.
    pub newest_first: bool,
    /// The page begins after this record, in the order of the list.
    pub after: Option<Uuid>,
    /// Records of the page.
    pub limit: u32,
    /// Rows that are looked at for each way, at most.
    pub scan: u32,
}

/// A part of a list.
#[derive(Debug)]
pub struct Page {
    /// The records of the page, in order.
    pub records: Vec<Listed>,
    /// Where the next page begins; `None` if there is none.
    pub next: Option<Uuid>,
    /// The page is not full, because the limit of rows was reached first: the records were looked at up to `next`.
    pub stopped: bool,
    /// More records are open than may be looked at, and some were left out.
    pub open_left_out: bool,
}

/// A number of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// How many match.
    pub count: u64,
    /// Whether all were counted; otherwise there are at least as many.
    pub is_complete: bool,
}

impl Reader {
    /// Reads a page of the records that match.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn list(&self, filter: &RecordFilter, page: PageRequest) -> Result<Page, StoreError> {
        let (mut records, mut open_left_out) = (Vec::new(), false);
        // Where the ways stopped. Nothing after the first of them can be shown yet.
        let mut stop: Option<Uuid> = None;
        let is_before = |one: Uuid, other: Uuid| if page.newest_first { one > other } else { one < other };
        for way in filter.ways() {
            let found = self.list_on(filter, way, page).await?;
            // One more than a page was asked for: a full one has a next page.
            let is_full = found.len() > page.limit as usize;
            records.extend(found);
            if !way.is_ordered() {
                open_left_out |= self.rows_of(filter, way, page.scan).await? >= u64::from(page.scan);
            } else if !is_full {
                let stopped = self.stop_of(filter, way, page).await?;
                stop = match (stop, stopped) {
                    (Some(one), Some(other)) if is_before(one, other) => Some(one),
                    (one, other) => other.or(one),
                };
            }
        }
        // A record that was concluded between two statements is in both.
        records.sort_by(|one: &Listed, other| {
            let by_id = one.id.cmp(&other.id);
            if page.newest_first { by_id.reverse() } else { by_id }
        });
        records.dedup_by_key(|record| record.id);
        if let Some(stop) = stop {
            records.retain(|record| !is_before(stop, record.id));
        }
        let is_full = records.len() > page.limit as usize;
        records.truncate(page.limit as usize);
        let next = if is_full { records.last().map(|record| record.id) } else { stop };
        Ok(Page { records, next, stopped: !is_full && stop.is_some(), open_left_out })
    }

    /// Counts the records that match, among at most `scan` rows of each way.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn count(&self, filter: &RecordFilter, scan: u32) -> Result<Counted, StoreError> {
        let page = PageRequest { newest_first: true, after: None, limit: 0, scan };
        let mut counted = Counted { count: 0, is_complete: true };
        for way in filter.ways() {
            let mut statement = QueryBuilder::<Postgres>::new("SELECT count(*) FILTER (WHERE true");
            filter.push_conditions(&mut statement);
            statement.push("), count(*) FROM (");
            push_range(&mut statement, COLUMNS, filter, way, page);
            statement.push(") AS looked");
            let read = statement.build_query_as::<(i64, i64)>().fetch_one(&self.pool);
            let (count, rows) = answered(&self.pool, read).await?;
            counted.count += u64::try_from(count).unwrap_or_default();
            counted.is_complete &= rows < i64::from(scan);
        }
        Ok(counted)
    }

    async fn list_on(
        &self,
        filter: &RecordFilter,
        way: Way,
        page: PageRequest,
    ) -> Result<Vec<Listed>, StoreError> {
        let mut statement = QueryBuilder::<Postgres>::new("SELECT * FROM (");
        push_range(&mut statement, COLUMNS, filter, way, page);
        statement.push(") AS looked WHERE true");
        filter.push_conditions(&mut statement);
        if !way.is_ordered() {
            filter.push_times(&mut statement);
            push_after(&mut statement, page);
        }
        statement.push(order(page)).push(" LIMIT ").push_bind(i64::from(page.limit) + 1);
        let read = statement.build().fetch_all(&self.pool);
        let rows: Vec<PgRow> = answered(&self.pool, read).await?;
        rows.iter().map(|row| Listed::from_row(row).map_err(StoreError::from)).collect()
    }

    /// Returns the last row that a way looked at, if there are more.
    async fn stop_of(
        &self,
        filter: &RecordFilter,
        way: Way,
        page: PageRequest,
    ) -> Result<Option<Uuid>, StoreError> {
        let mut statement = QueryBuilder::<Postgres>::new("SELECT id FROM (");
        push_range(&mut statement, "id", filter, way, page);
        statement.push(") AS looked OFFSET ").push_bind(i64::from(page.scan) - 1).push(" LIMIT 1");
        let read = statement.build_query_scalar().fetch_optional(&self.pool);
        answered(&self.pool, read).await
    }

    /// Returns how many rows a way has, at most `limit`.
    async fn rows_of(&self, filter: &RecordFilter, way: Way, limit: u32) -> Result<u64, StoreError> {
        let page = PageRequest { newest_first: true, after: None, limit: 0, scan: limit };
        let mut statement = QueryBuilder::<Postgres>::new("SELECT count(*) FROM (");
        push_range(&mut statement, "1", filter, way, page);
        statement.push(") AS looked");
        let read = statement.build_query_scalar::<i64>().fetch_one(&self.pool);
        Ok(u64::try_from(answered(&self.pool, read).await?).unwrap_or_default())
    }
}

/// Appends the rows of a way: a range of its index, at most `scan` of them.
fn push_range(
    statement: &mut QueryBuilder<Postgres>,
    columns: &str,
    filter: &RecordFilter,
    way: Way,
    page: PageRequest,
) {
    statement.push("SELECT ").push(columns).push(" FROM payout_links WHERE ");
    filter.push_way(statement, way);
    if way.is_ordered() {
        filter.push_times(statement);
        push_after(statement, page);
        statement.push(order(page));
    }
    statement.push(" LIMIT ").push_bind(i64::from(page.scan));
}

fn push_after(statement: &mut QueryBuilder<Postgres>, page: PageRequest) {
    if let Some(after) = page.after {
        statement.push(if page.newest_first { " AND id < " } else { " AND id > " }).push_bind(after);
    }
}

fn order(page: PageRequest) -> &'static str {
    if page.newest_first { " ORDER BY id DESC" } else { " ORDER BY id" }
}
