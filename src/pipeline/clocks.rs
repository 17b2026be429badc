//! Watches clocks that differ: the database's, the providers' and the merchants'.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::sleep;

use super::Pipeline;

/// Interval between two looks at the clocks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Webhook receivers reject timestamps that are five minutes off (Standard Webhooks), so a warning comes earlier.
const MAX_OFFSET: time::Duration = time::Duration::seconds(60);

/// The service that watches the clocks.
pub(super) struct ClockWatch {
    pipeline: Arc<Pipeline>,
    apart: BTreeMap<String, bool>,
}

impl ClockWatch {
    pub(super) fn new(pipeline: Arc<Pipeline>) -> Self {
        Self { pipeline, apart: BTreeMap::new() }
    }

    /// Looks at the clocks for as long as it is polled.
    pub(super) async fn run(mut self) {
        loop {
            self.run_once().await;
            sleep(INTERVAL).await;
        }
    }

    /// Compares every clock with the worker's, logs changes, and returns how many are apart.
    async fn run_once(&mut self) -> usize {
        let Pipeline { store, webhooks, connectors, .. } = &*self.pipeline;
        if let Err(error) = store.look_at_clock().await {
            tracing::debug!(%error, "the database's clock not read");
        }
        let providers = connectors
            .iter()
            .map(|account| (format!("the provider of connector {}", account.name), account.clock.offset()));
        let others = [
            ("the database".to_owned(), store.clock().offset),
            ("merchants".to_owned(), webhooks.clock_offset()),
        ];
        for (clock, offset) in others.into_iter().chain(providers) {
            let Some(offset) = offset else { continue };
            let offset_seconds = offset.as_seconds_f64();
            match has_changed(&mut self.apart, &clock, offset) {
                None => {}
                Some(true) => tracing::warn!(clock, offset_seconds, "clocks differ, synchronize them"),
                Some(false) => tracing::info!(clock, offset_seconds, "clocks agree again"),
            }
        }
        self.apart.values().filter(|apart| **apart).count()
    }
}

/// Notes the offset of a clock. Returns whether it is apart now, if that has changed. A clock counts as one that agrees
/// before it is seen.
fn has_changed(apart: &mut BTreeMap<String, bool>, clock: &str, offset: time::Duration) -> Option<bool> {
    let is_apart = offset.abs() > MAX_OFFSET;
    let was_apart = apart.insert(clock.to_owned(), is_apart).unwrap_or(false);
    (was_apart != is_apart).then_some(is_apart)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_of_a_clock_is_logged_once() {
        let mut apart = BTreeMap::new();
        for (seconds, change) in [
            (0, None),
            (60, None),
            (61, Some(true)),
            (3600, None),
            (-3600, None),
            (-60, Some(false)),
            (0, None),
        ] {
            let offset = time::Duration::seconds(seconds);
            assert_eq!(has_changed(&mut apart, "the database", offset), change, "{seconds}");
        }
        assert_eq!(has_changed(&mut apart, "merchants", time::Duration::seconds(-61)), Some(true));
    }
}
