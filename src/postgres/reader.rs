//! Reads the database for an operator. It needs no sealing key, decrypts nothing and cannot write.

use sqlx::PgPool;

use super::{
    connect::{Access, DatabaseSettings, pool},
    error::StoreError,
};

/// The records as an operator may see them.
#[derive(Debug, Clone)]
pub struct Reader {
    pub(super) pool: PgPool,
}

impl Reader {
    /// Makes a reader over a connected pool.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Connects with sessions that refuse every write. A role that may only read will do, and so will a standby.
    ///
    /// # Errors
    ///
    /// `Unusable` if the configuration is wrong; `Unavailable` if the database does not answer.
    pub async fn connect(settings: &DatabaseSettings) -> Result<Self, StoreError> {
        Ok(Self::new(pool(settings, Access::Reads).await?))
    }
}
