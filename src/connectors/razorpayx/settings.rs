//! The settings of a RazorpayX account.

use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use super::{RazorpayX, request::FeatureData};
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
    name: "razorpayx",
    title: "RazorpayX (India)",
    needs: &["key_id", "key_secret", "account_number", "purpose"],
    supports: Supports {
        currencies: Some(&["INR"]),
        amounts: &[("INR", 100, i64::MAX)],
        converts: false,
        job_fields: &[
            "customer.connector_customer_id or customer.name",
            "customer.connector_customer_id or customer.phone_number or customer.email",
            "description",
        ],
        feature_data: &[
            "account_number",
            "contact_type",
            "lifetime_seconds",
            "notes",
            "purpose",
            "send_email",
            "send_sms",
        ],
        expiry: "lifetime_seconds after it was made, at least 960 s, where expiry is enabled there; else never",
        cancels: true,
    },
    error_fields: &[ErrorField::Code, ErrorField::Reason],
    follow: FollowPolicy { max_interval: Duration::from_hours(1), ..FOLLOW },
    links_per_question: 1,
    read: read::<RazorpayXSettings>,
};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RazorpayXSettings {
    #[serde(default = "production", deserialize_with = "setting_url::service")]
    pub(super) url: Url,
    pub(super) key_id: String,
    pub(super) key_secret: SecretString,
    /// The account that is debited.
    pub(super) account_number: String,
    pub(super) purpose: String,
    /// The description for jobs without one. The recipient sees it.
    pub(super) description: Option<String>,
    /// The settle time: how long after a call "not found" becomes reliable.
    #[serde(default = "two_minutes")]
    pub(super) settle_seconds: u64,
    /// For jobs whose `connector_feature_data` does not say otherwise.
    #[serde(default)]
    pub(super) defaults: FeatureData,
}

fn production() -> Url {
    production_url("https://api.razorpay.com")
}

fn two_minutes() -> u64 {
    120
}

impl Settings for RazorpayXSettings {
    fn problems(&self, lease: Duration, on_its_way: Duration) -> Vec<String> {
        let mut problems: Vec<String> =
            settle_problem(self.settle_seconds, lease, on_its_way).into_iter().collect();
        let texts =
            [("key_id", &self.key_id), ("account_number", &self.account_number), ("purpose", &self.purpose)];
        for (name, text) in texts {
            if text.is_empty() {
                problems.push(format!("{name} is empty"));
            }
        }
        if self.key_id.contains(':') {
            problems.push("key_id has a colon in it".to_owned());
        }
        if self.description.as_deref() == Some("") {
            problems.push("description is empty".to_owned());
        }
        problems.extend(self.defaults.problem().map(|(key, problem)| format!("defaults.{key}: {problem}")));
        problems
    }

    fn url(&self) -> &Url {
        &self.url
    }

    fn identity(&self) -> String {
        self.account_number.clone()
    }

    fn connect(&self, http: HttpSettings) -> Result<Box<dyn Connector>, NoClient> {
        Ok(Box::new(RazorpayX {
            http: Client::new(http)?,
            settings: self.clone(),
            optional: OptionalFields::default(),
        }))
    }
}
