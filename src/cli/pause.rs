//! `pause`, `resume`: stops and resumes consumption, the calls of one connector account, or the creations of one merchant,
//! in all workers.

use anyhow::Context;
use time::format_description::well_known::Rfc3339;

use super::{
    acting::Acting,
    actor::Act,
    exit::ExitStatus,
    output::{Done, Output},
};
use crate::{
    config::Config,
    domain::escape_control,
    postgres::{PageRequest, PauseKind, RecordFilter},
};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Target {
    /// Consumption of jobs, cancel messages and status messages
    Consumption(TargetOf),
    /// Every call of one connector account
    Account(Named),
    /// The creation of links for one merchant; its jobs are accepted and wait
    Merchant(Named),
}

#[derive(Debug, clap::Args)]
pub(super) struct TargetOf {
    #[command(flatten)]
    act: Act,
}

#[derive(Debug, clap::Args)]
pub(super) struct Named {
    /// The account's name in the configuration, or the merchant's x-merchant-id
    name: String,
    #[command(flatten)]
    act: Act,
}

impl Target {
    fn parts(&self) -> (PauseKind, &str, &Act) {
        match self {
            Self::Consumption(target) => (PauseKind::Consumption, "", &target.act),
            Self::Account(named) => (PauseKind::Account, &named.name, &named.act),
            Self::Merchant(named) => (PauseKind::Merchant, &named.name, &named.act),
        }
    }
}

pub(super) async fn pause(config: &Config, output: Output, target: &Target) -> anyhow::Result<ExitStatus> {
    let (acting, (kind, name, act)) = (Acting::open(config).await?, target.parts());
    if kind == PauseKind::Account && acting.connectors.choose(Some(name)).is_none() {
        let reason = format!("[connectors.{name}] is not configured");
        return Err(ExitStatus::NothingFound.because(reason).into());
    }
    let what = described(kind, name);
    if acting.store.pause(kind, name, &act.operator()).await.context("database")? {
        let unheard = if is_unheard(&acting, kind, name).await { NO_RECORDS } else { "" };
        let message = format!("{what} is paused; running workers see it within two seconds{unheard}");
        output.object(&Done { target: &what, outcome: "paused", message }, Done::text)?;
        return Ok(ExitStatus::Done);
    }
    let pauses = acting.store.pauses().await.context("database")?;
    let by = pauses.get(kind, name).map(|pause| {
        let at = pause.paused_at.format(&Rfc3339).unwrap_or_default();
        format!(", by {} at {at}: {}", escape_control(&pause.actor), escape_control(&pause.reason))
    });
    Err(ExitStatus::Refused
        .because(format_args!("{what} is paused already{}", by.unwrap_or_default()))
        .into())
}

pub(super) async fn resume(config: &Config, output: Output, target: &Target) -> anyhow::Result<ExitStatus> {
    let (acting, (kind, name, act)) = (Acting::open(config).await?, target.parts());
    let what = described(kind, name);
    if acting.store.resume(kind, name, &act.operator()).await.context("database")? {
        let message = format!("{what} is resumed; running workers see it within two seconds");
        output.object(&Done { target: &what, outcome: "resumed", message }, Done::text)?;
        return Ok(ExitStatus::Done);
    }
    Err(ExitStatus::NothingFound.because(format_args!("{what} is not paused")).into())
}

const NO_RECORDS: &str = ". No record has this x-merchant-id yet: check its spelling";

/// Returns whether a merchant is paused that surely has no record. The pause is stored: an error here must not say otherwise.
async fn is_unheard(acting: &Acting, kind: PauseKind, name: &str) -> bool {
    if kind != PauseKind::Merchant {
        return false;
    }
    let filter = RecordFilter { merchant_id: Some(name.to_owned()), ..RecordFilter::default() };
    let request = PageRequest { newest_first: true, after: None, limit: 1, scan: 1 };
    acting.store.reader().list(&filter, request).await.is_ok_and(|page| page.records.is_empty())
}

fn described(kind: PauseKind, name: &str) -> String {
    match kind {
        PauseKind::Consumption => "consumption".to_owned(),
        PauseKind::Account | PauseKind::Merchant => format!("{} {}", kind.as_str(), escape_control(name)),
    }
}
