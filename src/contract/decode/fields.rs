//! The fields of one object, read one after another by their names; each knows its path.

use std::{borrow::Cow, cell::RefCell, rc::Rc};

use secrecy::SecretString;

use super::{
    json::Json,
    values::{integer, kind, named, string, unlisted},
};
use crate::domain::{Country, PrismEnum, Rejection, did_you_mean};

pub(super) type Read<T> = Result<T, Rejection>;

/// An object whose fields are taken out one by one. The fields left at the end are unknown.
pub(super) struct Fields<'a> {
    path: String,
    fields: Vec<(Cow<'a, str>, Json<'a>)>,
    /// The names that were asked for: those that this object can have.
    known: Vec<&'static str>,
    unknown: Unknown,
}

/// The handling of unknown fields.
#[derive(Clone)]
pub(super) enum Unknown {
    Rejected,
    /// Their paths are noted.
    Ignored(Rc<RefCell<Vec<String>>>),
}

/// Paths noted of one message.
const MAX_NOTED: usize = 16;

impl<'a> Fields<'a> {
    pub(super) fn new(path: String, json: Json<'a>, unknown: Unknown) -> Read<Self> {
        match json {
            Json::Object(fields) => Ok(Self::of(path, fields, unknown)),
            other => {
                Err(Rejection::invalid(path, format!("An object is expected here, not {}.", kind(&other))))
            }
        }
    }

    fn of(path: String, fields: Vec<(Cow<'a, str>, Json<'a>)>, unknown: Unknown) -> Self {
        Self { path, fields, known: Vec::with_capacity(16), unknown }
    }

    pub(super) fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    pub(super) fn own_path(&self) -> &str {
        &self.path
    }

    /// Takes a field under either spelling; `null` equals absent.
    pub(super) fn take(&mut self, name: &'static str) -> Read<Option<Json<'a>>> {
        self.known.push(name);
        let mut found = None;
        while let Some(place) = self.fields.iter().position(|(given, _)| is_spelled(given, name)) {
            if found.is_some() {
                let message =
                    "The field is given twice: give it once. snake_case and lowerCamelCase are one field.";
                return Err(Rejection::invalid(self.path(name), message));
            }
            found = Some(self.fields.swap_remove(place).1);
        }
        Ok(found.filter(|json| !matches!(json, Json::Null)))
    }

    /// Checks that no field is left, or records the ignored ones.
    pub(super) fn end(self) -> Read<()> {
        let shown = |name: &str| -> String { name.chars().flat_map(char::escape_default).take(64).collect() };
        match (&self.unknown, self.fields.first()) {
            (_, None) => Ok(()),
            (Unknown::Rejected, Some((name, _))) => {
                let shown = shown(name);
                if self.known == ["value"] {
                    return Err(Rejection::invalid(self.path(&shown), self.no_object(&shown)));
                }
                let meant = did_you_mean(name, self.known.iter().copied());
                let known = match meant.as_str() {
                    "" => format!(" Known here are: {}.", self.known.join(", ")),
                    meant => meant.to_owned(),
                };
                Err(Rejection::invalid(self.path(&shown), format!("The field is unknown.{known}")))
            }
            (Unknown::Ignored(noted), Some(_)) => {
                let mut noted = noted.borrow_mut();
                let room = MAX_NOTED.saturating_sub(noted.len());
                noted.extend(self.fields.iter().take(room).map(|(name, _)| self.path(&shown(name))));
                Ok(())
            }
        }
    }

    /// Describes an object where a string is expected. `{"value": "…"}` is the only one that stands for a string.
    fn no_object(&self, key: &str) -> String {
        let name = self.path.rsplit('.').next().unwrap_or_default();
        if name == "connector_feature_data" {
            let text = format!(r#""{{\"{key}\":\"…\"}}""#);
            return format!("The field is unknown: {name} is a string that holds JSON text, such as {text}.");
        }
        format!("The field is unknown: {name} is a string, or an object with `value` alone.")
    }

    /// Returns a value that must be there. `expected`: a sentence.
    pub(super) fn required<T>(&self, name: &str, value: Option<T>, expected: &str) -> Read<T> {
        value.ok_or_else(|| {
            Rejection::invalid(self.path(name), format!("The field is missing or empty. {expected}"))
        })
    }

    fn read<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(Json<'a>) -> Result<T, String>,
    ) -> Read<Option<T>> {
        let Some(json) = self.take(name)? else { return Ok(None) };
        read(json).map(Some).map_err(|message| Rejection::invalid(self.path(name), message))
    }

    pub(super) fn object(&mut self, name: &'static str) -> Read<Option<Fields<'a>>> {
        self.take(name)?.map(|json| Fields::new(self.path(name), json, self.unknown.clone())).transpose()
    }

    /// Reads a string. An empty one equals absent, because proto3 has no other way to leave a string out.
    pub(super) fn text(&mut self, name: &'static str) -> Read<Option<String>> {
        Ok(self.string(name)?.filter(|text| !text.is_empty()))
    }

    /// Reads a string as it was given, for fields whose rule covers empty strings.
    pub(super) fn string(&mut self, name: &'static str) -> Read<Option<String>> {
        self.read(name, string)
    }

    /// Reads a string from outside that appears in URLs, headers and logs.
    pub(super) fn identifier(&mut self, name: &'static str) -> Read<Option<String>> {
        match self.text(name)? {
            Some(id) if id.contains(char::is_control) => {
                let message =
                    "The identifier has a control character, such as a line end: it must have none.";
                Err(Rejection::invalid(self.path(name), message))
            }
            id => Ok(id),
        }
    }

    /// Reads a secret: a plain string, or `{"value": "…"}`, whose value is absent if it is empty.
    pub(super) fn secret(&mut self, name: &'static str) -> Read<Option<SecretString>> {
        let text = match self.take(name)? {
            Some(Json::Object(fields)) => {
                let mut wrapper = Fields::of(self.path(name), fields, self.unknown.clone());
                let value = wrapper.text("value")?;
                wrapper.end()?;
                value
            }
            json => json
                .map(string)
                .transpose()
                .map_err(|message| Rejection::invalid(self.path(name), message))?,
        };
        Ok(text.filter(|text| !text.is_empty()).map(SecretString::from))
    }

    pub(super) fn integer<T: TryFrom<i64>>(&mut self, name: &'static str) -> Read<Option<T>> {
        self.read(name, |json| {
            let number = integer(&json, "A whole number")?;
            T::try_from(number).map_err(|_| "The number is out of range: it has 32 bits at most.".to_owned())
        })
    }

    /// Reads an int64: a number, a string of digits, or the two halves that `JSON.stringify` prints for a `Long` of the npm
    /// SDK, which has no `toJSON`. `expected`: the beginning of the sentence that describes the value.
    pub(super) fn int64(&mut self, name: &'static str, expected: &str) -> Read<Option<i64>> {
        match self.take(name)? {
            None => Ok(None),
            Some(Json::Object(fields)) => {
                let mut long = Fields::of(self.path(name), fields, self.unknown.clone());
                let (low, high) = (long.integer("low")?, long.integer("high")?);
                let halves = "A Long has the halves `low` and `high`.";
                let (low, high): (i32, i32) =
                    (long.required("low", low, halves)?, long.required("high", high, halves)?);
                // An unsigned one past i64's end reads as negative, which no field of a job takes.
                long.boolean("unsigned")?;
                long.end()?;
                Ok(Some(i64::from(high) << 32 | i64::from(low.cast_unsigned())))
            }
            Some(json) => {
                let number = integer(&json, expected);
                number.map(Some).map_err(|message| Rejection::invalid(self.path(name), message))
            }
        }
    }

    pub(super) fn boolean(&mut self, name: &'static str) -> Read<Option<bool>> {
        self.read(name, |json| match json {
            Json::Bool(value) => Ok(value),
            other => Err(format!("true or false, without quotes, is expected here, not {}.", kind(&other))),
        })
    }

    /// Reads a name of a list, given as its name or as its number. The number 0 equals absent.
    pub(super) fn name(&mut self, name: &'static str, list: PrismEnum) -> Read<Option<String>> {
        self.read(name, |json| named(&json, list)).map(Option::flatten)
    }

    /// Reads a name of a list, and rejects names that the list does not have.
    pub(super) fn listed<T>(
        &mut self,
        name: &'static str,
        list: PrismEnum,
        of: impl FnOnce(&str) -> Option<T>,
    ) -> Read<Option<T>> {
        let Some(value) = self.name(name, list)? else { return Ok(None) };
        of(&value).map(Some).ok_or_else(|| Rejection::invalid(self.path(name), unlisted(list, &value)))
    }

    pub(super) fn country(&mut self, name: &'static str) -> Read<Option<Country>> {
        self.listed(name, PrismEnum::CountryAlpha2, Country::new)
    }
}

/// Returns whether `given` is `name`, or its lowerCamelCase in the proto3 JSON mapping.
fn is_spelled(given: &str, name: &str) -> bool {
    if given == name {
        return true;
    }
    // Most pairs differ here: every field is compared with every name.
    if given.as_bytes().first() != name.as_bytes().first() {
        return false;
    }
    let mut letters = given.chars();
    let mut upper = false;
    for letter in name.chars() {
        if letter == '_' {
            upper = true;
            continue;
        }
        let wanted = if upper { letter.to_ascii_uppercase() } else { letter };
        upper = false;
        if letters.next() != Some(wanted) {
            return false;
        }
    }
    letters.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_one_name() {
        for (given, name) in [
            ("country_alpha2_code", "country_alpha2_code"),
            ("countryAlpha2Code", "country_alpha2_code"),
            ("line1", "line1"),
        ] {
            assert!(is_spelled(given, name), "{given}");
        }
        for (given, name) in [
            ("countryalpha2code", "country_alpha2_code"),
            ("CountryAlpha2Code", "country_alpha2_code"),
            ("lin", "line1"),
            ("line12", "line1"),
        ] {
            assert!(!is_spelled(given, name), "{given}");
        }
    }
}
