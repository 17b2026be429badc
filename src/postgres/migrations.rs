//! Migrates the schema.

use std::time::Duration;

use sqlx::{
    AssertSqlSafe, Connection, PgConnection, PgPool,
    migrate::{MigrateError, Migrator},
};
use tokio::time::sleep;

use super::error::StoreError;

/// The migrations, embedded in the binary. Each is applied once, in order, under an advisory lock, so that many
/// workers may start at once.
pub static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Applies the missing migrations, each once, even if many workers start at the same time.
///
/// It waits for each lock one second at a time, and lets other sessions go on in between. So a long transaction
/// delays the start, and nothing else.
///
/// # Errors
///
/// `Unusable` if the schema is newer than this program, or the role may not change it; `Unavailable` if the database
/// does not answer.
pub async fn migrate(pool: &PgPool) -> Result<(), StoreError> {
    // On a connection of its own: building an index may take longer than the statement timeout.
    let mut connection = pool.acquire().await?.detach();
    sqlx::query("SET statement_timeout = 0").execute(&mut connection).await?;
    sqlx::query("SET lock_timeout = '1s'").execute(&mut connection).await?;
    // Polled, in place of sqlx's own lock. CREATE INDEX CONCURRENTLY waits for sessions that wait for a lock inside a
    // statement, so both would wait for each other.
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
        tracing::info!(%error, "migration waits for a lock, will retry");
        sleep(LOCK_PAUSE).await;
    }
    connection.close().await?;
    Ok(())
}

/// First half of the key of the migrations' advisory lock: "plm1".
const MIGRATION_LOCK: i32 = 0x706c_6d31;
const LOCK_PAUSE: Duration = Duration::from_millis(200);

/// Drops invalid indexes: the session that built them concurrently ended before they were complete.
async fn drop_invalid_indexes(connection: &mut PgConnection) -> Result<(), StoreError> {
    let invalid: Vec<String> = sqlx::query_scalar(
        "SELECT indexrelid::regclass::text FROM pg_index
         WHERE NOT indisvalid AND indrelid IN (
             to_regclass('payout_links'), to_regclass('events'), to_regclass('provider_webhooks')
         )",
    )
    .fetch_all(&mut *connection)
    .await?;
    for index in invalid {
        let drop = format!("DROP INDEX CONCURRENTLY IF EXISTS {index}");
        sqlx::query(AssertSqlSafe(drop)).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Describes a schema that has a migration unknown to this program.
pub(super) fn newer(version: i64) -> StoreError {
    StoreError::Unusable(format!(
        "the schema has migration {version}, which this version of the worker does not know: it is older than the database"
    ))
}
