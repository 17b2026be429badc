//! `look-up`: asks the provider about a payout now, prints its answer, and changes the record as the rules say.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::time::sleep;

use super::{
    acting::{Acting, Reports, described},
    actor::Act,
    exit::ExitStatus,
    output::Output,
    resolve::resolve_found,
    waits::Waits,
};
use crate::{
    config::Config,
    domain::{CreatedLink, Finding, PayoutLinkState, escape_control},
    postgres::{ActedRecord, Operator},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Any id of the record: merchant_payout_id, record id, event id, connector_payout_id or provider_payout_id
    id: String,
    /// x-merchant-id, if several merchants use the same merchant_payout_id
    #[arg(long, value_name = "ID")]
    merchant: Option<String>,
    /// How long to wait for a worker that asks
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout_seconds: u64,
    #[command(flatten)]
    act: Act,
}

/// Pause between two looks at the record.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) async fn run(
    config: &Config,
    output: Output,
    arguments: &Arguments,
) -> anyhow::Result<ExitStatus> {
    let acting = Acting::open(config).await?;
    let record = acting.select(&arguments.id, arguments.merchant.as_deref()).await?;
    let (operator, patience) = (arguments.act.operator(), Duration::from_secs(arguments.timeout_seconds));
    let looked_up = match record.state() {
        PayoutLinkState::Open => look_up_open(&acting, &record, &operator, patience).await,
        PayoutLinkState::Created => look_up_link(&acting, &record, &operator, patience).await,
        PayoutLinkState::Unknown => look_up_unknown(&acting, &record, &operator).await,
        PayoutLinkState::Failed => look_up_failed(&acting, &record).await,
    };
    let mut reports = Reports::new(output);
    reports.add(&arguments.id, Some(&record), looked_up)?;
    reports.end()
}

/// Has a worker go on with an open record whose outcome is unknown so far.
async fn look_up_open(
    acting: &Acting,
    record: &ActedRecord,
    operator: &Operator,
    patience: Duration,
) -> anyhow::Result<String> {
    if record.is_leased {
        return Ok("a worker calls the provider at this moment".into());
    }
    if record.concluded.in_doubt_since.is_none() && record.concluded.connector_payout_id.is_none() {
        let reason = "no call for it has an unknown outcome: there is nothing to look up".to_owned();
        return Err(acting.refused(record, reason).await);
    }
    if !acting.store.hasten(record.id, operator).await.context("database")? {
        return Err(acting.changed(record).await);
    }
    // By the attempt, since a look-up is no call of the record. A worker that can do neither now puts the record off.
    let after = until(acting, record, patience, STEP, |after| {
        let is_attempted = after.last_attempt_at > record.last_attempt_at && !after.is_leased;
        after.state() != PayoutLinkState::Open || is_attempted
    })
    .await?;
    Ok(match after.state() {
        PayoutLinkState::Open => {
            "a worker has taken the next step of the replay rule, and the outcome is still unknown: `show` has the attempt"
                .into()
        }
        state => format!("the record is {state} now"),
    })
}

/// Has a worker ask about a created link.
async fn look_up_link(
    acting: &Acting,
    record: &ActedRecord,
    operator: &Operator,
    patience: Duration,
) -> anyhow::Result<String> {
    let account = acting.account(record)?;
    if !account.follow.enabled {
        let reason = format!("{} does not follow its links", account.name);
        return Err(acting.refused(record, reason).await);
    }
    if !acting.store.hasten_question(record.id, operator).await.context("database")? {
        return Err(acting.changed(record).await);
    }
    let after = until(acting, record, patience, QUESTION, |after| after.asked_at > Some(record.now)).await?;
    let status = after.link_status.unwrap_or_default();
    match after.follow_failures {
        0 => Ok(format!("{} answered: the link is {}", account.name, escape_control(&status))),
        failures => bail!("{} did not answer, {failures} times so far: the link was {status}", account.name),
    }
}

/// Asks about an unknown record. A link ends it; nothing else does without an operator's word.
async fn look_up_unknown(
    acting: &Acting,
    record: &ActedRecord,
    operator: &Operator,
) -> anyhow::Result<String> {
    let account = acting.account(record)?;
    let id = record.concluded.connector_payout_id.as_deref();
    if id.is_none() && account.connector.replay_rule().look_up().is_none() {
        let reason =
            format!("{} cannot be asked by our reference: look there, then resolve it", account.name);
        return Err(acting.refused(record, reason).await);
    }
    match acting.find(account, record, id).await {
        None => bail!("the request is deleted, so {} cannot be asked", account.name),
        Some(Finding::Found(mut link)) => {
            link.unknown_status = None;
            let id = link.connector_payout_id.clone();
            resolve_found(acting, account, record, link, operator).await?;
            Ok(format!("created: {} has the link {}", account.name, escape_control(&id)))
        }
        Some(Finding::Underway { connector_payout_id, .. }) => Ok(format!(
            "{} has the payout {}, and its link is not ready",
            account.name,
            escape_control(&connector_payout_id)
        )),
        Some(Finding::Ended { connector_payout_id, error, .. }) => Ok(format!(
            "{} has the payout {}, which is over ({}): resolve it with --created",
            account.name,
            escape_control(&connector_payout_id),
            described(&error)
        )),
        Some(Finding::NotFound { .. }) => {
            Ok(format!("{} has no payout for it: resolve it with --not-created", account.name))
        }
        Some(Finding::Unanswered { error, .. }) => {
            bail!("{} does not answer: {}", account.name, described(&error))
        }
    }
}

/// Asks about a failed record, for which the provider must have nothing.
async fn look_up_failed(acting: &Acting, record: &ActedRecord) -> anyhow::Result<String> {
    let account = acting.account(record)?;
    if account.connector.replay_rule().look_up().is_none() {
        return Err(acting
            .refused(record, format!("{} cannot be asked by our reference", account.name))
            .await);
    }
    match acting.find(account, record, None).await {
        None => bail!("the request is deleted, so {} cannot be asked", account.name),
        Some(Finding::NotFound { .. }) => Ok(format!("{} has no payout for it", account.name)),
        Some(
            Finding::Found(CreatedLink { connector_payout_id, .. })
            | Finding::Underway { connector_payout_id, .. }
            | Finding::Ended { connector_payout_id, .. },
        ) => {
            let then =
                if record.is_resolved_as_not_created() { ", and resolve it with --created" } else { "" };
            bail!(
                "{} has the payout {} for this failed record: do not pay again{then}",
                account.name,
                escape_control(&connector_payout_id)
            )
        }
        Some(Finding::Unanswered { error, .. }) => {
            bail!("{} does not answer: {}", account.name, described(&error))
        }
    }
}

const STEP: &str = "it is due at once, and no worker has taken the next step of the replay rule yet";
const QUESTION: &str = "it is due, and no worker has asked yet";

/// Waits until the record is as wanted. `missed`: what did not happen if it is not in time.
async fn until(
    acting: &Acting,
    record: &ActedRecord,
    patience: Duration,
    missed: &str,
    wanted: impl Fn(&ActedRecord) -> bool,
) -> anyhow::Result<ActedRecord> {
    let started = Instant::now();
    loop {
        let after = acting.select(&record.id.to_string(), None).await?;
        if wanted(&after) {
            return Ok(after);
        }
        if started.elapsed() >= patience {
            let waits = Waits::read(&acting.store.reader()).await;
            let obstacles = match after.state() {
                PayoutLinkState::Open => waits.of_creation(&record.connector, &record.merchant_id),
                _ => waits.of_link(&record.connector),
            };
            match &obstacles[..] {
                [] => bail!("{missed}. Check that a worker runs, then look at the record"),
                obstacles => bail!("{missed}, because {}", obstacles.join(", and ")),
            }
        }
        sleep(PAUSE).await;
    }
}
