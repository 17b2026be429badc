//! `check`: tests the configuration, the broker, the database and the connectors. It never consumes a job.

use std::{net::SocketAddr, process::ExitCode};

use serde::Serialize;
use tokio::net::TcpListener;

use super::{
    output::{Format, Output, counted},
    targets::Targets,
};
use crate::{
    config::Config,
    domain::escape_control,
    pipeline::Placement,
    postgres::{self, Store},
    rabbitmq,
};

/// The result of one test.
#[derive(Debug, Serialize)]
struct Tested {
    /// `ok`, `failed`, `warning` or `note`.
    outcome: &'static str,
    what: String,
    /// The database or the broker that is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
}

/// Writes each result as it comes, and knows whether a test failed.
struct Results {
    output: Output,
    /// For JSON, which is one document.
    held: Vec<Tested>,
    all_well: bool,
}

impl Results {
    fn add(&mut self, outcome: &'static str, what: &str, reason: String) -> anyhow::Result<()> {
        self.write(Tested { outcome, what: what.to_owned(), target: None, reason })
    }

    fn write(&mut self, tested: Tested) -> anyhow::Result<()> {
        self.all_well &= tested.outcome != "failed";
        match self.output.format() {
            Format::Text | Format::Jsonl => self.output.object(&tested, Tested::text),
            Format::Json => {
                self.held.push(tested);
                Ok(())
            }
        }
    }

    fn report(&mut self, what: &str, result: Result<(), String>) -> anyhow::Result<()> {
        match result {
            Ok(()) => self.add("ok", what, String::new()),
            Err(reason) => self.add("failed", what, reason),
        }
    }

    /// Reports the test of the database or of the broker, and which one it is.
    fn report_target(
        &mut self,
        what: &str,
        target: Option<String>,
        result: Result<(), String>,
    ) -> anyhow::Result<()> {
        let outcome = if result.is_ok() { "ok" } else { "failed" };
        self.write(Tested {
            outcome,
            what: what.to_owned(),
            target,
            reason: result.err().unwrap_or_default(),
        })
    }

    fn end(self) -> anyhow::Result<ExitCode> {
        if self.output.format() == Format::Json {
            self.output.objects(&self.held, Tested::text)?;
        }
        Ok(if self.all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Tested {
    fn text(&self) -> String {
        let reason = if self.reason.is_empty() { String::new() } else { format!(": {}", self.reason) };
        let target = self.target.as_ref().map(|target| format!(" {target}")).unwrap_or_default();
        format!("{:<7} {}{}{}", self.outcome, self.what, escape_control(&target), escape_control(&reason))
    }
}

pub(super) async fn run(
    config: &Config,
    output: Output,
    open_secrets: &[String],
    targets: Targets,
) -> anyhow::Result<ExitCode> {
    let mut results = Results { output, held: Vec::new(), all_well: true };
    results.report("configuration", Ok(()))?;
    for file in open_secrets {
        let reason = "the file has secrets and is readable by every user".to_owned();
        results.add("warning", file, reason)?;
    }
    let broker = rabbitmq::check(&config.broker()).await.map_err(|error| error.to_string());
    results.report_target("broker", targets.broker, broker)?;
    if let Some(listen) = config.worker.health_listen {
        port(&mut results, "health port", "worker.health_listen", listen).await?;
    }
    if let Some(listen) = config.worker.provider_webhooks_listen {
        port(&mut results, "provider webhooks port", "worker.provider_webhooks_listen", listen).await?;
    }
    if let Some(warning) = config.provider_webhooks_warning() {
        results.add("warning", warning, String::new())?;
    }
    let connectors = config.connectors()?;
    match database(config).await {
        Ok((store, missing)) => {
            results.report_target("database", targets.database, Ok(()))?;
            if missing > 0 {
                let reason = format!("it lacks {}; `run` applies them", counted(missing, "migration"));
                results.add("note", "schema", reason)?;
            } else {
                let problems =
                    store.open_records().await.map(|records| Placement::of(records, &connectors).problems());
                match problems {
                    Ok(problems) if problems.is_empty() => results.report("open records", Ok(()))?,
                    Ok(problems) => {
                        for problem in problems {
                            results.report("open records", Err(problem))?;
                        }
                    }
                    Err(error) => results.report("open records", Err(error.to_string()))?,
                }
            }
        }
        Err(error) => results.report_target("database", targets.database, Err(error.to_string()))?,
    }
    for account in connectors.iter() {
        let checked = account.connector.check().await.map_err(|reason| {
            let section = config.connectors.get(&*account.name);
            let address = section.map(|section| section.address()).unwrap_or_default();
            format!("{address}: {}", account.redact_text(&reason))
        });
        results.report(&format!("connector {}", account.name), checked)?;
    }
    results.end()
}

/// Tests a port. A port in use is not a failure, because a worker may run with this configuration.
async fn port(results: &mut Results, name: &str, setting: &str, listen: SocketAddr) -> anyhow::Result<()> {
    match TcpListener::bind(listen).await {
        Ok(_) => results.add("ok", name, String::new()),
        Err(error) => {
            let reason = format!("{setting} {listen}: {error}; correct only if a worker runs there");
            results.add("note", name, reason)
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
