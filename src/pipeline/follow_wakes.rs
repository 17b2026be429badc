//! Wakes the followers of accounts early.

use std::{collections::BTreeMap, future::pending, sync::Arc};

use tokio::sync::Notify;

use crate::connectors::Connectors;

/// Wakes the follower of an account early. A follower that does not wait at that moment looks once more before it does,
/// so no wake-up is lost.
pub(super) struct FollowWakes(BTreeMap<Arc<str>, Notify>);

impl FollowWakes {
    pub(super) fn new(connectors: &Connectors) -> Self {
        Self(connectors.iter().map(|account| (account.name.clone(), Notify::new())).collect())
    }

    /// Wakes the account's follower: the only task that waits.
    pub(super) fn wake(&self, account: &str) {
        if let Some(follower) = self.0.get(account) {
            follower.notify_one();
        }
    }

    /// Wakes every follower.
    pub(super) fn wake_all(&self) {
        self.0.values().for_each(Notify::notify_one);
    }

    /// Waits until the account's follower is woken.
    pub(super) async fn woken(&self, account: &str) {
        match self.0.get(account) {
            Some(follower) => follower.notified().await,
            None => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::config::Config;

    #[test]
    fn a_follower_that_works_is_woken_after_it_and_no_other_is() {
        let example = include_str!("../../config.example.toml");
        let wakes =
            FollowWakes::new(&Config::from_text(example, std::iter::empty()).unwrap().connectors().unwrap());
        wakes.wake("sandbox");
        wakes.wake("sandbox");
        assert!(wakes.woken("another").now_or_never().is_none());
        assert!(wakes.woken("sandbox").now_or_never().is_some());
        assert!(wakes.woken("sandbox").now_or_never().is_none());
    }
}
