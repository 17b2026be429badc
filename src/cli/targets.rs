//! Names the database and the broker that a command uses, without their credentials.

use std::path::Path;

use serde::Serialize;

use crate::{
    config::{self, Config},
    postgres, rabbitmq,
};

/// The database and the broker of a command.
#[derive(Debug, Default, Serialize)]
pub(super) struct Targets {
    /// Host, port and name; `None` if its URL cannot be used.
    pub(super) database: Option<String>,
    /// Host, port and vhost; `None` if none is configured.
    pub(super) broker: Option<String>,
}

impl Targets {
    /// Names them, and says where the environment has replaced what the file says.
    pub(super) fn of(
        config: &Config,
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Self {
        let in_file = config::given(file, std::iter::empty()).unwrap_or_default();
        let in_environment = config::given(None, environment).unwrap_or_default();
        let said = |setting: &str, target: String| match in_file.contains_key(setting)
            && in_environment.contains_key(setting)
        {
            true => format!("{target} ({OVERRIDDEN})"),
            false => target,
        };
        let broker = config.broker.url.is_some().then(|| rabbitmq::target(&config.broker())).flatten();
        Self {
            database: postgres::target(&config.database()).map(|target| said("database.url", target)),
            broker: broker.map(|target| said("broker.url", target)),
        }
    }
}

const OVERRIDDEN: &str = "from the environment, which replaces the URL of the file";
