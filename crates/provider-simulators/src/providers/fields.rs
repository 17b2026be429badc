//! Reads a request's fields strictly: each has a type and limits, and no unknown field is accepted.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};
use uuid::Uuid;

pub(super) struct Fields {
    /// The path of the object within the request, with a dot at its end.
    path: String,
    left: Map<String, Value>,
    /// All fields as they came.
    whole: Map<String, Value>,
}

/// The problem of a request. It contains no value, which may be a secret.
#[derive(Debug)]
pub(super) enum Problem {
    NotAnObject,
    Missing(String),
    Wrong { field: String, rule: &'static str },
    Unknown(String),
}

impl Fields {
    pub(super) fn of_json(body: &[u8]) -> Result<Self, Problem> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self::of(String::new(), fields)),
            _ => Err(Problem::NotAnObject),
        }
    }

    pub(super) fn of(path: String, fields: Map<String, Value>) -> Self {
        Self { path, left: fields.clone(), whole: fields }
    }

    /// Reads an optional field. `null` counts as absent.
    pub(super) fn optional<T>(
        &mut self,
        name: &str,
        rule: &'static str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        match self.left.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(&value) {
                Some(value) => Ok(Some(value)),
                None => Err(Problem::Wrong { field: self.full(name), rule }),
            },
        }
    }

    pub(super) fn required<T>(
        &mut self,
        name: &str,
        rule: &'static str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<T, Problem> {
        self.optional(name, rule, read)?.ok_or_else(|| Problem::Missing(self.full(name)))
    }

    /// Reads the object under this name.
    pub(super) fn object(&mut self, name: &str) -> Result<Option<Self>, Problem> {
        let path = format!("{}.", self.full(name));
        let fields = self.optional(name, "an object", |value| value.as_object().cloned())?;
        Ok(fields.map(|fields| Self::of(path, fields)))
    }

    /// Checks that no field is left, and returns all fields as they came.
    pub(super) fn end(self) -> Result<Map<String, Value>, Problem> {
        match self.left.keys().next() {
            Some(name) => Err(Problem::Unknown(self.full(name))),
            None => Ok(self.whole),
        }
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.path)
    }
}

/// Reads a string of so many characters.
pub(super) fn text(length: RangeInclusive<usize>) -> impl Fn(&Value) -> Option<String> {
    move |value| value.as_str().filter(|text| length.contains(&text.chars().count())).map(str::to_owned)
}

pub(super) fn one_of(words: &'static [&'static str]) -> impl Fn(&Value) -> Option<String> {
    move |value| value.as_str().filter(|text| words.contains(text)).map(str::to_owned)
}

/// Reads an object of strings: at most `most` pairs with names and values of limited length.
pub(super) fn pairs(most: usize, longest_name: usize, longest_value: usize) -> impl Fn(&Value) -> Option<()> {
    move |value| {
        let pairs = value.as_object()?;
        let fits = pairs.len() <= most
            && pairs.iter().all(|(name, value)| {
                let short = value.as_str().is_some_and(|value| value.chars().count() <= longest_value);
                name.chars().count() <= longest_name && short
            });
        fits.then_some(())
    }
}

/// Reads a whole number in the form of one: neither `1.0` nor `"1"`.
pub(super) fn whole(range: RangeInclusive<i64>) -> impl Fn(&Value) -> Option<i64> {
    move |value| value.as_i64().filter(|number| range.contains(number))
}

/// Reads a whole number that counts things.
pub(super) fn count(range: RangeInclusive<i64>) -> impl Fn(&Value) -> Option<usize> {
    move |value| whole(range.clone())(value).and_then(|number| usize::try_from(number).ok())
}

pub(super) fn boolean(value: &Value) -> Option<bool> {
    value.as_bool()
}

pub(super) fn object(value: &Value) -> Option<()> {
    value.is_object().then_some(())
}

/// Reads a currency of Prism's list, which is Hyperswitch's own. It has two that ISO 4217 has withdrawn.
pub(super) fn currency(value: &Value) -> Option<String> {
    let code = value.as_str()?;
    let is_known = iso_currency::Currency::from_code(code).is_some() || ["ANG", "STD"].contains(&code);
    is_known.then(|| code.to_owned())
}

/// Reads a UUID with hyphens.
pub(super) fn uuid(value: &Value) -> Option<String> {
    let text = value.as_str().filter(|text| text.len() == 36)?;
    Uuid::try_parse(text).ok().map(|_| text.to_owned())
}
