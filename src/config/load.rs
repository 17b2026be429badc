//! From a TOML file and the environment to a [`Config`], telling all that is wrong at once.

use std::{collections::BTreeMap, fmt, path::Path};

use secrecy::SecretString;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use toml::{Table, Value};

use super::{Config, ConnectorSection};

/// Every problem, each naming its setting. Never a setting's value: it may be a secret.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError(pub Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration cannot be used:")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
    }
}

const PREFIX: &str = "PAYOUT_LINK__";
/// Variables that other programs know as well.
const WELL_KNOWN: [(&str, &str); 2] = [("DATABASE_URL", "database.url"), ("AMQP_URL", "broker.url")];
/// Settings whose value may stand in a file of its own, named by the setting with `_file`.
const IN_FILES: [&str; 10] = [
    "url",
    "token",
    "sealing",
    "fingerprint",
    "secrets",
    "master_secrets",
    "api_key",
    "key_secret",
    "private_key",
    "refresh_token",
];
/// Of those, the ones with several values: a line each in their file.
const LISTS: [&str; 4] = ["sealing", "fingerprint", "secrets", "master_secrets"];

/// Reads the file, where there is one, and lays the environment over it.
pub fn load(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    build(read(file)?, environment)
}

/// The files with secrets that every user may read: the configuration's own, and those that it or the environment names.
pub fn open_secrets(file: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let Ok(mut table) = read(file) else { return Vec::new() };
    let mut open: Vec<String> = file
        .filter(|file| is_world_readable(file) && has_secrets(&table))
        .map(|file| file.display().to_string())
        .into_iter()
        .collect();
    for (setting, value) in overrides(environment) {
        // What cannot be set was said when the configuration was read.
        let _ = set(&mut table, &setting, value);
    }
    named_files(&table, &mut open);
    open
}

fn named_files(table: &Table, open: &mut Vec<String>) {
    for (name, value) in table {
        match value {
            Value::Table(section) => named_files(section, open),
            Value::String(file) if in_a_file(name).1 && is_world_readable(Path::new(file)) => {
                open.push(file.clone());
            }
            _ => {}
        }
    }
}

/// Whether a secret stands in it, and not in a file of its own.
fn has_secrets(table: &Table) -> bool {
    table.iter().any(|(name, value)| match value {
        Value::Table(section) => has_secrets(section),
        // An address is one where it has a password.
        Value::String(url) if name == "url" => url.contains('@'),
        Value::String(_) | Value::Array(_) => IN_FILES.contains(&name.as_str()),
        _ => false,
    })
}

#[cfg(unix)]
fn is_world_readable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    // A pipe of this process's own (`/dev/fd/63`) is no file that others open.
    std::fs::metadata(file).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o004 != 0)
}

#[cfg(not(unix))]
fn is_world_readable(_: &Path) -> bool {
    false
}

impl Config {
    /// As [`load`], from a file's text.
    pub fn from_text(
        text: &str,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        build(parse(text).map_err(|problem| ConfigError(vec![problem]))?, environment)
    }
}

fn build(
    mut table: Table,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let mut problems = Vec::new();
    for (setting, value) in overrides(environment) {
        if let Err(problem) = set(&mut table, &setting, value) {
            problems.push(problem);
        }
    }
    let mut config = Config::default();
    read_files(&mut table, "", &mut problems);

    let mut sections: BTreeMap<String, Value> = table.into_iter().collect();
    take(&mut sections, "worker", &mut config.worker, &mut problems);
    take(&mut sections, "database", &mut config.database, &mut problems);
    take(&mut sections, "broker", &mut config.broker, &mut problems);
    take(&mut sections, "keys", &mut config.keys, &mut problems);
    take(&mut sections, "jobs", &mut config.jobs, &mut problems);
    take(&mut sections, "retry", &mut config.retry, &mut problems);
    take(&mut sections, "webhooks", &mut config.webhooks, &mut problems);
    take(&mut sections, "retention", &mut config.retention, &mut problems);
    take(&mut sections, "log", &mut config.log, &mut problems);
    let mut connectors: BTreeMap<String, Table> = BTreeMap::new();
    take(&mut sections, "connectors", &mut connectors, &mut problems);
    for (name, section) in connectors {
        match ConnectorSection::read(&format!("connectors.{name}"), section) {
            Ok(connector) => drop(config.connectors.insert(name, connector)),
            Err(problem) => problems.push(problem),
        }
    }
    problems.extend(sections.keys().map(|unknown| {
        format!("unknown section [{unknown}], expected worker, database, broker, keys, jobs, retry, connectors, webhooks, retention or log")
    }));
    // What could not be read is missing now; naming that too would only hide the cause.
    if problems.is_empty() {
        problems = config.problems();
    }
    if problems.is_empty() { Ok(config) } else { Err(ConfigError(problems)) }
}

/// The settings that are given, and where; never what they are. What is not among them has its default.
pub fn given(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<BTreeMap<String, &'static str>, ConfigError> {
    let mut given = BTreeMap::new();
    leaves(&read(file)?, "", &mut |setting| {
        let (setting, is_file) = in_a_file(&setting);
        given.insert(setting, if is_file { "a file that the file names" } else { "the file" });
    });
    for (setting, _) in overrides(environment) {
        let (setting, is_file) = in_a_file(&setting);
        given.insert(setting, if is_file { "a file that the environment names" } else { "the environment" });
    }
    Ok(given)
}

/// A setting without the `_file` of one whose value stands in a file of its own.
fn in_a_file(setting: &str) -> (String, bool) {
    match setting.strip_suffix("_file") {
        Some(plain) if IN_FILES.iter().any(|known| plain.rsplit('.').next() == Some(known)) => {
            (plain.to_owned(), true)
        }
        _ => (setting.to_owned(), false),
    }
}

fn leaves(table: &Table, path: &str, found: &mut impl FnMut(String)) {
    for (name, value) in table {
        match value {
            Value::Table(section) => leaves(section, &format!("{path}{name}."), found),
            _ => found(format!("{path}{name}")),
        }
    }
}

fn read(file: Option<&Path>) -> Result<Table, ConfigError> {
    let Some(path) = file else { return Ok(Table::new()) };
    let problem = |problem: String| ConfigError(vec![format!("{}: {problem}", path.display())]);
    let text = std::fs::read_to_string(path).map_err(|error| problem(error.to_string()))?;
    parse(&text).map_err(problem)
}

fn parse(text: &str) -> Result<Table, String> {
    text.parse().map_err(|error: toml::de::Error| place(&error, text))
}

fn take<T: DeserializeOwned>(
    sections: &mut BTreeMap<String, Value>,
    name: &str,
    into: &mut T,
    problems: &mut Vec<String>,
) {
    if let Some(section) = sections.remove(name) {
        match section.try_into() {
            Ok(read) => *into = read,
            Err(error) => problems.push(problem(name, &error)),
        }
    }
}

/// Path and value of every setting that the environment has.
fn overrides(environment: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = environment
        .filter_map(|(name, value)| {
            for (known, setting) in WELL_KNOWN {
                if name == known {
                    return Some((setting.to_owned(), value));
                }
                if name.strip_suffix("_FILE") == Some(known) {
                    return Some((format!("{setting}_file"), value));
                }
            }
            let path = name.strip_prefix(PREFIX)?.to_lowercase().replace("__", ".");
            Some((path, value))
        })
        .collect();
    // Our own names win over the well-known ones, whatever order the environment comes in.
    found.sort_by_key(|(setting, _)| setting.clone());
    found
}

fn set(table: &mut Table, setting: &str, value: String) -> Result<(), String> {
    let (section, key) = setting.rsplit_once('.').ok_or_else(|| {
        format!("{PREFIX}{} names no setting: {PREFIX}SECTION__KEY", setting.to_uppercase())
    })?;
    let mut table = table;
    for part in section.split('.') {
        let next = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
        table = next.as_table_mut().ok_or_else(|| format!("{setting}: {part} is not a section"))?;
    }
    // A file that the environment names stands for what the TOML file says, and the other way round.
    match key.strip_suffix("_file") {
        Some(plain) => drop(table.remove(plain)),
        None => drop(table.remove(&format!("{key}_file"))),
    }
    let value =
        if IN_FILES.contains(&key) && !LISTS.contains(&key) { Value::String(value) } else { typed(value) };
    table.insert(key.to_owned(), value);
    Ok(())
}

/// Numbers, booleans and lists as TOML writes them; everything else is text.
fn typed(value: String) -> Value {
    match value.parse::<Value>() {
        Ok(read @ (Value::Integer(_) | Value::Boolean(_) | Value::Array(_))) => read,
        _ => Value::String(value),
    }
}

/// Puts in what stands in files of its own.
fn read_files(table: &mut Table, path: &str, problems: &mut Vec<String>) {
    for setting in IN_FILES {
        let Some(file) = table.remove(&format!("{setting}_file")) else { continue };
        let name = format!("{path}{setting}_file");
        let Some(file) = file.as_str() else {
            problems.push(format!("{name} is not a path"));
            continue;
        };
        match std::fs::read_to_string(file) {
            Ok(text) if LISTS.contains(&setting) => {
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                table.insert(
                    setting.into(),
                    lines.map(|line| Value::String(line.into())).collect::<Vec<_>>().into(),
                );
            }
            Ok(text) => drop(table.insert(setting.into(), Value::String(text.trim().into()))),
            Err(error) => problems.push(format!("{name} {file:?}: {error}")),
        }
    }
    for (name, value) in table.iter_mut() {
        if let Value::Table(section) = value {
            read_files(section, &format!("{path}{name}."), problems);
        }
    }
}

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

/// A problem of a section in one line, with its setting.
pub(super) fn problem(section: &str, error: &toml::de::Error) -> String {
    let shown = error.to_string();
    let key = shown.lines().rev().find_map(|line| line.strip_prefix("in `")?.strip_suffix('`'));
    let setting = key.map_or_else(|| section.to_owned(), |key| format!("{section}.{key}"));
    format!("{setting}: {}", without_value(error.message()))
}

/// What serde says, less the value that it says it of: that may be a secret in the wrong place.
fn without_value(message: &str) -> String {
    let message = message.replace('\n', " ");
    if ["unknown field", "missing field", "duplicate field"].iter().any(|kind| message.starts_with(kind)) {
        return message;
    }
    let (kind, of_what) = message.split_once(": ").unwrap_or((&message, ""));
    match (kind, message.rsplit_once(", expected ")) {
        ("invalid type" | "invalid value" | "invalid length", Some((_, expected))) => {
            let found = of_what.split([' ', ',']).next().unwrap_or_default();
            format!("{kind}: {found}, expected {expected}")
        }
        (_, Some((_, expected))) if kind.starts_with("unknown variant") => {
            format!("unknown variant, expected {expected}")
        }
        // Somebody else's words, which may go on with the value.
        _ => kind.split(['"', '`', '\'']).next().unwrap_or_default().trim_end().to_owned(),
    }
}

fn place(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
    format!("line {line}: {}", error.message().replace('\n', " "))
}
