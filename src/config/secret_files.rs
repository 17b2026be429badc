//! Finds files with secrets that every user may read.

use std::path::Path;

use toml::{Table, Value};

use super::load::{IN_FILES, Override, in_a_file, overrides, read, set};

/// Returns the files with secrets that every user may read: the configuration file, and files named in settings.
pub fn open_secrets(file: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let Ok(mut table) = read(file) else { return Vec::new() };
    let mut open: Vec<String> = file
        .filter(|file| is_readable_by_all(file) && has_secrets(&table))
        .map(|file| file.display().to_string())
        .into_iter()
        .collect();
    for Override { setting, value, .. } in overrides(environment) {
        // Invalid settings were reported when the configuration was read.
        let _ = set(&mut table, &setting, value);
    }
    named_files(&table, &mut open);
    open
}

fn named_files(table: &Table, open: &mut Vec<String>) {
    for (name, value) in table {
        match value {
            Value::Table(section) => named_files(section, open),
            Value::String(file) if in_a_file(name).1 && is_readable_by_all(Path::new(file)) => {
                open.push(file.clone());
            }
            _ => {}
        }
    }
}

/// Returns whether the configuration file itself has a secret.
fn has_secrets(table: &Table) -> bool {
    table.iter().any(|(name, value)| match value {
        Value::Table(section) => has_secrets(section),
        // A URL with a password is a secret.
        Value::String(url) if name == "url" => url.contains('@'),
        Value::String(_) | Value::Array(_) => IN_FILES.contains(&name.as_str()),
        _ => false,
    })
}

#[cfg(unix)]
fn is_readable_by_all(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    // A pipe of this process (`/dev/fd/63`) cannot be opened by others.
    std::fs::metadata(file).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o004 != 0)
}

#[cfg(not(unix))]
fn is_readable_by_all(_: &Path) -> bool {
    false
}
