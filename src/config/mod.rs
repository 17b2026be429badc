//! Every setting: name, unit, default, check. One TOML file, environment variables over it.
//!
//! A setting `[section] key` is overridden by `PAYOUT_LINK__SECTION__KEY`; `DATABASE_URL` and `AMQP_URL` are known
//! as well. A secret may stand in a file of its own: `key_file` in place of `key`, or the variable with `_FILE`.
//! An unknown key or a bad value stops the start and names itself; all that can be found wrong is told at once.

mod connectors;
mod load;
mod problems;
mod secret_files;
#[cfg(test)]
mod tests;
mod tls;
mod values;
mod wording;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;
use secrecy::SecretString;
use serde::Deserialize;
use time::OffsetDateTime;

pub use self::{
    connectors::{CallSection, ConnectorSection},
    load::{ConfigError, given, load},
    secret_files::open_secrets,
    tls::{TlsMode, TlsSection},
};
use crate::{
    connectors::{Account, Connectors},
    contract::{DecodePolicy, UnknownFields},
    domain::retry::RetryPolicy,
    http_client::{HttpSettings, NoClient},
    pipeline::{PipelineSettings, Retention},
    postgres::{BatchLimits, DatabaseSettings, KeyError, KeyRing, StoreSettings},
    rabbitmq::{BrokerSettings, Names},
    webhooks::{AddressPolicy, SigningKey, WebhookSettings},
};

#[derive(Debug, Default)]
pub struct Config {
    pub worker: WorkerSection,
    pub database: DatabaseSection,
    pub broker: BrokerSection,
    pub keys: KeysSection,
    pub jobs: JobsSection,
    pub retry: RetrySection,
    pub connectors: BTreeMap<String, ConnectorSection>,
    pub webhooks: WebhooksSection,
    pub retention: RetentionSection,
    pub log: LogSection,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerSection {
    /// Part of every idempotency key, unless it is empty. Fixed once there are records.
    pub deployment: String,
    /// Deliveries that are being taken in, and records that are being concluded: each at most.
    pub jobs_in_flight: usize,
    /// Events being told, at most.
    pub events_in_flight: usize,
    /// How long a stopped worker finishes what is under way.
    pub grace_period_seconds: u64,
    /// Longer than any connector's timeout by 2 seconds at least.
    pub lease_seconds: u64,
    pub sweep_interval_ms: u64,
    pub sweep_batch: usize,
    /// How often processing a message may begin and not end before it is taken for poison.
    pub max_unfinished_begins: u32,
    /// Whether `run` migrates the database first.
    pub migrate: bool,
    /// Where `/health/live`, `/health/ready` and `/metrics` are served; not at all where empty.
    pub health_listen: Option<SocketAddr>,
}

impl Default for WorkerSection {
    fn default() -> Self {
        Self {
            deployment: String::new(),
            jobs_in_flight: 1024,
            events_in_flight: 2048,
            grace_period_seconds: 30,
            lease_seconds: 45,
            sweep_interval_ms: 1000,
            sweep_batch: 256,
            max_unfinished_begins: 5,
            migrate: true,
            health_listen: None,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseSection {
    /// `postgres://user:password@host:port/database?sslmode=…`
    pub url: Option<SecretString>,
    /// [`MIN_CONNECTIONS`] at least.
    pub max_connections: u32,
    pub timeout_seconds: u64,
    pub batch_rows: usize,
    pub batch_bytes: usize,
    /// Batches of one kind under way at once, where one is slow.
    pub batches_at_once: usize,
    pub tls: TlsSection,
}

impl Default for DatabaseSection {
    fn default() -> Self {
        Self {
            url: None,
            max_connections: 8,
            timeout_seconds: 10,
            batch_rows: 256,
            batch_bytes: 1024 * 1024,
            batches_at_once: 4,
            tls: TlsSection::default(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerSection {
    /// `amqp://user:password@host:port/vhost`; the vhost `/` is written `%2f`. `?frame_max=` in bytes, 131072 unless it is
    /// given: a message's properties and headers go in one frame.
    pub url: Option<SecretString>,
    pub heartbeat_seconds: u64,
    pub connect_timeout_seconds: u64,
    pub prefetch: u16,
    pub publish_window: usize,
    pub publish_patience_seconds: u64,
    pub publish_pause_seconds: u64,
    /// Deliveries of a job before RabbitMQ dead-letters it by itself: a last resort, out of reach of restarts and outages.
    pub delivery_limit: u32,
    /// The same for dead letters and unrouted results; 0 declares none, as earlier versions did.
    pub letter_delivery_limit: u32,
    pub unrouted_limit: u32,
    pub names: Names,
    pub tls: TlsSection,
}

impl Default for BrokerSection {
    fn default() -> Self {
        Self {
            url: None,
            heartbeat_seconds: 10,
            connect_timeout_seconds: 5,
            prefetch: 512,
            publish_window: 256,
            publish_patience_seconds: 10,
            publish_pause_seconds: 5,
            delivery_limit: OUT_OF_REACH,
            letter_delivery_limit: OUT_OF_REACH,
            unrouted_limit: 100_000,
            names: Names::default(),
            tls: TlsSection::default(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeysSection {
    /// `ID:BASE64` of 32 bytes each, newest first: the first seals, all open.
    pub sealing: Vec<SecretString>,
    /// Base64 of 32 bytes each, newest first: the first writes, all recognize duplicates. One may be given as a text.
    #[serde(deserialize_with = "values::one_or_more")]
    pub fingerprint: Vec<SecretString>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobsSection {
    /// The connector of a job that names none.
    pub default_connector: Option<String>,
    pub allow_http_webhooks: bool,
    /// `reject` or `ignore`.
    pub unknown_fields: UnknownFields,
    /// After a restore: first calls for what was published or written before this are preceded by a look-up.
    #[serde(deserialize_with = "values::moment")]
    pub ask_before_calling_since: Option<OffsetDateTime>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetrySection {
    pub initial_ms: u64,
    pub max_interval_seconds: u64,
    pub max_age_seconds: u64,
    pub max_attempts: u32,
    /// Waits up to this long are slept where they arise; longer ones are written down.
    pub wait_in_place_ms: u64,
    /// A same-key repeat is not begun this close to the end of the connector's window.
    pub window_margin_seconds: u64,
}

impl Default for RetrySection {
    fn default() -> Self {
        Self {
            initial_ms: 500,
            max_interval_seconds: 300,
            max_age_seconds: 86_400,
            max_attempts: 1000,
            wait_in_place_ms: 3000,
            window_margin_seconds: 600,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhooksSection {
    /// `whsec_…`; several while keys rotate.
    pub secrets: Vec<SecretString>,
    /// `whsec_…`; each merchant without secrets of its own gets one that is derived.
    pub master_secrets: Vec<SecretString>,
    /// By `x-merchant-id`.
    pub merchant_secrets: BTreeMap<String, Vec<SecretString>>,
    /// Waits after the first try, the second, …
    pub schedule_seconds: Vec<u64>,
    pub retry_after_limit_seconds: u64,
    pub timeout_seconds: u64,
    pub connect_timeout_seconds: u64,
    pub max_response_bytes: usize,
    /// PEM; trusted in place of the system's certificates.
    pub ca_file: Option<PathBuf>,
    pub concurrency: usize,
    pub host_concurrency: usize,
    /// Webhooks of one merchant (`x-merchant-id`) at once, to whatever hosts.
    pub merchant_concurrency: usize,
    /// How long a webhook waits for a permit before it is put off.
    pub host_patience_ms: u64,
    #[serde(deserialize_with = "wording::networks")]
    pub allowed_networks: Vec<IpNet>,
    pub allowed_hosts: Vec<String>,
    /// `ADDRESS:PORT`; the system's where empty.
    #[serde(deserialize_with = "wording::addresses")]
    pub dns_servers: Vec<SocketAddr>,
}

impl Default for WebhooksSection {
    fn default() -> Self {
        Self {
            secrets: Vec::new(),
            master_secrets: Vec::new(),
            merchant_secrets: BTreeMap::new(),
            // The Standard Webhooks specification's.
            schedule_seconds: vec![5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400],
            retry_after_limit_seconds: 86_400,
            timeout_seconds: 15,
            connect_timeout_seconds: 5,
            max_response_bytes: 65_536,
            ca_file: None,
            concurrency: 1024,
            host_concurrency: 64,
            merchant_concurrency: 512,
            host_patience_ms: 1000,
            allowed_networks: Vec::new(),
            allowed_hosts: Vec::new(),
            dns_servers: Vec::new(),
        }
    }
}

/// What is done with is kept for so long. The record and its sealed result stay: repeats are answered from them.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionSection {
    /// From the record's conclusion; 0: at once.
    pub requests_days: u32,
    /// Events that are told.
    pub events_days: u32,
    pub attempts_days: u32,
}

impl Default for RetentionSection {
    fn default() -> Self {
        Self { requests_days: 7, events_days: 90, attempts_days: 90 }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSection {
    pub format: LogFormat,
    /// `tracing` directives, as in `info,payout_link_worker=debug`.
    pub filter: String,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    #[default]
    Auto,
    Human,
    Json,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { format: LogFormat::Auto, filter: "info".into() }
    }
}

impl Config {
    pub fn key_ring(&self) -> Result<KeyRing, KeyError> {
        let (newest, former) = self.keys.fingerprint.split_first().ok_or(KeyError::Fingerprint)?;
        KeyRing::new(&self.keys.sealing, newest)?.with_former_fingerprint_keys(former)
    }

    pub fn database(&self) -> DatabaseSettings {
        DatabaseSettings {
            url: self.database.url.clone().unwrap_or_default(),
            tls: self.database.tls(),
            max_connections: self.database.max_connections,
            timeout: Duration::from_secs(self.database.timeout_seconds),
        }
    }

    pub fn store(&self) -> StoreSettings {
        StoreSettings {
            lease: Duration::from_secs(self.worker.lease_seconds),
            // A post's deadline or the two publications beside it, and slack.
            event_lease: Duration::from_secs(
                self.webhooks.timeout_seconds.max(2 * self.broker.publish_patience_seconds) + 5,
            ),
            batches: BatchLimits {
                rows: self.database.batch_rows.max(1),
                bytes: self.database.batch_bytes,
                depth: self.database.batches_at_once.max(1),
            },
        }
    }

    pub fn broker(&self) -> BrokerSettings {
        let section = &self.broker;
        BrokerSettings {
            url: section.url.clone().unwrap_or_default(),
            tls: section.tls(),
            heartbeat: Duration::from_secs(section.heartbeat_seconds),
            connect_timeout: Duration::from_secs(section.connect_timeout_seconds),
            prefetch: section.prefetch,
            publish_window: section.publish_window.max(1),
            delivery_limit: section.delivery_limit,
            letter_delivery_limit: section.letter_delivery_limit,
            unrouted_limit: section.unrouted_limit,
            names: section.names.clone(),
        }
    }

    pub fn pipeline(&self) -> PipelineSettings {
        PipelineSettings {
            decode: DecodePolicy {
                allow_http_webhooks: self.jobs.allow_http_webhooks,
                unknown_fields: self.jobs.unknown_fields,
            },
            retry: RetryPolicy {
                initial: Duration::from_millis(self.retry.initial_ms),
                max_interval: Duration::from_secs(self.retry.max_interval_seconds),
                max_age: Duration::from_secs(self.retry.max_age_seconds),
                max_attempts: self.retry.max_attempts,
                window_margin: Duration::from_secs(self.retry.window_margin_seconds),
                ask_before_calling_since: self.jobs.ask_before_calling_since,
            },
            wait_in_place: Duration::from_millis(self.retry.wait_in_place_ms),
            jobs_in_flight: self.worker.jobs_in_flight,
            events_in_flight: self.worker.events_in_flight,
            publish_patience: Duration::from_secs(self.broker.publish_patience_seconds),
            publish_pause: Duration::from_secs(self.broker.publish_pause_seconds),
            sweep_interval: Duration::from_millis(self.worker.sweep_interval_ms),
            sweep_batch: self.worker.sweep_batch.max(1),
            max_unfinished_begins: self.worker.max_unfinished_begins.max(1),
            retention: Retention {
                requests: self.retention.requests_days,
                events: self.retention.events_days,
                attempts: self.retention.attempts_days,
            },
            names: self.broker.names.clone(),
            deployment: self.worker.deployment.clone(),
        }
    }

    pub fn webhooks(&self) -> WebhookSettings {
        let section = &self.webhooks;
        // Every secret was tried when the configuration was read.
        let keys = |secrets: &[SecretString]| {
            secrets.iter().filter_map(|secret| SigningKey::new(secret).ok()).collect()
        };
        WebhookSettings {
            default_keys: keys(&section.secrets),
            master_secrets: section.master_secrets.clone(),
            merchant_keys: section
                .merchant_secrets
                .iter()
                .map(|(id, secrets)| (id.clone(), keys(secrets)))
                .collect(),
            schedule: section.schedule_seconds.iter().copied().map(Duration::from_secs).collect(),
            retry_after_limit: Duration::from_secs(section.retry_after_limit_seconds),
            http: HttpSettings {
                connect_timeout: Duration::from_secs(section.connect_timeout_seconds),
                timeout: Duration::from_secs(section.timeout_seconds),
                max_response_bytes: section.max_response_bytes,
                max_idle: section.concurrency,
                roots: tls::roots(section.ca_file.as_deref()),
                clock: Arc::default(),
            },
            concurrency: section.concurrency.max(1),
            host_concurrency: section.host_concurrency.max(1),
            merchant_concurrency: section.merchant_concurrency.max(1),
            patience: Duration::from_millis(section.host_patience_ms),
            addresses: AddressPolicy {
                allowed_networks: section.allowed_networks.clone(),
                allowed_hosts: section.allowed_hosts.clone(),
            },
            dns_servers: section.dns_servers.clone(),
        }
    }

    /// About: each call that may be under way, and as many connections again that are kept for the next one.
    pub fn open_files(&self) -> u64 {
        let calls = self.connectors.values().map(|section| section.calls.concurrency).sum::<usize>();
        let called = 2 * (calls + self.webhooks.concurrency);
        called as u64 + u64::from(self.database.max_connections) + OTHER_FILES
    }

    pub fn connectors(&self) -> Result<Connectors, NoClient> {
        let accounts: Result<Vec<Account>, NoClient> =
            self.connectors.iter().map(|(name, section)| section.account(name)).collect();
        Ok(Connectors::new(accounts?, self.jobs.default_connector.clone()))
    }
}

/// As many deliveries as no requeueing reaches. RabbitMQ 3.10 takes no "unlimited".
const OUT_OF_REACH: u32 = 1_000_000_000;

/// Listening, the broker, standard streams, what the runtime has for itself.
const OTHER_FILES: u64 = 64;
