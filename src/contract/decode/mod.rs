//! A job from JSON (contract, section 2): both spellings at every depth, numbers or strings, a secret's two forms,
//! `null` as absent. Unknown and repeated fields are rejected, and every rejection has its path.
//!
//! An empty string equals absent, except where a rule rejects it (`merchant_payout_id`, `webhook_url`): a `SecretString`
//! that is there and empty is printed as `{}` or `{"value": ""}`, and an `access_token` like that is no credential.
//! An empty object counts as given. The proto3 JSON mapping also allows `1.0` and `1e3` for an integer; they are
//! taken where they are whole.

mod fields;
mod json;
mod link_request;
mod message;
mod repeats;
#[cfg(test)]
mod tests;
mod values;

use std::rc::Rc;

use serde::Deserialize;

use self::fields::{Fields, Read, Unknown};
pub use self::link_request::link_request;
pub(super) use self::repeats::{repeats_a_field, snake_case};
use crate::domain::{
    Address, BrowserInformation, CreateLink, Currency, Customer, CustomerDocument, FieldKind, METHODS,
    MerchantPayoutId, MethodField, MethodKind, Money, PayoutAddress, PayoutMethod, PayoutPriority, PrismEnum,
    Rejection, RejectionCode, SOURCE_BANKS, WebhookUrl,
};

/// The part of decoding that the configuration decides.
#[derive(Debug, Clone, Copy, Default)]
pub struct DecodePolicy {
    /// Whether a `webhook_url` may be `http://`.
    pub allow_http_webhooks: bool,
    /// Whether a job with unknown fields is rejected.
    pub unknown_fields: UnknownFields,
}

/// How a field is treated that this version does not know. Prism's messages grow by fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownFields {
    /// The job is rejected: what the field asks for would not be done.
    #[default]
    Reject,
    /// It is not there, for the fingerprint too.
    Ignore,
}

/// Decodes a job. `message_id` replaces a missing `merchant_payout_id`.
///
/// # Errors
///
/// If the job is to be rejected.
pub fn create_link(
    body: &[u8],
    message_id: Option<&str>,
    policy: &DecodePolicy,
) -> Result<CreateLink, Rejection> {
    create_link_noting(body, message_id, policy).map(|(job, _)| job)
}

/// Decodes a job like [`create_link`], and also returns the paths of the first ignored fields.
///
/// # Errors
///
/// If the job is to be rejected.
pub fn create_link_noting(
    body: &[u8],
    message_id: Option<&str>,
    policy: &DecodePolicy,
) -> Result<(CreateLink, Vec<String>), Rejection> {
    if body.len() > json::MAX_BYTES {
        return Err(Rejection::invalid("", message::too_large(body.len())));
    }
    match policy.unknown_fields {
        UnknownFields::Reject => Ok((decode(body, message_id, *policy, Unknown::Rejected)?, Vec::new())),
        UnknownFields::Ignore => {
            let noted = Rc::default();
            let job = decode(body, message_id, *policy, Unknown::Ignored(Rc::clone(&noted)))?;
            Ok((job, noted.take()))
        }
    }
}

/// Decodes a stored request. It was accepted by the rules of its time, and its stored form may exceed the size of a message.
///
/// # Errors
///
/// If this version cannot read it: a newer one has stored it.
pub fn stored_request(body: &[u8]) -> Result<CreateLink, Rejection> {
    let policy = DecodePolicy { allow_http_webhooks: true, ..DecodePolicy::default() };
    // A newer version may have stored fields of which this one would call without. That is left to the newer one.
    decode(body, None, policy, Unknown::Rejected)
}

fn decode(
    body: &[u8],
    message_id: Option<&str>,
    policy: DecodePolicy,
    unknown: Unknown,
) -> Result<CreateLink, Rejection> {
    let text =
        std::str::from_utf8(body).map_err(|error| Rejection::invalid("", message::no_text(body, &error)))?;
    let json = json::parse(text).map_err(|error| Rejection::invalid("", message::no_json(text, &error)))?;
    let mut fields = Fields::new(String::new(), json, unknown).map_err(|_| {
        Rejection::invalid(
            "",
            "The message is not a JSON object. Publish one job in each message, as one object.",
        )
    })?;
    let job = CreateLink {
        merchant_payout_id: merchant_payout_id(&mut fields, message_id)?,
        address: payout_address(&mut fields)?,
        connector_feature_data: fields.secret("connector_feature_data")?,
        payout_method_data: payout_method(&mut fields, "payout_method_data", METHODS)?,
        connector_quote_id: fields.identifier("connector_quote_id")?,
        connector_payout_id: fields.identifier("connector_payout_id")?,
        amount: money(&mut fields)?,
        destination_currency: currency(&mut fields, "destination_currency")?,
        customer: customer(&mut fields)?,
        priority: fields.listed("priority", PrismEnum::PayoutPriority, PayoutPriority::new)?,
        connector_payout_method_id: fields.identifier("connector_payout_method_id")?,
        webhook_url: webhook_url(&mut fields, policy)?,
        browser_info: browser_info(&mut fields)?,
        access_token: fields.secret("access_token")?,
        description: description(&mut fields)?,
        source_bank_data: payout_method(&mut fields, "source_bank_data", SOURCE_BANKS)?,
    };
    fields.end()?;
    Ok(job)
}

/// Returns the identifier of a rejected job: that of its body, if the body can be read. `message_id` counts only if the body was
/// read and has no identifier. Otherwise it may belong to another payout.
pub fn claimed_identifier(body: &[u8], message_id: Option<&str>) -> Option<String> {
    let given = std::str::from_utf8(body).ok().filter(|text| text.len() <= json::MAX_BYTES);
    let given = given
        .and_then(|text| json::parse(text).ok())
        .and_then(|json| Fields::new(String::new(), json, Unknown::Rejected).ok());
    given
        .and_then(|mut fields| merchant_payout_id(&mut fields, message_id).ok())
        .map(|id| id.as_str().to_owned())
}

fn merchant_payout_id(fields: &mut Fields<'_>, message_id: Option<&str>) -> Read<MerchantPayoutId> {
    let (field, id) = match fields.string("merchant_payout_id")? {
        Some(id) => ("merchant_payout_id", id),
        None => match message_id.filter(|id| !id.is_empty()) {
            Some(id) => ("message_id", id.to_owned()),
            None => {
                return Err(Rejection {
                    code: RejectionCode::MissingIdentifier,
                    message: "The job has neither merchant_payout_id nor message_id: a redelivery could not be distinguished from a second payout.".into(),
                    field: Some("merchant_payout_id".into()),
                });
            }
        },
    };
    MerchantPayoutId::new(id).map_err(|error| Rejection::invalid(field, format!("{}.", capital(&error))))
}

fn money(fields: &mut Fields<'_>) -> Read<Money> {
    let amount = fields.object("amount")?;
    let shape = r#"EUR 12.50 is {"minor_amount": 1250, "currency": "EUR"}."#;
    let mut amount = fields.required("amount", amount, shape)?;
    let minor_amount =
        amount.int64("minor_amount", "The amount in minor units (1250 for EUR 12.50) as a whole number")?;
    let minor_amount = amount.required(
        "minor_amount",
        minor_amount,
        "It is the amount in minor units: 1250 for EUR 12.50.",
    )?;
    let currency = currency(&mut amount, "currency")?;
    let money = Money::new(minor_amount, currency)
        .map_err(|error| Rejection::invalid(amount.path("minor_amount"), format!("{}.", capital(&error))))?;
    amount.end()?;
    Ok(money)
}

fn currency(fields: &mut Fields<'_>, name: &'static str) -> Read<Currency> {
    let currency = fields.listed(name, PrismEnum::Currency, Currency::new)?;
    fields.required(name, currency, "A code of ISO 4217 is required, such as EUR.")
}

fn payout_address(fields: &mut Fields<'_>) -> Read<PayoutAddress> {
    let both = fields.object("address")?;
    let mut both = fields.required("address", both, "It is required; an empty object, {}, is enough.")?;
    let addresses = PayoutAddress {
        shipping_address: address(&mut both, "shipping_address")?,
        billing_address: address(&mut both, "billing_address")?,
    };
    both.end()?;
    Ok(addresses)
}

fn address(fields: &mut Fields<'_>, name: &'static str) -> Read<Option<Box<Address>>> {
    let Some(mut fields) = fields.object(name)? else { return Ok(None) };
    let address = Address {
        first_name: fields.secret("first_name")?,
        last_name: fields.secret("last_name")?,
        line1: fields.secret("line1")?,
        line2: fields.secret("line2")?,
        line3: fields.secret("line3")?,
        city: fields.secret("city")?,
        state: fields.secret("state")?,
        zip_code: fields.secret("zip_code")?,
        country_alpha2_code: fields.country("country_alpha2_code")?,
        email: fields.secret("email")?,
        phone_number: fields.secret("phone_number")?,
        phone_country_code: fields.text("phone_country_code")?,
    };
    fields.end()?;
    Ok(Some(Box::new(address)))
}

fn customer(fields: &mut Fields<'_>) -> Read<Option<Box<Customer>>> {
    let Some(mut fields) = fields.object("customer")? else { return Ok(None) };
    let customer = Customer {
        name: fields.text("name")?,
        first_name: fields.text("first_name")?,
        last_name: fields.text("last_name")?,
        salutation: fields.text("salutation")?,
        id: fields.identifier("id")?,
        connector_customer_id: fields.identifier("connector_customer_id")?,
        phone_country_code: fields.text("phone_country_code")?,
        email: fields.secret("email")?,
        phone_number: fields.secret("phone_number")?,
        customer_document_details: customer_document(&mut fields)?,
    };
    fields.end()?;
    Ok(Some(Box::new(customer)))
}

fn customer_document(fields: &mut Fields<'_>) -> Read<Option<CustomerDocument>> {
    let Some(mut fields) = fields.object("customer_document_details")? else { return Ok(None) };
    let list = PrismEnum::DocumentType;
    let document = CustomerDocument {
        document_type: fields
            .listed("document_type", list, |name| list.by_name(name).map(|(name, _)| name))?,
        document_number: fields.secret("document_number")?,
    };
    fields.end()?;
    Ok(Some(document))
}

/// Reads a oneof: exactly one key, and in it the table's fields.
fn payout_method(
    fields: &mut Fields<'_>,
    name: &'static str,
    kinds: &[MethodKind],
) -> Read<Option<PayoutMethod>> {
    let Some(mut oneof) = fields.object(name)? else { return Ok(None) };
    let mut method = None;
    for kind in kinds {
        let Some(fields) = oneof.object(kind.name)? else { continue };
        if method.is_some() {
            let message = "More than one payout method is given: exactly one is expected here.";
            return Err(Rejection::invalid(oneof.own_path(), message));
        }
        method = Some(method_fields(fields, *kind)?);
    }
    let path = oneof.own_path().to_owned();
    oneof.end()?;
    method.map(Some).ok_or_else(|| {
        let names: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
        let message =
            format!("No payout method is given: exactly one of {} is expected here.", names.join(", "));
        Rejection::invalid(path, message)
    })
}

fn method_fields(mut fields: Fields<'_>, kind: MethodKind) -> Read<PayoutMethod> {
    let mut given = Vec::new();
    for &(name, is_required, field) in kind.fields {
        let value = match field {
            FieldKind::Secret => fields.secret(name)?.map(MethodField::Secret),
            FieldKind::Text => fields.text(name)?.map(MethodField::Clear),
            FieldKind::Country => {
                fields.country(name)?.map(|country| MethodField::Clear(country.as_str().into()))
            }
            FieldKind::Name(list) => fields.name(name, list)?.map(MethodField::Clear),
        };
        if is_required && value.is_none() {
            fields.required(name, None::<()>, &format!("A {} needs it.", kind.name))?;
        }
        given.extend(value.map(|value| (name, value)));
    }
    fields.end()?;
    Ok(PayoutMethod { kind, fields: given })
}

fn webhook_url(fields: &mut Fields<'_>, policy: DecodePolicy) -> Read<Option<WebhookUrl>> {
    let Some(text) = fields.string("webhook_url")? else { return Ok(None) };
    WebhookUrl::new(&text, policy.allow_http_webhooks)
        .map(Some)
        .map_err(|error| Rejection::invalid("webhook_url", format!("{}.", capital(&error))))
}

fn browser_info(fields: &mut Fields<'_>) -> Read<Option<Box<BrowserInformation>>> {
    let Some(mut fields) = fields.object("browser_info")? else { return Ok(None) };
    let browser = BrowserInformation {
        color_depth: fields.integer("color_depth")?,
        screen_height: fields.integer("screen_height")?,
        screen_width: fields.integer("screen_width")?,
        java_enabled: fields.boolean("java_enabled")?,
        java_script_enabled: fields.boolean("java_script_enabled")?,
        time_zone_offset_minutes: fields.integer("time_zone_offset_minutes")?,
        language: fields.text("language")?,
        accept_header: fields.text("accept_header")?,
        user_agent: fields.text("user_agent")?,
        accept_language: fields.text("accept_language")?,
        referer: fields.text("referer")?,
        ip_address: fields.text("ip_address")?,
        os_type: fields.text("os_type")?,
        os_version: fields.text("os_version")?,
        device_model: fields.text("device_model")?,
    };
    fields.end()?;
    Ok(Some(Box::new(browser)))
}

fn description(fields: &mut Fields<'_>) -> Read<Option<String>> {
    let description = fields.text("description")?;
    if description.as_ref().is_some_and(|text| text.len() > 255) {
        return Err(Rejection::invalid(
            "description",
            "The description is longer than 255 bytes: shorten it.",
        ));
    }
    Ok(description)
}

fn capital(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
