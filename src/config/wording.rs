//! Rewrites serde's errors for the author of a configuration: the problem and the expected value. Never the value
//! itself, because a secret may be in the wrong setting.

use std::net::SocketAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de::Error};

use crate::{domain::did_you_mean, setting_url};

/// Describes a problem of a section in one line, with its setting.
pub(super) fn problem(section: &str, error: &toml::de::Error) -> String {
    let shown = error.to_string();
    let key = shown.lines().rev().find_map(|line| line.strip_prefix("in `")?.strip_suffix('`'));
    let setting = key.map_or_else(|| section.to_owned(), |key| format!("{section}.{key}"));
    let message = error.message().replace('\n', " ");
    match unknown(&message, "unknown field `") {
        // The key in toml's error is the section's.
        Some((name, known)) => unknown_setting(&setting, name, &known),
        None => match message.strip_prefix("missing field `") {
            Some(name) => format!("{setting}.{} is missing", name.trim_end_matches('`')),
            None => format!("{setting}: {}", in_words(&message)),
        },
    }
}

pub(super) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    each(deserializer, "expected a network, such as 10.0.0.0/8")
}

pub(super) fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    each(deserializer, "expected ADDRESS:PORT, such as 192.0.2.53:53")
}

/// Reads a list one by one, so that an error has the position of the wrong value.
fn each<'de, D, T>(deserializer: D, expected: &str) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr,
{
    let texts = Vec::<String>::deserialize(deserializer)?;
    let read = |(place, text): (usize, &String)| {
        text.parse().map_err(|_| D::Error::custom(format!("{LISTED} {}: {expected}", place + 1)))
    };
    texts.iter().enumerate().map(read).collect()
}

/// Prefix of the errors of [`each`].
const LISTED: &str = "value";

/// Settings of earlier versions, and the ones that replace them.
const RENAMED: [(&str, &str); 1] = [("worker.max_deliveries", "worker.max_unfinished_begins")];

fn unknown_setting(section: &str, name: &str, known: &[&str]) -> String {
    let setting = format!("{section}.{name}");
    if let Some((_, new)) = RENAMED.iter().find(|(old, _)| *old == setting) {
        return format!("{setting}: the setting was replaced by {new}: set that one instead");
    }
    let meant = did_you_mean(name, known.iter().copied());
    match (meant.as_str(), known.is_empty()) {
        (_, true) => format!("{setting}: the setting is unknown"),
        ("", false) => {
            format!("{setting}: the setting is unknown. Known here are: {}", known.join(", "))
        }
        (meant, false) => format!("{setting}: the setting is unknown.{meant}"),
    }
}

/// Splits "unknown field `a`, expected one of `b`, `c`" into the unknown name and the known ones.
fn unknown<'a>(message: &'a str, beginning: &str) -> Option<(&'a str, Vec<&'a str>)> {
    let (name, rest) = message.strip_prefix(beginning)?.split_once('`')?;
    Some((name, rest.split('`').skip(1).step_by(2).collect()))
}

fn in_words(message: &str) -> String {
    if let Some((given, known)) = unknown(message, "unknown variant `") {
        let meant = did_you_mean(given, known.iter().copied());
        return format!("the value is unknown, expected one of {}.{meant}", known.join(", "))
            .trim_end_matches('.')
            .to_owned();
    }
    let is_listed = message
        .strip_prefix(LISTED)
        .is_some_and(|rest| rest.trim_start().starts_with(|c: char| c.is_ascii_digit()));
    if is_listed || message.starts_with(setting_url::MARK) {
        return message.to_owned();
    }
    let (kind, of_what) = message.split_once(": ").unwrap_or((message, ""));
    if !matches!(kind, "invalid type" | "invalid value" | "invalid length") {
        // An error of another library, which may contain the value.
        let words = kind.split(['"', '`', '\'']).next().unwrap_or_default().trim_end();
        return match words {
            "invalid socket address syntax" => "expected ADDRESS:PORT, such as 127.0.0.1:8086".to_owned(),
            words => words.to_owned(),
        };
    }
    let expected = message.rsplit_once(", expected ").map_or("", |(_, expected)| expected);
    let found = of_what.split([' ', ',']).next().unwrap_or_default();
    format!("expected {}, found {}", expected_in_words(expected), found_in_words(found))
}

fn expected_in_words(expected: &str) -> String {
    let up_to = |most: u64| format!("a whole number from 0 to {most}, without quotes");
    match expected {
        "u16" => up_to(u16::MAX.into()),
        "u32" => up_to(u32::MAX.into()),
        "u64" | "usize" => "a whole number from 0 on, without quotes".to_owned(),
        "a boolean" => "true or false, without quotes".to_owned(),
        "a sequence" => "a list in brackets, such as [\"…\"]".to_owned(),
        "socket address" => "ADDRESS:PORT in quotes, such as \"127.0.0.1:8086\"".to_owned(),
        "path string" => "a path in quotes".to_owned(),
        "a string" => "a string in quotes".to_owned(),
        "a map" => "a section".to_owned(),
        other if other.starts_with("struct ") => "a section".to_owned(),
        other => other.to_owned(),
    }
}

fn found_in_words(found: &str) -> &'static str {
    match found {
        "string" => "a string in quotes",
        "integer" => "another number",
        "floating" => "a number with a decimal point",
        "boolean" => "true or false",
        "sequence" => "a list",
        "map" => "a section",
        _ => "something else",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_serde_says_is_said_in_words_and_without_the_value() {
        for (message, said) in [
            (
                "invalid type: string \"soon\", expected u64",
                "expected a whole number from 0 on, without quotes, found a string in quotes",
            ),
            (
                "invalid value: integer `-1`, expected u16",
                "expected a whole number from 0 to 65535, without quotes, found another number",
            ),
            (
                "invalid type: integer `5`, expected a sequence",
                "expected a list in brackets, such as [\"…\"], found another number",
            ),
            (
                "unknown variant `humane`, expected one of `auto`, `human`, `json`",
                "the value is unknown, expected one of auto, human, json. Did you mean \"human\"?",
            ),
            (
                "unknown variant `secret`, expected `auto` or `human`",
                "the value is unknown, expected one of auto, human",
            ),
            ("relative URL \"secret\"", "relative URL"),
            ("invalid socket address syntax", "expected ADDRESS:PORT, such as 127.0.0.1:8086"),
        ] {
            assert_eq!(in_words(message), said);
        }
    }
}
