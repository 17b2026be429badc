//! `check`: tests the configuration, the broker, the database and the connectors. It never consumes a job.

use std::{net::SocketAddr, process::ExitCode};

use tokio::net::TcpListener;

use super::output::say;
use crate::{
    config::Config,
    pipeline::Placement,
    postgres::{self, Store},
    rabbitmq,
};

pub(super) async fn run(config: &Config, open_secrets: &[String]) -> anyhow::Result<ExitCode> {
    let mut all_well = true;
    let mut report = |what: &str, result: Result<(), String>| match result {
        Ok(()) => say(format_args!("ok      {what}")),
        Err(reason) => {
            all_well = false;
            say(format_args!("failed  {what}: {reason}"))
        }
    };
    report("configuration", Ok(()))?;
    for file in open_secrets {
        say(format_args!("warning {file}: the file has secrets and is readable by every user"))?;
    }
    report("broker", rabbitmq::check(&config.broker()).await.map_err(|error| error.to_string()))?;
    if let Some(listen) = config.worker.health_listen {
        say(port("health port", "worker.health_listen", listen).await)?;
    }
    if let Some(listen) = config.worker.provider_webhooks_listen {
        say(port("provider webhooks port", "worker.provider_webhooks_listen", listen).await)?;
    }
    if let Some(warning) = config.provider_webhooks_warning() {
        say(format_args!("warning {warning}"))?;
    }
    let connectors = config.connectors()?;
    match database(config).await {
        Ok((store, missing)) => {
            report("database", Ok(()))?;
            if missing > 0 {
                say(format_args!("note    the schema lacks {missing} migrations; `run` applies them"))?;
            } else {
                let problems =
                    store.open_records().await.map(|records| Placement::of(records, &connectors).problems());
                match problems {
                    Ok(problems) if problems.is_empty() => report("open records", Ok(()))?,
                    Ok(problems) => {
                        for problem in problems {
                            report("open records", Err(problem))?;
                        }
                    }
                    Err(error) => report("open records", Err(error.to_string()))?,
                }
            }
        }
        Err(error) => report("database", Err(error.to_string()))?,
    }
    for account in connectors.iter() {
        report(
            &format!("connector {}", account.name),
            account.connector.check().await.map_err(|reason| {
                let address = config
                    .connectors
                    .get(&*account.name)
                    .map(|section| section.address())
                    .unwrap_or_default();
                format!("{address}: {}", account.redact_text(&reason))
            }),
        )?;
    }
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tests a port. A port in use is not a failure, because a worker may run with this configuration.
async fn port(name: &str, setting: &str, listen: SocketAddr) -> String {
    match TcpListener::bind(listen).await {
        Ok(_) => format!("ok      {name}"),
        Err(error) => {
            format!("note    {name}: {setting} {listen}: {error}; correct only if a worker runs there")
        }
    }
}

/// Connects and tests the database as `run` does. Returns the number of missing migrations.
async fn database(config: &Config) -> anyhow::Result<(Store, usize)> {
    let pool = postgres::connect(&config.database()).await?;
    postgres::examine(&pool).await?;
    let missing = postgres::schema(&pool, config.worker.migrate).await?;
    Ok((Store::new(pool, config.key_ring()?, config.store()), missing))
}
