//! `webhooks pause-host`, `webhooks resume-host`.

use anyhow::Context;
use url::Host;

use crate::{
    cli::{
        ExitStatus,
        actor::Act,
        output::{Done, Output},
    },
    config::Config,
    postgres::{self, Store},
};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The host of webhook URLs, without a port
    #[arg(value_parser = host)]
    host: String,
    #[command(flatten)]
    act: Act,
}

/// Reads a host as URLs write it, so that it equals theirs.
pub(super) fn host(text: &str) -> Result<String, String> {
    Host::parse(text).map(|host| host.to_string()).map_err(|_| match without_port(text) {
        Some(host) => format!("a host has no port here: {host} stands for all ports of it"),
        None => "a host is expected, such as hooks.merchant.example, without a scheme, a port or a path"
            .to_owned(),
    })
}

/// Returns the host of `host:port`; `None` if the text is not of this form.
pub(super) fn without_port(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    Host::parse(host).ok().map(|host| host.to_string())
}

pub(super) async fn pause(
    config: &Config,
    output: Output,
    arguments: &Arguments,
) -> anyhow::Result<ExitStatus> {
    let (store, host) = (open(config).await?, &arguments.host);
    match store.pause_host(host, &arguments.act.operator()).await.context("database")? {
        None => {
            let message = format!(
                "{host} is paused: within 5 seconds no worker begins a webhook to it. Due webhooks wait, and no attempt of \
                 its schedule is used up"
            );
            output.object(&Done { target: host, outcome: "paused", message }, Done::text)?;
            Ok(ExitStatus::Done)
        }
        Some(before) => {
            let reason = format!("{host} is paused already, by {}: {}", before.actor, before.reason);
            Err(ExitStatus::Refused.because(reason).into())
        }
    }
}

pub(super) async fn resume(
    config: &Config,
    output: Output,
    arguments: &Arguments,
) -> anyhow::Result<ExitStatus> {
    let (store, host) = (open(config).await?, &arguments.host);
    let resumed = store.resume_host(host, &arguments.act.operator()).await.context("database")?;
    let Some(due) = resumed else {
        return Err(ExitStatus::NothingFound.because(format!("{host} is not paused")).into());
    };
    let message = format!("{host} is not paused any more; {due} webhooks that waited are due in 5 seconds");
    output.object(&Done { target: host, outcome: "resumed", message }, Done::text)?;
    Ok(ExitStatus::Done)
}

pub(super) async fn open(config: &Config) -> anyhow::Result<Store> {
    let pool = postgres::connect(&config.database()).await.context("database")?;
    Ok(Store::new(pool, config.key_ring()?, config.store()))
}
