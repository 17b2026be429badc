//! `erase`: removes a person's data from a record.

use anyhow::Context;

use super::{
    acting::{Acting, Reports},
    actor::Act,
    bulk::Each,
    exit::ExitStatus,
    output::Output,
};
use crate::{
    config::Config,
    domain::PayoutLinkState,
    postgres::{ActedRecord, Erased, Operator},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Ids of records: merchant_payout_id, record id, event id or connector_payout_id
    #[arg(required = true)]
    ids: Vec<String>,
    /// x-merchant-id, if several merchants use the same merchant_payout_id
    #[arg(long, value_name = "ID")]
    merchant: Option<String>,
    #[command(flatten)]
    act: Act,
}

pub(super) async fn run(
    config: &Config,
    output: Output,
    arguments: &Arguments,
) -> anyhow::Result<ExitStatus> {
    let acting = Acting::open(config).await?;
    let (operator, mut reports) = (arguments.act.operator(), Reports::new(output));
    let merchant = arguments.merchant.as_deref();
    Each { acting: &acting, ids: &arguments.ids, merchant, pace: None }
        .act(&mut reports, async |_, record| erase(&acting, record, &operator).await.map(Some))
        .await?;
    reports.end()
}

async fn erase(acting: &Acting, record: &ActedRecord, operator: &Operator) -> anyhow::Result<String> {
    if record.state() == PayoutLinkState::Open {
        let reason = "the record is open: the request is needed until its conclusion".to_owned();
        return Err(acting.refused(record, reason).await);
    }
    match acting.store.erase(record, operator).await.context("database")? {
        Erased::Done => Ok("erased; look for dead letters of the payout as well".into()),
        Erased::Undelivered => {
            let reason =
                "a result or a webhook of it is not delivered yet: repeat the command later".to_owned();
            Err(acting.refused(record, reason).await)
        }
        Erased::Changed => Err(acting.changed(record).await),
    }
}
