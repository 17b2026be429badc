//! Encodes a job as JSON in one fixed form, which `decode` turns back into an equal job.
//!
//! The record stores this form encrypted, and two requests are compared by it.

use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::domain::{Address, BrowserInformation, CreateLink, Customer, MethodField, Money, PayoutMethod};

/// A job in its one form. Holds every secret of it in the clear: only for sealing and for its fingerprint.
pub struct CanonicalRequest {
    json: Vec<u8>,
    /// So many bytes of it, and a closing brace, are the same without what a retry may carry fresh (contract, section 4).
    meaning: usize,
}

/// Encodes a job in its one form.
pub fn canonical_request(job: &CreateLink) -> CanonicalRequest {
    let mut json = Vec::with_capacity(1024);
    write(&mut json, &Meaning(job));
    let meaning = json.len() - BRACE.len();
    // {"merchant_payout_id":…}{"webhook_url":…}, made one object of.
    write(&mut json, &Fresh(job));
    let has_more = json.len() > meaning + "}{}".len();
    json.splice(meaning..meaning + "}{".len(), has_more.then_some(b','));
    CanonicalRequest { json, meaning }
}

impl CanonicalRequest {
    /// Returns the JSON.
    pub fn as_bytes(&self) -> &[u8] {
        &self.json
    }

    /// Returns the bytes by which two requests are compared, in two parts.
    pub(super) fn meaning(&self) -> [&[u8]; 2] {
        [&self.json[..self.meaning], BRACE]
    }
}

const BRACE: &[u8] = b"}";

fn write(bytes: &mut Vec<u8>, json: &impl Serialize) {
    #[expect(
        clippy::expect_used,
        reason = "string keys and plain values into memory: nothing in it can fail"
    )]
    serde_json::to_writer(bytes, json).expect("a job serializes");
}

struct Meaning<'a>(&'a CreateLink);

impl Serialize for Meaning<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let job = self.0;
        let mut map = Fields(serializer.serialize_map(None)?);
        map.text("merchant_payout_id", Some(job.merchant_payout_id.as_str()))?;
        map.field("address", Some(PayoutAddressJson(job)))?;
        map.secret("connector_feature_data", &job.connector_feature_data)?;
        map.field("payout_method_data", job.payout_method_data.as_ref().map(MethodJson))?;
        map.text("connector_quote_id", job.connector_quote_id.as_deref())?;
        map.text("connector_payout_id", job.connector_payout_id.as_deref())?;
        map.field("amount", Some(MoneyJson(job.amount)))?;
        map.text("destination_currency", Some(job.destination_currency.as_str()))?;
        map.field("customer", job.customer.as_deref().map(CustomerJson))?;
        map.text("priority", job.priority.map(|priority| priority.as_str()))?;
        map.text("connector_payout_method_id", job.connector_payout_method_id.as_deref())?;
        map.text("description", job.description.as_deref())?;
        map.field("source_bank_data", job.source_bank_data.as_ref().map(MethodJson))?;
        map.0.end()
    }
}

/// The fields that a retry may change.
struct Fresh<'a>(&'a CreateLink);

impl Serialize for Fresh<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let job = self.0;
        let mut map = Fields(serializer.serialize_map(None)?);
        map.text("webhook_url", job.webhook_url.as_ref().map(|url| url.as_str()))?;
        map.field("browser_info", job.browser_info.as_deref().map(BrowserJson))?;
        map.secret("access_token", &job.access_token)?;
        map.0.end()
    }
}

/// An object from which absent fields are left out.
struct Fields<M>(M);

impl<M: SerializeMap> Fields<M> {
    fn field(&mut self, name: &'static str, value: Option<impl Serialize>) -> Result<(), M::Error> {
        value.map_or(Ok(()), |value| self.0.serialize_entry(name, &value))
    }

    fn text(&mut self, name: &'static str, value: Option<&str>) -> Result<(), M::Error> {
        self.field(name, value)
    }

    #[expect(clippy::ref_option, reason = "`as_ref` in every line would hide the list of fields")]
    fn secret(&mut self, name: &'static str, value: &Option<SecretString>) -> Result<(), M::Error> {
        self.field(name, value.as_ref().map(ExposeSecret::expose_secret))
    }
}

struct MoneyJson(Money);

impl Serialize for MoneyJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = Fields(serializer.serialize_map(None)?);
        map.field("minor_amount", Some(self.0.minor_units()))?;
        map.text("currency", Some(self.0.currency.as_str()))?;
        map.0.end()
    }
}

struct PayoutAddressJson<'a>(&'a CreateLink);

impl Serialize for PayoutAddressJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = Fields(serializer.serialize_map(None)?);
        map.field("shipping_address", self.0.address.shipping_address.as_deref().map(AddressJson))?;
        map.field("billing_address", self.0.address.billing_address.as_deref().map(AddressJson))?;
        map.0.end()
    }
}

struct AddressJson<'a>(&'a Address);

impl Serialize for AddressJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let address = self.0;
        let mut map = Fields(serializer.serialize_map(None)?);
        map.secret("first_name", &address.first_name)?;
        map.secret("last_name", &address.last_name)?;
        map.secret("line1", &address.line1)?;
        map.secret("line2", &address.line2)?;
        map.secret("line3", &address.line3)?;
        map.secret("city", &address.city)?;
        map.secret("state", &address.state)?;
        map.secret("zip_code", &address.zip_code)?;
        map.text("country_alpha2_code", address.country_alpha2_code.map(|country| country.as_str()))?;
        map.secret("email", &address.email)?;
        map.secret("phone_number", &address.phone_number)?;
        map.text("phone_country_code", address.phone_country_code.as_deref())?;
        map.0.end()
    }
}

struct CustomerJson<'a>(&'a Customer);

impl Serialize for CustomerJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let customer = self.0;
        let mut map = Fields(serializer.serialize_map(None)?);
        map.text("name", customer.name.as_deref())?;
        map.text("first_name", customer.first_name.as_deref())?;
        map.text("last_name", customer.last_name.as_deref())?;
        map.text("salutation", customer.salutation.as_deref())?;
        map.text("id", customer.id.as_deref())?;
        map.text("connector_customer_id", customer.connector_customer_id.as_deref())?;
        map.text("phone_country_code", customer.phone_country_code.as_deref())?;
        map.secret("email", &customer.email)?;
        map.secret("phone_number", &customer.phone_number)?;
        map.field(
            "customer_document_details",
            customer.customer_document_details.as_ref().map(DocumentJson),
        )?;
        map.0.end()
    }
}

struct DocumentJson<'a>(&'a crate::domain::CustomerDocument);

impl Serialize for DocumentJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = Fields(serializer.serialize_map(None)?);
        map.text("document_type", self.0.document_type)?;
        map.secret("document_number", &self.0.document_number)?;
        map.0.end()
    }
}

struct MethodJson<'a>(&'a PayoutMethod);

impl Serialize for MethodJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.0.kind.name, &MethodFieldsJson(self.0))?;
        map.end()
    }
}

struct MethodFieldsJson<'a>(&'a PayoutMethod);

impl Serialize for MethodFieldsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.fields.iter().map(|(name, field)| match field {
            MethodField::Secret(secret) => (name, secret.expose_secret()),
            MethodField::Clear(text) => (name, text.as_str()),
        }))
    }
}

struct BrowserJson<'a>(&'a BrowserInformation);

impl Serialize for BrowserJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let browser = self.0;
        let mut map = Fields(serializer.serialize_map(None)?);
        map.field("color_depth", browser.color_depth)?;
        map.field("screen_height", browser.screen_height)?;
        map.field("screen_width", browser.screen_width)?;
        map.field("java_enabled", browser.java_enabled)?;
        map.field("java_script_enabled", browser.java_script_enabled)?;
        map.field("time_zone_offset_minutes", browser.time_zone_offset_minutes)?;
        map.text("language", browser.language.as_deref())?;
        map.text("accept_header", browser.accept_header.as_deref())?;
        map.text("user_agent", browser.user_agent.as_deref())?;
        map.text("accept_language", browser.accept_language.as_deref())?;
        map.text("referer", browser.referer.as_deref())?;
        map.text("ip_address", browser.ip_address.as_deref())?;
        map.text("os_type", browser.os_type.as_deref())?;
        map.text("os_version", browser.os_version.as_deref())?;
        map.text("device_model", browser.device_model.as_deref())?;
        map.0.end()
    }
}
