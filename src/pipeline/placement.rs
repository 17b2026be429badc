//! Watches open records that this configuration cannot conclude.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::sleep;

use super::Pipeline;
use crate::{
    connectors::Connectors,
    lock::lock,
    postgres::{OpenRecords, StoreError},
};

/// Interval between two counts.
const INTERVAL: Duration = Duration::from_mins(1);

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
    /// Returns the last count of open records.
    pub fn placement(&self) -> Placement {
        lock(&self.placement).clone()
    }
}

/// The service that counts open records.
pub(super) struct PlacementWatch {
    pipeline: Arc<Pipeline>,
}

impl PlacementWatch {
    pub(super) fn new(pipeline: Arc<Pipeline>) -> Self {
        Self { pipeline }
    }

    /// Counts for as long as it is polled.
    pub(super) async fn run(self) {
        loop {
            if let Err(error) = self.run_once().await {
                tracing::debug!(%error, "open records not counted");
            }
            sleep(INTERVAL).await;
        }
    }

    /// Counts the open records by account, logs new problems, and returns the count.
    async fn run_once(&self) -> Result<Placement, StoreError> {
        let Pipeline { store, connectors, placement: last, .. } = &*self.pipeline;
        let placement = Placement::of(store.open_records().await?, connectors);
        let before = std::mem::replace(&mut *lock(last), placement.clone());
        for problem in placement.problems() {
            if !before.problems().contains(&problem) {
                tracing::warn!(problem, "open records cannot be concluded with this configuration");
            }
        }
        Ok(placement)
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
