//! `cancel`: cancels a link at its provider, for an operator. It never changes the record.

use std::process::ExitCode;

use anyhow::{Context, bail};

use super::output::say;
use crate::{
    config::Config,
    domain::{PayoutLinkState, escape_control},
    postgres::{self, Store},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Any id of the record: merchant_payout_id, record id, event id or connector_payout_id
    id: String,
    /// x-merchant-id, if several merchants use the same merchant_payout_id
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
        [] => bail!("no record has the id {:?}", arguments.id),
        several => {
            bail!("{} merchants have a record {:?}: select one with --merchant", several.len(), arguments.id)
        }
    };
    let Some(id) = record.connector_payout_id.as_deref().filter(|_| record.state == PayoutLinkState::Created)
    else {
        bail!("the record is {}: it has no link to cancel", record.state);
    };
    let connectors = config.connectors().context("cannot make the client of a connector")?;
    let Some(account) = connectors.choose(Some(&record.connector)) else {
        bail!("[connectors.{}] is not configured any more", record.connector);
    };
    match account.connector.cancel_link(id).await {
        Ok(()) => {
            say(format_args!(
                "{} is cancelled at {}; no result or webhook is sent",
                escape_control(id),
                account.name
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(mut error) => {
            account.redact(&mut error, None);
            // 0: no request was made, or no answer came.
            let status =
                Some(error.status_code).filter(|status| *status != 0).map(|status| format!("{status} "));
            let code = error.code.map(|code| format!("{code}: "));
            let (status, code) = (status.unwrap_or_default(), code.unwrap_or_default());
            bail!("{} does not cancel {}: {status}{code}{}", account.name, escape_control(id), error.message)
        }
    }
}
