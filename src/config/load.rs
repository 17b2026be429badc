//! Reads a [`Config`] from a TOML file and the environment, and reports every problem at once.

use std::{collections::BTreeMap, fmt, path::Path};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::{Config, ConnectorSection, wording::problem};
use crate::domain::did_you_mean;

/// Every problem, each with its setting. It never has a setting's value, which may be a secret.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError(pub Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration cannot be used:")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
    }
}

const PREFIX: &str = "PAYOUT_LINK__";
const SECTIONS: [&str; 11] = [
    "worker",
    "database",
    "broker",
    "keys",
    "jobs",
    "retry",
    "limits",
    "connectors",
    "webhooks",
    "retention",
    "log",
];
/// Variables that other programs use too.
const WELL_KNOWN: [(&str, &str); 2] = [("DATABASE_URL", "database.url"), ("AMQP_URL", "broker.url")];
/// Settings whose value may be in a file of its own, named by the setting with `_file`.
pub(super) const IN_FILES: [&str; 11] = [
    "url",
    "token",
    "sealing",
    "fingerprint",
    "secrets",
    "master_secrets",
    "webhook_secrets",
    "api_key",
    "key_secret",
    "private_key",
    "refresh_token",
];
/// Secret settings with several values, one a line in their file.
const LISTS: [&str; 5] = ["sealing", "fingerprint", "secrets", "master_secrets", "webhook_secrets"];

/// Reads the file, if there is one, and overrides it with the environment.
///
/// # Errors
///
/// [`ConfigError`] with every problem.
pub fn load(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    build(read(file)?, environment, Scope::All)
}

/// Reads what a command needs that only reads the database: `[database]`, `[worker]` and `[log]`. The other sections
/// are read if they can be. So an operator needs neither keys nor the files of the worker's secrets.
///
/// # Errors
///
/// [`ConfigError`] with every problem of the needed sections.
pub fn load_for_reading(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    build(read(file)?, environment, Scope::Reading)
}

/// The sections that have to be complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    All,
    Reading,
}

impl Scope {
    fn needs(self, section: &str) -> bool {
        // An unknown section is reported in any case: it may be a misspelt one that is needed.
        self == Self::All || matches!(section, "worker" | "database" | "log") || !SECTIONS.contains(&section)
    }
}

impl Config {
    /// Reads a configuration as [`load`] does, from a file's text.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with every problem.
    pub fn from_text(
        text: &str,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        build(parse(text).map_err(|problem| ConfigError(vec![problem]))?, environment, Scope::All)
    }
}

fn build(
    mut table: Table,
    environment: impl Iterator<Item = (String, String)>,
    scope: Scope,
) -> Result<Config, ConfigError> {
    let environment: Vec<(String, String)> = environment.collect();
    let mut problems: Vec<String> =
        environment.iter().filter_map(|(name, _)| nearly_a_setting(name)).collect();
    for Override { setting, value, .. } in agreed(overrides(environment.into_iter()), &mut problems) {
        if let Err(problem) = set(&mut table, &setting, value) {
            problems.push(problem);
        }
    }
    let mut config = Config::default();
    let (needed, others) = table.into_iter().partition(|(name, _)| scope.needs(name));
    read_sections(needed, &mut config, &mut problems);
    for (name, section) in others {
        read_if_possible(name, section, &mut config);
    }
    // An unreadable section is missing now; reporting that too would hide the cause.
    if problems.is_empty() {
        problems = match scope {
            Scope::All => config.problems(),
            Scope::Reading => config.problems_for_reading(),
        };
    }
    if problems.is_empty() { Ok(config) } else { Err(ConfigError(problems)) }
}

fn read_sections(mut table: Table, config: &mut Config, problems: &mut Vec<String>) {
    read_files(&mut table, "", problems);
    let mut sections: BTreeMap<String, Value> = table.into_iter().collect();
    take(&mut sections, "worker", &mut config.worker, problems);
    take(&mut sections, "database", &mut config.database, problems);
    take(&mut sections, "broker", &mut config.broker, problems);
    take(&mut sections, "keys", &mut config.keys, problems);
    take(&mut sections, "jobs", &mut config.jobs, problems);
    take(&mut sections, "retry", &mut config.retry, problems);
    take(&mut sections, "limits", &mut config.limits, problems);
    take(&mut sections, "webhooks", &mut config.webhooks, problems);
    take(&mut sections, "retention", &mut config.retention, problems);
    take(&mut sections, "log", &mut config.log, problems);
    let mut connectors: BTreeMap<String, Table> = BTreeMap::new();
    take(&mut sections, "connectors", &mut connectors, problems);
    for (name, section) in connectors {
        match ConnectorSection::read(&format!("connectors.{name}"), section) {
            Ok(connector) => drop(config.connectors.insert(name, connector)),
            Err(problem) => problems.push(problem),
        }
    }
    problems.extend(sections.keys().map(|unknown| {
        let meant = did_you_mean(unknown, SECTIONS);
        format!("unknown section [{unknown}], expected one of {}.{meant}", SECTIONS.join(", "))
    }));
}

/// Reads a section that is not needed. If a file of its secrets cannot be read, it keeps its defaults.
fn read_if_possible(name: String, section: Value, config: &mut Config) {
    let table = Table::from_iter([(name, section)]);
    let mut problems = Vec::new();
    read_files(&mut table.clone(), "", &mut problems);
    if problems.is_empty() {
        read_sections(table, config, &mut problems);
    }
}

/// Returns the settings that are given, and where; never their values. All others have their defaults.
///
/// # Errors
///
/// [`ConfigError`] if the file cannot be read.
pub fn given(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<BTreeMap<String, &'static str>, ConfigError> {
    let mut given = BTreeMap::new();
    leaves(&read(file)?, "", &mut |setting| {
        let (setting, is_file) = in_a_file(&setting);
        given.insert(setting, if is_file { "a file named in the file" } else { "the file" });
    });
    for Override { setting, .. } in overrides(environment) {
        let (setting, is_file) = in_a_file(&setting);
        given.insert(setting, if is_file { "a file named in the environment" } else { "the environment" });
    }
    Ok(given)
}

/// Returns the name of a setting without `_file`, and whether its value is in a file of its own.
pub(super) fn in_a_file(setting: &str) -> (String, bool) {
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

pub(super) fn read(file: Option<&Path>) -> Result<Table, ConfigError> {
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

/// A setting from the environment.
pub(super) struct Override {
    pub(super) setting: String,
    pub(super) value: String,
    variable: String,
}

/// Returns every setting from the environment, sorted, because the order of the environment is arbitrary.
pub(super) fn overrides(environment: impl Iterator<Item = (String, String)>) -> Vec<Override> {
    let mut found: Vec<Override> = environment
        .filter_map(|(variable, value)| {
            let setting = setting_of(&variable)?;
            Some(Override { setting, value, variable })
        })
        .collect();
    found.sort_by(|a, b| (&a.setting, &a.variable).cmp(&(&b.setting, &b.variable)));
    found
}

/// Describes a variable that was meant for a setting: it has one underscore instead of two. Others with our prefix
/// may be Kubernetes's, made from a service's name.
fn nearly_a_setting(name: &str) -> Option<String> {
    let rest = name.strip_prefix("PAYOUT_LINK_").filter(|rest| !rest.starts_with('_'))?;
    let section = SECTIONS.into_iter().find(|section| {
        rest.get(..section.len()).is_some_and(|start| start.eq_ignore_ascii_case(section))
            && rest[section.len()..].starts_with("__")
    })?;
    let key = rest[section.len()..].trim_start_matches('_');
    Some(format!("{name} is not a setting: did you mean {PREFIX}{}__{key}?", section.to_uppercase()))
}

fn setting_of(variable: &str) -> Option<String> {
    for (known, setting) in WELL_KNOWN {
        if variable == known {
            return Some(setting.to_owned());
        }
        if variable.strip_suffix("_FILE") == Some(known) {
            return Some(format!("{setting}_file"));
        }
    }
    Some(variable.strip_prefix(PREFIX)?.to_lowercase().replace("__", "."))
}

/// Collects one override for each setting. Two variables with different values for one setting are a problem: the
/// worker might use another database than the one with its records.
fn agreed(overrides: Vec<Override>, problems: &mut Vec<String>) -> Vec<Override> {
    let mut by_setting: BTreeMap<String, Override> = BTreeMap::new();
    for found in overrides {
        let (setting, _) = in_a_file(&found.setting);
        match by_setting.get(&setting) {
            None => drop(by_setting.insert(setting, found)),
            Some(first) if is_same(first, &found) => {}
            Some(first) => problems.push(format!(
                "{setting} is given twice, with different values: by {} and by {}: remove one of them",
                first.variable, found.variable
            )),
        }
    }
    by_setting.into_values().collect()
}

fn is_same(first: &Override, second: &Override) -> bool {
    let value = |of: &Override| match in_a_file(&of.setting) {
        (_, true) => std::fs::read_to_string(&of.value).ok().map(|text| text.trim().to_owned()),
        (_, false) => Some(of.value.clone()),
    };
    value(first).is_some_and(|value_of_first| Some(value_of_first) == value(second))
}

pub(super) fn set(table: &mut Table, setting: &str, value: String) -> Result<(), String> {
    let (section, key) = setting.rsplit_once('.').ok_or_else(|| {
        format!("{PREFIX}{} is not a setting, expected {PREFIX}SECTION__KEY", setting.to_uppercase())
    })?;
    let mut table = table;
    for part in section.split('.') {
        let next = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
        table = next.as_table_mut().ok_or_else(|| format!("{setting}: {part} is not a section"))?;
    }
    // A file named in the environment overrides the value in the TOML file, and the other way round.
    match key.strip_suffix("_file") {
        Some(plain) => drop(table.remove(plain)),
        None => drop(table.remove(&format!("{key}_file"))),
    }
    let value =
        if IN_FILES.contains(&key) && !LISTS.contains(&key) { Value::String(value) } else { typed(value) };
    table.insert(key.to_owned(), value);
    Ok(())
}

/// Reads a value: numbers, booleans and lists as in TOML; everything else is a string.
fn typed(value: String) -> Value {
    match value.parse::<Value>() {
        Ok(read @ (Value::Integer(_) | Value::Boolean(_) | Value::Array(_))) => read,
        _ => Value::String(value),
    }
}

/// Replaces `_file` settings by the contents of their files.
fn read_files(table: &mut Table, path: &str, problems: &mut Vec<String>) {
    for setting in IN_FILES {
        let Some(file) = table.remove(&format!("{setting}_file")) else { continue };
        let name = format!("{path}{setting}_file");
        let Some(file) = file.as_str() else {
            problems.push(format!("{name} is not a path"));
            continue;
        };
        let beside = table.remove(setting);
        match std::fs::read_to_string(file) {
            // A value from the environment has overridden both.
            Ok(text) if beside.is_some_and(|value| value.as_str() != Some(text.trim())) => {
                problems.push(format!(
                    "{path}{setting} and {name} are both given, with different values: remove one of them"
                ));
            }
            Ok(text) if LISTS.contains(&setting) => {
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                table.insert(
                    setting.into(),
                    lines.map(|line| Value::String(line.into())).collect::<Vec<_>>().into(),
                );
            }
            Ok(text) => drop(table.insert(setting.into(), Value::String(text.trim().into()))),
            Err(error) => {
                problems.push(format!("{name} {file:?}: {error}"));
                // Present, so that it is not reported as missing too.
                table.insert(setting.into(), unread(setting));
            }
        }
    }
    for setting in IN_FILES {
        let is_empty = match table.get(setting) {
            Some(Value::String(text)) => text.trim().is_empty(),
            Some(Value::Array(values)) => {
                values.iter().any(|value| value.as_str().is_some_and(|text| text.trim().is_empty()))
            }
            _ => false,
        };
        if is_empty {
            problems.push(format!("{path}{setting} is empty (or its file is)"));
            table.insert(setting.into(), unread(setting));
        }
    }
    for (name, value) in table.iter_mut() {
        if let Value::Table(section) = value {
            read_files(section, &format!("{path}{name}."), problems);
        }
    }
}

/// Replaces an unusable value; the start fails in any case.
fn unread(setting: &str) -> Value {
    if LISTS.contains(&setting) { Value::Array(Vec::new()) } else { "https://unread.invalid/".into() }
}

fn place(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
    format!("line {line}: {}", error.message().replace('\n', " "))
}
