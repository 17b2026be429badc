//! The result of an event, as it is published: the stored result of the conclusion, with the values of a later event in it.

use bytes::Bytes;
use uuid::Uuid;

use super::{Store, error::StoreError, seal::Column};
use crate::contract::{self, StatusUpdate};

impl Store {
    /// Decrypts the result of a record's conclusion, and puts the values of a later event in it.
    ///
    /// # Errors
    ///
    /// `Inconsistent` if there is no result, its key is not in the key ring, or the error of the later event is not JSON.
    pub(super) fn event_result(
        &self,
        payout_link_id: Uuid,
        sealed: Option<&[u8]>,
        update: Option<&StatusUpdate>,
    ) -> Result<Bytes, StoreError> {
        let inconsistent =
            |reason: &str| StoreError::inconsistent("payout_links", "result", payout_link_id, reason);
        let sealed = sealed.ok_or_else(|| inconsistent("empty"))?;
        let result = self.keys.open(Column::Result, payout_link_id, sealed);
        let result = result.map_err(|error| inconsistent(&error.to_string()))?;
        let Some(update) = update else { return Ok(result.into()) };
        contract::status_update(&result, update)
            .ok_or_else(|| StoreError::inconsistent("events", "error", payout_link_id, "not JSON"))
    }
}
