//! The pool and the schema.

use std::{path::PathBuf, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, PgPool,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};

use tokio::time::{sleep, timeout};

use super::{
    StoreError,
    fitness::{newer, no_answer, not_connected},
    millis,
};
use crate::setting_url::DATABASE;

/// Embedded in the binary, applied in order, each once, under an advisory lock: many workers may start at once.
pub static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

#[derive(Debug, Clone)]
pub struct DatabaseSettings {
    /// `postgres://user:password@host:port/database?sslmode=…`
    pub url: SecretString,
    pub tls: DatabaseTls,
    pub max_connections: u32,
    /// How long a statement may take, from asking for a connection to its answer, before the database counts as away.
    pub timeout: Duration,
}

/// What is given here stands in place of what the URL says. The files are read at every connecting.
#[derive(Debug, Clone, Default)]
pub struct DatabaseTls {
    /// As libpq's: only `verify-ca` and `verify-full` look at the server's certificate.
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

/// The database's URL, and what is laid over it.
pub(super) fn options(settings: &DatabaseSettings) -> Result<PgConnectOptions, StoreError> {
    let text = settings.url.expose_secret();
    let read = DATABASE.parse(text).map_err(|error| StoreError::Unusable(error.to_string()))?;
    let mut options: PgConnectOptions =
        text.parse().map_err(|_| StoreError::Unusable(BAD_PARAMETER.into()))?;
    // sqlx would look an IPv6 address up with its brackets on.
    if let Some(host) = &read.host {
        options = options.host(host);
    }
    Ok(settings.tls.lay_over(options))
}

/// What is wrong with a database's URL, if anything is.
pub fn url_problem(url: &SecretString) -> Option<String> {
    let text = url.expose_secret();
    match DATABASE.parse(text) {
        Err(error) => Some(error.to_string()),
        Ok(_) if text.parse::<PgConnectOptions>().is_err() => Some(BAD_PARAMETER.to_owned()),
        Ok(_) => None,
    }
}

const BAD_PARAMETER: &str = "a value of its parameters cannot be read";

/// A pool over a database that answers. No transaction of ours waits long for a lock: none is open across a call.
///
/// The server gives a statement up after the timeout, [`answered`] does a moment later: a connection that has fallen
/// silent (a failover behind a load balancer, a firewall that forgot it) would be waited on for as long as the kernel
/// tries, a quarter of an hour, and for ever where somebody in between still takes the bytes.
pub async fn connect(settings: &DatabaseSettings) -> Result<PgPool, StoreError> {
    let options = options(settings)?.application_name("payout-link-worker").disable_statement_logging();
    // By itself first: a pool tries again until its time is over, and then says that alone.
    match timeout(settings.timeout, options.connect()).await {
        Ok(Ok(connection)) => drop(timeout(PING, connection.close()).await),
        Ok(Err(error)) => return Err(not_connected(&options, error)),
        Err(_) => return Err(no_answer(&options, settings.timeout)),
    }
    Ok(PgPoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(settings.timeout)
        .after_connect({
            let own = own_settings(settings);
            move |connection, _| {
                let own = own.clone();
                Box::pin(async move { connection.execute(sqlx::raw_sql(AssertSqlSafe(own))).await.map(drop) })
            }
        })
        // In place of the pool's own, which are waited for without end.
        .test_before_acquire(false)
        .before_acquire(|connection, found| {
            // Looked at when it was given back: a round trip more for every statement would tell little that is new.
            let is_fresh = found.idle_for < FRESH;
            Box::pin(async move { Ok(is_fresh || is_there(connection).await?) })
        })
        .after_release(|connection, _| Box::pin(is_there(connection)))
        .connect_lazy_with(options))
}

/// A plan that is made once, and does not rest on what the tables were like then: made for an empty one, it would read all of it
/// for as long as the connection lives, row by row, or along an index to merge it or to hash it. There is an index for
/// whatever is asked while working, and what a batch asks for is found by it. So joins say `id = ANY (ARRAY[new.id])`: along a
/// plain `=`, which could be merged, the planner still walks the whole index of a table that was nearly empty when it was
/// last told of it.
pub(super) const PLANNING: &[(&str, &str)] = &[
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_mergejoin", "off"),
    ("enable_hashjoin", "off"),
];

/// What a session is set to. By statements: a pooler in session mode, which this works with, takes no settings at the start of one.
fn own_settings(settings: &DatabaseSettings) -> String {
    let limit = millis(settings.timeout).to_string();
    let limits = [
        ("lock_timeout", &*limit),
        ("statement_timeout", &limit),
        ("idle_in_transaction_session_timeout", &limit),
    ];
    let all = limits.iter().chain(PLANNING);
    all.map(|(name, value)| format!("SET {name} = '{value}';")).collect()
}

/// Whether the other side still answers and takes writes; a connection that was left in the middle of a statement does not. One to
/// a primary that was demoted answers, and is replaced by one that may reach the new primary.
async fn is_there(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let asked = sqlx::query_scalar("SELECT current_setting('transaction_read_only') = 'off'");
    let writable = timeout(PING, asked.fetch_one(connection)).await;
    Ok(matches!(writable, Ok(Ok(true))))
}

const PING: Duration = Duration::from_secs(2);

/// A connection that was there so lately is taken to be there.
const FRESH: Duration = Duration::from_secs(1);

/// A statement's answer, waited for a little longer than the server may take for it.
pub(super) async fn answered<T, E: Into<StoreError>>(
    pool: &PgPool,
    statement: impl Future<Output = Result<T, E>>,
) -> Result<T, StoreError> {
    let patience = pool.options().get_acquire_timeout() + Duration::from_secs(1);
    match timeout(patience, statement).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(StoreError::Unavailable("it does not answer".into())),
    }
}

/// Applies the migrations that are missing, each once, however many workers start at the same time.
///
/// It waits for locks a second at a time, and between that lets others go on: a long transaction that reads a table
/// holds up the start, and nobody else.
///
/// # Errors
///
/// `Unusable` if the schema is newer than this program, or the role may not change it; `Unavailable` if the database went
/// away.
pub async fn migrate(pool: &PgPool) -> Result<(), StoreError> {
    // On a connection of its own: an index may take longer than a statement of ours.
    let mut connection = pool.acquire().await?.detach();
    sqlx::query("SET statement_timeout = 0").execute(&mut connection).await?;
    sqlx::query("SET lock_timeout = '1s'").execute(&mut connection).await?;
    // Polled, in place of sqlx's own lock: a session that waits for a lock inside a statement is waited for by CREATE INDEX
    // CONCURRENTLY, and both would wait for each other.
    let lock = "SELECT pg_try_advisory_lock($1, 0)";
    while !sqlx::query_scalar::<_, bool>(lock).bind(MIGRATION_LOCK).fetch_one(&mut connection).await? {
        sleep(LOCK_PAUSE).await;
    }
    let migrator =
        Migrator { migrations: MIGRATIONS.migrations.clone(), locking: false, ..Migrator::DEFAULT };
    loop {
        drop_invalid_indexes(&mut connection).await?;
        let error = match migrator.run(&mut connection).await {
            Ok(()) => break,
            Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => error,
            Err(MigrateError::VersionMissing(version)) => {
                return Err(newer(version));
            }
            Err(error) => return Err(StoreError::Unusable(error.to_string())),
        };
        let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
        // Lock not available, deadlock detected.
        if !matches!(&*code, "55P03" | "40P01") {
            return Err(error.into());
        }
        tracing::info!(%error, "migration waits for a lock, trying again");
        sleep(LOCK_PAUSE).await;
    }
    connection.close().await?;
    Ok(())
}

/// First half of the key of the migrations' advisory lock: "plm1".
const MIGRATION_LOCK: i32 = 0x706c_6d31;
const LOCK_PAUSE: Duration = Duration::from_millis(200);

/// An index that was being built concurrently when its session ended is there, and of no use.
async fn drop_invalid_indexes(connection: &mut PgConnection) -> Result<(), StoreError> {
    let invalid: Vec<String> = sqlx::query_scalar(
        "SELECT indexrelid::regclass::text FROM pg_index
         WHERE indrelid = to_regclass('payout_links') AND NOT indisvalid",
    )
    .fetch_all(&mut *connection)
    .await?;
    for index in invalid {
        let drop = format!("DROP INDEX CONCURRENTLY IF EXISTS {index}");
        sqlx::query(AssertSqlSafe(drop)).execute(&mut *connection).await?;
    }
    Ok(())
}
