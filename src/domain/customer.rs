//! The recipient, as the merchant describes it.

use secrecy::{ExposeSecret, SecretString};

use super::Country;

/// The addresses of a job.
///
/// They are boxed because few jobs have them and thousands of jobs wait for an answer at once.
#[derive(Debug, Default)]
pub struct PayoutAddress {
    /// Where goods would go; passed on to providers that ask for it.
    pub shipping_address: Option<Box<Address>>,
    /// Where the recipient lives; some providers require it.
    pub billing_address: Option<Box<Address>>,
}

/// A postal address with contact details.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "Prism's fields by Prism's names, passed on as they are")]
pub struct Address {
    pub first_name: Option<SecretString>,
    pub last_name: Option<SecretString>,
    pub line1: Option<SecretString>,
    pub line2: Option<SecretString>,
    pub line3: Option<SecretString>,
    pub city: Option<SecretString>,
    pub state: Option<SecretString>,
    pub zip_code: Option<SecretString>,
    pub country_alpha2_code: Option<Country>,
    pub email: Option<SecretString>,
    pub phone_number: Option<SecretString>,
    pub phone_country_code: Option<String>,
}

/// The recipient of a payout.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "Prism's fields by Prism's names, passed on as they are")]
pub struct Customer {
    pub name: Option<String>,
    pub first_name: Option<String>,
    pub last_name: Option<String>,
    pub salutation: Option<String>,
    pub id: Option<String>,
    pub connector_customer_id: Option<String>,
    pub phone_country_code: Option<String>,
    pub email: Option<SecretString>,
    pub phone_number: Option<SecretString>,
    pub customer_document_details: Option<CustomerDocument>,
}

impl Customer {
    /// Returns `name`, or the first and last name if `name` is absent.
    pub fn full_name(&self) -> Option<String> {
        let parts = [self.first_name.as_deref(), self.last_name.as_deref()];
        self.name.clone().or_else(|| joined(parts))
    }
}

impl Address {
    /// Returns the first and last name, or `None` if both are absent.
    pub fn full_name(&self) -> Option<String> {
        let parts = [&self.first_name, &self.last_name];
        joined(parts.map(|part| part.as_ref().map(ExposeSecret::expose_secret)))
    }
}

fn joined(parts: [Option<&str>; 2]) -> Option<String> {
    let name = parts.into_iter().flatten().collect::<Vec<_>>().join(" ");
    (!name.trim().is_empty()).then_some(name)
}

/// An identity document of the recipient.
#[derive(Debug)]
pub struct CustomerDocument {
    /// `CPF`, `CNPJ`, `PSN` or `OTHER`.
    pub document_type: Option<&'static str>,
    /// The number as it stands on the document.
    pub document_number: Option<SecretString>,
}

/// The recipient's browser, as the merchant saw it.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "Prism's fields by Prism's names, passed on as they are")]
pub struct BrowserInformation {
    pub color_depth: Option<u32>,
    pub screen_height: Option<u32>,
    pub screen_width: Option<u32>,
    pub java_enabled: Option<bool>,
    pub java_script_enabled: Option<bool>,
    pub time_zone_offset_minutes: Option<i32>,
    pub language: Option<String>,
    pub accept_header: Option<String>,
    pub user_agent: Option<String>,
    pub accept_language: Option<String>,
    pub referer: Option<String>,
    pub ip_address: Option<String>,
    pub os_type: Option<String>,
    pub os_version: Option<String>,
    pub device_model: Option<String>,
}
