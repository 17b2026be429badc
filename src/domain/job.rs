//! A valid CreateLink job.

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::Url;

use super::{
    BrowserInformation, Currency, Customer, Money, PayoutAddress, PayoutMethod, PayoutPriority,
    customer::Address, payout_method::MethodField,
};

/// Prism's CreateLink request (contract, section 2), decoded. `Debug` shows no secret.
#[derive(Debug)]
pub struct CreateLink {
    /// The merchant's identifier of the payout: one record for each.
    pub merchant_payout_id: MerchantPayoutId,
    /// The addresses of the recipient.
    pub address: PayoutAddress,
    /// JSON text for the connector. Each connector documents its keys.
    pub connector_feature_data: Option<SecretString>,
    /// Where the payout goes, if the merchant knows it already.
    pub payout_method_data: Option<PayoutMethod>,
    /// A quote that the provider has given.
    pub connector_quote_id: Option<String>,
    /// The provider's payout that this link is for, if one exists.
    pub connector_payout_id: Option<String>,
    /// The amount that the recipient gets.
    pub amount: Money,
    /// The currency of the payout; connectors do not convert.
    pub destination_currency: Currency,
    /// The recipient.
    pub customer: Option<Box<Customer>>,
    /// How fast the payout has to arrive.
    pub priority: Option<PayoutPriority>,
    /// The recipient's account as the provider stores it.
    pub connector_payout_method_id: Option<String>,
    /// Where the webhooks go; without it there are none.
    pub webhook_url: Option<WebhookUrl>,
    /// The recipient's browser, for the checks of some providers.
    pub browser_info: Option<Box<BrowserInformation>>,
    /// Replaces the configured credential for this job.
    pub access_token: Option<SecretString>,
    /// The purpose of the payout as the recipient sees it, 255 bytes at most.
    pub description: Option<String>,
    /// The account that the payout is paid from.
    pub source_bank_data: Option<PayoutMethod>,
}

/// A payout identifier: 1 to 255 bytes without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MerchantPayoutId(String);

/// The reason why an identifier is invalid.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum InvalidIdentifier {
    #[error("the identifier is empty: 1 to 255 bytes are expected")]
    Empty,
    #[error("the identifier has {0} bytes: 255 are the most")]
    TooLong(usize),
    #[error("the identifier has a control character, such as a line end: it must have none")]
    ControlCharacter,
}

impl MerchantPayoutId {
    /// Validates an identifier.
    ///
    /// # Errors
    ///
    /// Returns an error if the identifier is empty, too long or has a control character.
    pub fn new(id: String) -> Result<Self, InvalidIdentifier> {
        match id.len() {
            0 => Err(InvalidIdentifier::Empty),
            256.. => Err(InvalidIdentifier::TooLong(id.len())),
            _ if id.contains(char::is_control) => Err(InvalidIdentifier::ControlCharacter),
            _ => Ok(Self(id)),
        }
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An absolute `https` URL (`http` if that is allowed) without user-info, 2,048 bytes at most.
///
/// The limit holds for the URL as written and as called (percent-encoded), so that a stored URL stays valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookUrl(Url);

/// The reason why a webhook URL is invalid.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum InvalidWebhookUrl {
    #[error("the URL is longer than 2,048 bytes as it is called: shorten it")]
    TooLong,
    #[error("the value is not an absolute URL, such as https://merchant.example.com/webhooks")]
    NotAbsolute,
    #[error(
        "the URL is not https: it must begin with https:// (jobs.allow_http_webhooks takes http as well, for tests)"
    )]
    Scheme,
    #[error("the URL has user-info: take the name and the password before the host out")]
    UserInfo,
}

impl WebhookUrl {
    const MAX_BYTES: usize = 2048;

    /// Parses a webhook URL. `allow_http`: plain HTTP is accepted too.
    ///
    /// # Errors
    ///
    /// If it is too long, no absolute `https` URL, or names a host that nobody can reach.
    pub fn new(text: &str, allow_http: bool) -> Result<Self, InvalidWebhookUrl> {
        if text.len() > Self::MAX_BYTES {
            return Err(InvalidWebhookUrl::TooLong);
        }
        let url = Url::parse(text).map_err(|_| InvalidWebhookUrl::NotAbsolute)?;
        // The parser follows the URL standard: it drops blanks and line ends, and accepts "https:host" and "https:\\host".
        let has_authority = text.get(url.scheme().len()..).is_some_and(|rest| rest.starts_with("://"));
        if !has_authority || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(InvalidWebhookUrl::NotAbsolute);
        }
        if url.as_str().len() > Self::MAX_BYTES {
            return Err(InvalidWebhookUrl::TooLong);
        }
        if !(url.scheme() == "https" || allow_http && url.scheme() == "http") {
            return Err(InvalidWebhookUrl::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidWebhookUrl::UserInfo);
        }
        Ok(Self(url))
    }

    /// Returns the URL.
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// Converts this into the URL.
    pub fn into_url(self) -> Url {
        self.0
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl CreateLink {
    /// Returns every secret of this job. The provider receives them and may repeat them in its errors.
    pub fn secrets(&self) -> Vec<SecretString> {
        let features = self.feature_values().into_iter().map(SecretString::from);
        self.secret_fields().cloned().chain(features).collect()
    }

    /// Returns each value of the feature data, because a provider may repeat a single value. Numbers, booleans and key names are
    /// common in messages, so the whole text is a secret only if it is not JSON.
    fn feature_values(&self) -> Vec<String> {
        fn texts(value: Value, found: &mut Vec<String>) {
            match value {
                Value::String(text) => found.push(text),
                Value::Array(values) => values.into_iter().for_each(|value| texts(value, found)),
                Value::Object(members) => members.into_iter().for_each(|(_, value)| texts(value, found)),
                Value::Number(number) if number.to_string().len() >= 6 => found.push(number.to_string()),
                Value::Null | Value::Bool(_) | Value::Number(_) => {}
            }
        }
        let mut found = Vec::new();
        if let Some(features) = &self.connector_feature_data {
            match serde_json::from_str(features.expose_secret()) {
                Ok(value) => texts(value, &mut found),
                Err(_) => found.push(features.expose_secret().to_owned()),
            }
        }
        found
    }

    fn secret_fields(&self) -> impl Iterator<Item = &SecretString> {
        let addresses = [&self.address.shipping_address, &self.address.billing_address];
        let addresses = addresses.into_iter().filter_map(Option::as_deref).flat_map(|a: &Address| {
            [
                &a.first_name,
                &a.last_name,
                &a.line1,
                &a.line2,
                &a.line3,
                &a.city,
                &a.state,
                &a.zip_code,
                &a.email,
                &a.phone_number,
            ]
        });
        let customer = self.customer.iter().flat_map(|c| [&c.email, &c.phone_number]);
        let documents = self.customer.iter().filter_map(|c| c.customer_document_details.as_ref());
        let methods = [&self.payout_method_data, &self.source_bank_data].into_iter().flatten();
        let method_secrets = methods.flat_map(|method| &method.fields).filter_map(|(_, field)| match field {
            MethodField::Secret(secret) => Some(secret),
            MethodField::Clear(_) => None,
        });
        addresses
            .chain(customer)
            .chain(documents.map(|document| &document.document_number))
            .chain([&self.access_token])
            .flatten()
            .chain(method_secrets)
    }
}

#[cfg(test)]
mod tests {
    use crate::{contract, domain::Redactor};

    #[test]
    fn each_value_of_the_feature_data_is_a_secret() {
        let body = r#"{"merchant_payout_id":"po_1","amount":{"minor_amount":1,"currency":"EUR"},"address":{},
            "destination_currency":"EUR","connector_feature_data":
            "{\"account\":{\"id\":\"acc-canary\",\"number\":[12345678]},\"instant\":true}"}"#;
        let policy = contract::DecodePolicy::default();
        let job = contract::create_link(body.as_bytes(), None, &policy).unwrap();
        assert_eq!(
            Redactor::new(job.secrets()).redact("no account acc-canary (12345678), true"),
            "no account [REDACTED] ([REDACTED]), true"
        );
    }
}
