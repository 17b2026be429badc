//! `check`: can everything be reached?

use std::process::ExitCode;

use crate::{
    broker,
    config::Config,
    pipeline::Placement,
    store::{self, Store},
};

pub(super) async fn run(config: &Config, open_secrets: &[String]) -> anyhow::Result<ExitCode> {
    let mut all_well = true;
    let mut tell = |what: &str, result: Result<(), String>| match result {
        Ok(()) => println!("ok      {what}"),
        Err(reason) => {
            all_well = false;
            println!("failed  {what}: {reason}");
        }
    };
    tell("configuration", Ok(()));
    for file in open_secrets {
        println!("warning {file}: it holds secrets, and every user may read it");
    }
    tell("broker", broker::check(&config.broker()).await.map_err(|error| error.to_string()));
    let connectors = config.connectors()?;
    let pool = store::connect(&config.database()).await;
    tell("database", pool.as_ref().map(drop).map_err(ToString::to_string));
    if let Ok(pool) = pool
        && store::is_fit(&pool).await.is_ok()
    {
        let store = Store::new(pool, config.key_ring()?, config.store());
        match store.open_records().await {
            Ok(records) => match Placement::of(records, &connectors).problems() {
                problems if problems.is_empty() => tell("open records", Ok(())),
                problems => problems.into_iter().for_each(|problem| tell("open records", Err(problem))),
            },
            Err(error) => tell("open records", Err(error.to_string())),
        }
    }
    for account in connectors.iter() {
        tell(
            &format!("connector {}", account.name),
            account.connector.check().await.map_err(|reason| account.redact_text(&reason)),
        );
    }
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
