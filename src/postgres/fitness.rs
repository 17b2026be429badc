//! Tests whether a worker can work with a database. `run` tests it before it consumes anything, and `check` makes the
//! same tests.

use futures_util::TryFutureExt;
use sqlx::{PgPool, Row};

use super::{
    connect::{PLANNING, answered},
    connect_error::{POOLER, PROTOCOL_VIOLATION},
    error::StoreError,
    migrations::{MIGRATIONS, newer},
};

/// Sessions of a worker besides its pool: one for its presence, one for readiness probes.
const OTHER_SESSIONS: u32 = 2;

/// Tests the server and any pooler in front of it.
///
/// It uses simple statements: a pooler that shares sessions fails at prepared ones, with errors that are hard to
/// understand.
///
/// # Errors
///
/// `Unusable` with the remedy; `Unavailable` if the database did not answer or is a standby.
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
            "the database's encoding is {encoding}, which cannot store every name and identifier: create a database with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )));
    }
    if shares_sessions(pool).await? {
        return Err(StoreError::Unusable(format!("two connections share one session: {POOLER}")));
    }
    for (name, value) in PLANNING {
        if matches!(*name, "plan_cache_mode" | "enable_seqscan") && text(name)? != *value {
            return Err(StoreError::Unusable(format!("the session setting {name} has no effect: {POOLER}")));
        }
    }
    if text("is_standby")? == "true" {
        return Err(StoreError::Unavailable("the server is a standby and accepts no writes".into()));
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
                "{what} is {limit}, and this worker needs {needed} sessions (database.max_connections and {OTHER_SESSIONS} more): raise the limit or lower database.max_connections"
            )));
        }
    }
    Ok(())
}

/// Tests whether two connections share one session of the server, or one connection uses two, as behind a pooler in
/// transaction mode. It tests several times, because a pooler with many sessions may give the right ones by chance.
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
    // A pooler in statement mode accepts no transaction.
    let asked = asked.map_err(|error| match &error {
        sqlx::Error::Database(rejection) if rejection.code().as_deref() == Some(PROTOCOL_VIOLATION) => {
            StoreError::Unusable(format!("{}: {POOLER}", rejection.message()))
        }
        _ => error.into(),
    });
    answered(pool, asked).await
}

/// Tests the schema before a worker starts, for one that migrates (`migrates`) and one that does not. Returns the
/// number of migrations that the worker would apply.
///
/// # Errors
///
/// `Unusable` if a table, a column or a privilege would still be missing after that.
pub async fn schema(pool: &PgPool, migrates: bool) -> Result<usize, StoreError> {
    if !migrates {
        is_fit(pool).await?;
        return Ok(0);
    }
    // A role that does not migrate may lack the privilege to read the table of migrations.
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

const MAY_NOT_MIGRATE: &str = "this role may not migrate the database: set worker.migrate = false, and run `payout-link-worker migrate` as the tables' owner";

/// Tests whether the tables and this role's privileges are complete, before anything is consumed. Otherwise every job
/// would fail until it counted as poison; or, worse, a call would be made whose outcome cannot be stored. Columns
/// that a migration adds have their line here.
///
/// # Errors
///
/// `Unusable` with a list of the missing tables, columns and privileges.
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
            ('sealing_keys', 'SELECT'), ('sealing_keys', 'INSERT'), ('sealing_keys', 'UPDATE'),
            ('provider_webhooks', 'SELECT'), ('provider_webhooks', 'INSERT'), ('provider_webhooks', 'DELETE'),
            ('link_requests', 'SELECT'), ('link_requests', 'INSERT'), ('link_requests', 'UPDATE'),
            ('link_requests', 'DELETE'),
            ('operator_actions', 'SELECT'), ('operator_actions', 'INSERT'),
            ('pauses', 'SELECT'), ('pauses', 'INSERT'), ('pauses', 'DELETE'),
            ('open_breakers', 'SELECT'), ('open_breakers', 'INSERT'), ('open_breakers', 'DELETE'),
            ('paused_webhook_hosts', 'SELECT'), ('paused_webhook_hosts', 'INSERT'), ('paused_webhook_hosts', 'DELETE')
        ) AS needs (name, needed)
        WHERE has_table_privilege(to_regclass(name)::oid, needed) IS NOT TRUE
        UNION ALL
        SELECT name || '.' || added
        FROM (VALUES
            ('payout_links', 'took_ms'), ('events', 'took_ms'), ('payout_links', 'service_rank'),
            ('payout_links', 'uncalled_holder'), ('payout_links', 'fresh_webhook_url'),
            ('payout_links', 'refreshed_at'), ('payout_links', 'account'), ('events', 'publish_attempts'), ('events', 'reply_due'),
            ('events', 'publish_due_at'), ('payout_links', 'link_status'), ('events', 'sequence'),
            ('payout_links', 'ask_again'),
            ('payout_links', 'retried_at'), ('payout_links', 'erased_at'), ('events', 'earlier_result'), ('attempts', 'caller')
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
        "tables, columns or privileges are missing: {}. Run `payout-link-worker migrate` for tables and columns, and docs/permissions/postgres.sql for privileges",
        missing.join(", ")
    )))
}
