//! `--context NAME`: a deployment by its name, from a file of contexts.
//!
//! A context with `production = true` asks for its name to be typed before a command changes anything: a command that
//! was meant for a test deployment stops there.

use std::{
    collections::BTreeMap,
    io::{BufRead, IsTerminal, Write},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::exit::{Ended, ExitStatus};
use crate::{config, domain::did_you_mean};

/// A deployment that commands are meant for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) name: String,
    pub(super) config: PathBuf,
    pub(super) production: bool,
}

/// A context in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    /// The configuration file. A relative path begins at the folder of the file of contexts.
    config: PathBuf,
    #[serde(default)]
    production: bool,
}

impl Context {
    /// Reads a context from a file.
    ///
    /// # Errors
    ///
    /// [`ExitStatus::WrongUse`] if the file cannot be read or does not have it.
    pub(super) fn read(file: &Path, name: &str) -> Result<Self, Ended> {
        let wrong = |problem: String| ExitStatus::WrongUse.because(format!("{}: {problem}", file.display()));
        let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
        let mut sections: BTreeMap<String, Section> =
            toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))?;
        let Some(section) = sections.remove(name) else {
            let known: Vec<&str> = sections.keys().map(String::as_str).collect();
            let meant = did_you_mean(name, known.iter().copied());
            return Err(wrong(format!("there is no context {name:?}.{meant} It has: {}", known.join(", "))));
        };
        let folder = file.parent().unwrap_or(Path::new(""));
        Ok(Self {
            name: name.to_owned(),
            config: folder.join(section.config),
            production: section.production,
        })
    }

    /// Returns the file of contexts of this user, as the XDG Base Directory Specification has it.
    pub(super) fn default_file() -> Option<PathBuf> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
        Some(folder.join("payout-link-worker").join("contexts.toml"))
    }

    /// Refuses variables that would put another database or another broker into the place of the context's.
    ///
    /// # Errors
    ///
    /// [`ExitStatus::WrongUse`] with the setting.
    pub(super) fn refuses_overrides(
        &self,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<(), Ended> {
        // A file that cannot be read is reported when the configuration is read.
        let given = config::given(None, environment).unwrap_or_default();
        match ["database.url", "broker.url"].into_iter().find(|setting| given.contains_key(*setting)) {
            None => Ok(()),
            Some(setting) => Err(ExitStatus::WrongUse.because(format!(
                "{setting} is given in the environment as well, and would replace that of the context {}: unset the \
                 variable",
                self.name
            ))),
        }
    }

    /// Asks for the context's name if it is a production context. A command calls it before it changes anything.
    ///
    /// # Errors
    ///
    /// [`ExitStatus::Refused`] if another name is typed, or nobody can be asked.
    pub(super) fn confirm(&self) -> Result<(), Ended> {
        if !self.production {
            return Ok(());
        }
        let name = &self.name;
        if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return Err(ExitStatus::Refused.because(format!(
                "the context {name} is a production context, and there is no terminal to type its name: use --config \
                 FILE in a script"
            )));
        }
        let _ = write!(std::io::stderr(), "This changes {name}, a production context. Type its name: ");
        self.confirm_from(&mut std::io::stdin().lock())
    }

    fn confirm_from(&self, input: &mut impl BufRead) -> Result<(), Ended> {
        let mut typed = String::new();
        // An unreadable answer is no confirmation.
        let _ = input.read_line(&mut typed);
        if typed.trim() == self.name {
            return Ok(());
        }
        Err(ExitStatus::Refused
            .because(format!("the name of the context {} was not typed; nothing was changed", self.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> PathBuf {
        let file = std::env::temp_dir().join(format!("contexts-{}.toml", uuid::Uuid::new_v4()));
        std::fs::write(&file, text).unwrap();
        file
    }

    #[test]
    fn a_context_has_its_configuration_beside_its_file() {
        let file = file(
            "[staging]\nconfig = \"staging.toml\"\n[live]\nconfig = \"/etc/live.toml\"\nproduction = true\n",
        );
        let staging = Context::read(&file, "staging").unwrap();
        assert_eq!((staging.config, staging.production), (file.with_file_name("staging.toml"), false));
        let live = Context::read(&file, "live").unwrap();
        assert_eq!((live.config, live.production), (PathBuf::from("/etc/live.toml"), true));
        let problem = Context::read(&file, "stagign").unwrap_err();
        assert_eq!(problem.status, ExitStatus::WrongUse);
        assert!(problem.reason.contains("Did you mean \"staging\"? It has: live, staging"), "{problem}");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(Context::read(&file, "live").unwrap_err().status, ExitStatus::WrongUse);
    }

    #[test]
    fn a_misspelt_setting_is_an_error() {
        // Otherwise a production context would be one of any kind.
        let file = file("[live]\nconfig = \"live.toml\"\nprodution = true\n");
        let problem = Context::read(&file, "live").unwrap_err();
        assert!(problem.reason.contains("prodution"), "{problem}");
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn a_context_is_not_another_database_because_of_a_variable() {
        let context = Context { name: "live".into(), config: PathBuf::new(), production: true };
        let variable =
            |name: &str| std::iter::once((name.to_owned(), "postgres://localhost/test".to_owned()));
        for name in ["DATABASE_URL", "AMQP_URL", "PAYOUT_LINK__DATABASE__URL", "DATABASE_URL_FILE"] {
            let problem = context.refuses_overrides(variable(name)).unwrap_err();
            assert_eq!(problem.status, ExitStatus::WrongUse, "{name}");
        }
        assert!(context.refuses_overrides(variable("PAYOUT_LINK__LOG__FILTER")).is_ok());
    }

    #[test]
    fn a_production_context_asks_for_its_name() {
        let context = |production| Context { name: "live".into(), config: PathBuf::new(), production };
        for (typed, is_confirmed) in
            [("live\n", true), (" live \n", true), ("y\n", false), ("", false), ("LIVE\n", false)]
        {
            let confirmed = context(true).confirm_from(&mut typed.as_bytes());
            assert_eq!(confirmed.is_ok(), is_confirmed, "{typed:?}");
            assert!(is_confirmed || confirmed.unwrap_err().status == ExitStatus::Refused);
        }
        assert!(context(false).confirm().is_ok());
    }
}
