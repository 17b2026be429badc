//! Writes the log. Field names are the same everywhere: `payout_link.id`, `merchant.id`, `merchant_payout_id`,
//! `connector.name`, `attempt.number`, `event.id`, `error.code`. It never logs a body, a secret, or a URL with a
//! secret.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, Layer, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{LogFormat, LogSection};

/// Starts logging to stderr. See [`LogSection`] for `filter`. Libraries that would log payloads stay quiet: lapin
/// logs a whole returned message at WARN, and frames at TRACE.
///
/// # Errors
///
/// If the filter cannot be read, or logging was started before.
pub fn start(log: &LogSection) -> Result<(), String> {
    let filter = EnvFilter::try_new(&log.filter).map_err(|error| format!("log.filter: {error}"))?;
    let quiet = [
        "lapin=off",
        "amq_protocol=off",
        "async_rs=error",
        "hyper=warn",
        "hyper_util=warn",
        "h2=warn",
        "rustls=warn",
        "reqwest=warn",
        "hickory_net=warn",
        "hickory_proto=warn",
        "hickory_resolver=warn",
        "sqlx=warn",
    ];
    let filter =
        quiet.iter().filter_map(|directive| directive.parse().ok()).fold(filter, EnvFilter::add_directive);
    let human = match log.format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    // Errors of logging are not reported on stderr: stderr is where the write failed, and reporting there would
    // panic.
    let layer = if human {
        fmt::layer().with_writer(std::io::stderr).with_target(false).log_internal_errors(false).boxed()
    } else {
        fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .with_writer(std::io::stderr)
            .log_internal_errors(false)
            .boxed()
    };
    tracing_subscriber::registry().with(filter).with(layer).try_init().map_err(|error| error.to_string())
}
