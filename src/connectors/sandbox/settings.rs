//! The settings of a sandbox account.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use super::Sandbox;
use crate::{
    connectors::{
        Connector, ErrorField, Kind, Settings, Supports,
        exchange::{OptionalFields, at},
        kind::{FOLLOW, read},
    },
    http_client::{Client, HttpSettings, NoClient},
    setting_url,
};

pub(in crate::connectors) const KIND: Kind = Kind {
    name: "sandbox",
    title: "Sandbox (sandbox-connector, to try things with)",
    needs: &["url", "token"],
    supports: Supports {
        currencies: None,
        amounts: &[],
        converts: true,
        job_fields: &[],
        feature_data: &[],
        expiry: "as its server is configured",
        cancels: true,
    },
    error_fields: &[ErrorField::Code],
    follow: FOLLOW,
    links_per_question: 1,
    read: read::<SandboxSettings>,
};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SandboxSettings {
    #[serde(deserialize_with = "setting_url::service")]
    pub(super) url: Url,
    pub(super) token: SecretString,
    #[serde(default)]
    pub(super) replay: Replay,
    #[serde(default = "a_day")]
    pub(super) window_seconds: u64,
    /// No shorter than a lease.
    #[serde(default = "a_minute")]
    pub(super) settle_seconds: u64,
    /// Unless it is given: where `url` is http.
    pub(super) allow_http_links: Option<bool>,
}

/// The replay rule that the sandbox is taken to have.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Replay {
    #[default]
    SameKey,
    LookUp,
    Never,
}

fn a_day() -> u64 {
    86_400
}

fn a_minute() -> u64 {
    60
}

impl Settings for SandboxSettings {
    fn problems(&self, lease: Duration, _on_its_way: Duration) -> Vec<String> {
        // Its server is as near as a test has it: nothing stays on its way for long.
        let is_short = Duration::from_secs(self.settle_seconds) < lease;
        let problem = || {
            "settle_seconds is shorter than worker.lease_seconds: a call may begin late in its lease"
                .to_owned()
        };
        is_short.then(problem).into_iter().collect()
    }

    fn url(&self) -> &Url {
        &self.url
    }

    fn identity(&self) -> String {
        self.token.expose_secret().to_owned()
    }

    fn connect(&self, http: HttpSettings) -> Result<Box<dyn Connector>, NoClient> {
        let links = at(&self.url, &["v1", "payout-links"]);
        Ok(Box::new(Sandbox {
            http: Client::new(http)?,
            links,
            settings: self.clone(),
            optional: OptionalFields::default(),
        }))
    }
}

impl SandboxSettings {
    pub(super) fn allows_http_links(&self) -> bool {
        self.allow_http_links.unwrap_or(self.url.scheme() == "http")
    }
}
