//! Runs the worker: start, shutdown, health, logs and the limit of open files.

pub mod file_limit;
pub mod health;
pub mod listener;
pub mod provider_webhooks;
pub mod run;
pub mod shutdown;
pub mod telemetry;
