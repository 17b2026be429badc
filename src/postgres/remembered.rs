//! `remember`: stores a setting that records depend on, and returns its value at the last start.

use super::{Store, connect::answered, error::StoreError};

/// The former value of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remembered {
    /// The setting is unchanged.
    Same,
    /// The setting was never stored, and there are no records yet.
    New,
    /// The setting had another value; `None` if the records are from a version that did not store it.
    Other(Option<String>),
}

impl Store {
    /// Stores a setting if none is stored, and returns its former value. [`Store::replace_remembered`] stores another one.
    ///
    /// # Errors
    ///
    /// As [`Store::accept`]. It waits for a database that is away.
    pub async fn remember(&self, name: &str, value: &str) -> Result<Remembered, StoreError> {
        self.patiently(|| self.try_remember(name, value)).await
    }

    async fn try_remember(&self, name: &str, value: &str) -> Result<Remembered, StoreError> {
        let asked = sqlx::query!(
            r#"
            SELECT
                (SELECT value FROM remembered_settings WHERE name = $1) AS value,
                EXISTS (SELECT FROM payout_links) AS "has_records!"
            "#,
            name
        )
        .fetch_one(&self.pool);
        let row = answered(&self.pool, asked).await?;
        Ok(match (row.value, row.has_records) {
            (Some(before), _) if before == value => Remembered::Same,
            (Some(before), true) => Remembered::Other(Some(before)),
            (None, true) => Remembered::Other(None),
            (Some(_) | None, false) => {
                self.try_replace(name, value).await?;
                Remembered::New
            }
        })
    }

    /// Replaces the stored value of a setting.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn replace_remembered(&self, name: &str, value: &str) -> Result<(), StoreError> {
        self.patiently(|| self.try_replace(name, value)).await
    }

    async fn try_replace(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let written = sqlx::query!(
            "INSERT INTO remembered_settings (name, value) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            name,
            value
        )
        .execute(&self.pool);
        answered(&self.pool, written).await?;
        Ok(())
    }
}
