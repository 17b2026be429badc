//! `reseal`, `count_keys`: encrypt values again with the ring's first key, and count the values by key.
//!
//! Both read the table in pages by id, so that no statement takes long. No state is stored between runs: values under
//! the first key are skipped, so a rotation can be interrupted and run again.

use uuid::Uuid;

use super::{
    Store,
    connect::answered,
    error::StoreError,
    seal::{Column, OpenError},
};

/// The result of one page.
#[derive(Debug, Default)]
pub struct Rotated {
    /// Last record of the page; `None` at the end of the table.
    pub last: Option<Uuid>,
    /// Records read.
    pub records: usize,
    /// Values encrypted again.
    pub resealed: usize,
    /// Values that changed or were locked meanwhile; another pass is needed.
    pub contended: usize,
    /// Values that could not be decrypted.
    pub unopened: Vec<Unopened>,
}

/// A value that could not be decrypted; it is not changed.
#[derive(Debug)]
pub struct Unopened {
    /// The id of the row.
    pub id: Uuid,
    /// The column of the value.
    pub column: &'static str,
    /// Why it could not be decrypted.
    pub error: OpenError,
}

/// The number of values in one column of a page that one key encrypted.
#[derive(Debug)]
pub struct KeyCount {
    /// The column of the values.
    pub column: String,
    /// The id of the key.
    pub key: String,
    /// How many values of the page it encrypted.
    pub values: i64,
    /// The last row of the page, where the next one begins.
    pub last: Uuid,
}

#[derive(Default)]
struct Anew {
    ids: Vec<Uuid>,
    old: Vec<Vec<u8>>,
    new: Vec<Vec<u8>>,
}

/// Updates one column of a page, and returns the number of values. Locked rows are skipped, because waiting for them in
/// a batch could deadlock.
macro_rules! put {
    ($store:ident, $anew:ident, $column:literal) => {{
        if $anew.ids.is_empty() {
            return Ok(0);
        }
        let put = sqlx::query!(
            "WITH free AS (
                SELECT p.id, new.old, new.new
                FROM payout_links p JOIN UNNEST($1::uuid[], $2::bytea[], $3::bytea[]) AS new (id, old, new) ON p.id = ANY (ARRAY[new.id])
                WHERE p." + $column + " = new.old
                ORDER BY new.id FOR UPDATE OF p SKIP LOCKED
             )
             UPDATE payout_links p SET " + $column + " = free.new FROM free WHERE p.id = ANY (ARRAY[free.id]) AND p." + $column + " = free.old",
            &$anew.ids,
            &$anew.old,
            &$anew.new,
        )
        .execute(&$store.pool);
        let put = answered(&$store.pool, put).await?;
        usize::try_from(put.rows_affected()).unwrap_or(usize::MAX)
    }};
}

impl Store {
    /// Encrypts a page of records with the ring's first key. A value that changed since it was read is never
    /// overwritten.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn reseal(&self, after: Uuid, page: u32) -> Result<Rotated, StoreError> {
        let current = self.keys.current_prefix();
        let rows = sqlx::query!(
            r#"
            SELECT
                id,
                CASE WHEN substring(request FOR $3) <> $4 THEN request END AS request,
                CASE WHEN substring(result FOR $3) <> $4 THEN result END AS result
            FROM payout_links WHERE id > $1 ORDER BY id LIMIT $2
            "#,
            after,
            i64::from(page),
            i32::try_from(current.len()).unwrap_or(i32::MAX),
            &current,
        )
        .fetch_all(&self.pool);
        let rows = answered(&self.pool, rows).await?;
        let mut rotated =
            Rotated { last: rows.last().map(|row| row.id), records: rows.len(), ..Rotated::default() };
        let (mut requests, mut results) = (Anew::default(), Anew::default());
        for row in rows {
            let values =
                [(Column::Request, row.request, &mut requests), (Column::Result, row.result, &mut results)];
            for (column, sealed, anew) in values {
                let Some(sealed) = sealed else { continue };
                match self.keys.open(column, row.id, &sealed) {
                    Ok(clear) => {
                        anew.ids.push(row.id);
                        anew.new.push(self.keys.seal(column, row.id, &clear));
                        anew.old.push(sealed);
                    }
                    Err(error) => {
                        rotated.unopened.push(Unopened { id: row.id, column: column.as_str(), error });
                    }
                }
            }
        }
        let due = requests.ids.len() + results.ids.len();
        rotated.resealed = self.put_requests(requests).await? + self.put_results(results).await?;
        rotated.contended = due - rotated.resealed;
        if let Some(last) = rotated.last {
            self.reseal_earlier_results(after, last, &mut rotated).await?;
        }
        Ok(rotated)
    }

    /// Encrypts the results of earlier conclusions again, for the records of a page. They are few.
    async fn reseal_earlier_results(
        &self,
        after: Uuid,
        last: Uuid,
        rotated: &mut Rotated,
    ) -> Result<(), StoreError> {
        let current = self.keys.current_prefix();
        let rows = sqlx::query!(
            r#"SELECT id, payout_link_id, earlier_result AS "earlier_result!" FROM events
             WHERE earlier_result IS NOT NULL AND payout_link_id > $1 AND payout_link_id <= $2
                AND substring(earlier_result FOR $3) <> $4"#,
            after,
            last,
            i32::try_from(current.len()).unwrap_or(i32::MAX),
            &current,
        )
        .fetch_all(&self.pool);
        for row in answered(&self.pool, rows).await? {
            let clear = match self.keys.open(Column::Result, row.payout_link_id, &row.earlier_result) {
                Ok(clear) => clear,
                Err(error) => {
                    let column = Column::Result.as_str();
                    rotated.unopened.push(Unopened { id: row.payout_link_id, column, error });
                    continue;
                }
            };
            let put = sqlx::query!(
                "UPDATE events SET earlier_result = $2 WHERE id = $1 AND earlier_result = $3",
                row.id,
                self.keys.seal(Column::Result, row.payout_link_id, &clear),
                row.earlier_result,
            )
            .execute(&self.pool);
            match answered(&self.pool, put).await?.rows_affected() {
                0 => rotated.contended += 1,
                _ => rotated.resealed += 1,
            }
        }
        Ok(())
    }

    async fn put_requests(&self, anew: Anew) -> Result<usize, StoreError> {
        Ok(put!(self, anew, "request"))
    }

    async fn put_results(&self, anew: Anew) -> Result<usize, StoreError> {
        Ok(put!(self, anew, "result"))
    }

    /// Counts the keys of a page of records. The key ids are stored unencrypted, so nothing is decrypted. An empty
    /// list is the end of the table.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn count_keys(&self, after: Uuid, page: u32) -> Result<Vec<KeyCount>, StoreError> {
        Ok(sqlx::query_as!(
            KeyCount,
            r#"
            WITH page AS MATERIALIZED (
                SELECT id, request, result FROM payout_links WHERE id > $1 ORDER BY id LIMIT $2
            ), sealed AS (
                SELECT 'request' AS name, request AS value FROM page
                UNION ALL
                SELECT 'result', result FROM page
                UNION ALL
                SELECT 'result', e.earlier_result FROM page JOIN events e
                    ON e.payout_link_id = ANY (ARRAY[page.id]) AND e.earlier_result IS NOT NULL
            )
            SELECT
                name AS "column!",
                CASE
                    WHEN value IS NULL THEN ''
                    WHEN length(value) > 2 THEN encode(substring(value FROM 3 FOR get_byte(value, 1)), 'escape')
                    ELSE '?'
                END AS "key!",
                count(*) AS "values!",
                (SELECT id FROM page ORDER BY id DESC LIMIT 1) AS "last!"
            FROM sealed GROUP BY 1, 2 ORDER BY 1, 2
            "#,
            after,
            i64::from(page),
        )
        .fetch_all(&self.pool)
        .await?)
    }
}
