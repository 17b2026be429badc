//! The fields of one object, read one after another by their names; each knows its path.

use std::borrow::Cow;

use secrecy::SecretString;

use super::json::Json;
use crate::{
    domain::{Country, PrismEnum},
    wire::Rejection,
};

pub(super) type Read<T> = Result<T, Rejection>;

/// An object whose fields are taken out one by one. What is left at the end is unknown.
pub(super) struct Fields<'a> {
    path: String,
    fields: Vec<(Cow<'a, str>, Json<'a>)>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(path: String, json: Json<'a>) -> Read<Self> {
        match json {
            Json::Object(fields) => Ok(Self { path, fields }),
            _ => Err(Rejection::invalid(path, "An object is expected here.")),
        }
    }

    pub(super) fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    pub(super) fn own_path(&self) -> &str {
        &self.path
    }

    /// Takes a field under either spelling; `null` equals absent.
    pub(super) fn take(&mut self, name: &str) -> Read<Option<Json<'a>>> {
        let mut found = None;
        while let Some(place) = self.fields.iter().position(|(given, _)| is_spelled(given, name)) {
            if found.is_some() {
                return Err(Rejection::invalid(self.path(name), "The field is given twice."));
            }
            found = Some(self.fields.swap_remove(place).1);
        }
        Ok(found.filter(|json| !matches!(json, Json::Null)))
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Read<()> {
        match self.fields.first() {
            None => Ok(()),
            Some((name, _)) => {
                let shown: String = name.chars().flat_map(char::escape_default).take(64).collect();
                Err(Rejection::invalid(self.path(&shown), "The field is unknown."))
            }
        }
    }

    pub(super) fn required<T>(&self, name: &str, value: Option<T>) -> Read<T> {
        value.ok_or_else(|| Rejection::invalid(self.path(name), "The field is missing."))
    }

    fn read<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(Json<'a>) -> Result<T, &'static str>,
    ) -> Read<Option<T>> {
        let Some(json) = self.take(name)? else { return Ok(None) };
        read(json).map(Some).map_err(|message| Rejection::invalid(self.path(name), message))
    }

    pub(super) fn object(&mut self, name: &str) -> Read<Option<Fields<'a>>> {
        self.take(name)?.map(|json| Fields::new(self.path(name), json)).transpose()
    }

    /// A string. An empty one says nothing, and equals absent: proto3 has no other way to leave a string out.
    pub(super) fn text(&mut self, name: &str) -> Read<Option<String>> {
        Ok(self.string(name)?.filter(|text| !text.is_empty()))
    }

    /// A string as it was given, for fields whose rule has a word on empty ones.
    pub(super) fn string(&mut self, name: &str) -> Read<Option<String>> {
        self.read(name, string)
    }

    /// A string of somebody's that ends up in URLs, headers and logs.
    pub(super) fn identifier(&mut self, name: &str) -> Read<Option<String>> {
        match self.text(name)? {
            Some(id) if id.contains(char::is_control) => {
                Err(Rejection::invalid(self.path(name), "An identifier has no control characters."))
            }
            id => Ok(id),
        }
    }

    /// A plain string, or `{"value": "…"}`, whose value is left out when it is empty.
    pub(super) fn secret(&mut self, name: &str) -> Read<Option<SecretString>> {
        let text = match self.take(name)? {
            Some(Json::Object(fields)) => {
                let mut wrapper = Fields { path: self.path(name), fields };
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

    pub(super) fn integer<T: TryFrom<i64>>(&mut self, name: &str) -> Read<Option<T>> {
        self.read(name, |json| {
            let number = integer(&json)?;
            T::try_from(number).map_err(|_| "The number is out of range.")
        })
    }

    /// An int64: a number, a string of one, or the two halves that `JSON.stringify` prints for it: messages of the npm
    /// SDK hold a `Long`, and neither has a `toJSON`.
    pub(super) fn int64(&mut self, name: &str) -> Read<Option<i64>> {
        match self.take(name)? {
            None => Ok(None),
            Some(Json::Object(fields)) => {
                let mut long = Fields { path: self.path(name), fields };
                let (low, high) = (long.integer("low")?, long.integer("high")?);
                let (low, high): (i32, i32) = (long.required("low", low)?, long.required("high", high)?);
                // An unsigned one past i64's end reads as negative, which no field of a job takes.
                long.boolean("unsigned")?;
                long.end()?;
                Ok(Some(i64::from(high) << 32 | i64::from(low.cast_unsigned())))
            }
            Some(json) => {
                integer(&json).map(Some).map_err(|message| Rejection::invalid(self.path(name), message))
            }
        }
    }

    pub(super) fn boolean(&mut self, name: &str) -> Read<Option<bool>> {
        self.read(name, |json| match json {
            Json::Bool(value) => Ok(value),
            _ => Err("true or false is expected here."),
        })
    }

    /// A name of a list: as its name or as its number; the number 0 equals absent.
    pub(super) fn name(&mut self, name: &str, list: PrismEnum) -> Read<Option<String>> {
        self.read(name, |json| named(&json, list)).map(Option::flatten)
    }

    /// The same, where only names of the list will do.
    pub(super) fn listed<T>(
        &mut self,
        name: &str,
        list: PrismEnum,
        of: impl FnOnce(&str) -> Option<T>,
    ) -> Read<Option<T>> {
        let Some(value) = self.name(name, list)? else { return Ok(None) };
        of(&value)
            .map(Some)
            .ok_or_else(|| Rejection::invalid(self.path(name), "The value is not in the list."))
    }

    pub(super) fn country(&mut self, name: &str) -> Read<Option<Country>> {
        self.listed(name, PrismEnum::CountryAlpha2, Country::new)
    }
}

fn string(json: Json<'_>) -> Result<String, &'static str> {
    match json {
        Json::Text(text) if text.contains('\0') => {
            Err("A string has no NUL in it: neither Postgres nor a header can hold one.")
        }
        Json::Text(text) => Ok(text.into_owned()),
        _ => Err("A string is expected here."),
    }
}

fn integer(json: &Json<'_>) -> Result<i64, &'static str> {
    match json {
        Json::Number(digits) => whole(digits).ok_or("A whole number is expected here."),
        // The proto3 JSON mapping writes 64-bit integers as strings.
        Json::Text(digits) => whole(digits).ok_or("A whole number, or a string of one, is expected here."),
        _ => Err("A whole number is expected here."),
    }
}

/// The integer that a decimal number is, `1.0` and `1e3` included, from its digits alone. `None` where it is none, or
/// none of 64 bits.
fn whole(text: &str) -> Option<i64> {
    if let Ok(number) = text.parse() {
        // Not "+5", which JSON does not have.
        return (!text.starts_with('+')).then_some(number);
    }
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa),
    };
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: String = [before, after].concat();
    if before.is_empty() || mantissa.ends_with('.') || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let shift = exponent.checked_sub(i32::try_from(after.len()).ok()?)?;
    let digits = digits.trim_start_matches('0');
    let number: i64 = if digits.is_empty() {
        0
    } else if shift >= 0 {
        // 64 bits have 19 digits: more zeros cannot be right.
        let zeros = usize::try_from(shift).ok().filter(|zeros| *zeros <= 19)?;
        format!("{}{digits}{}", if negative { "-" } else { "" }, "0".repeat(zeros)).parse().ok()?
    } else {
        let cut = usize::try_from(shift.unsigned_abs()).ok()?;
        let (kept, dropped) = digits.split_at_checked(digits.len().checked_sub(cut)?)?;
        if kept.is_empty() || dropped.bytes().any(|b| b != b'0') {
            return None;
        }
        format!("{}{kept}", if negative { "-" } else { "" }).parse().ok()?
    };
    Some(number)
}

fn named(json: &Json<'_>, list: PrismEnum) -> Result<Option<String>, &'static str> {
    match json {
        Json::Text(name) => match list.by_name(name) {
            Some((_, 0)) => Ok(None),
            Some((name, _)) => Ok(Some(name.to_owned())),
            None if list.grows() && is_new_name(name) => Ok(Some(name.clone().into_owned())),
            None => Err("The value is not in the list."),
        },
        Json::Number(_) => match integer(json)? {
            0 => Ok(None),
            number => match list.by_number(number) {
                Some(name) => Ok(Some(name.to_owned())),
                None => Err("The number is not in the list."),
            },
        },
        _ => Err("A name or a number is expected here."),
    }
}

fn is_new_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// `given` is `name`, or its lowerCamelCase in the proto3 JSON mapping.
fn is_spelled(given: &str, name: &str) -> bool {
    if given == name {
        return true;
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
    fn whole_numbers_are_read_from_their_digits() {
        for (text, number) in [
            ("0", 0),
            ("-0", 0),
            ("5", 5),
            ("1.0", 1),
            ("1e3", 1000),
            ("1.5e1", 15),
            ("1500e-2", 15),
            ("-2.50E1", -25),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
            ("922337203685477580700e-2", i64::MAX),
            ("0e999", 0),
            ("0.000", 0),
        ] {
            assert_eq!(whole(text), Some(number), "{text}");
        }
        for text in [
            "",
            "+5",
            "1.",
            ".5",
            "0.5",
            "1e-1",
            "9223372036854775808",
            "1e19",
            "1e400",
            "1e99999999999",
            "1x",
            "0x10",
            "1.0.0",
            "--1",
            "1e",
            "NaN",
            " 1",
            "1_000",
            "٣",
            "15e-99",
        ] {
            assert_eq!(whole(text), None, "{text}");
        }
    }

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
