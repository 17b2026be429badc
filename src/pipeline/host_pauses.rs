//! Learns which merchants' hosts operators paused.

use std::{sync::Arc, time::Duration};

use super::Pipeline;
use crate::domain::retry::jittered;

/// Interval between two looks. A pause is noticed within this time and a bit.
const INTERVAL: Duration = Duration::from_secs(2);

impl Pipeline {
    /// Reads the paused hosts once. If the database does not answer, the last ones stay.
    pub async fn learn_paused_hosts(&self) {
        match self.store.paused_hosts().await {
            Ok(hosts) => self.webhooks.set_paused_hosts(hosts),
            Err(error) => tracing::debug!(%error, "paused hosts not read, will retry"),
        }
    }

    /// Reads them again and again.
    pub(super) async fn watch_paused_hosts(self: Arc<Self>) {
        loop {
            self.sleep(jittered(INTERVAL, INTERVAL)).await;
            self.learn_paused_hosts().await;
        }
    }
}
