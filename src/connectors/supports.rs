//! Checks that a connector supports a job before the job is accepted, so that no call is made that the provider cannot carry out.

use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::domain::{ConnectorError, CreateLink, Rejection, RejectionCode, did_you_mean};

/// The features of a kind of connector that are the same for each of its accounts.
pub struct Supports {
    /// ISO 4217 codes; `None`: whatever the account has.
    pub currencies: Option<&'static [&'static str]>,
    /// Least and most of a currency, in its minor units.
    pub amounts: &'static [(&'static str, i64, i64)],
    /// Whether `destination_currency` may be another than the amount's.
    pub converts: bool,
    /// The fields that a job must have, each with its alternatives, as the contract's paths.
    pub job_fields: &'static [&'static str],
    /// Keys of `connector_feature_data`.
    pub feature_data: &'static [&'static str],
    /// When its links end.
    pub expiry: &'static str,
    /// Whether an unclaimed link can be cancelled.
    pub cancels: bool,
}

impl Supports {
    pub(super) fn check(&self, job: &CreateLink) -> Result<(), Rejection> {
        let currency = job.amount.currency.as_str();
        if let Some(currencies) = self.currencies
            && !currencies.contains(&currency)
        {
            let message = format!("The connector supports {} only.", currencies.join(", "));
            return Err(unsupported("amount.currency", &message));
        }
        if !self.converts && job.destination_currency != job.amount.currency {
            return Err(unsupported(
                "destination_currency",
                "The connector does not convert currencies: destination_currency must equal amount.currency.",
            ));
        }
        let limits = self.amounts.iter().find(|(of, ..)| *of == currency);
        if let Some((_, least, most)) = limits
            && !(*least..=*most).contains(&job.amount.minor_units())
        {
            let message = match *most {
                i64::MAX => format!("The connector supports {least} minor units of {currency} or more."),
                most => format!("The connector supports {least} to {most} minor units of {currency}."),
            };
            return Err(unsupported("amount.minor_amount", &message));
        }
        Ok(())
    }
}

/// A job that was accepted and that this connector, as it is configured now, does not take: nothing is sent.
impl From<Rejection> for ConnectorError {
    fn from(rejection: Rejection) -> Self {
        let message = match rejection.field {
            Some(field) => format!("not sent: {field}: {}", rejection.message),
            None => format!("not sent: {}", rejection.message),
        };
        Self::unanswered(&message)
    }
}

/// Builds the rejection of a job that asks, in `field`, for what the connector cannot do. `message`: a sentence.
pub(super) fn unsupported(field: &str, message: &str) -> Rejection {
    Rejection {
        code: RejectionCode::UnsupportedByConnector,
        message: message.to_owned(),
        field: Some(field.to_owned()),
    }
}

/// Returns the value of a field that this connector needs. `why`: a sentence.
pub(super) fn required<'a>(value: Option<&'a str>, field: &str, why: &str) -> Result<&'a str, Rejection> {
    value
        .filter(|value| !value.trim().is_empty())
        .ok_or_else(|| Rejection::invalid(field, format!("The field is missing or empty. {why}")))
}

/// Reads a job's `connector_feature_data`: a JSON object with the connector's own keys, all of them optional. Another key, or
/// a value of another type, is an error. The error repeats no value.
pub(super) fn feature_data<T: DeserializeOwned + Default>(job: &CreateLink) -> Result<T, Rejection> {
    const FIELD: &str = "connector_feature_data";
    let Some(text) = &job.connector_feature_data else { return Ok(T::default()) };
    let text = text.expose_secret();
    // An object and nothing else: serde would read a list as well.
    let Ok(keys) = serde_json::from_str::<Map<String, Value>>(text) else {
        let message = "The string is not the JSON text of an object, such as \"{}\".";
        return Err(Rejection::invalid(FIELD, message));
    };
    if let Ok(read) = serde_json::from_str(text) {
        return Ok(read);
    }
    for (key, value) in keys {
        let alone = Value::Object(Map::from_iter([(key.clone(), value)]));
        if let Err(error) = T::deserialize(alone) {
            return Err(Rejection::invalid(
                format!("{FIELD}.{}", shown(&key)),
                feature_problem(&key, &error.to_string()),
            ));
        }
    }
    Err(Rejection::invalid(FIELD, "A key is given twice: give it once."))
}

/// Returns a key from outside as it may appear in a path.
fn shown(key: &str) -> String {
    key.chars().flat_map(char::escape_default).take(64).collect()
}

/// Describes the error of one key in serde's words, without the value: only the text after `expected` has none.
fn feature_problem(key: &str, error: &str) -> String {
    let error = error.split(" at line").next().unwrap_or_default();
    let expected = error.rsplit_once(", expected ").map_or("", |(_, expected)| expected);
    if error.starts_with("unknown field") {
        let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        return match (did_you_mean(key, known.iter().copied()), known.is_empty()) {
            (_, true) => "The key is unknown: this connector takes none.".to_owned(),
            (meant, _) => format!("The key is unknown. Known here are: {}.{meant}", known.join(", ")),
        };
    }
    match expected {
        "" => "The value is not what this connector takes there.".to_owned(),
        "u32" => format!("The value must be a whole number from 0 to {}.", u32::MAX),
        "u64" | "usize" => "The value must be a whole number from 0 on.".to_owned(),
        "a boolean" => "The value must be true or false.".to_owned(),
        "a sequence" => "The value must be a list.".to_owned(),
        "a map" => "The value must be an object.".to_owned(),
        expected => format!("The value must be {expected}."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Keys {
        reference: Option<String>,
        expiry_period: Option<String>,
        lifetime_seconds: Option<u32>,
    }

    /// An error names the type of a bad key and never its value.
    #[test]
    fn a_bad_key_is_reported_with_what_is_expected() {
        for (data, field, message) in [
            ("canary", "", "The string is not the JSON text of an object, such as \"{}\"."),
            ("[]", "", "The string is not the JSON text of an object, such as \"{}\"."),
            (
                r#"{"refrence":"canary"}"#,
                ".refrence",
                "The key is unknown. Known here are: reference, expiry_period, lifetime_seconds. Did you mean \"reference\"?",
            ),
            (
                r#"{"purpose":"canary"}"#,
                ".purpose",
                "The key is unknown. Known here are: reference, expiry_period, lifetime_seconds.",
            ),
            (r#"{"reference":5}"#, ".reference", "The value must be a string."),
            (r#"{"lifetime_seconds":"canary"}"#, ".lifetime_seconds", "The value must be u32."),
            (r#"{"reference":"canary","reference":"canary"}"#, "", "A key is given twice: give it once."),
        ] {
            let job = serde_json::json!({
                "merchant_payout_id": "po_1",
                "address": {},
                "amount": { "minor_amount": 1, "currency": "EUR" },
                "destination_currency": "EUR",
                "connector_feature_data": data,
            });
            let policy = crate::contract::DecodePolicy {
                allow_http_webhooks: false,
                unknown_fields: crate::contract::UnknownFields::Reject,
            };
            let job = crate::contract::create_link(job.to_string().as_bytes(), None, &policy).unwrap();
            let rejection = feature_data::<Keys>(&job).unwrap_err();
            assert_eq!(
                rejection.field.as_deref(),
                Some(&*format!("connector_feature_data{field}")),
                "{data}"
            );
            assert_eq!(
                rejection.message,
                message.replace("u32", "a whole number from 0 to 4294967295"),
                "{data}"
            );
        }
    }
}
