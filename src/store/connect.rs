//! The pool and the schema.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    ConnectOptions, PgPool,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::StoreError;

/// Embedded in the binary, applied in order, each once, under an advisory lock: many workers may start at once.
pub static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

#[derive(Debug, Clone)]
pub struct DatabaseSettings {
    /// `postgres://user:password@host:port/database?sslmode=…`
    pub url: SecretString,
    pub max_connections: u32,
    /// How long a statement waits for a connection before the database counts as unavailable.
    pub acquire_timeout: Duration,
}

/// A pool over a database that answers. No transaction of ours waits long for a lock: none is open across a call.
pub async fn connect(settings: &DatabaseSettings) -> Result<PgPool, StoreError> {
    let options: PgConnectOptions = settings
        .url
        .expose_secret()
        .parse()
        .map_err(|_| StoreError::Refused("the database URL cannot be read".into()))?;
    let options = options
        .application_name("payout-link-worker")
        .options([
            ("lock_timeout", "10s"),
            ("statement_timeout", "30s"),
            ("idle_in_transaction_session_timeout", "30s"),
        ])
        .disable_statement_logging();
    let pool = PgPoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(settings.acquire_timeout)
        .connect_with(options)
        .await?;
    Ok(pool)
}

pub async fn migrate(pool: &PgPool) -> Result<(), StoreError> {
    MIGRATIONS.run(pool).await.map_err(|error| match error {
        MigrateError::Execute(error) => error.into(),
        MigrateError::VersionMissing(version) => StoreError::Refused(format!(
            "the schema has migration {version}, which this version of the worker does not know: it is older than the database"
        )),
        error => StoreError::Refused(error.to_string()),
    })
}
