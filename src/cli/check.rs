//! `check`: can everything be reached?

use std::process::ExitCode;

use crate::{broker, config::Config, store};

pub(super) async fn run(config: &Config) -> anyhow::Result<ExitCode> {
    let mut all_well = true;
    let mut tell = |what: &str, result: Result<(), String>| match result {
        Ok(()) => println!("ok      {what}"),
        Err(reason) => {
            all_well = false;
            println!("failed  {what}: {reason}");
        }
    };
    tell("configuration", Ok(()));
    tell("broker", broker::check(&config.broker()).await.map_err(|error| error.to_string()));
    tell("database", store::connect(&config.database()).await.map(drop).map_err(|error| error.to_string()));
    let connectors = config.connectors()?;
    for account in connectors.iter() {
        tell(
            &format!("connector {}", account.name),
            account.connector.check().await.map_err(|reason| account.redact_text(&reason)),
        );
    }
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
