//! The settings of a Hyperswitch account.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use super::{
    Hyperswitch,
    request::{FeatureData, MAX_SESSION},
};
use crate::{
    connectors::{
        Connector, ErrorField, Kind, Settings, Supports,
        exchange::OptionalFields,
        kind::{FOLLOW, production_url, read, settle_problem},
    },
    domain::follow::FollowPolicy,
    http_client::{Client, HttpSettings, NoClient},
    setting_url,
};

pub(in crate::connectors) const KIND: Kind = Kind {
    name: "hyperswitch",
    title: "Hyperswitch (Juspay)",
    needs: &["api_key"],
    supports: Supports {
        currencies: None,
        amounts: &[],
        converts: false,
        job_fields: &["customer.connector_customer_id or customer.id"],
        feature_data: &[
            "auto_fulfill",
            "connector",
            "entity_type",
            "metadata",
            "payout_link_config",
            "profile_id",
            "return_url",
            "session_expiry",
        ],
        expiry: "session_expiry seconds after it was made: 7 days, at most 7890000 s",
        cancels: true,
    },
    error_fields: &[ErrorField::Code],
    follow: FollowPolicy {
        // It announces neither claims nor the end of a link, and accepts a claim that was submitted before a cancel.
        cancels_expired: true,
        confirm_cancel: Duration::from_mins(3),
        ..FOLLOW
    },
    links_per_question: 1,
    read: read::<HyperswitchSettings>,
};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HyperswitchSettings {
    #[serde(default = "production", deserialize_with = "setting_url::service")]
    pub(super) url: Url,
    pub(super) api_key: SecretString,
    /// The description for jobs without one. The recipient sees it.
    pub(super) description: Option<String>,
    /// The settle time: how long after a call "not found" becomes reliable.
    #[serde(default = "ninety_seconds")]
    pub(super) settle_seconds: u64,
    /// For jobs whose `connector_feature_data` does not say otherwise.
    #[serde(default)]
    pub(super) defaults: FeatureData,
}

fn production() -> Url {
    production_url("https://api.hyperswitch.io")
}

fn ninety_seconds() -> u64 {
    90
}

impl Settings for HyperswitchSettings {
    fn problems(&self, lease: Duration, on_its_way: Duration) -> Vec<String> {
        let mut problems: Vec<String> =
            settle_problem(self.settle_seconds, lease, on_its_way).into_iter().collect();
        if !self.defaults.session_expiry.is_none_or(|seconds| (1..=MAX_SESSION).contains(&seconds)) {
            problems.push(format!("defaults.session_expiry is not 1 to {MAX_SESSION}"));
        }
        problems
    }

    fn url(&self) -> &Url {
        &self.url
    }

    fn identity(&self) -> String {
        self.api_key.expose_secret().to_owned()
    }

    fn connect(&self, http: HttpSettings) -> Result<Box<dyn Connector>, NoClient> {
        Ok(Box::new(Hyperswitch {
            http: Client::new(http)?,
            settings: self.clone(),
            optional: OptionalFields::default(),
        }))
    }
}
