//! `check`: can everything be reached?

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
        say(format_args!("warning {file}: it holds secrets, and every user may read it"))?;
    }
    report("broker", rabbitmq::check(&config.broker()).await.map_err(|error| error.to_string()))?;
    if let Some(listen) = config.worker.health_listen {
        say(health_port(listen).await)?;
    }
    let connectors = config.connectors()?;
    match database(config).await {
        Ok((store, missing)) => {
            report("database", Ok(()))?;
            if missing > 0 {
                say(format_args!("note    the schema lacks {missing} migrations, which `run` applies"))?;
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
                let place =
                    config.connectors.get(&*account.name).map(|section| section.place()).unwrap_or_default();
                format!("{place}: {}", account.redact_text(&reason))
            }),
        )?;
    }
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A port that is in use is no failure: a worker may be running with this very configuration.
async fn health_port(listen: SocketAddr) -> String {
    match TcpListener::bind(listen).await {
        Ok(_) => "ok      health port".to_owned(),
        Err(error) => {
            format!(
                "note    health port: worker.health_listen {listen}: {error}; right only if a worker runs there"
            )
        }
    }
}

/// Connects as `run` does, and asks what `run` asks. Returns how many migrations are missing.
async fn database(config: &Config) -> anyhow::Result<(Store, usize)> {
    let pool = postgres::connect(&config.database()).await?;
    postgres::examine(&pool).await?;
    let missing = postgres::schema(&pool, config.worker.migrate).await?;
    Ok((Store::new(pool, config.key_ring()?, config.store()), missing))
}
