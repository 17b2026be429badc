//! Whether a database is one that a worker can work with. `run` asks before anything is consumed, and `check` asks the same.

use std::{io, time::Duration};

use futures_util::TryFutureExt;
use sqlx::{PgPool, Row, postgres::PgConnectOptions};

use super::{
    StoreError,
    connect::{MIGRATIONS, PLANNING, answered},
};

/// Sessions of a worker beside its pool: one shows that it is there, one answers readiness probes.
const OTHER_SESSIONS: u32 = 2;

const POOLER: &str = "a connection pooler stands between, which shares sessions or refuses what belongs to one. Connect to PostgreSQL itself, or to a pooler in session mode (PgBouncer: ignore_startup_parameters = extra_float_digits)";

/// What a pooler says of what it does not take. PostgreSQL itself is spoken to as it expects.
const PROTOCOL_VIOLATION: &str = "08P01";

/// What stands in the way, of the server and of what is between.
///
/// Asked with simple statements: a pooler that shares sessions fails at prepared ones, in words that nobody understands.
///
/// # Errors
///
/// `Unusable`, in words that say what to do; `Unavailable` if it did not answer, or is a standby.
pub async fn examine(pool: &PgPool) -> Result<(), StoreError> {
    let asked = sqlx::raw_sql(
        "SELECT
            current_setting('server_encoding') AS encoding,
            pg_is_in_recovery()::text AS is_standby,
            current_setting('plan_cache_mode') AS plan_cache_mode,
            current_setting('enable_seqscan') AS enable_seqscan,
            CASE WHEN rolsuper THEN -1 ELSE rolconnlimit END::text AS of_role,
            (SELECT datconnlimit FROM pg_database WHERE datname = current_database())::text AS of_database,
            (current_setting('max_connections')::integer
                - current_setting('superuser_reserved_connections')::integer
                - coalesce(current_setting('reserved_connections', true)::integer, 0))::text AS of_server
         FROM pg_roles WHERE rolname = current_user",
    )
    .fetch_one(pool);
    let row = answered(pool, asked).await?;
    let text = |name: &str| row.try_get::<String, _>(name).map_err(StoreError::from);
    let encoding = text("encoding")?;
    if encoding != "UTF8" {
        return Err(StoreError::Unusable(format!(
            "its encoding is {encoding}, which cannot hold every name and identifier; make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )));
    }
    if shares_sessions(pool).await? {
        return Err(StoreError::Unusable(format!("two sessions are one: {POOLER}")));
    }
    for (name, value) in PLANNING {
        if matches!(*name, "plan_cache_mode" | "enable_seqscan") && text(name)? != *value {
            return Err(StoreError::Unusable(format!(
                "it did not take the session's setting {name}: {POOLER}"
            )));
        }
    }
    if text("is_standby")? == "true" {
        return Err(StoreError::Unavailable("it is a standby, which takes no writes".into()));
    }
    let needed = i64::from(pool.options().get_max_connections() + OTHER_SESSIONS);
    for (what, limit) in [
        ("the role's CONNECTION LIMIT", text("of_role")?),
        ("the database's CONNECTION LIMIT", text("of_database")?),
        ("the server's max_connections, less what is reserved,", text("of_server")?),
    ] {
        let limit = limit.parse::<i64>().ok().filter(|limit| *limit >= 0);
        if let Some(limit) = limit.filter(|limit| *limit < needed) {
            return Err(StoreError::Unusable(format!(
                "{what} is {limit}, and this worker needs {needed} sessions: database.max_connections and {OTHER_SESSIONS} more; raise the one or lower the other"
            )));
        }
    }
    Ok(())
}

/// Whether two connections of ours are one session of the server, or one is two, as behind a pooler in transaction mode. Asked several
/// times: one that has many sessions at hand may give the right ones by chance.
async fn shares_sessions(pool: &PgPool) -> Result<bool, StoreError> {
    for _ in 0..3 {
        if shares_sessions_now(pool).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn shares_sessions_now(pool: &PgPool) -> Result<bool, StoreError> {
    const WHICH: &str = "SELECT pg_backend_pid()::text";
    let asked = async {
        let (mut first, mut second) = (pool.acquire().await?, pool.acquire().await?);
        let before: String = sqlx::raw_sql(WHICH).fetch_one(&mut *first).await?.try_get(0)?;
        sqlx::raw_sql("BEGIN").execute(&mut *second).await?;
        let other: String = sqlx::raw_sql(WHICH).fetch_one(&mut *second).await?.try_get(0)?;
        let after: String = sqlx::raw_sql(WHICH).fetch_one(&mut *first).await?.try_get(0)?;
        sqlx::raw_sql("ROLLBACK").execute(&mut *second).await?;
        Ok::<_, sqlx::Error>(before == other || before != after)
    };
    // One in statement mode takes no transaction.
    let asked = asked.map_err(|error| match &error {
        sqlx::Error::Database(refusal) if refusal.code().as_deref() == Some(PROTOCOL_VIOLATION) => {
            StoreError::Unusable(format!("{}: {POOLER}", refusal.message()))
        }
        _ => error.into(),
    });
    answered(pool, asked).await
}

/// What the schema needs before a worker can start, for one that migrates by itself (`migrates`) and one that does not.
/// Returns how many migrations are missing that the worker would make.
///
/// # Errors
///
/// `Unusable` if a table, a column or a right is missing that would still be missing then.
pub async fn schema(pool: &PgPool, migrates: bool) -> Result<usize, StoreError> {
    if !migrates {
        is_fit(pool).await?;
        return Ok(0);
    }
    // A role that does not migrate may not read what is there.
    let readable = sqlx::query_scalar::<_, Option<bool>>(
        "SELECT has_table_privilege(to_regclass('_sqlx_migrations')::oid, 'SELECT')",
    )
    .fetch_one(pool);
    let applied: Vec<i64> = match answered(pool, readable).await? {
        None => Vec::new(),
        Some(true) => {
            let applied =
                sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success").fetch_all(pool);
            answered(pool, applied).await?
        }
        Some(false) => return Err(StoreError::Unusable(MAY_NOT_MIGRATE.into())),
    };
    let known = |version: &i64| MIGRATIONS.iter().any(|migration| migration.version == *version);
    if let Some(version) = applied.iter().find(|version| !known(version)) {
        return Err(newer(*version));
    }
    let missing = MIGRATIONS.iter().filter(|migration| !applied.contains(&migration.version)).count();
    if missing == 0 {
        is_fit(pool).await?;
        return Ok(0);
    }
    let may = sqlx::query_scalar::<_, bool>(
        "SELECT has_schema_privilege(current_schema(), 'CREATE')
            AND coalesce((SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('payout_links')), true)",
    )
    .fetch_one(pool);
    match answered(pool, may).await? {
        true => Ok(missing),
        false => Err(StoreError::Unusable(MAY_NOT_MIGRATE.into())),
    }
}

const MAY_NOT_MIGRATE: &str = "this role may not migrate it: set worker.migrate = false, and run `payout-link-worker migrate` as the tables' owner";

/// The schema has a migration that this program does not know.
pub(super) fn newer(version: i64) -> StoreError {
    StoreError::Unusable(format!(
        "the schema has migration {version}, which this version of the worker does not know: it is older than the database"
    ))
}

/// What an error of connecting comes to, with its place. At the start what does not pass is a mistake to be told.
pub(super) fn not_connected(options: &PgConnectOptions, error: sqlx::Error) -> StoreError {
    let place = place(options);
    if is_untrusted(&error) {
        return StoreError::Unusable(format!("{place}: no TLS with it: {error}"));
    }
    if let sqlx::Error::Database(refusal) = &error
        && refusal.code().as_deref() == Some(PROTOCOL_VIOLATION)
    {
        return StoreError::Unusable(format!("{place}: {}: {POOLER}", refusal.message()));
    }
    if let sqlx::Error::Io(cause) = &error {
        return StoreError::Unavailable(format!("{place}: {}", plainly(cause)));
    }
    match StoreError::from(error) {
        StoreError::Unavailable(reason) => StoreError::Unavailable(format!("{place}: {reason}")),
        StoreError::Unusable(reason) => StoreError::Unusable(format!("{place}: {reason}")),
        StoreError::Rejected(reason) => StoreError::Rejected(format!("{place}: {reason}")),
        other => other,
    }
}

pub(super) fn no_answer(options: &PgConnectOptions, within: Duration) -> StoreError {
    StoreError::Unavailable(format!("{}: no answer within {} s", place(options), within.as_secs()))
}

fn place(options: &PgConnectOptions) -> String {
    match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None if options.get_host().contains(':') => {
            format!("[{}]:{}", options.get_host(), options.get_port())
        }
        None => format!("{}:{}", options.get_host(), options.get_port()),
    }
}

/// "connection refused", without the number that goes with it.
fn plainly(error: &io::Error) -> String {
    if error.raw_os_error().is_some() { error.kind().to_string() } else { error.to_string() }
}

/// One side's certificate is not good enough for the other, or there is no TLS where it is asked for. At the start
/// that is a mistake to be told; later it may be in the middle of being changed, and is waited for.
fn is_untrusted(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Tls(_) => true,
        sqlx::Error::Io(error) => error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()),
        _ => false,
    }
}

/// Whether the tables and this role's rights are what the worker needs. Asked before anything is consumed: found out
/// by the jobs, each of them would be delivered in vain once a start, and be taken for poison in the end; or, worse, be
/// called for, with no way to write down what came of it. What a migration adds to a table has its line here.
pub async fn is_fit(pool: &PgPool) -> Result<(), StoreError> {
    let missing = sqlx::query_scalar!(
        r#"
        SELECT name || ': ' || needed AS "missing!"
        FROM (VALUES
            ('payout_links', 'SELECT'), ('payout_links', 'INSERT'), ('payout_links', 'UPDATE'),
            ('events', 'SELECT'), ('events', 'INSERT'), ('events', 'UPDATE'), ('events', 'DELETE'),
            ('attempts', 'SELECT'), ('attempts', 'INSERT'), ('attempts', 'DELETE'),
            ('suspect_messages', 'SELECT'), ('suspect_messages', 'INSERT'), ('suspect_messages', 'UPDATE'),
            ('suspect_messages', 'DELETE'),
            ('rejected_messages', 'SELECT'), ('rejected_messages', 'INSERT'), ('rejected_messages', 'DELETE'),
            ('remembered_settings', 'SELECT'), ('remembered_settings', 'INSERT'), ('remembered_settings', 'UPDATE'),
            ('sealing_keys', 'SELECT'), ('sealing_keys', 'INSERT'), ('sealing_keys', 'UPDATE')
        ) AS needs (name, needed)
        WHERE has_table_privilege(to_regclass(name)::oid, needed) IS NOT TRUE
        UNION ALL
        SELECT name || '.' || added
        FROM (VALUES
            ('payout_links', 'took_ms'), ('events', 'took_ms'), ('payout_links', 'service_rank'),
            ('payout_links', 'uncalled_holder'), ('payout_links', 'fresh_webhook_url'),
            ('payout_links', 'refreshed_at'), ('payout_links', 'account'), ('events', 'publish_attempts'), ('events', 'reply_due'),
            ('events', 'publish_due_at')
        ) AS migrated (name, added)
        WHERE NOT EXISTS (
            SELECT FROM pg_attribute
            WHERE attrelid = to_regclass(name) AND attname = added AND NOT attisdropped
        )
        "#
    )
    .fetch_all(pool);
    let missing = answered(pool, missing).await?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(StoreError::Unusable(format!(
        "tables, columns or rights are missing: {}; run `payout-link-worker migrate` for the first two, and docs/permissions/postgres.sql for the rights",
        missing.join(", ")
    )))
}
