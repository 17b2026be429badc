//! Encrypts all values with the ring's first key. It is safe while workers run, and safe to interrupt and repeat.

use std::time::Duration;

use tokio::time::sleep;
use uuid::Uuid;

use crate::postgres::{Rotated, Store, StoreError};

/// Settings of a rotation.
#[derive(Debug, Clone, Copy)]
pub struct KeyRotationSettings {
    /// Maximum number of records in one statement.
    pub page: u32,
    /// Pause after a page that was written: workers have the database to themselves meanwhile.
    pub pause: Duration,
    /// Maximum number of passes. Another pass is only made for values that were in use.
    pub passes: u32,
}

impl Default for KeyRotationSettings {
    fn default() -> Self {
        Self { page: 500, pause: Duration::from_millis(20), passes: 10 }
    }
}

/// The work of a rotation. Of several passes, only the encrypted values are added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rotation {
    /// Records read in the last pass.
    pub records: usize,
    /// Values encrypted again.
    pub resealed: usize,
    /// Values of the last pass that were in use and are unchanged.
    pub contended: usize,
    /// Values of the last pass that could not be decrypted and are unchanged.
    pub unopened: usize,
}

/// The rotation of all values to the ring's first key.
pub struct KeyRotation<'a> {
    store: &'a Store,
    settings: KeyRotationSettings,
}

impl<'a> KeyRotation<'a> {
    /// Makes a rotation. Nothing runs yet.
    pub fn new(store: &'a Store, settings: KeyRotationSettings) -> Self {
        Self { store, settings }
    }

    /// Makes passes until no value was in use, or the maximum is reached. `report` gets every page.
    ///
    /// # Errors
    ///
    /// As [`Store::reseal`] and [`Store::record_seals`].
    pub async fn run(&self, mut report: impl FnMut(&Rotated)) -> Result<Rotation, StoreError> {
        let (mut pass, mut resealed) = (1, 0);
        loop {
            let rotation = self.run_once(&mut report).await?;
            resealed += rotation.resealed;
            if rotation.contended == 0 || pass >= self.settings.passes {
                self.store.record_seals().await?;
                return Ok(Rotation { resealed, ..rotation });
            }
            sleep(self.settings.pause * pass).await;
            pass += 1;
        }
    }

    /// Makes one pass over all records.
    ///
    /// # Errors
    ///
    /// As [`Store::reseal`].
    pub async fn run_once(&self, report: &mut impl FnMut(&Rotated)) -> Result<Rotation, StoreError> {
        let (mut rotation, mut after) = (Rotation::default(), Uuid::nil());
        loop {
            let page = self.store.reseal(after, self.settings.page).await?;
            rotation.add(&page);
            report(&page);
            let Some(last) = page.last else { return Ok(rotation) };
            after = last;
            if page.resealed > 0 {
                sleep(self.settings.pause).await;
            }
        }
    }
}

impl Rotation {
    fn add(&mut self, page: &Rotated) {
        self.records += page.records;
        self.resealed += page.resealed;
        self.contended += page.contended;
        self.unopened += page.unopened.len();
    }

    /// Returns whether every value is encrypted with the first key now.
    pub fn is_complete(&self) -> bool {
        self.contended == 0 && self.unopened == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_is_complete_once_nothing_was_in_use_or_unreadable() {
        let mut rotation = Rotation::default();
        rotation.add(&Rotated { records: 500, resealed: 499, ..Rotated::default() });
        rotation.add(&Rotated { records: 20, resealed: 20, ..Rotated::default() });
        assert_eq!(rotation, Rotation { records: 520, resealed: 519, contended: 0, unopened: 0 });
        assert!(rotation.is_complete());
        rotation.add(&Rotated { records: 1, contended: 1, ..Rotated::default() });
        assert!(!rotation.is_complete());
    }
}
