//! Reads values that TOML has no type for.

use secrecy::SecretString;
use serde::{Deserialize, Deserializer, de::Error};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use toml::Value;

/// A time with its zone, RFC 3339, as TOML's own or as text.
pub(super) fn moment<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<OffsetDateTime>, D::Error> {
    let expected = || D::Error::custom("not a time with a zone as in 2026-11-28T12:00:00Z");
    let text = match Value::deserialize(reader)? {
        Value::Datetime(time) => time.to_string(),
        Value::String(text) => text,
        _ => return Err(expected()),
    };
    OffsetDateTime::parse(&text, &Rfc3339).map(Some).map_err(|_| expected())
}

/// One text, or a list of them.
pub(super) fn one_or_more<'de, D: Deserializer<'de>>(reader: D) -> Result<Vec<SecretString>, D::Error> {
    let expected = || D::Error::custom("not a text or a list of texts");
    let text = |value: Value| value.as_str().map(SecretString::from).ok_or_else(expected);
    match Value::deserialize(reader)? {
        Value::Array(values) => values.into_iter().map(text).collect(),
        value => Ok(vec![text(value)?]),
    }
}
