//! Configures a test environment and its workers.

use payout_link_worker::rabbitmq::Names;
use provider_simulators::sandbox::Sandbox;

use super::{TOKEN, TestEnv, WEBHOOK_SECRET};

/// The changes to the usual test environment.
#[derive(Default)]
#[must_use]
pub struct Setup {
    pub(super) settings: Vec<(String, String)>,
    pub(super) database_url: Option<String>,
    pub(super) amqp_url: Option<String>,
    pub(super) without_listener: bool,
    pub(super) names: Option<Names>,
    only_connector: Option<&'static str>,
    short_leases: bool,
    more_connectors: String,
}

impl Setup {
    /// Changes a setting of the workers, such as `worker.lease_seconds`.
    pub fn set(mut self, setting: &str, value: impl ToString) -> Self {
        self.settings.push((variable(setting), value.to_string()));
        self
    }

    /// Uses a database server of the test's own.
    pub fn database(mut self, url: &str) -> Self {
        self.database_url = Some(url.into());
        self
    }

    /// Uses a broker of the test's own.
    pub fn broker(mut self, url: &str) -> Self {
        self.amqp_url = Some(url.into());
        self
    }

    /// Uses these names of exchanges and queues, which needs a broker of the test's own.
    pub fn names(mut self, names: Names) -> Self {
        self.names = Some(names);
        self
    }

    /// Shortens calls, leases and settle times to a few seconds, for tests in which they expire. The usual ones are
    /// longer than any pause of a busy machine.
    pub fn short_leases(mut self) -> Self {
        self.short_leases = true;
        self
    }

    /// Binds no queue to the results exchange.
    pub fn without_listener(mut self) -> Self {
        self.without_listener = true;
        self
    }

    /// Configures only one connector.
    pub fn only_connector(mut self, name: &'static str) -> Self {
        self.only_connector = Some(name);
        self
    }

    /// Adds a connector: its section `[connectors.NAME]`, as TOML.
    pub fn connector(mut self, section: &str) -> Self {
        self.more_connectors += section;
        self
    }

    /// Adds an account `broken` at this provider, with `settings` as TOML.
    pub fn broken_account(self, provider: &Sandbox, settings: &str) -> Self {
        self.connector(&format!(
            r#"
            [connectors.broken]
            kind = "sandbox"
            url = "{}"
            token = "{TOKEN}"
            allow_http_links = true
            {settings}
            "#,
            provider.url()
        ))
    }

    /// Creates the database and the queues, and starts the simulator and the receiver.
    pub async fn build(self) -> TestEnv {
        TestEnv::build(self).await
    }

    /// Writes the workers' configuration file. The environment overrides it with the settings.
    pub(super) fn configuration(
        &self,
        database_url: &url::Url,
        amqp_url: &str,
        names: &Names,
        provider_url: &str,
    ) -> String {
        let (lease_seconds, call_seconds) = if self.short_leases { (9, 5) } else { (14, 10) };
        format!(
            r#"
            [worker]
            lease_seconds = {lease_seconds}
            sweep_interval_ms = 100
            health_listen = "127.0.0.1:0"
            [database]
            url = "{database_url}"
            max_connections = 6
            [broker]
            url = "{amqp_url}"
            heartbeat_seconds = 5
            publish_patience_seconds = 10
            publish_pause_seconds = 1
            [broker.names]
            jobs_exchange = "{jobs_exchange}"
            jobs_queue = "{jobs_queue}"
            results_exchange = "{results_exchange}"
            dead_exchange = "{dead_exchange}"
            dead_queue = "{dead_queue}"
            unrouted_exchange = "{unrouted_exchange}"
            unrouted_queue = "{unrouted_queue}"
            [keys]
            sealing = ["k1:c2VhbGluZyBrZXkgb2YgYSB0ZXN0LCAzMiBieXRlcy4="]
            fingerprint = "ZmluZ2VycHJpbnQga2V5IG9mIGEgdGVzdCwgMzIgYi4="
            [jobs]
            default_connector = "sandbox"
            allow_http_webhooks = true
            [retry]
            initial_ms = 50
            max_interval_seconds = 1
            wait_in_place_ms = 1000
            {connectors}
            [webhooks]
            secrets = ["{WEBHOOK_SECRET}"]
            schedule_seconds = [1, 1, 1]
            timeout_seconds = 10
            allowed_networks = ["127.0.0.0/8"]
            [log]
            format = "json"
            filter = "debug"
            "#,
            jobs_exchange = names.jobs_exchange,
            jobs_queue = names.jobs_queue,
            results_exchange = names.results_exchange,
            dead_exchange = names.dead_exchange,
            dead_queue = names.dead_queue,
            unrouted_exchange = names.unrouted_exchange,
            unrouted_queue = names.unrouted_queue,
            connectors = [("sandbox", "same-key"), ("asked", "look-up"), ("mute", "never")]
                .into_iter()
                .filter(|(name, _)| self.only_connector.is_none_or(|only| only == *name))
                .map(|(name, replay)| connector(name, replay, provider_url, lease_seconds, call_seconds))
                .chain([self.more_connectors.clone()])
                .collect::<String>(),
        )
    }
}

fn connector(name: &str, replay: &str, url: &str, settle_seconds: u32, call_seconds: u32) -> String {
    format!(
        r#"
            [connectors.{name}]
            kind = "sandbox"
            url = "{url}"
            token = "{TOKEN}"
            replay = "{replay}"
            allow_http_links = true
            settle_seconds = {settle_seconds}
            calls = {{ timeout_seconds = {call_seconds}, breaker_pause_seconds = 1 }}
        "#
    )
}

/// Returns the environment variable of a setting.
pub(super) fn variable(setting: &str) -> String {
    format!("PAYOUT_LINK__{}", setting.to_uppercase().replace('.', "__"))
}
