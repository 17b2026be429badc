//! Decodes one value of a job. An error says what is expected and never repeats the value.

use std::borrow::Cow;

use super::json::Json;
use crate::domain::{PrismEnum, did_you_mean};

/// Names the kind of a value, with its article.
pub(super) fn kind(json: &Json<'_>) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "true or false",
        Json::Number(_) => "a number",
        Json::Text(_) => "a string",
        Json::List => "a list",
        Json::Object(_) => "an object",
    }
}

pub(super) fn string(json: Json<'_>) -> Result<String, String> {
    match json {
        Json::Text(text) if text.contains('\0') => {
            Err("The string holds a NUL character (U+0000), which can be stored nowhere: remove it.".into())
        }
        Json::Text(text) => Ok(text.into_owned()),
        other => Err(format!("A string is expected here, not {}.", kind(&other))),
    }
}

/// Reads an integer. `expected`: the beginning of the sentence that describes the value.
pub(super) fn integer(json: &Json<'_>, expected: &str) -> Result<i64, String> {
    match json {
        // The proto3 JSON mapping writes 64-bit integers as strings.
        Json::Number(digits) => number(digits, expected),
        Json::Text(digits) => number(digits, expected),
        other => Err(format!("{expected} is expected here, not {}.", kind(other))),
    }
}

fn number(digits: &str, expected: &str) -> Result<i64, String> {
    whole(digits).ok_or_else(|| {
        if is_too_long(digits) {
            return format!(
                "{expected} is expected here. This one is out of range: {} is the most.",
                i64::MAX
            );
        }
        format!(
            "{expected} is expected here, in digits alone: no decimal point, no separators, no sign but -."
        )
    })
}

/// Returns whether it is a whole number that 64 bits cannot hold.
fn is_too_long(digits: &str) -> bool {
    let digits = digits.strip_prefix('-').unwrap_or(digits);
    digits.len() >= 19 && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns the integer value of a decimal number, also of `1.0` and `1e3`, from its digits alone. Returns `None` if it is not
/// whole, or exceeds 64 bits.
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
        let (whole, dropped) = digits.split_at_checked(digits.len().checked_sub(cut)?)?;
        if whole.is_empty() || dropped.bytes().any(|b| b != b'0') {
            return None;
        }
        format!("{}{whole}", if negative { "-" } else { "" }).parse().ok()?
    };
    Some(number)
}

/// Reads a name of a list, given as its name or its number. The number 0 equals absent.
pub(super) fn named(json: &Json<'_>, list: PrismEnum) -> Result<Option<String>, String> {
    match json {
        Json::Text(name) => match list.by_name(name) {
            Some((_, 0)) => Ok(None),
            Some((name, _)) => Ok(Some(name.to_owned())),
            None if list.grows() && is_new_name(name) => Ok(Some(Cow::clone(name).into_owned())),
            None => Err(unlisted(list, name)),
        },
        Json::Number(_) => match integer(json, "A name or a whole number")? {
            0 => Ok(None),
            number => match list.by_number(number) {
                Some(name) => Ok(Some(name.to_owned())),
                None => Err(unlisted(list, "")),
            },
        },
        other => Err(format!("A name or a number is expected here, not {}.", kind(other))),
    }
}

/// Describes an unknown name or number of a list.
pub(super) fn unlisted(list: PrismEnum, given: &str) -> String {
    let expected = match list {
        PrismEnum::Currency => {
            "The currency is unknown: a code of ISO 4217 in capitals is expected here, such as EUR (docs/reference/jobs.md has all).".to_owned()
        }
        PrismEnum::CountryAlpha2 => {
            "The country is unknown: a code of ISO 3166-1 alpha-2 in capitals is expected here, such as GB.".to_owned()
        }
        PrismEnum::PayoutPriority | PrismEnum::DocumentType => {
            format!("The value is unknown: one of {} is expected here.", list.names().join(", "))
        }
        PrismEnum::BankNames | PrismEnum::CardNetwork | PrismEnum::PaymentMethodType => {
            "The value is unknown: one of Prism's names is expected here, or another of 1 to 64 letters, digits and _.".to_owned()
        }
    };
    format!("{expected}{}", did_you_mean(list.usual_name(given), list.names()))
}

fn is_new_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
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
}
