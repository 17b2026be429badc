//! Watches open records that this configuration cannot conclude, and clocks that differ.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::sleep;

use super::Pipeline;
use crate::{
    connectors::Connectors,
    lock::lock,
    postgres::{OpenRecords, StoreError},
};

const CLOCK_INTERVAL: Duration = Duration::from_secs(1);
const PLACEMENT_INTERVAL: Duration = Duration::from_secs(60);
/// Webhook receivers reject timestamps that are five minutes off (Standard Webhooks), so a warning comes earlier.
const MAX_OFFSET: time::Duration = time::Duration::seconds(60);

/// The number of open records, by what the current configuration can do with them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// Records of a configured connector without calls in another account.
    pub current: i64,
    /// Records with calls in another account than their connector has now, by connector.
    pub other_account: BTreeMap<String, i64>,
    /// Records whose connector is not configured, by connector.
    pub no_connector: BTreeMap<String, i64>,
}

impl Placement {
    /// Sorts counted records by the configuration.
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

    /// Returns the counts with the labels of the metric.
    pub fn counts(&self) -> [(&'static str, i64); 3] {
        [
            ("current", self.current),
            ("other", self.other_account.values().sum()),
            ("missing", self.no_connector.values().sum()),
        ]
    }

    /// Returns a sentence for each connector with records that this configuration cannot conclude.
    pub fn problems(&self) -> Vec<String> {
        let other = self.other_account.iter().map(|(connector, count)| {
            format!(
                "{count} open records were called in another account than [connectors.{connector}] names: unknown outcomes \
                 among them stay unknown. Configure the former account until they are concluded"
            )
        });
        let missing = self.no_connector.iter().map(|(connector, count)| {
            format!(
                "{count} open records belong to the connector {connector:?}, which is not configured: they are not \
                 processed. Configure [connectors.{connector}] until they are concluded"
            )
        });
        other.chain(missing).collect()
    }
}

impl Pipeline {
    /// Counts the open records by account, and logs new problems.
    ///
    /// # Errors
    ///
    /// As [`crate::postgres::Store::open_records`].
    pub async fn look_at_placement(&self) -> Result<(), StoreError> {
        let placement = Placement::of(self.store.open_records().await?, &self.connectors);
        let before = std::mem::replace(&mut *lock(&self.placement), placement.clone());
        for problem in placement.problems() {
            if !before.problems().contains(&problem) {
                tracing::warn!(problem, "open records cannot be concluded with this configuration");
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

    /// Returns the last count of open records.
    pub fn placement(&self) -> Placement {
        lock(&self.placement).clone()
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
                    tracing::warn!(clock, offset_seconds, "clocks differ, synchronize them");
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
