//! Knows what operators have paused. Every worker reads it each second.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};

use super::Pipeline;
use crate::postgres::{PauseKind, Pauses, StoreError};

/// Interval between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// A record whose call is not made because of a pause is due again after this time, and is not claimed before the end of
/// the pause.
pub(super) const PAUSED_AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Pipeline {
    /// Reads what is paused. Called before the first job is taken.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`. The pauses of the last look stay in force.
    pub async fn look_at_pauses(&self) -> Result<(), StoreError> {
        let pauses = self.store.pauses().await?;
        self.pauses.send_if_modified(|known| {
            if *known == pauses {
                return false;
            }
            let names: Vec<String> =
                pauses.iter().map(|pause| format!("{} {}", pause.kind, pause.name)).collect();
            tracing::info!(paused = names.join(", "), "pauses changed");
            *known = pauses;
            true
        });
        if self.is_consumption_paused() {
            self.may_consume.send_replace(false);
        }
        Ok(())
    }

    /// Returns whether an operator has paused consumption.
    pub fn is_consumption_paused(&self) -> bool {
        self.pauses.borrow().has(PauseKind::Consumption, "")
    }

    /// Returns what is paused, for people.
    pub fn paused(&self) -> Vec<String> {
        let pauses = self.pauses.borrow();
        pauses.iter().map(|pause| format!("{} {}", pause.kind, pause.name).trim_end().to_owned()).collect()
    }

    /// Returns whether no call may be made for this account.
    pub(super) fn is_account_paused(&self, account: &str) -> bool {
        self.pauses.borrow().has(PauseKind::Account, account)
    }

    /// Returns whether no link may be created in this account for this merchant.
    pub(super) fn is_creation_paused(&self, account: &str, merchant_id: &str) -> bool {
        let pauses = self.pauses.borrow();
        pauses.has(PauseKind::Account, account) || pauses.has(PauseKind::Merchant, merchant_id)
    }

    /// Returns what is paused, and every change of that.
    pub(super) fn watch_pauses(&self) -> watch::Receiver<Pauses> {
        self.pauses.subscribe()
    }
}

/// The service that reads what is paused.
pub(super) struct PauseWatch {
    pipeline: Arc<Pipeline>,
}

impl PauseWatch {
    pub(super) fn new(pipeline: Arc<Pipeline>) -> Self {
        Self { pipeline }
    }

    /// Reads for as long as it is polled.
    pub(super) async fn run(self) {
        loop {
            if let Err(error) = self.pipeline.look_at_pauses().await {
                tracing::debug!(%error, "pauses not read");
            }
            sleep(INTERVAL).await;
        }
    }
}
