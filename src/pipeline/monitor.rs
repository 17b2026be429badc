//! What nobody else looks at: open records that cannot be settled with this configuration, and clocks that differ.

use std::{collections::BTreeMap, sync::PoisonError, time::Duration};

use tokio::time::sleep;

use super::Pipeline;
use crate::{
    connectors::Connectors,
    postgres::{OpenRecords, StoreError},
};

const CLOCK_INTERVAL: Duration = Duration::from_secs(1);
const PLACEMENT_INTERVAL: Duration = Duration::from_secs(60);
/// Receivers of webhooks refuse timestamps that are five minutes off (Standard Webhooks).
const MAX_OFFSET: time::Duration = time::Duration::seconds(60);

/// Where open records belong by the present configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// With a connector that is configured, and called in no other account.
    pub current: i64,
    /// Called in another account than their connector is configured with, by connector.
    pub other_account: BTreeMap<String, i64>,
    /// Their connector is not configured, by connector.
    pub no_connector: BTreeMap<String, i64>,
}

impl Placement {
    pub fn of(records: Vec<OpenRecords>, connectors: &Connectors) -> Self {
        let mut placement = Self::default();
        for OpenRecords { connector, account, count } in records {
            match connectors.choose(Some(&connector)) {
                None => *placement.no_connector.entry(connector).or_default() += count,
                Some(configured) if account.is_some_and(|account| account != configured.id) => {
                    *placement.other_account.entry(connector).or_default() += count;
                }
                Some(_) => placement.current += count,
            }
        }
        placement
    }

    /// By the metric's label.
    pub fn counts(&self) -> [(&'static str, i64); 3] {
        [
            ("current", self.current),
            ("other", self.other_account.values().sum()),
            ("missing", self.no_connector.values().sum()),
        ]
    }

    /// A sentence for each connector that has records which this configuration cannot settle.
    pub fn problems(&self) -> Vec<String> {
        let other = self.other_account.iter().map(|(connector, count)| {
            format!(
                "{count} open records were called in another account than [connectors.{connector}] names: unknown outcomes \
                 among them stay unknown. Configure the former account until they are concluded"
            )
        });
        let missing = self.no_connector.iter().map(|(connector, count)| {
            format!(
                "{count} open records belong to the connector {connector:?}, which is not configured: nothing is done for \
                 them. Configure [connectors.{connector}] until they are concluded"
            )
        });
        other.chain(missing).collect()
    }
}

impl Pipeline {
    /// Counts the open records by account.
    ///
    /// # Errors
    ///
    /// As [`crate::postgres::Store::open_records`].
    pub async fn look_at_placement(&self) -> Result<(), StoreError> {
        let placement = Placement::of(self.store.open_records().await?, &self.connectors);
        let before = std::mem::replace(
            &mut *self.placement.lock().unwrap_or_else(PoisonError::into_inner),
            placement.clone(),
        );
        for problem in placement.problems() {
            if !before.problems().contains(&problem) {
                tracing::warn!(problem, "open records that this configuration cannot settle");
            }
        }
        Ok(())
    }

    pub(super) async fn watch_placement(&self) {
        loop {
            if let Err(error) = self.look_at_placement().await {
                tracing::debug!(%error, "open records not counted");
            }
            sleep(PLACEMENT_INTERVAL).await;
        }
    }

    pub fn placement(&self) -> Placement {
        self.placement.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) async fn watch_clocks(&self) {
        let mut apart: BTreeMap<String, bool> = BTreeMap::new();
        loop {
            if let Err(error) = self.store.look_at_clock().await {
                tracing::debug!(%error, "the database's clock not read");
            }
            let connectors = self.connectors.iter().map(|account| {
                (format!("the provider of connector {}", account.name), account.clock.offset())
            });
            let others = [
                ("the database".to_owned(), self.store.clock().offset),
                ("merchants".to_owned(), self.webhooks.clock_offset()),
            ];
            for (clock, offset) in others.into_iter().chain(connectors) {
                let Some(offset) = offset else { continue };
                let is_apart = offset.abs() > MAX_OFFSET;
                if apart.insert(clock.clone(), is_apart).unwrap_or(false) == is_apart {
                    continue;
                }
                let offset_seconds = offset.as_seconds_f64();
                if is_apart {
                    tracing::warn!(
                        clock,
                        offset_seconds,
                        "clocks differ, synchronize this worker's and theirs"
                    );
                } else {
                    tracing::info!(clock, offset_seconds, "clocks agree again");
                }
            }
            sleep(CLOCK_INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_problem_is_a_sentence_with_its_count() {
        let placement = Placement {
            current: 7,
            other_account: BTreeMap::from([("a".to_owned(), 2)]),
            no_connector: BTreeMap::from([("old".to_owned(), 3), ("older".to_owned(), 1)]),
        };
        assert_eq!(placement.counts(), [("current", 7), ("other", 2), ("missing", 4)]);
        let problems = placement.problems();
        assert_eq!(problems.len(), 3);
        assert!(problems[0].starts_with("2 open records were called in another account than [connectors.a]"));
        assert!(problems[1].starts_with("3 open records belong to the connector \"old\""));
        assert!(Placement { current: 7, ..Placement::default() }.problems().is_empty());
    }
}
