//! The settings of a Revolut account.

use std::{collections::BTreeMap, time::Duration};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use url::Url;
use uuid::Uuid;

use super::{
    Revolut,
    auth::{self, Identity, Tokens},
    follow::page_size,
};
use crate::{
    connectors::{
        Connector, ErrorField, Kind, Settings, Supports,
        exchange::{OptionalFields, at},
        kind::{FOLLOW, production_url, read, settle_problem},
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
    follow: FOLLOW,
    links_per_question: 1000,
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

/// Maximum length of a link's reference, in characters.
pub(super) const MAX_REFERENCE: usize = 100;

/// Keys of `connector_feature_data`, under Revolut's own names.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FeatureData {
    pub(super) account_id: Option<Uuid>,
    /// ISO 8601: `P1D` to `P7D`.
    pub(super) expiry_period: Option<String>,
    pub(super) payout_methods: Option<Vec<PayoutMethod>>,
    /// 1 to 100 characters.
    pub(super) reference: Option<String>,
    pub(super) save_counterparty: Option<bool>,
    pub(super) transfer_reason_code: Option<String>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PayoutMethod {
    Revolut,
    BankAccount,
    /// In the UK and the EEA, and not in the sandbox.
    Card,
}

fn production() -> Url {
    production_url("https://b2b.revolut.com")
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
        check(auth::private_key(&self.private_key).is_none(), "private_key is not an RSA key in PEM");
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
        let page = page_size(http.max_response_bytes);
        let http = Client::new(http)?;
        #[expect(clippy::expect_used, reason = "problems() has read it")]
        let private_key = auth::private_key(&self.private_key).expect("an RSA key in PEM");
        let identity = Identity {
            client_id: self.client_id.clone(),
            issuer: self.issuer.clone(),
            refresh_token: self.refresh_token.clone(),
            private_key,
        };
        let token_url = at(&self.url, &["api", "1.0", "auth", "token"]);
        let tokens = Tokens::new(http.clone(), token_url, identity);
        let optional = OptionalFields::default();
        Ok(Box::new(Revolut { tokens, settings: self.clone(), http, optional, page }))
    }
}

impl FeatureData {
    /// Returns the first invalid key, and a sentence about it.
    pub(super) fn problem(&self) -> Option<(&'static str, &'static str)> {
        let length = |text: &Option<String>| text.as_ref().map(|text| text.chars().count());
        if length(&self.reference).is_some_and(|length| !(1..=MAX_REFERENCE).contains(&length)) {
            return Some(("reference", "The value must have 1 to 100 characters."));
        }
        if self.expiry_period.as_deref().is_some_and(|period| !is_one_to_seven_days(period)) {
            return Some(("expiry_period", "The value must be one of P1D to P7D, in days."));
        }
        if self.payout_methods.as_ref().is_some_and(Vec::is_empty) {
            return Some(("payout_methods", "The list is empty: name a method, or leave the key out."));
        }
        if length(&self.transfer_reason_code) == Some(0) {
            return Some(("transfer_reason_code", "The value is empty: give a code, or leave the key out."));
        }
        None
    }
}

/// Returns whether a period is one to seven whole days, as in Revolut's examples.
fn is_one_to_seven_days(period: &str) -> bool {
    let days = period.strip_prefix('P').and_then(|rest| rest.strip_suffix('D'));
    days.is_some_and(|days| matches!(days.as_bytes(), [b'1'..=b'7']))
}
