//! The kinds of connector there are: a line each.

use std::{fmt, time::Duration};

use serde::de::DeserializeOwned;

use super::{Connector, Supports, hyperswitch, sandbox, xendit};
use crate::http::HttpSettings;

/// Every kind, under the name that `kind = "…"` gives in `[connectors.NAME]`.
pub static KINDS: &[Kind] = &[hyperswitch::KIND, sandbox::KIND, xendit::KIND];

/// One kind of connector: what is told of it, and how its settings are read.
pub struct Kind {
    pub name: &'static str,
    pub title: &'static str,
    /// Settings without a default.
    pub needs: &'static [&'static str],
    pub supports: Supports,
    pub read: fn(toml::Value) -> Result<Box<dyn Settings>, toml::de::Error>,
}

impl Kind {
    pub fn named(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name)
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The settings of one account, as `[connectors.NAME]` has them beside `kind` and `calls`. `Debug` shows no secret.
pub trait Settings: fmt::Debug + Send + Sync {
    /// What is wrong with them though each can be read; each problem begins with its setting.
    fn problems(&self, timeout: Duration) -> Vec<String>;

    fn connect(&self, http: HttpSettings) -> reqwest::Result<Box<dyn Connector>>;
}

/// For [`Kind::read`].
pub(super) fn read<S>(section: toml::Value) -> Result<Box<dyn Settings>, toml::de::Error>
where
    S: Settings + DeserializeOwned + 'static,
{
    Ok(Box::new(section.try_into::<S>()?))
}
