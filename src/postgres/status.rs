//! `status`: reads what an operator has to know of a deployment. Each statement looks at a limited number of rows.

use serde::Serialize;
use time::OffsetDateTime;

use super::{
    connect::answered,
    due::{self, DuePlaces},
    error::StoreError,
    filter::OVERDUE_SECONDS,
    pauses::{self, Pause},
    reader::Reader,
    worker::LOCK_CLASS,
};
use crate::domain::{SERVICE_RANKS, UNKNOWN_RANKS};

/// Rows of one kind that are looked at, at most. A count that reaches it means "at least".
pub const STATUS_SCAN: i64 = 2_000;

/// The ranks of records with a lease.
const UNKNOWN: usize = UNKNOWN_RANKS as usize;

/// A number of records or events, and since when the oldest of them waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Pile {
    /// At most [`STATUS_SCAN`].
    pub count: i64,
    /// Since when the oldest of them waits.
    #[serde(with = "time::serde::rfc3339::option")]
    pub oldest: Option<OffsetDateTime>,
}

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
    /// What they came to.
    pub outcome: String,
    /// 0: there was no answer.
    pub status_code: i32,
    /// How many records.
    pub count: i64,
    /// The detail of one of them.
    pub detail: Option<String>,
}

/// The webhooks of one host of a merchant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostStatus {
    /// The host of the URL.
    pub host: String,
    /// Webhooks that failed at least once and will be tried again.
    pub failing: i64,
    /// The most attempts that one of them has had.
    pub max_attempts: i32,
    /// When the oldest of them was created.
    #[serde(with = "time::serde::rfc3339")]
    pub oldest: OffsetDateTime,
    /// The next attempt.
    #[serde(with = "time::serde::rfc3339::option")]
    pub next: Option<OffsetDateTime>,
}

/// Events whose delivery is not complete.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct EventStatus {
    /// Results that are not published, a minute after their event or later.
    pub unpublished: Pile,
    /// Webhooks that failed at least once and will be tried again.
    pub failing_webhooks: i64,
    /// Webhooks of the last day that were abandoned, among the newest events.
    pub abandoned_webhooks: Pile,
    /// When the event that has been due for the longest time became due.
    #[serde(with = "time::serde::rfc3339::option")]
    pub due_since: Option<OffsetDateTime>,
}

/// Workers that hold their lock now, by version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SeenWorkers {
    /// `None`: a version before 0.2.0, or the name of its session cannot be seen.
    pub version: Option<String>,
    /// How many workers.
    pub count: i64,
}

/// The state that the database shows.
#[derive(Debug, Clone, Serialize)]
pub struct DatabaseStatus {
    /// Concluded as unknown.
    pub unknown: Pile,
    /// The accounts with open records.
    pub accounts: Vec<AccountStatus>,
    /// Everything that operators have paused.
    pub pauses: Vec<Pause>,
    /// The events whose delivery is not complete.
    pub events: EventStatus,
    /// The hosts with failing webhooks, those with the most first.
    pub hosts: Vec<HostStatus>,
    /// `None`: a standby does not show them.
    pub workers: Option<Vec<SeenWorkers>>,
    /// Sealing keys that encrypted the newest records and open ones.
    pub sealing_keys: Vec<String>,
    /// How far the database's clock is ahead of this machine's.
    pub clock_offset_ms: i64,
}

impl Reader {
    /// Reads the status of the deployment.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn status(&self) -> Result<DatabaseStatus, StoreError> {
        Ok(DatabaseStatus {
            clock_offset_ms: self.clock_offset_ms().await?,
            unknown: self.concluded_unknown().await?,
            accounts: self.account_status().await?,
            pauses: self.all_pauses().await?,
            events: self.event_status().await?,
            hosts: self.host_status().await?,
            workers: self.seen_workers().await?,
            sealing_keys: self.keys_in_use().await?,
        })
    }

    async fn clock_offset_ms(&self) -> Result<i64, StoreError> {
        let read = async || {
            let read = sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#).fetch_one(&self.pool);
            answered(&self.pool, read).await
        };
        // The first one waits for the connection.
        read().await?;
        let asked_at = OffsetDateTime::now_utc();
        let time = read().await?;
        let middle = asked_at + (OffsetDateTime::now_utc() - asked_at) / 2;
        let ahead: time::Duration = time - middle;
        Ok(i64::try_from(ahead.whole_milliseconds()).unwrap_or(i64::MAX))
    }

    async fn concluded_unknown(&self) -> Result<Pile, StoreError> {
        let read = sqlx::query_as!(
            Pile,
            r#"
            SELECT
                (SELECT count(*) FROM (SELECT FROM payout_links WHERE state = 'unknown' LIMIT $1) AS looked) AS "count!",
                (SELECT created_at FROM payout_links WHERE state = 'unknown' ORDER BY id LIMIT 1) AS oldest
            "#,
            STATUS_SCAN
        )
        .fetch_one(&self.pool);
        answered(&self.pool, read).await
    }

    async fn account_status(&self) -> Result<Vec<AccountStatus>, StoreError> {
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
                WHERE payout_link_id = record.id AND kind <> 'post' ORDER BY started_at DESC LIMIT 1
            ) AS last
            GROUP BY 1, 2, 3, 4 ORDER BY 1, 5 DESC
            "#,
            connectors,
            ATTEMPTS_OF,
        )
        .fetch_all(&self.pool);
        answered(&self.pool, read).await
    }

    /// Reads what is paused: consumption, accounts, merchants, and the hosts of webhooks.
    async fn all_pauses(&self) -> Result<Vec<Pause>, StoreError> {
        let hosts = sqlx::query_as!(
            Pause,
            r#"SELECT 'webhook_host' AS "kind!", host AS name, paused_at, actor, reason FROM paused_webhook_hosts
               ORDER BY paused_at, host LIMIT $1"#,
            STATUS_SCAN,
        )
        .fetch_all(&self.pool);
        let mut all: Vec<Pause> = pauses::read(&self.pool).await?.iter().cloned().collect();
        all.extend(answered(&self.pool, hosts).await?);
        Ok(all)
    }

    async fn event_status(&self) -> Result<EventStatus, StoreError> {
        let read = sqlx::query!(
            r#"
            SELECT
                count(*) FILTER (WHERE published_at IS NULL AND at < now() - interval '1 minute') AS "unpublished!",
                min(at) FILTER (WHERE published_at IS NULL AND at < now() - interval '1 minute') AS unpublished_since,
                count(*) FILTER (WHERE webhook_state = 'pending' AND webhook_attempts > 0) AS "failing!",
                min(due_at) FILTER (WHERE due_at <= now()) AS due_since
            FROM (
                SELECT id, published_at, webhook_state, webhook_attempts, due_at
                FROM events WHERE due_at IS NOT NULL ORDER BY due_at LIMIT $1
            ) AS looked
            CROSS JOIN LATERAL (
                SELECT to_timestamp(('x' || left(encode(uuid_send(id), 'hex'), 12))::bit(48)::bigint / 1000.0) AS at
            ) AS time
            "#,
            STATUS_SCAN,
        )
        .fetch_one(&self.pool);
        let row = answered(&self.pool, read).await?;
        let read = sqlx::query_as!(
            Pile,
            r#"
            SELECT count(*) AS "count!", min(at) AS oldest
            FROM (SELECT id, webhook_state FROM events ORDER BY id DESC LIMIT $1) AS looked
            CROSS JOIN LATERAL (
                SELECT to_timestamp(('x' || left(encode(uuid_send(id), 'hex'), 12))::bit(48)::bigint / 1000.0) AS at
            ) AS time
            WHERE webhook_state = 'abandoned' AND at > now() - interval '1 day'
            "#,
            ABANDONED_OF,
        )
        .fetch_one(&self.pool);
        Ok(EventStatus {
            unpublished: Pile { count: row.unpublished, oldest: row.unpublished_since },
            failing_webhooks: row.failing,
            abandoned_webhooks: answered(&self.pool, read).await?,
            due_since: row.due_since,
        })
    }

    async fn host_status(&self) -> Result<Vec<HostStatus>, StoreError> {
        // Of a URL only the host is shown: its path and its query may hold a secret.
        let read = sqlx::query_as!(
            HostStatus,
            r#"
            SELECT host AS "host!", count(*) AS "failing!", max(webhook_attempts) AS "max_attempts!",
                min(at) AS "oldest!", min(webhook_due_at) AS next
            FROM (
                SELECT id, webhook_url, webhook_state, webhook_attempts, webhook_due_at
                FROM events WHERE due_at IS NOT NULL ORDER BY due_at LIMIT $1
            ) AS looked
            CROSS JOIN LATERAL (
                SELECT
                    to_timestamp(('x' || left(encode(uuid_send(id), 'hex'), 12))::bit(48)::bigint / 1000.0) AS at,
                    substring(webhook_url from '^[^:]+://(?:[^/@?#]*@)?([^/?#]+)') AS host
            ) AS read
            WHERE webhook_state = 'pending' AND webhook_attempts > 0 AND host IS NOT NULL
            GROUP BY host ORDER BY 2 DESC, 1 LIMIT $2
            "#,
            STATUS_SCAN,
            HOSTS,
        )
        .fetch_all(&self.pool);
        answered(&self.pool, read).await
    }

    async fn seen_workers(&self) -> Result<Option<Vec<SeenWorkers>>, StoreError> {
        let read = sqlx::query!(
            r#"
            SELECT pg_is_in_recovery() AS "is_standby!",
                substring(application_name from '^payout-link-worker presence (.+)$') AS version, count(pid) AS "count!"
            FROM (SELECT 1) AS one
            LEFT JOIN LATERAL (
                SELECT l.pid, a.application_name FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
                WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid::bigint = $1
                    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            ) AS seen ON true
            GROUP BY version ORDER BY version
            "#,
            i64::from(LOCK_CLASS),
        )
        .fetch_all(&self.pool);
        let rows = answered(&self.pool, read).await?;
        if rows.iter().any(|row| row.is_standby) {
            return Ok(None);
        }
        let seen = rows.into_iter().filter(|row| row.count > 0);
        Ok(Some(seen.map(|row| SeenWorkers { version: row.version, count: row.count }).collect()))
    }

    /// Returns the keys of the newest records and of open ones. Key ids are stored unencrypted.
    async fn keys_in_use(&self) -> Result<Vec<String>, StoreError> {
        let read = sqlx::query_scalar!(
            r#"
            SELECT DISTINCT encode(substring(value FROM 3 FOR get_byte(value, 1)), 'escape') AS "key!"
            FROM (
                (SELECT coalesce(request, result) AS value FROM payout_links ORDER BY id DESC LIMIT $1)
                UNION ALL (SELECT request FROM payout_links WHERE state = 'open' LIMIT $1)
            ) AS looked
            WHERE length(value) > 2 ORDER BY 1
            "#,
            KEYS_OF,
        )
        .fetch_all(&self.pool);
        answered(&self.pool, read).await
    }
}

/// Records of an account whose last attempts are read.
const ATTEMPTS_OF: i64 = 20;
/// Newest events that are searched for abandoned webhooks.
const ABANDONED_OF: i64 = 5_000;
/// Hosts that are shown, those with the most failing webhooks.
const HOSTS: i64 = 10;
/// Records whose keys are read.
const KEYS_OF: i64 = 200;
