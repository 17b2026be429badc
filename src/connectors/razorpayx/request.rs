//! Builds the requests to RazorpayX.

use std::collections::BTreeMap;

use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{KIND, RazorpayX};
use crate::{
    connectors::supports::{feature_data, required, unsupported},
    domain::{CreateLink, Rejection},
};

/// 15 minutes are asked for; a minute more, so that a call that takes its time is not too late.
pub(super) const MIN_LIFE: u64 = 960;

/// Under which the full `merchant_payout_id` stands in `notes`.
pub(super) const OWN_NOTE: &str = "merchant_payout_id";

pub(super) const MAX_NOTES: usize = 15;

pub(super) const MAX_NOTE: usize = 256;

/// Keys of `connector_feature_data`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FeatureData {
    pub(super) account_number: Option<String>,
    pub(super) contact_type: Option<String>,
    pub(super) lifetime_seconds: Option<u64>,
    pub(super) notes: Option<BTreeMap<String, String>>,
    pub(super) purpose: Option<String>,
    pub(super) send_email: Option<bool>,
    pub(super) send_sms: Option<bool>,
}

#[derive(Serialize)]
pub(super) struct CreateBody<'a> {
    pub(super) account_number: String,
    pub(super) contact: Contact<'a>,
    pub(super) amount: i64,
    pub(super) currency: &'static str,
    pub(super) purpose: String,
    pub(super) description: &'a str,
    pub(super) receipt: &'a str,
    pub(super) send_sms: bool,
    pub(super) send_email: bool,
    pub(super) notes: BTreeMap<String, String>,
    /// Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expire_by: Option<i64>,
}

#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Contact<'a> {
    /// By its id alone: any other field is one too many.
    Known { id: &'a str },
    Described {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        contact: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        email: Option<&'a str>,
        #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
        kind: Option<String>,
    },
}

impl RazorpayX {
    pub(super) fn body<'a>(
        &'a self,
        job: &'a CreateLink,
        receipt: &'a str,
    ) -> Result<CreateBody<'a>, Rejection> {
        KIND.supports.check(job)?;
        if job.connector_payout_id.is_some() {
            return Err(unsupported(
                "connector_payout_id",
                "RazorpayX gives each link an id of its own: leave connector_payout_id out.",
            ));
        }
        self.pair(job)?;
        let (own, defaults) = (feature_data::<FeatureData>(job)?, &self.settings.defaults);
        if let Some((key, problem)) = own.problem() {
            return Err(Rejection::invalid(format!("connector_feature_data.{key}"), problem));
        }
        let description = job.description.as_deref().or(self.settings.description.as_deref());
        let mut notes = own.notes.or_else(|| defaults.notes.clone()).unwrap_or_default();
        notes.insert(OWN_NOTE.into(), job.merchant_payout_id.as_str().into());
        let lifetime = own.lifetime_seconds.or(defaults.lifetime_seconds);
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let account_number = own.account_number.or_else(|| defaults.account_number.clone());
        let purpose = own.purpose.or_else(|| defaults.purpose.clone());
        Ok(CreateBody {
            account_number: account_number.unwrap_or_else(|| self.settings.account_number.clone()),
            contact: contact(job, own.contact_type.or_else(|| defaults.contact_type.clone()))?,
            amount: job.amount.minor_units(),
            currency: job.amount.currency.as_str(),
            purpose: purpose.unwrap_or_else(|| self.settings.purpose.clone()),
            description: required(description, "description", "RazorpayX shows it to the recipient.")?,
            receipt,
            // We tell of the link ourselves.
            send_sms: own.send_sms.or(defaults.send_sms).unwrap_or(false),
            send_email: own.send_email.or(defaults.send_email).unwrap_or(false),
            notes,
            expire_by: lifetime.and_then(|seconds| now.checked_add_unsigned(seconds)),
        })
    }

    /// Returns key id and secret. Those of the job, as `id:secret`, go first.
    pub(super) fn pair<'a>(&'a self, job: &'a CreateLink) -> Result<(&'a str, &'a str), Rejection> {
        match &job.access_token {
            None => Ok((&self.settings.key_id, self.settings.key_secret.expose_secret())),
            Some(token) => token.expose_secret().split_once(':').ok_or_else(|| {
                Rejection::invalid("access_token", "The value must have the form KEY_ID:KEY_SECRET.")
            }),
        }
    }
}

impl FeatureData {
    /// Returns the first invalid key, and a sentence about it.
    pub(super) fn problem(&self) -> Option<(&'static str, &'static str)> {
        if self.lifetime_seconds.is_some_and(|seconds| seconds < MIN_LIFE) {
            return Some(("lifetime_seconds", "The value must be 960 or more."));
        }
        let texts = [
            ("account_number", &self.account_number),
            ("contact_type", &self.contact_type),
            ("purpose", &self.purpose),
        ];
        if let Some((name, _)) = texts.into_iter().find(|(_, text)| text.as_deref() == Some("")) {
            return Some((name, "The value is empty: give one, or leave the key out."));
        }
        let notes = self.notes.as_ref()?;
        let long = notes.values().any(|value| value.chars().count() > MAX_NOTE);
        if long || notes.contains_key(OWN_NOTE) || notes.len() >= MAX_NOTES {
            let problem =
                "At most 14 notes of 256 characters are possible, and none may be called merchant_payout_id.";
            return Some(("notes", problem));
        }
        None
    }
}

pub(super) fn contact(job: &CreateLink, kind: Option<String>) -> Result<Contact<'_>, Rejection> {
    let customer = job.customer.as_deref();
    if let Some(id) = customer.and_then(|customer| customer.connector_customer_id.as_deref()) {
        if !id.starts_with("cont_") {
            let message = "The value must begin with cont_, as the contacts of RazorpayX do.";
            return Err(Rejection::invalid("customer.connector_customer_id", message));
        }
        return Ok(Contact::Known { id });
    }
    let billing = job.address.billing_address.as_deref();
    let name = customer
        .and_then(|customer| customer.full_name())
        .or_else(|| billing.and_then(|address| address.full_name()));
    let name = required(name.as_deref(), "customer.name", "RazorpayX makes no contact without one.")?;
    if !is_name(name) {
        let message = "RazorpayX takes names of 3 to 50 letters, digits, spaces and ’-_/()., which end with a letter, a digit or a dot.";
        return Err(Rejection::invalid("customer.name", message));
    }
    let email = customer.and_then(|customer| customer.email.as_ref()).map(ExposeSecret::expose_secret);
    let phone = customer.and_then(|customer| {
        let number = customer.phone_number.as_ref()?.expose_secret();
        phone(customer.phone_country_code.as_deref().unwrap_or_default(), number)
    });
    if phone.is_none() {
        required(email, "customer.email", "RazorpayX needs it, or customer.phone_number.")?;
    }
    Ok(Contact::Described {
        name: name.to_owned(),
        contact: phone,
        email: email.filter(|email| !email.is_empty()),
        kind,
    })
}

pub(super) fn is_name(name: &str) -> bool {
    let special = |c: char| "’-_/().".contains(c);
    let last = name.chars().last();
    (3..=50).contains(&name.chars().count())
        && name.chars().all(|c| c.is_alphanumeric() || c == ' ' || special(c))
        && last.is_some_and(|last| last == '.' || !special(last))
}

/// Digits alone, behind a plus where the country is known.
pub(super) fn phone(country_code: &str, number: &str) -> Option<String> {
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let (country, rest) = (digits(country_code), digits(number));
    match (rest.is_empty(), country.is_empty() && !number.trim_start().starts_with('+')) {
        (true, _) => None,
        (false, true) => Some(rest),
        (false, false) => Some(format!("+{country}{rest}")),
    }
}
