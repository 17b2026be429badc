//! Reads and validates the configuration: one TOML file, overridden by environment variables.
//!
//! `PAYOUT_LINK__SECTION__KEY` overrides the setting `key` of `[section]`; `DATABASE_URL` and `AMQP_URL` work too. A
//! secret may be in a file of its own: `key_file` instead of `key`, or the variable with `_FILE`. An unknown key or a
//! bad value stops the start. All problems are reported at once, each with its setting and never with its value.

mod connectors;
mod follow;
mod load;
mod problems;
mod secret_files;
mod sections;
#[cfg(test)]
mod tests;
mod tls;
mod values;
mod wording;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use secrecy::SecretString;

pub use self::{
    connectors::{CallSection, ConnectorSection},
    follow::FollowSection,
    load::{ConfigError, given, load, load_for_reading},
    secret_files::open_secrets,
    sections::{
        BrokerSection, DatabaseSection, JobsSection, KeysSection, LimitsSection, LogFormat, LogSection,
        MerchantLimits, RetentionSection, RetrySection, WebhooksSection, WorkerSection,
    },
    tls::{TlsMode, TlsSection},
};
use crate::{
    connectors::{Account, Connectors},
    contract::DecodePolicy,
    domain::retry::RetryPolicy,
    http_client::{HttpSettings, NoClient},
    limits::MerchantSettings,
    pipeline::{LetterRetentionSettings, PipelineSettings, RetentionSettings, SweeperSettings},
    postgres::{BatchLimits, DatabaseSettings, KeyError, KeyRing, StoreSettings},
    rabbitmq::BrokerSettings,
    webhooks::{AddressPolicy, SigningKey, WebhookSettings},
};

/// The configuration of a worker.
#[derive(Debug, Default)]
pub struct Config {
    /// `[worker]`: identity, leases and limits of the process.
    pub worker: WorkerSection,
    /// `[database]`: PostgreSQL.
    pub database: DatabaseSection,
    /// `[broker]`: RabbitMQ.
    pub broker: BrokerSection,
    /// `[keys]`: encryption and fingerprints.
    pub keys: KeysSection,
    /// `[jobs]`: decoding and routing.
    pub jobs: JobsSection,
    /// `[retry]`: repeated calls.
    pub retry: RetrySection,
    /// `[limits]`: limits of each merchant.
    pub limits: LimitsSection,
    /// `[connectors.NAME]`: one account for each name.
    pub connectors: BTreeMap<String, ConnectorSection>,
    /// `[webhooks]`: signatures and delivery.
    pub webhooks: WebhooksSection,
    /// `[retention]`: when stored data is deleted.
    pub retention: RetentionSection,
    /// `[log]`: form and filter of the log.
    pub log: LogSection,
}

impl Config {
    /// Makes the key ring.
    ///
    /// # Errors
    ///
    /// If a key cannot be used.
    pub fn key_ring(&self) -> Result<KeyRing, KeyError> {
        let (newest, former) = self.keys.fingerprint.split_first().ok_or(KeyError::Fingerprint)?;
        KeyRing::new(&self.keys.sealing, newest)?.with_former_fingerprint_keys(former)
    }

    /// Returns the settings of the database's pool.
    pub fn database(&self) -> DatabaseSettings {
        DatabaseSettings {
            url: self.database.url.clone().unwrap_or_default(),
            tls: self.database.tls(),
            max_connections: self.database.max_connections,
            timeout: Duration::from_secs(self.database.timeout_seconds),
        }
    }

    /// Returns the settings of the store.
    pub fn store(&self) -> StoreSettings {
        StoreSettings {
            lease: Duration::from_secs(self.worker.lease_seconds),
            // The limit of a webhook attempt or of two publications, and some slack.
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

    /// Returns the settings of the broker.
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

    /// Returns the settings of the pipeline.
    pub fn pipeline(&self) -> PipelineSettings {
        let sweep_interval = Duration::from_millis(self.worker.sweep_interval_ms);
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
            sweeper: SweeperSettings { interval: sweep_interval, batch: self.worker.sweep_batch.max(1) },
            max_unfinished_begins: self.worker.max_unfinished_begins.max(1),
            retention: RetentionSettings {
                requests_days: self.retention.requests_days,
                events_days: self.retention.events_days,
                attempts_days: self.retention.attempts_days,
                interval: sweep_interval * RETENTION_SWEEPS,
                batch: RETENTION_BATCH,
                pause: RETENTION_PAUSE,
            },
            letter_retention: self.retention.dead_letters_days.map(|days| LetterRetentionSettings {
                days,
                interval: sweep_interval * RETENTION_SWEEPS,
                broker: self.broker(),
            }),
            names: self.broker.names.clone(),
            deployment: self.worker.deployment.clone(),
        }
    }

    /// Returns the settings of webhooks.
    pub fn webhooks(&self) -> WebhookSettings {
        let section = &self.webhooks;
        // Every secret was validated when the configuration was read.
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

    /// Returns the limits of each merchant at one account.
    fn per_merchant(&self) -> MerchantSettings {
        let MerchantLimits { concurrency, requests_per_minute } = self.limits.per_merchant;
        MerchantSettings { concurrency, requests_per_minute }
    }

    /// Estimates the open files: a connection for each concurrent call, and as many idle ones.
    pub fn open_files(&self) -> u64 {
        let calls = self.connectors.values().map(|section| section.calls.concurrency).sum::<usize>();
        let called = 2 * (calls + self.webhooks.concurrency);
        let inbound = if self.worker.provider_webhooks_listen.is_some() { INBOUND_FILES } else { 0 };
        called as u64 + u64::from(self.database.max_connections) + inbound + OTHER_FILES
    }

    /// Makes the configured connector accounts.
    ///
    /// # Errors
    ///
    /// If the client of an account cannot be made.
    pub fn connectors(&self) -> Result<Connectors, NoClient> {
        let accounts: Result<Vec<Account>, NoClient> = self
            .connectors
            .iter()
            .map(|(name, section)| section.account(name, self.per_merchant()))
            .collect();
        Ok(Connectors::new(accounts?, self.jobs.default_connector.clone()))
    }
}

/// Interval between two passes of retention, in sweep intervals.
const RETENTION_SWEEPS: u32 = 10;
/// Rows in one statement of retention.
const RETENTION_BATCH: u32 = 500;
/// Pause between two statements of retention.
const RETENTION_PAUSE: Duration = Duration::from_millis(100);

/// Open files for the webhooks of providers: their connections, and those to the database.
const INBOUND_FILES: u64 = 130;
/// Open files for the health listener, the broker, the standard streams and the runtime.
const OTHER_FILES: u64 = 64;
