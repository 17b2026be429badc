//! The open records of each connector account, for `status`.

use serde::Serialize;
use time::OffsetDateTime;

use super::{
    connect::answered,
    due::{self, DuePlaces},
    error::StoreError,
    filter::OVERDUE_SECONDS,
    reader::Reader,
};
use crate::domain::{SERVICE_RANKS, UNKNOWN_RANKS};

/// Rows of one kind that are looked at, at most. A count that reaches it means "at least".
pub const STATUS_SCAN: i64 = 2_000;

/// The ranks of records with a lease.
const UNKNOWN: usize = UNKNOWN_RANKS as usize;

/// Records of an account whose last attempts are read.
const ATTEMPTS_OF: i64 = 20;
/// The open records of one connector account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccountStatus {
    /// The name of the connector account.
    pub connector: String,
    /// At most [`STATUS_SCAN`], those that are served first.
    pub open: i64,
    /// Those that were called before and will be called again.
    pub retrying: i64,
    /// Their outcome is unknown so far.
    pub unknown: i64,
    /// Since when the oldest of them is unknown.
    #[serde(with = "time::serde::rfc3339::option")]
    pub unknown_since: Option<OffsetDateTime>,
    /// Those that have been due for a minute: no worker claims them.
    pub overdue: i64,
    /// When the record that has been due for the longest time became due.
    #[serde(with = "time::serde::rfc3339::option")]
    pub due_since: Option<OffsetDateTime>,
    /// The merchant of that record, if it has no lease.
    pub most_delayed_merchant: Option<String>,
    /// The last attempts of some records that wait, by outcome.
    pub last_attempts: Vec<LastAttempts>,
}

/// Last attempts that came to the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastAttempts {
    /// The name of the connector account.
    #[serde(skip)]
    pub connector: String,
    /// `create` or `look_up`.
    pub kind: String,
    /// The outcome of the attempts.
    pub outcome: String,
    /// 0: there was no answer.
    pub status_code: i32,
    /// How many records.
    pub count: i64,
    /// The detail of one of them.
    pub detail: Option<String>,
}

impl Reader {
    pub(super) async fn account_status(&self) -> Result<Vec<AccountStatus>, StoreError> {
        // A loose index scan over the names: one index probe for each.
        let read = sqlx::query!(
            r#"
            WITH RECURSIVE names AS (
                (SELECT connector FROM payout_links WHERE state = 'open' ORDER BY connector LIMIT 1)
                UNION ALL
                SELECT (
                    SELECT p.connector FROM payout_links p
                    WHERE state = 'open' AND p.connector > names.connector ORDER BY p.connector LIMIT 1
                )
                FROM names WHERE names.connector IS NOT NULL
            )
            SELECT names.connector AS "connector!", open.count AS "open!", retrying AS "retrying!",
                unknown AS "unknown!", unknown_since, overdue AS "overdue!", due_since, now() AS "now!"
            FROM names
            CROSS JOIN LATERAL (
                SELECT count(*),
                    count(*) FILTER (
                        WHERE attempts > 0 AND in_doubt_since IS NULL AND (attempts > 1 OR holder IS NULL)
                    ) AS retrying,
                    count(in_doubt_since) AS unknown, min(in_doubt_since) AS unknown_since,
                    count(*) FILTER (
                        WHERE due_at < now() - $3::bigint * interval '1 second'
                            AND merchant_id <> ALL (ARRAY(SELECT name FROM pauses WHERE kind = 'merchant'))
                    ) AS overdue
                FROM (
                    SELECT merchant_id, attempts, holder, in_doubt_since, due_at FROM payout_links p
                    WHERE state = 'open' AND p.connector = names.connector ORDER BY service_rank LIMIT $1
                ) AS looked
            ) AS open
            CROSS JOIN LATERAL (
                SELECT min(next.due_at) AS due_since FROM unnest($2::smallint[]) AS ranks (rank)
                CROSS JOIN LATERAL (
                    SELECT due_at FROM payout_links p
                    WHERE state = 'open' AND p.connector = names.connector AND service_rank = rank AND due_at <= now()
                        AND holder IS NOT NULL
                    ORDER BY due_at LIMIT 1
                ) AS next
            ) AS due
            WHERE names.connector IS NOT NULL
            "#,
            STATUS_SCAN,
            &SERVICE_RANKS[..UNKNOWN],
            i64::from(OVERDUE_SECONDS),
        )
        .fetch_all(&self.pool);
        let rows = answered(&self.pool, read).await?;
        let names: Vec<String> = rows.iter().map(|row| row.connector.clone()).collect();
        let mut attempts = self.last_attempts(&names).await?;
        let waiting = due::waiting(&self.pool, &names, &mut DuePlaces::default()).await?;
        let oldest = |connector: &str| {
            waiting.iter().filter(|due| due.connector == connector).max_by_key(|due| due.overdue)
        };
        Ok(rows
            .into_iter()
            .map(|row| (oldest(&row.connector), row))
            .map(|(oldest, row)| AccountStatus {
                last_attempts: attempts
                    .extract_if(.., |attempt| attempt.connector == row.connector)
                    .collect(),
                connector: row.connector,
                open: row.open,
                retrying: row.retrying,
                unknown: row.unknown,
                unknown_since: row.unknown_since,
                overdue: row.overdue,
                due_since: oldest.map(|due| row.now - due.overdue).into_iter().chain(row.due_since).min(),
                most_delayed_merchant: oldest.and_then(|due| due.merchant_id.clone()),
            })
            .collect())
    }

    /// Reads the last attempts of a few records that wait for another one. They show what the breakers of the workers
    /// see, which are not in the database.
    async fn last_attempts(&self, connectors: &[String]) -> Result<Vec<LastAttempts>, StoreError> {
        let read = sqlx::query_as!(
            LastAttempts,
            r#"
            SELECT names.connector AS "connector!", last.kind AS "kind!", last.outcome AS "outcome!",
                last.status_code AS "status_code!", count(*) AS "count!", min(last.detail) AS detail
            FROM unnest($1::text[]) AS names (connector)
            CROSS JOIN LATERAL (
                SELECT id FROM payout_links p
                WHERE state = 'open' AND p.connector = names.connector AND service_rank < 6 AND attempts > 0
                ORDER BY service_rank LIMIT $2
            ) AS record
            CROSS JOIN LATERAL (
                SELECT kind, outcome, status_code, detail FROM attempts
                WHERE payout_link_id = record.id AND kind <> ALL ('{post,duplicate}') ORDER BY started_at DESC LIMIT 1
            ) AS last
            GROUP BY 1, 2, 3, 4 ORDER BY 1, 5 DESC
            "#,
            connectors,
            ATTEMPTS_OF,
        )
        .fetch_all(&self.pool);
        answered(&self.pool, read).await
    }
}
