//! `pauses`, `pause`, `resume`: what operators have paused.

use serde::Serialize;
use serde_json::json;
use sqlx::PgPool;
use time::OffsetDateTime;

use super::{
    Store,
    connect::answered,
    error::StoreError,
    operator_actions::{self, Operator},
};

/// The kind of a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseKind {
    /// No worker consumes messages.
    Consumption,
    /// No worker calls the provider for this account.
    Account,
    /// No worker calls a provider to create a link for this merchant.
    Merchant,
}

/// One pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pause {
    /// `consumption`, `account` or `merchant`.
    pub kind: String,
    /// The connector account or the merchant; empty for consumption.
    pub name: String,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub paused_at: OffsetDateTime,
    /// The person who paused it.
    pub actor: String,
    /// Why, in the person's words.
    pub reason: String,
}

/// Everything that is paused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pauses(Vec<Pause>);

impl PauseKind {
    /// Returns the name in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Consumption => "consumption",
            Self::Account => "account",
            Self::Merchant => "merchant",
        }
    }
}

impl Pauses {
    /// Returns the pause of this kind and name.
    pub fn get(&self, kind: PauseKind, name: &str) -> Option<&Pause> {
        self.0.iter().find(|pause| pause.kind == kind.as_str() && pause.name == name)
    }

    /// Returns whether anything is paused with this kind and name.
    pub fn has(&self, kind: PauseKind, name: &str) -> bool {
        self.get(kind, name).is_some()
    }

    /// Returns all pauses.
    pub fn iter(&self) -> impl Iterator<Item = &Pause> {
        self.0.iter()
    }
}

/// Reads all pauses.
pub(super) async fn read(pool: &PgPool) -> Result<Pauses, StoreError> {
    let pauses = sqlx::query_as!(
        Pause,
        "SELECT kind, name, paused_at, actor, reason FROM pauses ORDER BY paused_at, kind, name"
    )
    .fetch_all(pool);
    Ok(Pauses(answered(pool, pauses).await?))
}

impl Store {
    /// Reads everything that is paused.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn pauses(&self) -> Result<Pauses, StoreError> {
        read(&self.pool).await
    }

    /// Pauses something, and stores the act. Returns false if it is paused already.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn pause(&self, kind: PauseKind, name: &str, operator: &Operator) -> Result<bool, StoreError> {
        let paused = async {
            let mut transaction = self.pool.begin().await?;
            let paused = sqlx::query!(
                "INSERT INTO pauses (kind, name, actor, reason) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
                kind.as_str(),
                name,
                operator.actor,
                operator.reason,
            )
            .execute(&mut *transaction)
            .await?;
            if paused.rows_affected() == 0 {
                return Ok(false);
            }
            let details = json!({"kind": kind.as_str(), "name": name});
            operator_actions::write(&mut transaction, operator, "pause", None, &details).await?;
            transaction.commit().await?;
            Ok::<_, sqlx::Error>(true)
        };
        answered(&self.pool, paused).await
    }

    /// Ends a pause, and stores the act. Returns false if there is none.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn resume(&self, kind: PauseKind, name: &str, operator: &Operator) -> Result<bool, StoreError> {
        let resumed = async {
            let mut transaction = self.pool.begin().await?;
            let resumed =
                sqlx::query!("DELETE FROM pauses WHERE kind = $1 AND name = $2", kind.as_str(), name)
                    .execute(&mut *transaction)
                    .await?;
            if resumed.rows_affected() == 0 {
                return Ok(false);
            }
            let details = json!({"kind": kind.as_str(), "name": name});
            operator_actions::write(&mut transaction, operator, "resume", None, &details).await?;
            transaction.commit().await?;
            Ok::<_, sqlx::Error>(true)
        };
        answered(&self.pool, resumed).await
    }
}
