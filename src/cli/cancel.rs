//! `cancel`: takes a link back at its connector, as a person asks. The record stays as it was told.

use std::process::ExitCode;

use anyhow::{Context, bail};

use super::output::say;
use crate::{
    config::Config,
    domain::escape_control,
    postgres::{self, Store},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// merchant_payout_id, or the record's own id
    id: String,
    /// x-merchant-id, where several merchants use the same merchant_payout_id
    #[arg(long, value_name = "ID")]
    merchant: Option<String>,
}

pub(super) async fn run(config: &Config, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let pool = postgres::connect(&config.database()).await.context("database")?;
    let store = Store::new(pool, config.key_ring()?, config.store());
    let mut records = store.show(&arguments.id).await.context("database")?;
    if let Some(merchant) = &arguments.merchant {
        records.retain(|record| record.merchant_id == *merchant);
    }
    let record = match records.as_slice() {
        [record] => record,
        [] => bail!("there is no record {:?}", arguments.id),
        several => {
            bail!("{} merchants have a record {:?}: name one by --merchant", several.len(), arguments.id)
        }
    };
    let Some(id) = record.connector_payout_id.as_deref().filter(|_| record.state == "created") else {
        bail!("the record is {}: there is no link to take back", record.state);
    };
    let connectors = config.connectors().context("cannot make a connector's client")?;
    let Some(account) = connectors.choose(Some(&record.connector)) else {
        bail!("there is no [connectors.{}] any more", record.connector);
    };
    match account.connector.cancel_link(id).await {
        Ok(()) => {
            say(format_args!("{} is cancelled at {}; nobody is told", escape_control(id), account.name))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(mut error) => {
            account.redact(&mut error, None);
            // 0: nobody was asked, or nobody answered.
            let status =
                Some(error.status_code).filter(|status| *status != 0).map(|status| format!("{status} "));
            let code = error.code.map(|code| format!("{code}: "));
            let (status, code) = (status.unwrap_or_default(), code.unwrap_or_default());
            bail!("{} does not cancel {}: {status}{code}{}", account.name, escape_control(id), error.message)
        }
    }
}
