//! Finds files with secrets that every user may read.

use std::path::Path;

use toml::{Table, Value};

use super::load::{IN_FILES, Override, in_a_file, overrides, read, set};

/// The files with secrets that every user may read: the configuration's own, and those that it or the environment names.
pub fn open_secrets(file: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let Ok(mut table) = read(file) else { return Vec::new() };
    let mut open: Vec<String> = file
        .filter(|file| is_world_readable(file) && has_secrets(&table))
        .map(|file| file.display().to_string())
        .into_iter()
        .collect();
    for Override { setting, value, .. } in overrides(environment) {
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
