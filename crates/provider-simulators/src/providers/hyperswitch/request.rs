//! Reads the fields of requests, as strictly as the provider does.

use serde_json::Value;

use super::super::fields::{Fields, Problem, boolean, count, currency, object, one_of, pairs, text, whole};

const DEFAULT_SESSION_SECONDS: i64 = 900;
const MAX_SESSION_SECONDS: i64 = 7_890_000;
const PRIORITIES: &[&str] = &["instant", "fast", "regular", "wire", "cross_border", "internal"];
const ENTITIES: &[&str] =
    &["Individual", "Company", "NonProfit", "PublicSector", "NaturalPerson", "lowercase", "Personal"];
const CONNECTORS: &[&str] = &[
    "adyen",
    "adyenplatform",
    "cybersource",
    "ebanx",
    "gigadat",
    "loonio",
    "nomupay",
    "nuvei",
    "payone",
    "paypal",
    "stripe",
    "wise",
    "worldpay",
    "worldpayxml",
];

/// The fields that the simulator evaluates.
pub(super) struct Draft {
    pub(super) payout_id: Option<String>,
    pub(super) payout_link: bool,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) session_expiry: i64,
}

pub(super) fn read_create(fields: &mut Fields) -> Result<Draft, Problem> {
    let draft = Draft {
        payout_id: fields.optional("payout_id", "1 to 64 of letters, digits, _ and -", payout_id)?,
        payout_link: fields.optional("payout_link", "a boolean", boolean)?.unwrap_or(false),
        amount: fields.required("amount", "an integer of minor units, not below 0", whole(0..=i64::MAX))?,
        currency: fields.required("currency", "an ISO 4217 code", currency)?,
        session_expiry: fields
            .optional("session_expiry", "0 to 7890000 seconds", whole(0..=MAX_SESSION_SECONDS))?
            .unwrap_or(DEFAULT_SESSION_SECONDS),
    };
    fields.optional("confirm", "a boolean", boolean)?;
    fields.optional("auto_fulfill", "a boolean", boolean)?;
    fields.optional("recurring", "a boolean", boolean)?;
    fields.optional("customer_id", "1 to 255 characters", text(1..=255))?;
    for name in ["name", "email", "phone", "phone_country_code", "merchant_order_reference_id", "description"]
    {
        fields.optional(name, "at most 255 characters", text(0..=255))?;
    }
    for name in ["return_url", "profile_id", "payout_type", "payout_token", "payout_method_id"] {
        fields.optional(name, "a string", text(0..=2048))?;
    }
    fields.optional("business_country", "an ISO 3166-1 alpha-2 code", text(2..=2))?;
    fields.optional("priority", "one of the priorities", one_of(PRIORITIES))?;
    fields.optional("entity_type", "one of the entity types", one_of(ENTITIES))?;
    fields.optional("connector", "names of payout processors", connectors)?;
    fields.optional("metadata", "at most 50 keys of 40, values of 500 characters", pairs(50, 40, 500))?;
    for name in ["routing", "browser_info", "payout_method_data"] {
        fields.optional(name, "an object", object)?;
    }
    if let Some(mut customer) = fields.object("customer")? {
        for name in ["id", "name", "email", "phone", "phone_country_code"] {
            customer.optional(name, "at most 255 characters", text(0..=255))?;
        }
        customer.end()?;
    }
    if let Some(mut billing) = fields.object("billing")? {
        read_billing(&mut billing)?;
        billing.end()?;
    }
    if let Some(mut config) = fields.object("payout_link_config")? {
        for name in ["payout_link_id", "theme", "logo", "merchant_name"] {
            config.optional(name, "a string", text(0..=2048))?;
        }
        config.optional("form_layout", "tabs or journey", one_of(&["tabs", "journey"]))?;
        config.optional("test_mode", "a boolean", boolean)?;
        config.optional("enabled_payment_methods", "a list", |value| value.as_array().map(|_| ()))?;
        config.end()?;
    }
    Ok(draft)
}

fn read_billing(billing: &mut Fields) -> Result<(), Problem> {
    billing.optional("email", "at most 255 characters", text(0..=255))?;
    if let Some(mut address) = billing.object("address")? {
        let names = ["line1", "line2", "line3", "city", "state", "zip", "first_name", "last_name"];
        for name in names {
            address.optional(name, "at most 255 characters", text(0..=255))?;
        }
        address.optional("country", "an ISO 3166-1 alpha-2 code", text(2..=2))?;
        address.end()?;
    }
    if let Some(mut phone) = billing.object("phone")? {
        for name in ["number", "country_code"] {
            phone.optional(name, "at most 255 characters", text(0..=255))?;
        }
        phone.end()?;
    }
    Ok(())
}

pub(super) struct Page {
    pub(super) reference: Option<String>,
    pub(super) payout_id: Option<String>,
    pub(super) limit: usize,
    pub(super) offset: usize,
}

pub(super) fn read_page(mut fields: Fields) -> Result<Page, Problem> {
    let page = Page {
        reference: fields.optional("merchant_order_reference_id", "at most 255 characters", text(0..=255))?,
        payout_id: fields.optional("payout_id", "1 to 64 of letters, digits, _ and -", payout_id)?,
        limit: fields.optional("limit", "1 to 20", count(1..=20))?.unwrap_or(10),
        offset: fields.optional("offset", "0 or more", count(0..=i64::MAX))?.unwrap_or(0),
    };
    // The schema marks these as required, probably by mistake. Here they are optional.
    fields.optional("currency", "an ISO 4217 code", currency)?;
    fields.optional("entity_type", "one of the entity types", one_of(ENTITIES))?;
    fields.end()?;
    Ok(page)
}

pub(super) fn payout_id(value: &Value) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    text(1..=64)(value).filter(|id| id.bytes().all(allowed))
}

fn connectors(value: &Value) -> Option<()> {
    let names = value.as_array()?;
    names.iter().all(|name| name.as_str().is_some_and(|name| CONNECTORS.contains(&name))).then_some(())
}
