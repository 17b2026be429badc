//! `cancel`: takes an unclaimed link back, for an operator. A worker cancels it, so that its record and its merchant
//! hear of it.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tokio::time::sleep;

use super::{exit::ExitStatus, output::say};
use crate::{
    config::Config,
    connectors::Account,
    domain::{LinkStatus, PayoutLinkState, escape_control},
    postgres::{self, CancelState, Store},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Any id of the record: merchant_payout_id, record id, event id or connector_payout_id
    id: String,
    /// x-merchant-id, if several merchants use the same merchant_payout_id
    #[arg(long, value_name = "ID")]
    merchant: Option<String>,
    /// How long to wait for a worker that carries it out
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout_seconds: u64,
}

/// Pause between two looks at the record.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) async fn run(config: &Config, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let pool = postgres::connect(&config.database()).await.context("database")?;
    let store = Store::new(pool, config.key_ring()?, config.store());
    let mut records = store.reader().show(&arguments.id).await.context("database")?;
    if let Some(merchant) = &arguments.merchant {
        records.retain(|record| record.merchant_id == *merchant);
    }
    let record = match records.as_slice() {
        [record] => record,
        [] => {
            let reason = format!("no record has the id {:?}", arguments.id);
            return Err(ExitStatus::NothingFound.because(reason).into());
        }
        several => {
            bail!("{} merchants have a record {:?}: select one with --merchant", several.len(), arguments.id)
        }
    };
    let Some(link) =
        record.connector_payout_id.as_deref().filter(|_| record.state == PayoutLinkState::Created)
    else {
        bail!("the record is {}: it has no link to cancel", record.state);
    };
    let connectors = config.connectors().context("cannot make the client of a connector")?;
    let Some(account) = connectors.choose(Some(&record.connector)) else {
        bail!("[connectors.{}] is not configured any more", record.connector);
    };
    if !account.follow.enabled {
        return cancel_directly(account, link).await;
    }
    store.request_cancel(record.id).await.context("database")?;
    let (started, patience) = (Instant::now(), Duration::from_secs(arguments.timeout_seconds));
    loop {
        match store.cancel_state(record.id).await.context("database")? {
            CancelState { status: LinkStatus::Cancelled, .. } => {
                say(format_args!("{} is cancelled at {}", escape_control(link), account.name))?;
                return Ok(ExitCode::SUCCESS);
            }
            CancelState { status: LinkStatus::Unclaimed, is_requested: true } => {}
            // It was claimed, and can be claimed again.
            CancelState { status: LinkStatus::Unclaimed, is_requested: false } => {
                bail!("the link was claimed meanwhile and can be claimed again: repeat the command")
            }
            CancelState { status, .. } => bail!("the link is {status}: it cannot be cancelled"),
        }
        if started.elapsed() >= patience {
            bail!(
                "the cancel is requested, and no worker has carried it out yet. The request stays. Check that a worker \
                 runs and that {} answers, then repeat the command. Some providers confirm a cancel after minutes",
                account.name
            );
        }
        sleep(PAUSE).await;
    }
}

/// Cancels a link of an account that follows none: no worker would carry it out. The record does not change.
async fn cancel_directly(account: &Account, link: &str) -> anyhow::Result<ExitCode> {
    match account.connector.cancel_link(link).await {
        Ok(()) => {
            say(format_args!(
                "{} is cancelled at {}; no result or webhook is sent, because the account does not follow its links",
                escape_control(link),
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
            bail!(
                "{} does not cancel {}: {status}{code}{}",
                account.name,
                escape_control(link),
                error.message
            )
        }
    }
}
