//! `[connectors.NAME]`: one connector account, under the name that jobs select with `x-connector`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde::Deserialize;
use toml::{Table, Value};

use super::{follow::FollowSection, tls, wording::problem};
use crate::{
    connectors::{Account, KINDS, Kind, Settings},
    domain::{AccountId, did_you_mean},
    http_client::{self, HttpSettings, NoClient},
    limits::{Breaker, BreakerSettings, MerchantSettings, Merchants, Permits, RateLimit},
};

/// One connector account.
#[derive(Debug)]
pub struct ConnectorSection {
    /// The connector kind that `kind = "…"` names.
    pub kind: &'static Kind,
    /// Limits of its calls.
    pub calls: CallSection,
    /// How its links are followed.
    pub follow: FollowSection,
    /// The account's name at the provider; it stays the same when the URL or the credential changes.
    pub account: Option<String>,
    /// The settings of the kind, in the same section.
    pub settings: Box<dyn Settings>,
}

/// Limits of the calls to a connector, the same for each kind.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CallSection {
    /// Maximum number of calls under way at once.
    pub concurrency: usize,
    /// Limit of the connection alone, TLS included.
    pub connect_timeout_seconds: u64,
    /// Limit of the whole call, from the name resolution to the last byte.
    pub timeout_seconds: u64,
    /// Maximum size of an answer's body, in bytes.
    pub max_response_bytes: usize,
    /// Maximum number of calls begun in any minute.
    pub requests_per_minute: Option<u32>,
    /// Consecutive failures of the provider that open the circuit breaker; 0: never.
    pub breaker_failures: u32,
    /// Time until a half-open circuit breaker tries one call.
    pub breaker_pause_seconds: u64,
    /// PEM; replaces the system's certificates.
    pub ca_file: Option<PathBuf>,
}

impl Default for CallSection {
    fn default() -> Self {
        Self {
            concurrency: 512,
            connect_timeout_seconds: 5,
            timeout_seconds: 30,
            max_response_bytes: 262_144,
            requests_per_minute: None,
            breaker_failures: 10,
            breaker_pause_seconds: 15,
            ca_file: None,
        }
    }
}

impl ConnectorSection {
    /// Reads a section. `path` is the prefix of its problems.
    pub(super) fn read(path: &str, mut section: Table) -> Result<Self, String> {
        let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        let kind = match section.remove("kind") {
            None => return Err(format!("{path}.kind is missing, expected one of {}", names.join(", "))),
            Some(given) => given.as_str().and_then(Kind::named).ok_or_else(|| {
                let meant = did_you_mean(given.as_str().unwrap_or_default(), names.iter().copied());
                format!("{path}.kind: unknown kind, expected one of {}.{meant}", names.join(", "))
            })?,
        };
        let calls = match section.remove("calls") {
            None => CallSection::default(),
            Some(calls) => calls.try_into().map_err(|error| problem(&format!("{path}.calls"), &error))?,
        };
        let follow = match section.remove("follow") {
            None => FollowSection::default(),
            Some(follow) => follow.try_into().map_err(|error| problem(&format!("{path}.follow"), &error))?,
        };
        let account = match section.remove("account") {
            None => None,
            Some(Value::String(account)) if !account.is_empty() => Some(account),
            Some(_) => return Err(format!("{path}.account is not a string, or is empty")),
        };
        let settings = (kind.read)(Value::Table(section)).map_err(|error| problem(path, &error))?;
        Ok(Self { kind, calls, follow, account, settings })
    }

    pub(super) fn problems(&self, name: &str, lease_seconds: u64) -> Vec<String> {
        let calls = &self.calls;
        let mut problems = Vec::new();
        if calls.concurrency == 0 {
            problems.push(format!("connectors.{name}.calls.concurrency is 0: no call could be made"));
        }
        if lease_seconds < calls.timeout_seconds + 2 {
            problems.push(format!(
                "worker.lease_seconds ({lease_seconds}) is not 2 above connectors.{name}.calls.timeout_seconds ({}): a lease must outlast a call",
                calls.timeout_seconds
            ));
        }
        problems
            .extend(tls::ca_problem(&format!("connectors.{name}.calls.ca_file"), calls.ca_file.as_deref()));
        let follow = self.follow.problems(self.kind).into_iter();
        problems.extend(follow.map(|problem| format!("connectors.{name}.{problem}")));
        let on_its_way = http_client::unacknowledged(Duration::from_secs(self.calls.timeout_seconds));
        let own = self.settings.problems(Duration::from_secs(lease_seconds), on_its_way);
        problems.extend(own.into_iter().map(|problem| format!("connectors.{name}.{problem}")));
        problems
    }

    /// Returns the host and port of the calls.
    pub fn address(&self) -> String {
        let url = self.settings.url();
        let port = url.port_or_known_default().unwrap_or_default();
        format!("{}:{port}", url.host_str().unwrap_or_default())
    }

    /// Returns the identity of the account.
    pub fn account_id(&self) -> AccountId {
        match &self.account {
            // The name stands for the URL too: one account may be called through several addresses. It never equals an
            // identity without a configured name.
            Some(account) => AccountId::of(self.kind.name, "", &format!("account {account}")),
            None => {
                let identity = format!("identity {}", self.settings.identity());
                AccountId::of(self.kind.name, self.settings.url().as_str(), &identity)
            }
        }
    }

    pub(super) fn account(&self, name: &str, per_merchant: MerchantSettings) -> Result<Account, NoClient> {
        let http = HttpSettings {
            connect_timeout: Duration::from_secs(self.calls.connect_timeout_seconds),
            timeout: Duration::from_secs(self.calls.timeout_seconds),
            max_response_bytes: self.calls.max_response_bytes,
            max_idle: self.calls.concurrency,
            roots: tls::roots(self.calls.ca_file.as_deref()),
            clock: Arc::default(),
        };
        let clock = http.clock.clone();
        Ok(Account {
            name: name.into(),
            kind: self.kind,
            id: self.account_id(),
            clock,
            connector: self.settings.connect(http)?,
            permits: Permits::new(self.calls.concurrency),
            rate: RateLimit::new(self.calls.requests_per_minute),
            merchants: Merchants::new(per_merchant),
            follow: self.follow.settings(self.kind),
            breaker: Breaker::new(
                name,
                BreakerSettings {
                    failures: self.calls.breaker_failures,
                    pause: Duration::from_secs(self.calls.breaker_pause_seconds),
                    patience: Duration::from_secs(self.calls.timeout_seconds + 5),
                },
            ),
        })
    }
}
