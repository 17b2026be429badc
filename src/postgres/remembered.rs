//! `remember`: a setting that records depend on, and what it was at the last start.

use super::{Store, StoreError, connect::answered};

/// What a setting was before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remembered {
    /// The same.
    Same,
    /// Nobody has written it down, and there is no record yet.
    New,
    /// Something else; `None` where there are records of a version that did not write it down.
    Other(Option<String>),
}

impl Store {
    /// Writes a setting down where none is, and says what it was. [`Store::replace_remembered`] writes another.
    ///
    /// # Errors
    ///
    /// As [`Store::accept`]: a database that is away is waited for.
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

    /// Writes a setting down in place of what it was.
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
