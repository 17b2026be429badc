//! Finds everything that is wrong with a configuration as a whole, and reports it at once.

use secrecy::SecretString;
use tracing_subscriber::EnvFilter;

use super::{Config, tls};
use crate::{
    domain::did_you_mean,
    postgres::{self, KeyError, MIN_CONNECTIONS},
    rabbitmq,
    webhooks::SigningKey,
};

impl Config {
    /// Returns the problems that involve several settings.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |wrong: bool, problem: &str| {
            if wrong {
                problems.push(problem.to_owned());
            }
        };
        check(self.database.url.is_none(), "database.url is missing (or DATABASE_URL)");
        check(self.broker.url.is_none(), "broker.url is missing (or AMQP_URL)");
        for (name, problem) in [
            ("database.url", self.database.url.as_ref().and_then(postgres::url_problem)),
            ("broker.url", self.broker.url.as_ref().and_then(rabbitmq::url_problem)),
        ] {
            if let Some(problem) = problem {
                check(true, &format!("{name}: {problem}"));
            }
        }
        check(self.keys.fingerprint.is_empty(), "keys.fingerprint is missing: base64 of 32 random bytes");
        check(
            self.keys.sealing.is_empty(),
            "keys.sealing is missing: [\"ID:BASE64\"], base64 of 32 random bytes",
        );
        check(self.connectors.is_empty(), "[connectors.NAME] is missing: configure at least one connector");
        check(
            self.webhooks.secrets.is_empty() && self.webhooks.master_secrets.is_empty(),
            "webhooks.secrets is missing: [\"whsec_BASE64\"]",
        );
        for (index, secret) in self.webhooks.master_secrets.iter().enumerate() {
            if let Err(error) = SigningKey::derive(secret, "") {
                check(true, &format!("webhooks.master_secrets[{index}]: {error}"));
            }
        }
        check(self.worker.jobs_in_flight == 0, "worker.jobs_in_flight is 0");
        check(self.worker.events_in_flight < 2, "worker.events_in_flight is below 2");
        check(self.worker.sweep_interval_ms == 0, "worker.sweep_interval_ms is 0");
        check(
            self.database.max_connections < MIN_CONNECTIONS,
            &format!("database.max_connections is below {MIN_CONNECTIONS}"),
        );
        check(
            self.database.timeout_seconds == 0,
            "database.timeout_seconds is 0: every statement would time out",
        );
        check(self.broker.prefetch == 0, "broker.prefetch is 0, which means no limit");
        check(
            self.broker.heartbeat_seconds == 0,
            "broker.heartbeat_seconds is 0: a dead connection would not be detected",
        );
        check(self.broker.delivery_limit == 0, "broker.delivery_limit is 0: no job could be redelivered");
        check(
            self.retention.dead_letters_days == Some(0),
            "retention.dead_letters_days is 0: dead letters would be deleted at once. Leave it out, and they stay",
        );
        check(
            self.retention.dead_letters_days.is_some() && self.broker.letter_delivery_limit == 0,
            "retention.dead_letters_days needs broker.letter_delivery_limit: without it, RabbitMQ 4.0 to 4.2 deletes a letter \
             that was read 21 times",
        );
        if let Some(default) = &self.jobs.default_connector {
            check(
                !self.connectors.contains_key(default),
                &format!(
                    "jobs.default_connector: there is no [connectors.{default}].{}",
                    did_you_mean(default, self.connectors.keys().map(String::as_str))
                ),
            );
        }
        if let Err(error) = self.key_ring() {
            // Missing secrets were reported above.
            let is_missing = match error {
                KeyError::Empty => true,
                KeyError::Fingerprint => self.keys.fingerprint.is_empty(),
                KeyError::Form(_) | KeyError::Length(_) | KeyError::Twice(_) => false,
            };
            check(!is_missing, &format!("keys: {error}"));
        }
        for (name, secrets) in self.webhook_secrets() {
            for (index, secret) in secrets.iter().enumerate() {
                if let Err(error) = SigningKey::new(secret) {
                    check(true, &format!("{name}[{index}]: {error}"));
                }
            }
        }
        problems.extend(filter_problem(&self.log.filter));
        problems.extend(self.database.tls_problems());
        problems.extend(self.broker.tls_problems());
        problems.extend(tls::ca_problem("webhooks.ca_file", self.webhooks.ca_file.as_deref()));
        for (name, connector) in &self.connectors {
            problems.extend(connector.problems(name, self.worker.lease_seconds));
        }
        problems
    }

    /// Returns the problems that keep a command from reading the database.
    pub(super) fn problems_for_reading(&self) -> Vec<String> {
        let mut problems = Vec::new();
        match &self.database.url {
            None => problems.push("database.url is missing (or DATABASE_URL)".to_owned()),
            Some(url) => {
                problems.extend(postgres::url_problem(url).map(|problem| format!("database.url: {problem}")));
            }
        }
        if self.database.max_connections == 0 {
            problems.push("database.max_connections is 0".to_owned());
        }
        if self.database.timeout_seconds == 0 {
            problems.push("database.timeout_seconds is 0: every statement would time out".to_owned());
        }
        problems.extend(filter_problem(&self.log.filter));
        problems.extend(self.database.tls_problems());
        problems
    }

    /// Returns a warning if webhooks of providers are received and none can be authentic.
    pub fn provider_webhooks_warning(&self) -> Option<&'static str> {
        let has_secrets =
            self.connectors.values().any(|connector| !connector.follow.webhook_secrets.is_empty());
        (self.worker.provider_webhooks_listen.is_some() && !has_secrets).then_some(
            "worker.provider_webhooks_listen is set, and no connector has follow.webhook_secrets: every webhook is answered 401",
        )
    }

    fn webhook_secrets(&self) -> impl Iterator<Item = (String, &Vec<SecretString>)> {
        let merchants = self.webhooks.merchant_secrets.iter();
        std::iter::once(("webhooks.secrets".to_owned(), &self.webhooks.secrets))
            .chain(merchants.map(|(id, secrets)| (format!("webhooks.merchant_secrets.{id:?}"), secrets)))
    }
}

/// Levels in order.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Returns what is wrong with `log.filter`, if anything is. `tracing` reads a single word that is no level as a
/// module, and would log nothing else.
fn filter_problem(filter: &str) -> Option<String> {
    let expected = format!("expected a level ({}), or MODULE=LEVEL, with commas between", LEVELS.join(", "));
    if EnvFilter::try_new(filter).is_err() {
        return Some(format!("log.filter cannot be read, {expected}"));
    }
    let is_level = |word: &str| {
        word.parse::<tracing::Level>().is_ok() || LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word))
    };
    let word = filter
        .split(',')
        .map(str::trim)
        .find(|word| !word.is_empty() && !word.contains(['=', '[', ':']) && !is_level(word))?;
    Some(format!("log.filter has a word that is not a level, {expected}.{}", did_you_mean(word, LEVELS)))
}
