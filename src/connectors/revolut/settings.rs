//! The settings of a Revolut account.

use std::{collections::BTreeMap, time::Duration};

use secrecy::SecretString;
use serde::Deserialize;
use url::Url;
use uuid::Uuid;

use super::{
    Revolut,
    request::FeatureData,
    tokens::{self, Identity, Tokens},
};
use crate::{
    connectors::{
        Connector, ErrorField, Kind, Settings, Supports,
        exchange::{OptionalFields, at},
        kind::{read, settle_problem},
    },
    http_client::{Client, HttpSettings, NoClient},
    setting_url,
};

pub(in crate::connectors) const KIND: Kind = Kind {
    name: "revolut",
    title: "Revolut Business",
    needs: &["client_id", "issuer", "private_key", "refresh_token", "accounts"],
    supports: Supports {
        currencies: None,
        // In other currencies the equivalent, which only Revolut knows.
        amounts: &[("GBP", 100, 250_000)],
        converts: false,
        job_fields: &["customer.name or address.billing_address.first_name"],
        feature_data: &[
            "account_id",
            "expiry_period",
            "payout_methods",
            "reference",
            "save_counterparty",
            "transfer_reason_code",
        ],
        expiry: "expiry_period after it was made: P7D, at least P1D, at most P7D",
        cancels: true,
    },
    error_fields: &[ErrorField::Code, ErrorField::Reason],
    read: read::<RevolutSettings>,
};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RevolutSettings {
    #[serde(default = "production", deserialize_with = "setting_url::service")]
    pub(super) url: Url,
    pub(super) client_id: String,
    /// The domain of the redirect URI that is set up with the certificate.
    pub(super) issuer: String,
    /// PEM, of the certificate that was uploaded.
    pub(super) private_key: SecretString,
    pub(super) refresh_token: SecretString,
    /// The account to pay from, by currency.
    pub(super) accounts: BTreeMap<String, Uuid>,
    /// The settle time: how long after a call "not found" becomes reliable.
    #[serde(default = "ninety_seconds")]
    pub(super) settle_seconds: u64,
    /// For jobs whose `connector_feature_data` does not say otherwise.
    #[serde(default)]
    pub(super) defaults: FeatureData,
}

fn production() -> Url {
    #[expect(clippy::expect_used, reason = "a constant")]
    Url::parse("https://b2b.revolut.com").expect("it is a URL")
}

fn ninety_seconds() -> u64 {
    90
}

impl Settings for RevolutSettings {
    fn problems(&self, lease: Duration, on_its_way: Duration) -> Vec<String> {
        let mut problems: Vec<String> =
            settle_problem(self.settle_seconds, lease, on_its_way).into_iter().collect();
        let mut check = |bad: bool, problem: &str| {
            if bad {
                problems.push(problem.to_owned());
            }
        };
        check(tokens::private_key(&self.private_key).is_none(), "private_key is not an RSA key in PEM");
        check(self.client_id.is_empty(), "client_id is empty");
        check(self.issuer.is_empty() || self.issuer.contains('/'), "issuer is not a domain");
        check(self.accounts.is_empty(), "accounts has no account");
        for currency in self.accounts.keys() {
            let known = crate::domain::Currency::new(currency).is_some();
            check(!known, &format!("accounts.{currency} is not an ISO 4217 code"));
        }
        problems.extend(self.defaults.problem().map(|(key, problem)| format!("defaults.{key}: {problem}")));
        problems
    }

    fn url(&self) -> &Url {
        &self.url
    }

    fn identity(&self) -> String {
        self.client_id.clone()
    }

    fn connect(&self, http: HttpSettings) -> Result<Box<dyn Connector>, NoClient> {
        let http = Client::new(http)?;
        #[expect(clippy::expect_used, reason = "problems() has read it")]
        let private_key = tokens::private_key(&self.private_key).expect("an RSA key in PEM");
        let identity = Identity {
            client_id: self.client_id.clone(),
            issuer: self.issuer.clone(),
            refresh_token: self.refresh_token.clone(),
            private_key,
        };
        let token_url = at(&self.url, &["api", "1.0", "auth", "token"]);
        let tokens = Tokens::new(http.clone(), token_url, identity);
        Ok(Box::new(Revolut { tokens, settings: self.clone(), http, optional: OptionalFields::default() }))
    }
}
