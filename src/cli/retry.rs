//! `retry`: has failed records tried again under the same idempotency key. A worker makes the attempt.

use anyhow::Context;
use serde_json::json;

use super::{
    acting::{Acting, Reports},
    actor::Act,
    bulk::{Each, Kind, Many},
    exit::ExitStatus,
    output::Output,
};
use crate::{
    config::Config,
    domain::{
        PayoutLinkState,
        retry::{Reopening, reopen},
    },
    postgres::{Acted, ActedRecord, NewAct, Operator},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Ids of failed records: merchant_payout_id, record id or event id
    ids: Vec<String>,
    /// x-merchant-id, if several merchants use the same merchant_payout_id
    #[arg(long, value_name = "ID")]
    merchant: Option<String>,
    #[command(flatten)]
    many: Many,
    #[command(flatten)]
    act: Act,
}

const KIND: Kind = Kind {
    command: "retry",
    narrow: |filter| match filter.states[..] {
        [] | [PayoutLinkState::Failed] => {
            filter.states = vec![PayoutLinkState::Failed];
            Ok(())
        }
        _ => Err("only failed records are tried again"),
    },
};

pub(super) async fn run(
    config: &Config,
    output: Output,
    arguments: &Arguments,
) -> anyhow::Result<ExitStatus> {
    let acting = Acting::open(config).await?;
    let ids = arguments.many.ids(&acting, &KIND, &arguments.ids).await?;
    let (operator, mut reports) = (arguments.act.operator(), Reports::new(output));
    let merchant = arguments.merchant.as_deref();
    Each { acting: &acting, ids: &ids, merchant, pace: Some(arguments.many.pace()) }
        .act(&mut reports, async |_, record| retry(config, &acting, record, &operator).await.map(Some))
        .await?;
    reports.end()
}

/// Opens one record again, and returns the message for the operator.
pub(super) async fn retry(
    config: &Config,
    acting: &Acting,
    record: &ActedRecord,
    operator: &Operator,
) -> anyhow::Result<String> {
    let account = acting.account(record)?;
    let rule = account.connector.replay_rule();
    let policy = &config.pipeline().retry;
    let reopening = match reopen(&record.concluded, rule, policy, &account.id, record.now) {
        Ok(reopening) => reopening,
        Err(reason) => return Err(acting.refused(record, reason.to_string()).await),
    };
    if let Some(job) = &record.job
        && let Err(rejection) = account.connector.supports(job)
    {
        return Err(acting.refused(record, format!("the connector rejects it: {}", rejection.message)).await);
    }
    let first = match reopening {
        Reopening::Call => "call",
        Reopening::LookUp => "look_up",
    };
    let details = json!({
        "attempts_before": record.concluded.attempts, "first": first, "before": record.conclusion_before(),
    });
    let act = NewAct { operator, command: "retry", details: &details };
    match acting.store.reopen(record, reopening, act).await.context("database")? {
        Acted::Done => Ok(match reopening {
            Reopening::Call => "open again; a worker makes the next attempt".into(),
            Reopening::LookUp => "open again; a worker looks it up first".into(),
        }),
        Acted::Unpublished => {
            let reason = "the result of its last event is not published yet: repeat the command later".into();
            Err(acting.refused(record, reason).await)
        }
        Acted::Changed => Err(acting.changed(record).await),
    }
}
