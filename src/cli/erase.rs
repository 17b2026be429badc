//! `erase`: removes a person's data from a record, with the dead letters and unrouted results of the payout.

use std::collections::HashSet;

use anyhow::Context;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    acting::{Acting, Reports},
    actor::Act,
    bulk::{Each, Kind, Many},
    dead_letters::delete_letters_of,
    exit::ExitStatus,
    output::{Output, note},
};
use crate::{
    config::Config,
    domain::{LinkStatus, PayoutLinkState, escape_control},
    postgres::{ActedRecord, Erased, Operator},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Ids of records: merchant_payout_id, record id, event id or connector_payout_id
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
    command: "erase",
    narrow: |filter| {
        use PayoutLinkState::{Created, Failed, Open, Unknown};
        if filter.states.contains(&Open) || filter.is_retrying || filter.is_overdue {
            return Err("open records are not erased: the request is needed until the conclusion");
        }
        if filter.states.is_empty() {
            filter.states = vec![Created, Failed, Unknown];
        }
        filter.excludes_erased = true;
        Ok(())
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
    let mut erased = HashSet::new();
    Each { acting: &acting, ids: &ids, merchant, pace: Some(arguments.many.pace()) }
        .act(&mut reports, async |_, record| {
            let message = erase(&acting, record, &operator).await?;
            erased.insert((record.merchant_id.clone(), record.merchant_payout_id.clone()));
            Ok(Some(message))
        })
        .await?;
    let status = reports.end()?;
    if erased.is_empty() {
        return Ok(status);
    }
    match delete_letters_of(config, &acting.store, ("erase", &operator), &erased).await {
        Ok(deleted) => {
            note(format_args!("deleted dead letters and unrouted results of erased payouts: {deleted}"));
            Ok(status)
        }
        Err(error) => {
            note(format_args!(
                "{error:#}. Dead letters and unrouted results of erased payouts may be left: repeat the command with the ids \
                 of the payouts that were erased (conditions select no erased record)"
            ));
            Ok(ExitStatus::InPart)
        }
    }
}

fn erased_since(before: Option<OffsetDateTime>) -> String {
    match before.and_then(|at| at.replace_nanosecond(0).ok()?.format(&Rfc3339).ok()) {
        None => "erased".to_owned(),
        Some(before) => format!("erased again, for the first time at {before}"),
    }
}

/// Warns of a link that the person can still claim: an erasure does not cancel it.
fn open_link(record: &ActedRecord) -> String {
    let is_unclaimed = record.link_status.as_deref() == Some(LinkStatus::Unclaimed.as_str());
    match &record.concluded.connector_payout_id {
        Some(link) if is_unclaimed => {
            format!("; its link {} is unclaimed and can still be claimed", escape_control(link))
        }
        Some(_) | None => String::new(),
    }
}

async fn erase(acting: &Acting, record: &ActedRecord, operator: &Operator) -> anyhow::Result<String> {
    if record.state() == PayoutLinkState::Open {
        let reason = "the record is open: the request is needed until its conclusion".to_owned();
        return Err(acting.refused(record, reason).await);
    }
    let last = acting.last_act(record).await;
    match acting.store.erase(record, operator).await.context("database")? {
        Erased::Done { before } => {
            let last = last.filter(|_| before.is_some()).map(|last| format!(". {last}")).unwrap_or_default();
            Ok(format!("{}{}{last}", erased_since(before), open_link(record)))
        }
        Erased::Undelivered => {
            let reason =
                "a result or a webhook of it is not delivered yet: repeat the command later".to_owned();
            Err(acting.refused(record, reason).await)
        }
        Erased::Changed => Err(acting.changed(record).await),
    }
}
