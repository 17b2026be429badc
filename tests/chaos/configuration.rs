//! Writes the configuration file of the workers.

use crate::{
    connectors::{CALLS, CONNECTORS, Connector, ROAMING, STEADY},
    saturation::Variant,
    test_env::{FINGERPRINT, SCHEDULE, SEALING, WEBHOOK_SECRET},
};

/// A URL that the environment replaces: each worker has its own proxies to the providers.
const NOWHERE: &str = "http://127.0.0.1:1";

pub fn ordinary(steady_url: &str) -> String {
    let connectors: String =
        CONNECTORS.iter().map(|connector| connector.section_with_recipients(NOWHERE, CALLS)).collect();
    configuration(512, 256, &(connectors + &STEADY.section_with_recipients(steady_url, CALLS)))
}

/// Configures the limits of `saturation.rs`, and the renamed connector under its current name.
pub fn saturated(variant: Variant, steady_url: &str, roaming_url: &str, name: &'static str) -> String {
    let section = |connector: &Connector, url| connector.section(url, &variant.calls(connector.name));
    let connectors = variant.connectors().iter();
    let mut connectors: String = connectors.map(|connector| section(connector, NOWHERE)).collect();
    if !variant.is_sole {
        let roaming = Connector { name, ..ROAMING };
        connectors += &section(&STEADY, steady_url);
        connectors += &roaming.section(roaming_url, &variant.calls(ROAMING.name));
    }
    configuration(variant.prefetch, variant.jobs_in_flight, &connectors)
}

/// Configures short waits, so that much happens in little time. Other settings have their defaults.
fn configuration(prefetch: u16, jobs_in_flight: usize, connectors: &str) -> String {
    format!(
        r#"
[worker]
jobs_in_flight = {jobs_in_flight}
lease_seconds = 8
sweep_interval_ms = 500
grace_period_seconds = 10
events_in_flight = 32
[database]
max_connections = 6
timeout_seconds = 3
[broker]
prefetch = {prefetch}
heartbeat_seconds = 3
connect_timeout_seconds = 3
publish_patience_seconds = 4
publish_pause_seconds = 1
[keys]
sealing = ["k1:{SEALING}"]
fingerprint = "{FINGERPRINT}"
[jobs]
allow_http_webhooks = true
[retry]
initial_ms = 200
max_interval_seconds = 5
wait_in_place_ms = 1000
[webhooks]
secrets = ["{WEBHOOK_SECRET}"]
schedule_seconds = {SCHEDULE:?}
timeout_seconds = 4
connect_timeout_seconds = 2
host_concurrency = 256
allowed_networks = ["127.0.0.0/8"]
[log]
format = "json"
filter = "info,payout_link_worker::rabbitmq=debug"
{connectors}"#
    )
}
