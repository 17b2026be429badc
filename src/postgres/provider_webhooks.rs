//! `record_webhook`: stores a provider's webhook once, and makes its link due to be asked about, in one statement.
//!
//! It has connections of its own. Webhooks come from outside: however many there are, jobs never wait for them.
//!
//! The answer to a webhook and the work for it have limits of their own. A statement that is late keeps its connection
//! until the database has ended it. Otherwise each late one would leave a session behind, and be replaced by another.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest;
use sqlx::{
    AssertSqlSafe, Executor, PgPool,
    pool::PoolConnection,
    postgres::{PgPoolOptions, Postgres},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};

use super::{
    connect::{DatabaseSettings, PLANNING, options},
    error::StoreError,
};

/// Stores the webhooks of providers.
pub struct ProviderWebhooks {
    pool: PgPool,
    storing: Arc<Semaphore>,
}

/// A provider's webhook, as it is stored.
#[derive(Debug)]
pub struct WebhookRecord {
    /// The connector's name in the configuration.
    pub connector: Arc<str>,
    /// Equal in every delivery of one webhook.
    pub dedupe_key: String,
    /// The provider's name of the event.
    pub event_type: String,
    /// The link's id at the provider, or the id of the payout that came of it.
    pub link: WebhookLink,
}

/// How a webhook names its link.
#[derive(Debug)]
pub enum WebhookLink {
    /// The link's own id.
    ConnectorPayoutId(String),
    /// The id of the payout or transaction that came of the link.
    ProviderPayoutId(String),
}

/// The outcome of storing a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookStored {
    /// The link is due to be asked about.
    Accepted,
    /// It was stored before. Nothing has changed.
    Duplicate,
    /// It is stored, and its link is not ours.
    UnknownLink,
}

/// Connections. A statement takes a millisecond or two.
const CONNECTIONS: u32 = 2;
/// Webhooks that are being stored at once. One more is not taken, and its provider sends it again.
const MAX_STORING: usize = 32;
/// Limit of the answer: the provider has it within a second.
const PATIENCE: Duration = Duration::from_millis(800);
/// Limit for connecting.
const CONNECT: Duration = Duration::from_secs(3);
/// Limit of the statement in the server: a connection is soon free again.
const STATEMENT_MS: u64 = 600;
/// Limit of the statement if the server does not answer at all.
const SILENCE: Duration = Duration::from_secs(3);
const IDLE: Duration = Duration::from_mins(2);

impl ProviderWebhooks {
    /// Makes a store of webhooks. It connects at the first webhook.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unusable`] if the URL cannot be read.
    pub fn new(settings: &DatabaseSettings) -> Result<Self, StoreError> {
        let options = options(settings)?.application_name("payout-link-worker provider webhooks");
        let limit = STATEMENT_MS.to_string();
        let limits = [("lock_timeout", &*limit), ("statement_timeout", &limit)];
        let own: String =
            limits.iter().chain(PLANNING).map(|(name, value)| format!("SET {name} = '{value}';")).collect();
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(CONNECT)
            .idle_timeout(IDLE)
            .after_connect(move |connection, _| {
                let own = own.clone();
                Box::pin(async move { connection.execute(sqlx::raw_sql(AssertSqlSafe(own))).await.map(drop) })
            })
            .connect_lazy_with(options);
        Ok(Self { pool, storing: Arc::new(Semaphore::new(MAX_STORING)) })
    }

    /// Stores a webhook and makes its link due, also a link that is not asked about any more. While a worker asks about
    /// the link, it is asked about once more after that.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`, within a second. The webhook may be stored then, if only the answer was lost.
    pub async fn record_webhook(&self, webhook: WebhookRecord) -> Result<WebhookStored, StoreError> {
        let Ok(storing) = self.storing.clone().try_acquire_owned() else {
            return Err(StoreError::Unavailable("too many webhooks wait for the database".into()));
        };
        let (pool, deadline) = (self.pool.clone(), Instant::now() + PATIENCE);
        let stored = tokio::spawn(async move {
            let _storing = storing;
            store(&pool, webhook, deadline).await
        });
        match timeout_at(deadline, stored).await {
            Ok(Ok(stored)) => stored,
            // The task panicked.
            Ok(Err(error)) => Err(StoreError::Unavailable(error.to_string())),
            Err(_) => Err(late()),
        }
    }
}

fn late() -> StoreError {
    StoreError::Unavailable("the database does not answer".into())
}

/// Stores a webhook, unless the deadline is over before a connection is free.
async fn store(
    pool: &PgPool,
    webhook: WebhookRecord,
    deadline: Instant,
) -> Result<WebhookStored, StoreError> {
    let mut connection = pool.acquire().await?;
    if Instant::now() >= deadline {
        return Err(late());
    }
    match timeout(SILENCE, record(&mut connection, &webhook)).await {
        Ok(stored) => stored,
        Err(_) => {
            // It is in the middle of a statement: the next webhook would wait for that.
            connection.close_on_drop();
            Err(late())
        }
    }
}

async fn record(
    connection: &mut PoolConnection<Postgres>,
    webhook: &WebhookRecord,
) -> Result<WebhookStored, StoreError> {
    let (connector_payout_id, provider_payout_id) = match &webhook.link {
        WebhookLink::ConnectorPayoutId(id) => (Some(id.as_str()), None),
        WebhookLink::ProviderPayoutId(id) => (None, Some(id.as_str())),
    };
    let key = digest::digest(&digest::SHA256, webhook.dedupe_key.as_bytes());
    // A link that is locked by a worker's answer is read again after it: whether it has a holder counts from then.
    let stored = sqlx::query!(
        r#"
        WITH link AS (
            SELECT id FROM payout_links
            WHERE connector_payout_id = $4 AND connector = $1 AND state = 'created'
            UNION ALL
            SELECT id FROM payout_links
            WHERE provider_payout_id = $5 AND connector = $1 AND state = 'created'
        ), webhook AS (
            INSERT INTO provider_webhooks (connector, digest, event_type, payout_link_id)
            VALUES ($1, $2, $3, (SELECT id FROM link LIMIT 1))
            ON CONFLICT DO NOTHING
            RETURNING payout_link_id
        ), due AS (
            UPDATE payout_links p SET
                follow_due_at = CASE WHEN p.follow_holder IS NULL THEN now() ELSE p.follow_due_at END,
                ask_again = p.follow_holder IS NOT NULL
            FROM webhook WHERE p.id = ANY (ARRAY[webhook.payout_link_id])
            RETURNING p.id
        )
        SELECT EXISTS (SELECT FROM webhook) AS "is_new!", EXISTS (SELECT FROM due) AS "has_link!"
        "#,
        &*webhook.connector,
        key.as_ref(),
        webhook.event_type,
        connector_payout_id,
        provider_payout_id,
    )
    .fetch_one(&mut **connection)
    .await?;
    Ok(match (stored.is_new, stored.has_link) {
        (false, _) => WebhookStored::Duplicate,
        (true, true) => WebhookStored::Accepted,
        (true, false) => WebhookStored::UnknownLink,
    })
}
