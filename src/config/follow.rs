//! `[connectors.NAME.follow]`: how the links of an account are followed after their creation.

use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;

use crate::{
    connectors::{FollowSettings, Kind},
    domain::follow::FollowPolicy,
    limits::PermitPool,
};

/// How links are followed. Each setting without a value has the default of the kind.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FollowSection {
    /// Whether the provider is asked about links after their creation.
    pub enabled: bool,
    /// Shortest interval between two questions about a link: at first, and near its end.
    pub min_interval_seconds: Option<u64>,
    /// Longest interval between two questions about a link.
    pub max_interval_seconds: Option<u64>,
    /// `payout_link.expiring` is published this long before the end of an unclaimed link; 0: never.
    pub expiring_seconds: u64,
    /// For how long a payout that succeeded is asked about, because it may be reversed.
    pub watch_reversals_days: u64,
    /// A cancelled link counts as cancelled after this time, because a claim may have been on its way.
    pub confirm_cancel_seconds: Option<u64>,
    /// Maximum number of concurrent questions.
    pub concurrency: usize,
    /// Secrets that authenticate the provider's webhooks; several during a rotation.
    pub webhook_secrets: Vec<SecretString>,
}

impl Default for FollowSection {
    fn default() -> Self {
        Self {
            enabled: true,
            min_interval_seconds: None,
            max_interval_seconds: None,
            expiring_seconds: 0,
            watch_reversals_days: 7,
            confirm_cancel_seconds: None,
            concurrency: 8,
            webhook_secrets: Vec::new(),
        }
    }
}

impl FollowSection {
    /// Returns the problems of the section, each with the name of its setting.
    pub(super) fn problems(&self, kind: &Kind) -> Vec<String> {
        let (mut problems, policy) = (Vec::new(), self.policy(kind));
        if self.concurrency == 0 {
            problems.push("follow.concurrency is 0: no question could be asked".to_owned());
        }
        if !self.enabled && !self.webhook_secrets.is_empty() {
            problems.push(
                "follow.webhook_secrets is set, and follow.enabled is false: the provider's webhooks would be stored, and \
                 nobody would ask about their links. Remove one of both"
                    .to_owned(),
            );
        }
        if policy.min_interval.is_zero() {
            problems.push("follow.min_interval_seconds is 0: set 1 or more".to_owned());
        }
        if policy.max_interval < policy.min_interval {
            problems.push(format!(
                "follow.max_interval_seconds ({}) is less than follow.min_interval_seconds ({})",
                policy.max_interval.as_secs(),
                policy.min_interval.as_secs()
            ));
        }
        problems
    }

    pub(super) fn settings(&self, kind: &Kind) -> FollowSettings {
        FollowSettings {
            enabled: self.enabled,
            policy: self.policy(kind),
            permits: PermitPool::new(self.concurrency),
            webhook_secrets: self.webhook_secrets.clone(),
        }
    }

    fn policy(&self, kind: &Kind) -> FollowPolicy {
        let or = |seconds: Option<u64>, default| seconds.map_or(default, Duration::from_secs);
        let defaults = kind.follow;
        let min_interval = or(self.min_interval_seconds, defaults.min_interval);
        FollowPolicy {
            min_interval,
            // A longer shortest interval alone is no mistake.
            max_interval: or(self.max_interval_seconds, defaults.max_interval.max(min_interval)),
            expiring: (self.expiring_seconds > 0).then(|| Duration::from_secs(self.expiring_seconds)),
            cancels_expired: defaults.cancels_expired,
            confirm_cancel: or(self.confirm_cancel_seconds, defaults.confirm_cancel),
            watch_reversals: Duration::from_secs(self.watch_reversals_days.saturating_mul(86_400)),
        }
    }
}
