//! Reads values that have no type in TOML.

use secrecy::SecretString;
use serde::{Deserialize, Deserializer, de::Error};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use toml::Value;

/// Reads a time with a zone (RFC 3339), as a TOML time or a string.
pub(super) fn moment<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<OffsetDateTime>, D::Error> {
    let expected = || D::Error::custom("not a time with a zone as in 2026-11-28T12:00:00Z");
    let text = match Value::deserialize(reader)? {
        Value::Datetime(time) => time.to_string(),
        Value::String(text) => text,
        _ => return Err(expected()),
    };
    OffsetDateTime::parse(&text, &Rfc3339).map(Some).map_err(|_| expected())
}

/// Reads a string or a list of strings.
pub(super) fn one_or_more<'de, D: Deserializer<'de>>(reader: D) -> Result<Vec<SecretString>, D::Error> {
    let expected = || D::Error::custom("not a string or a list of strings");
    let text = |value: Value| value.as_str().map(SecretString::from).ok_or_else(expected);
    match Value::deserialize(reader)? {
        Value::Array(values) => values.into_iter().map(text).collect(),
        value => Ok(vec![text(value)?]),
    }
}
