//! `cancel`: cancels unclaimed links, for an operator. A worker does it, so that the change is recorded and announced.
//! A link whose creation is under way or unknown is cancelled as soon as that is settled.

use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use serde_json::json;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use super::{
    acting::{Acting, Reports},
    actor::Act,
    bulk::{Each, Kind, Many},
    exit::{ExitStatus, status_of},
    output::{Output, progress, progress_ends},
    waits::Waits,
};
use crate::{
    config::Config,
    connectors::Account,
    domain::{LinkStatus, PayoutLinkState, escape_control},
    postgres::{ActedRecord, CancelState, Operator},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Any ids of records: merchant_payout_id, record id, event id or connector_payout_id
    ids: Vec<String>,
    /// x-merchant-id, if several merchants use the same merchant_payout_id
    #[arg(long, value_name = "ID")]
    merchant: Option<String>,
    /// How long to wait for a worker that carries it out
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout_seconds: u64,
    #[command(flatten)]
    many: Many,
    #[command(flatten)]
    act: Act,
}

/// Pause between two looks at the record.
const PAUSE: Duration = Duration::from_millis(200);

const KIND: Kind = Kind {
    command: "cancel",
    narrow: |filter| {
        if *filter.link_status.get_or_insert(LinkStatus::Unclaimed) != LinkStatus::Unclaimed {
            return Err("only unclaimed links are cancelled");
        }
        if filter.states.is_empty() {
            filter.states = vec![PayoutLinkState::Created];
        }
        Ok(())
    },
};

/// The answer to a request.
enum Requested<'a> {
    /// The account follows no links: the provider was asked directly.
    Cancelled(String),
    /// A worker cancels the link, once there is one.
    Waits(Waiting<'a>),
}

/// A request that a worker carries out.
struct Waiting<'a> {
    link: Option<String>,
    account: &'a Account,
    /// The last act of an operator, if the cancel was requested or carried out before.
    before: Option<String>,
}

pub(super) async fn run(
    config: &Config,
    output: Output,
    arguments: &Arguments,
) -> anyhow::Result<ExitStatus> {
    let acting = Acting::open(config).await?;
    let ids = arguments.many.ids(&acting, &KIND, &arguments.ids).await?;
    let operator = arguments.act.operator();
    let (mut reports, mut waiting) = (Reports::new(output), Vec::new());
    let merchant = arguments.merchant.as_deref();
    Each { acting: &acting, ids: &ids, merchant, pace: Some(arguments.many.pace()) }
        .act(&mut reports, async |id, record| match request(&acting, record, &operator).await? {
            Requested::Waits(request) => {
                waiting.push((id.to_owned(), record.clone(), request));
                Ok(None)
            }
            Requested::Cancelled(message) => Ok(Some(message)),
        })
        .await?;
    let mut interrupts = signal(SignalKind::interrupt()).context("signals")?;
    let mut deadline = Instant::now() + Duration::from_secs(arguments.timeout_seconds);
    let all = waiting.len();
    for (number, (id, record, request)) in waiting.into_iter().enumerate() {
        if all > 1 {
            progress(format_args!("{number} of {all} cancels carried out"));
        }
        let cancelled = tokio::select! {
            cancelled = until_cancelled(&acting, &record, &request, deadline) => cancelled,
            _ = interrupts.recv() => {
                // The requests are stored, and workers carry them out. Each is looked at once more.
                deadline = Instant::now();
                until_cancelled(&acting, &record, &request, deadline).await
            }
        };
        let cancelled = request.after_others(&acting, &record, cancelled).await;
        reports.add(&id, Some(&record), cancelled)?;
    }
    progress_ends();
    reports.end()
}

/// Requests the cancel of a link, or cancels it at the provider if its account follows none.
async fn request<'a>(
    acting: &'a Acting,
    record: &ActedRecord,
    operator: &Operator,
) -> anyhow::Result<Requested<'a>> {
    let link = record.concluded.connector_payout_id.as_deref();
    let Some(link) = link.filter(|_| record.state() == PayoutLinkState::Created) else {
        return request_once_created(acting, record, operator).await;
    };
    let account = acting.account(record)?;
    if !account.follow.enabled {
        // Before the call: an act that is not recorded is not carried out.
        let details = json!({"connector_payout_id": link, "asked": "provider"});
        let recorded = acting.store.record_action(operator, "cancel", Some(record.id), &details).await;
        recorded.context("database")?;
        return cancel_directly(account, link).await.map(Requested::Cancelled);
    }
    let is_stored = acting.store.request_cancel(record.id, operator).await.context("database")?;
    Ok(Requested::Waits(Waiting::new(acting, record, Some(link.to_owned()), account, is_stored).await))
}

/// Requests the cancel of a link whose creation is under way or unknown.
async fn request_once_created<'a>(
    acting: &'a Acting,
    record: &ActedRecord,
    operator: &Operator,
) -> anyhow::Result<Requested<'a>> {
    let state = record.state();
    if !matches!(state, PayoutLinkState::Open | PayoutLinkState::Unknown) {
        let reason = format!("the record is {state}: it has no link to cancel");
        return Err(acting.refused(record, reason).await);
    }
    let account = acting.account(record)?;
    if !account.follow.enabled {
        let reason = format!(
            "the record is {state}, and no worker would cancel its link later: {} does not follow its links",
            account.name
        );
        return Err(acting.refused(record, reason).await);
    }
    let is_stored =
        acting.store.request_cancel_once_created(record.id, operator).await.context("database")?;
    Ok(Requested::Waits(Waiting::new(acting, record, None, account, is_stored).await))
}

impl<'a> Waiting<'a> {
    async fn new(
        acting: &Acting,
        record: &ActedRecord,
        link: Option<String>,
        account: &'a Account,
        is_stored: bool,
    ) -> Self {
        let before = if is_stored { None } else { acting.last_act(record).await };
        Self { link, account, before }
    }

    /// Adds the act of another operator: the last one before the request, or the one that made a refusal meanwhile.
    async fn after_others(
        &self,
        acting: &Acting,
        record: &ActedRecord,
        cancelled: anyhow::Result<String>,
    ) -> anyhow::Result<String> {
        let is_refused = matches!(&cancelled, Err(error) if status_of(error) == ExitStatus::Refused);
        let act = match &self.before {
            Some(before) => Some(before.clone()),
            None if is_refused => acting.last_act_except(record, "cancel").await,
            None => None,
        };
        let Some(act) = act else { return cancelled };
        match cancelled {
            Ok(message) => Ok(format!("{message}. {act}")),
            Err(error) if is_refused => {
                Err(ExitStatus::Refused.because(format_args!("{error:#}. {act}")).into())
            }
            Err(error) => Err(anyhow!("{error:#}. {act}")),
        }
    }
}

/// Waits until a worker has carried the cancel out.
async fn until_cancelled(
    acting: &Acting,
    record: &ActedRecord,
    request: &Waiting<'_>,
    deadline: Instant,
) -> anyhow::Result<String> {
    let Waiting { link, account, .. } = request;
    loop {
        let cancel = acting.store.cancel_state(record.id).await.context("database")?;
        match cancel {
            CancelState { status: LinkStatus::Cancelled, .. } => {
                return Ok(match link {
                    Some(link) => format!("{} is cancelled at {}", escape_control(link), account.name),
                    None => "cancelled".to_owned(),
                });
            }
            CancelState { state: PayoutLinkState::Failed, .. } => {
                let reason = "the record is failed: it has no link to cancel";
                return Err(ExitStatus::Refused.because(reason).into());
            }
            CancelState { status: LinkStatus::Unclaimed, is_requested: true, .. } => {}
            // It was claimed, and can be claimed again.
            CancelState { status: LinkStatus::Unclaimed, is_requested: false, .. } => {
                let reason = "the link was claimed meanwhile and can be claimed again: repeat the command";
                return Err(ExitStatus::Refused.because(reason).into());
            }
            CancelState { status, .. } => {
                let reason = format!("the link is {status}: it cannot be cancelled");
                return Err(ExitStatus::Refused.because(reason).into());
            }
        }
        if Instant::now() >= deadline {
            let waits = Waits::read(&acting.store.reader()).await;
            if matches!(cancel.state, PayoutLinkState::Open | PayoutLinkState::Unknown) {
                let obstacles = waits.of_creation(&account.name, &record.merchant_id);
                bail!(
                    "the record is {}. The cancel is requested, and a worker carries it out as soon as the creation is \
                     settled. The request stays{}",
                    cancel.state,
                    because(&obstacles)
                );
            }
            let obstacles = waits.of_link(&account.name);
            if !obstacles.is_empty() {
                bail!(
                    "the cancel is requested, and no worker has carried it out yet. The request stays{}",
                    because(&obstacles)
                );
            }
            bail!(
                "the cancel is requested, and no worker has carried it out yet. The request stays. Check that a worker \
                 runs and that {} answers, then repeat the command. Some providers confirm a cancel after minutes",
                account.name
            );
        }
        sleep(PAUSE).await;
    }
}

/// Adds what keeps workers from carrying a request out.
fn because(obstacles: &[String]) -> String {
    match obstacles {
        [] => String::new(),
        obstacles => format!(". It waits, because {}", obstacles.join(", and ")),
    }
}

/// Cancels a link of an account that follows none: no worker would carry it out. The record does not change.
async fn cancel_directly(account: &Account, link: &str) -> anyhow::Result<String> {
    match account.connector.cancel_link(link).await {
        Ok(()) => Ok(format!(
            "{} is cancelled at {}; no result or webhook is sent, because the account does not follow its links",
            escape_control(link),
            account.name
        )),
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
