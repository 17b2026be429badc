//! Connects to PostgreSQL.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};

use tokio::time::timeout;

use super::{
    connect_error::{address, no_answer, not_connected},
    error::StoreError,
    numbers::millis,
};
use crate::{lock::lock, setting_url::DATABASE};

/// How the database is reached.
#[derive(Debug, Clone)]
pub struct DatabaseSettings {
    /// `postgres://user:password@host:port/database?sslmode=…`
    pub url: SecretString,
    /// Settings that override those of the URL.
    pub tls: DatabaseTls,
    /// Size of the pool.
    pub max_connections: u32,
    /// Limit of a statement, from waiting for a connection to its answer. After that the database counts as away.
    pub timeout: Duration,
}

/// TLS settings; they override those of the URL. The files are read for every connection.
#[derive(Debug, Clone, Default)]
pub struct DatabaseTls {
    /// The mode, as in libpq: only `verify-ca` and `verify-full` verify the server's certificate.
    pub mode: Option<PgSslMode>,
    /// PEM; trusted beside Mozilla's certificates, which are built in.
    pub ca_file: Option<PathBuf>,
    /// PEM: certificate and private key.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl DatabaseTls {
    fn lay_over(&self, mut options: PgConnectOptions) -> PgConnectOptions {
        if let Some(mode) = self.mode {
            options = options.ssl_mode(mode);
        }
        if let Some(file) = &self.ca_file {
            options = options.ssl_root_cert(file);
        }
        if let Some((certificate, key)) = &self.client {
            options = options.ssl_client_cert(certificate).ssl_client_key(key);
        }
        options
    }
}

/// Returns the options of the database's URL with the overrides.
pub(super) fn options(settings: &DatabaseSettings) -> Result<PgConnectOptions, StoreError> {
    let text = settings.url.expose_secret();
    let read = DATABASE.parse(text).map_err(|error| StoreError::Unusable(error.to_string()))?;
    let mut options: PgConnectOptions =
        text.parse().map_err(|_| StoreError::Unusable(BAD_PARAMETER.into()))?;
    // sqlx would resolve an IPv6 address with its brackets.
    if let Some(host) = &read.host {
        options = options.host(host);
    }
    Ok(settings.tls.lay_over(options))
}

/// Returns what is wrong with a database's URL, if anything is.
pub fn url_problem(url: &SecretString) -> Option<String> {
    let text = url.expose_secret();
    match DATABASE.parse(text) {
        Err(error) => Some(error.to_string()),
        Ok(_) if text.parse::<PgConnectOptions>().is_err() => Some(BAD_PARAMETER.to_owned()),
        Ok(_) => None,
    }
}

/// Returns the host, the port and the name of the database, without credentials. `None` if the URL cannot be used.
pub fn target(settings: &DatabaseSettings) -> Option<String> {
    let options = options(settings).ok()?;
    // Without a name, PostgreSQL takes the user's.
    let database = options.get_database().unwrap_or_else(|| options.get_username());
    Some(format!("{}/{database}", address(&options)))
}

const BAD_PARAMETER: &str = "a parameter has a value that cannot be read";

/// Connects a pool to a database that answers. No transaction waits long for a lock, because none is open across a
/// call.
///
/// The server cancels a statement after the timeout, and [`answered`] stops waiting a moment later. Without that, a
/// silent connection (a failover behind a load balancer, a firewall that dropped its state) would block until the
/// kernel gives up, a quarter of an hour later.
///
/// # Errors
///
/// `Unusable` if the configuration is wrong; `Unavailable` if the database does not answer.
pub async fn connect(settings: &DatabaseSettings) -> Result<PgPool, StoreError> {
    pool(settings, Access::Writes).await
}

/// The rights of a pool's sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// A session on a server that accepts no writes is closed.
    Writes,
    /// The session refuses every write; a standby will do.
    Reads,
}

/// Connects a pool; see [`connect`].
pub(super) async fn pool(settings: &DatabaseSettings, access: Access) -> Result<PgPool, StoreError> {
    let name = match access {
        Access::Writes => "payout-link-worker",
        Access::Reads => "payout-link-worker operator",
    };
    let options = options(settings)?.application_name(name).disable_statement_logging();
    // One connection first: a pool retries until its timeout, and reports only that.
    match timeout(settings.timeout, options.connect()).await {
        Ok(Ok(connection)) => drop(timeout(PING, connection.close()).await),
        Ok(Err(error)) => return Err(not_connected(&options, error)),
        Err(_) => return Err(no_answer(&options, settings.timeout)),
    }
    let pool = PgPoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(settings.timeout)
        .after_connect({
            let own = own_settings(settings, access);
            move |connection, _| {
                let own = own.clone();
                Box::pin(async move { connection.execute(sqlx::raw_sql(AssertSqlSafe(own))).await.map(drop) })
            }
        })
        // In place of the pool's own tests, which have no time limit.
        .test_before_acquire(false);
    // A command reads once and ends: its connections are fresh.
    if access == Access::Reads {
        return Ok(pool.connect_lazy_with(options));
    }
    let questions = Arc::new(WriteQuestions::default());
    Ok(pool
        .before_acquire({
            let questions = questions.clone();
            move |connection, found| {
                let questions = questions.clone();
                // Tested when it is returned: a test before every statement would cost a round trip.
                let is_fresh = found.idle_for < FRESH;
                Box::pin(async move { Ok(is_fresh || is_there(connection, &questions).await) })
            }
        })
        .after_release(move |connection, _| {
            let questions = questions.clone();
            Box::pin(async move { Ok(is_there(connection, &questions).await) })
        })
        .connect_lazy_with(options))
}

/// Session settings for plans that do not depend on the tables' statistics at planning time. A generic plan for an
/// empty table would scan the whole table for as long as the connection lives. Every query of the worker has an
/// index. So joins say `id = ANY (ARRAY[new.id])`. A plain `=` allows a merge join, which walks the whole index of a
/// table that was nearly empty at its last ANALYZE.
pub(super) const PLANNING: &[(&str, &str)] = &[
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_mergejoin", "off"),
    ("enable_hashjoin", "off"),
    // Up to PostgreSQL 17 a scan that is "off" only costs much, which makes the planner compile the statement: a tenth
    // of a second or more, for a table of ten rows.
    ("jit", "off"),
];

/// Sets the session up by statements: a pooler in session mode accepts no settings at the start of a session.
fn own_settings(settings: &DatabaseSettings, access: Access) -> String {
    let limit = millis(settings.timeout).to_string();
    // A server that accepts no writes has set this itself; a worker must see that.
    let refuses_writes = match access {
        Access::Writes => None,
        Access::Reads => Some(("default_transaction_read_only", "on")),
    };
    let limits = [
        ("lock_timeout", &*limit),
        ("statement_timeout", &limit),
        ("idle_in_transaction_session_timeout", &limit),
    ];
    let all = limits.into_iter().chain(PLANNING.iter().copied()).chain(refuses_writes);
    all.map(|(name, value)| format!("SET {name} = '{value}';")).collect()
}

/// Decides which sessions of a pool are asked whether they accept writes. The question is a transaction of its own, so one
/// session answers it for all, for as long as [`FRESH`]. After a session that accepts none, each one is asked for
/// [`SUSPICION`]: other sessions may still be at the same server.
#[derive(Debug, Default)]
struct WriteQuestions {
    next: Mutex<Option<Instant>>,
    each_until: Mutex<Option<Instant>>,
}

impl WriteQuestions {
    fn is_due(&self) -> bool {
        let now = Instant::now();
        lock(&self.next).is_none_or(|next| next <= now)
            || lock(&self.each_until).is_some_and(|until| now < until)
    }

    fn record(&self, accepts_writes: bool) {
        let now = Instant::now();
        *lock(&self.next) = Some(now + FRESH);
        if !accepts_writes {
            *lock(&self.each_until) = Some(now + SUSPICION);
        }
    }
}

/// Tests whether the server still answers and accepts writes. A connection in the middle of a statement fails the
/// test. A primary that was demoted answers and fails the test, so that the next connection may reach the new
/// primary.
async fn is_there(connection: &mut PgConnection, questions: &WriteQuestions) -> bool {
    if !questions.is_due() {
        return matches!(timeout(PING, connection.ping()).await, Ok(Ok(())));
    }
    let asked = sqlx::query_scalar("SELECT current_setting('transaction_read_only') = 'off'");
    let accepts_writes = matches!(timeout(PING, asked.fetch_one(connection)).await, Ok(Ok(true)));
    questions.record(accepts_writes);
    accepts_writes
}

const PING: Duration = Duration::from_secs(2);

/// A connection that was used this recently is not tested before it is used again.
const FRESH: Duration = Duration::from_secs(1);

/// After a session that accepts no writes, each session is asked for this long.
const SUSPICION: Duration = Duration::from_secs(30);

/// Awaits a statement's answer, a little longer than the server's own limit.
pub(super) async fn answered<T, E: Into<StoreError>>(
    pool: &PgPool,
    statement: impl Future<Output = Result<T, E>>,
) -> Result<T, StoreError> {
    let patience = pool.options().get_acquire_timeout() + Duration::from_secs(1);
    match timeout(patience, statement).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(StoreError::Unavailable("the database does not answer".into())),
    }
}
