//! Builds the requests to Hyperswitch, with the fields that `connector_feature_data` may set.

use std::{collections::BTreeMap, net::IpAddr};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::{Hyperswitch, KIND};
use crate::{
    connectors::supports::{feature_data, required, unsupported},
    domain::{Address, BrowserInformation, CreateLink, Rejection, idempotency_uuid},
};

/// Where nobody says how long: the provider's own default of 15 minutes is over before most mails are read.
const SEVEN_DAYS: u32 = 604_800;

/// About three months.
pub(super) const MAX_SESSION: u32 = 7_890_000;

/// Keys of `connector_feature_data`, under Hyperswitch's own names.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FeatureData {
    pub(super) auto_fulfill: Option<bool>,
    pub(super) connector: Option<Vec<String>>,
    pub(super) entity_type: Option<EntityType>,
    pub(super) metadata: Option<BTreeMap<String, String>>,
    pub(super) payout_link_config: Option<PayoutLinkConfig>,
    pub(super) profile_id: Option<String>,
    pub(super) return_url: Option<String>,
    /// Seconds.
    pub(super) session_expiry: Option<u32>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum EntityType {
    Individual,
    Company,
    NonProfit,
    PublicSector,
    NaturalPerson,
    #[serde(rename = "lowercase")]
    Lowercase,
    Personal,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PayoutLinkConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    theme: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logo: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    merchant_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled_payment_methods: Option<Vec<EnabledPaymentMethod>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    form_layout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    test_mode: Option<bool>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EnabledPaymentMethod {
    payment_method: String,
    payment_method_types: Vec<String>,
}

/// The server refuses keys that it does not know: nothing is sent beyond its documentation.
#[derive(Serialize)]
pub(super) struct CreateBody<'a> {
    pub(super) payout_id: String,
    pub(super) merchant_order_reference_id: &'a str,
    pub(super) amount: i64,
    pub(super) currency: &'static str,
    pub(super) payout_link: bool,
    pub(super) confirm: bool,
    pub(super) auto_fulfill: bool,
    pub(super) session_expiry: u32,
    pub(super) customer_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) email: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) phone: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) phone_country_code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) billing: Option<Billing<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) priority: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) browser_info: Option<Browser<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) payout_link_config: Option<PayoutLinkConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) entity_type: Option<EntityType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) profile_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) return_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connector: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) metadata: Option<BTreeMap<String, String>>,
}

#[derive(Serialize)]
pub(super) struct Billing<'a> {
    pub(super) address: BillingAddress<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) phone: Option<Phone<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) email: Option<&'a str>,
}

#[derive(Serialize)]
pub(super) struct Phone<'a> {
    pub(super) number: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) country_code: Option<&'a str>,
}

#[derive(Serialize)]
pub(super) struct BillingAddress<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) first_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line1: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line2: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line3: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) city: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) zip: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) country: Option<&'static str>,
}

#[derive(Serialize)]
pub(super) struct Browser<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) color_depth: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) java_enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) java_script_enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) language: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) screen_height: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) screen_width: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) time_zone: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ip_address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) accept_header: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) os_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) os_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) device_model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) accept_language: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) referer: Option<&'a str>,
}

impl<'a> Billing<'a> {
    pub(super) fn of(address: &'a Address) -> Self {
        Self {
            address: BillingAddress {
                first_name: expose(&address.first_name),
                last_name: expose(&address.last_name),
                line1: expose(&address.line1),
                line2: expose(&address.line2),
                line3: expose(&address.line3),
                city: expose(&address.city),
                state: expose(&address.state),
                zip: expose(&address.zip_code),
                country: address.country_alpha2_code.map(|country| country.as_str()),
            },
            phone: expose(&address.phone_number)
                .map(|number| Phone { number, country_code: address.phone_country_code.as_deref() }),
            email: expose(&address.email),
        }
    }
}

impl<'a> Browser<'a> {
    /// Copies the browser's values. A value that Hyperswitch's type cannot hold is left out, because it decides nothing.
    pub(super) fn of(browser: &'a BrowserInformation) -> Self {
        Self {
            color_depth: browser.color_depth.and_then(|depth| u8::try_from(depth).ok()),
            java_enabled: browser.java_enabled,
            java_script_enabled: browser.java_script_enabled,
            language: browser.language.as_deref(),
            screen_height: browser.screen_height,
            screen_width: browser.screen_width,
            time_zone: browser.time_zone_offset_minutes,
            ip_address: browser.ip_address.as_deref().and_then(|address| address.parse().ok()),
            accept_header: browser.accept_header.as_deref(),
            user_agent: browser.user_agent.as_deref(),
            os_type: browser.os_type.as_deref(),
            os_version: browser.os_version.as_deref(),
            device_model: browser.device_model.as_deref(),
            accept_language: browser.accept_language.as_deref(),
            referer: browser.referer.as_deref(),
        }
    }
}

#[expect(clippy::ref_option, reason = "`as_ref` in every line would hide the list of fields")]
pub(super) fn expose(secret: &Option<SecretString>) -> Option<&str> {
    secret.as_ref().map(ExposeSecret::expose_secret)
}

impl Hyperswitch {
    pub(super) fn body<'a>(
        &'a self,
        job: &'a CreateLink,
        idempotency_key: &str,
    ) -> Result<CreateBody<'a>, Rejection> {
        KIND.supports.check(job)?;
        if job.connector_payout_id.is_some() {
            let why = "The payout's id at Hyperswitch is derived from merchant_payout_id: leave connector_payout_id out.";
            return Err(unsupported("connector_payout_id", why));
        }
        let (own, defaults) = (feature_data::<FeatureData>(job)?, &self.settings.defaults);
        let customer = job.customer.as_deref();
        let customer_id = customer
            .and_then(|customer| customer.connector_customer_id.as_deref().or(customer.id.as_deref()));
        let customer_id =
            required(customer_id, "customer.id", "Hyperswitch makes no payout link without a customer.")?;
        if customer_id.len() > 255 {
            return Err(Rejection::invalid("customer.id", "The value is longer than 255 bytes: shorten it."));
        }
        let billing = job.address.billing_address.as_deref();
        Ok(CreateBody {
            payout_id: payout_id(idempotency_key),
            merchant_order_reference_id: job.merchant_payout_id.as_str(),
            amount: job.amount.minor_units(),
            currency: job.amount.currency.as_str(),
            payout_link: true,
            confirm: false,
            // Else the claimed payout waits for a second call.
            auto_fulfill: own.auto_fulfill.or(defaults.auto_fulfill).unwrap_or(true),
            session_expiry: self.session_expiry(&own)?,
            customer_id,
            name: customer.and_then(|customer| customer.full_name()),
            email: customer.and_then(|customer| expose(&customer.email)),
            phone: customer.and_then(|customer| expose(&customer.phone_number)),
            phone_country_code: customer.and_then(|customer| customer.phone_country_code.as_deref()),
            billing: billing.map(Billing::of),
            description: job.description.as_deref().or(self.settings.description.as_deref()),
            priority: job.priority.map(|priority| priority.as_str().to_lowercase()),
            browser_info: job.browser_info.as_deref().map(Browser::of),
            payout_link_config: own.payout_link_config.or_else(|| defaults.payout_link_config.clone()),
            entity_type: own.entity_type.or(defaults.entity_type),
            profile_id: own.profile_id.or_else(|| defaults.profile_id.clone()),
            return_url: own.return_url.or_else(|| defaults.return_url.clone()),
            connector: own.connector.or_else(|| defaults.connector.clone()),
            metadata: own.metadata.or_else(|| defaults.metadata.clone()),
        })
    }

    /// Always sent: the answer does not say when its link ends.
    pub(super) fn session_expiry(&self, own: &FeatureData) -> Result<u32, Rejection> {
        let seconds = own.session_expiry.or(self.settings.defaults.session_expiry).unwrap_or(SEVEN_DAYS);
        if !(1..=MAX_SESSION).contains(&seconds) {
            let message = format!("The value must be 1 to {MAX_SESSION} seconds.");
            return Err(Rejection::invalid("connector_feature_data.session_expiry", message));
        }
        Ok(seconds)
    }
}

/// Builds the payout id as a hyphenated UUID: older servers require that, and newer ones accept it.
pub(super) fn payout_id(idempotency_key: &str) -> String {
    idempotency_uuid(idempotency_key).hyphenated().to_string()
}
