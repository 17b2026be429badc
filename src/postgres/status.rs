//! `status`: reads what an operator has to know of a deployment. Each statement looks at a limited number of rows.

use serde::Serialize;
use time::OffsetDateTime;

use super::{
    account_status::{AccountStatus, STATUS_SCAN},
    breakers::OpenBreaker,
    connect::answered,
    error::StoreError,
    pauses::{self, Pause},
    reader::Reader,
    worker::LOCK_CLASS,
};

/// A number of records or events, and since when the oldest of them waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Pile {
    /// At most [`STATUS_SCAN`].
    pub count: i64,
    /// Since when the oldest of them waits.
    #[serde(with = "time::serde::rfc3339::option")]
    pub oldest: Option<OffsetDateTime>,
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
    /// Webhooks that were abandoned within the last day.
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
    /// The open circuit breakers of the workers that run.
    pub breakers: Vec<OpenBreaker>,
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
            breakers: self.open_breakers().await?,
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
            FROM (
                SELECT payout_link_id FROM events WHERE webhook_state = 'abandoned' ORDER BY id DESC LIMIT $1
            ) AS looked
            -- The schedule takes days, so the event may be old: the last attempt says when it was abandoned.
            CROSS JOIN LATERAL (
                SELECT max(started_at) AS at FROM attempts a
                WHERE a.payout_link_id = looked.payout_link_id AND kind = 'post'
            ) AS last_attempt
            WHERE at > now() - interval '1 day'
            "#,
            STATUS_SCAN,
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
                    lower(substring(webhook_url from '^[a-z]+://(?:[^/@]*@)?(\[[^]]*\]|[^/:?#]+)')) AS host
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

/// Hosts that are shown, those with the most failing webhooks.
const HOSTS: i64 = 10;
/// Records whose keys are read.
const KEYS_OF: i64 = 200;
