//! The settings of a Xendit account.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use super::{
    Xendit,
    request::{FeatureData, is_header},
};
use crate::{
    connectors::{
        Connector, ErrorField, Kind, Settings, Supports,
        exchange::OptionalFields,
        kind::{FOLLOW, production_url, read},
    },
    domain::follow::FollowPolicy,
    http_client::{Client, HttpSettings, NoClient},
    setting_url,
};

pub(in crate::connectors) const KIND: Kind = Kind {
    name: "xendit",
    title: "Xendit (Indonesia)",
    needs: &["api_key"],
    supports: Supports {
        currencies: Some(&["IDR"]),
        amounts: &[],
        converts: false,
        job_fields: &["customer.email"],
        feature_data: &["for_user_id"],
        expiry: "three days after it was made",
        cancels: true,
    },
    error_fields: &[ErrorField::Code],
    follow: FollowPolicy { max_interval: Duration::from_mins(5), ..FOLLOW },
    links_per_question: 1,
    read: read::<XenditSettings>,
};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct XenditSettings {
    #[serde(default = "production", deserialize_with = "setting_url::service")]
    pub(super) url: Url,
    /// The secret key: it says by itself whether it is a test's.
    pub(super) api_key: SecretString,
    /// For jobs whose `connector_feature_data` does not say otherwise.
    #[serde(default)]
    pub(super) defaults: FeatureData,
}

fn production() -> Url {
    production_url("https://api.xendit.co")
}

impl Settings for XenditSettings {
    fn problems(&self, _lease: Duration, _on_its_way: Duration) -> Vec<String> {
        let bad = self.defaults.for_user_id.as_deref().is_some_and(|id| !is_header(id));
        bad.then(|| "defaults.for_user_id is not 1 to 255 visible characters".to_owned())
            .into_iter()
            .collect()
    }

    fn url(&self) -> &Url {
        &self.url
    }

    fn identity(&self) -> String {
        // A sub-account has payouts of its own.
        let sub_account = self.defaults.for_user_id.as_deref().unwrap_or_default();
        format!("{}\n{sub_account}", self.api_key.expose_secret())
    }

    fn connect(&self, http: HttpSettings) -> Result<Box<dyn Connector>, NoClient> {
        Ok(Box::new(Xendit {
            http: Client::new(http)?,
            settings: self.clone(),
            optional: OptionalFields::default(),
        }))
    }
}
