//! The sections of the configuration: every setting with its unit and its default.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use ipnet::IpNet;
use secrecy::SecretString;
use serde::Deserialize;
use time::OffsetDateTime;

use super::{TlsSection, values, wording};
use crate::{contract::UnknownFields, rabbitmq::Names};

/// Settings of the worker process.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerSection {
    /// Name of the deployment, part of every idempotency key unless it is empty. It cannot change once there are records.
    pub deployment: String,
    /// Maximum number of deliveries being accepted, and of records being concluded.
    pub jobs_in_flight: usize,
    /// Maximum number of events being delivered.
    pub events_in_flight: usize,
    /// Time that a stopped worker has to drain.
    pub grace_period_seconds: u64,
    /// Length of a lease; at least 2 seconds longer than the timeout of every connector.
    pub lease_seconds: u64,
    /// Interval between two sweeps for due work.
    pub sweep_interval_ms: u64,
    /// Maximum number of rows in one claim.
    pub sweep_batch: usize,
    /// Begins without an end after which a message counts as poison.
    pub max_unfinished_begins: u32,
    /// Whether `run` migrates the database at the start.
    pub migrate: bool,
    /// Address of `/health/live`, `/health/ready` and `/metrics`; none are served if it is empty.
    pub health_listen: Option<SocketAddr>,
    /// Address of `/connectors/ACCOUNT/webhooks`, for the webhooks of providers; it is not served if it is empty.
    pub provider_webhooks_listen: Option<SocketAddr>,
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
            provider_webhooks_listen: None,
        }
    }
}

/// Settings of PostgreSQL.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseSection {
    /// `postgres://user:password@host:port/database?sslmode=…`
    pub url: Option<SecretString>,
    /// At least [`crate::postgres::MIN_CONNECTIONS`].
    pub max_connections: u32,
    /// Limit of a statement.
    pub timeout_seconds: u64,
    /// Maximum number of rows in a batch.
    pub batch_rows: usize,
    /// Maximum size of a batch.
    pub batch_bytes: usize,
    /// Maximum number of concurrent batches of one kind.
    pub batches_at_once: usize,
    /// TLS; each setting replaces what the URL says.
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

/// Settings of RabbitMQ.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerSection {
    /// `amqp://user:password@host:port/vhost`; the vhost `/` is written `%2f`. `?frame_max=` sets the maximum size of
    /// a frame in bytes (default 131072): a message's properties and headers go in one frame.
    pub url: Option<SecretString>,
    /// RabbitMQ closes a connection that is silent for two of these periods.
    pub heartbeat_seconds: u64,
    /// Limit of a connection with its TLS and login.
    pub connect_timeout_seconds: u64,
    /// Maximum number of unacknowledged deliveries.
    pub prefetch: u16,
    /// Maximum number of unconfirmed publications.
    pub publish_window: usize,
    /// Limit of the wait for a publisher confirm.
    pub publish_patience_seconds: u64,
    /// First pause before an event is published again.
    pub publish_pause_seconds: u64,
    /// Number of deliveries after which RabbitMQ dead-letters a job itself: a last resort that restarts and outages never reach.
    pub delivery_limit: u32,
    /// The same for dead letters and unrouted results; 0 declares no limit, as earlier versions did.
    pub letter_delivery_limit: u32,
    /// Maximum length of the unrouted queue.
    pub unrouted_limit: u32,
    /// Names of exchanges, queues and routing keys.
    pub names: Names,
    /// Certificates of an `amqps://` connection.
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

/// Keys that encrypt and fingerprint stored requests.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeysSection {
    /// `ID:BASE64` of 32 bytes each, newest first: the first one encrypts, all decrypt.
    pub sealing: Vec<SecretString>,
    /// Base64 of 32 bytes each, newest first: the first one makes fingerprints, all recognize duplicates. A single key may be a string.
    #[serde(deserialize_with = "values::one_or_more")]
    pub fingerprint: Vec<SecretString>,
}

/// How jobs are decoded and routed.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobsSection {
    /// The connector for jobs without `x-connector`.
    pub default_connector: Option<String>,
    /// Whether a `webhook_url` may be `http://`; otherwise such a job is rejected.
    pub allow_http_webhooks: bool,
    /// `reject` or `ignore`.
    pub unknown_fields: UnknownFields,
    /// After a restore: a look-up precedes the first call of jobs and records from before this time.
    #[serde(deserialize_with = "values::moment")]
    pub ask_before_calling_since: Option<OffsetDateTime>,
}

/// How calls to connectors are retried.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetrySection {
    /// The first pause, in milliseconds; each further one is longer.
    pub initial_ms: u64,
    /// Maximum pause between two calls.
    pub max_interval_seconds: u64,
    /// Age at which a record without an outcome is concluded.
    pub max_age_seconds: u64,
    /// Maximum number of `create` calls for one record.
    pub max_attempts: u32,
    /// A wait up to this long is slept in place; for a longer one the record is postponed.
    pub wait_in_place_ms: u64,
    /// A call is not repeated under the same key this close to the end of the provider's idempotency window.
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

/// Limits of work.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsSection {
    /// Limits of each merchant.
    pub per_merchant: MerchantLimits,
}

/// Limits of each merchant (`x-merchant-id`), at each connector account of each worker.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MerchantLimits {
    /// Maximum number of records in process.
    pub concurrency: Option<usize>,
    /// Maximum number of calls begun in any minute.
    pub requests_per_minute: Option<u32>,
}

/// How webhooks are signed and delivered.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhooksSection {
    /// `whsec_…`; several during a rotation.
    pub secrets: Vec<SecretString>,
    /// `whsec_…`; for each merchant without secrets of its own, one is derived.
    pub master_secrets: Vec<SecretString>,
    /// Secrets by `x-merchant-id`.
    pub merchant_secrets: BTreeMap<String, Vec<SecretString>>,
    /// Pauses after the first attempt, the second, …
    pub schedule_seconds: Vec<u64>,
    /// Maximum of a merchant's Retry-After that is honoured.
    pub retry_after_limit_seconds: u64,
    /// Limit of one attempt, from the name resolution to the end of the answer.
    pub timeout_seconds: u64,
    /// Limit of the connection alone, TLS included.
    pub connect_timeout_seconds: u64,
    /// Maximum size of an answer's body, in bytes.
    pub max_response_bytes: usize,
    /// PEM; replaces the system's certificates.
    pub ca_file: Option<PathBuf>,
    /// Maximum number of concurrent webhooks.
    pub concurrency: usize,
    /// Maximum number of concurrent webhooks to one host.
    pub host_concurrency: usize,
    /// Maximum number of concurrent webhooks of one merchant (`x-merchant-id`), to any hosts.
    pub merchant_concurrency: usize,
    /// Limit of a webhook's wait for a permit; after that it is postponed.
    pub host_patience_ms: u64,
    /// Networks that webhooks may reach although they are not public.
    #[serde(deserialize_with = "wording::networks")]
    pub allowed_networks: Vec<IpNet>,
    /// Hosts that webhooks may reach although their addresses are not public.
    pub allowed_hosts: Vec<String>,
    /// `ADDRESS:PORT`; the system's servers if it is empty.
    #[serde(deserialize_with = "wording::addresses")]
    pub dns_servers: Vec<SocketAddr>,
}

impl Default for WebhooksSection {
    fn default() -> Self {
        Self {
            secrets: Vec::new(),
            master_secrets: Vec::new(),
            merchant_secrets: BTreeMap::new(),
            // The schedule of the Standard Webhooks specification.
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

/// Retention of finished data. The record and its sealed result are never deleted: duplicates need them.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionSection {
    /// Retention of requests, from the record's conclusion; 0: erase at once.
    pub requests_days: u32,
    /// Retention of delivered events.
    pub events_days: u32,
    /// Retention of attempts.
    pub attempts_days: u32,
    /// Retention of dead letters, from their rejection; `None`: they stay until an operator removes them.
    pub dead_letters_days: Option<u32>,
}

impl Default for RetentionSection {
    fn default() -> Self {
        Self { requests_days: 7, events_days: 90, attempts_days: 90, dead_letters_days: None }
    }
}

/// Settings of the log.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSection {
    /// Format of the lines.
    pub format: LogFormat,
    /// `tracing` directives, as in `info,payout_link_worker=debug`.
    pub filter: String,
}

/// Format of the log.
#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// One line with colours, for a terminal.
    Human,
    /// One JSON object a line, for a log system.
    Json,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { format: LogFormat::Auto, filter: "info".into() }
    }
}

/// A number of deliveries that is never reached. RabbitMQ 3.10 does not accept "unlimited".
const OUT_OF_REACH: u32 = 1_000_000_000;
