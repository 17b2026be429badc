//! Selects many records for a command that acts: a preview, a confirmation, and a rate. Acts on them one after another.

use std::{rc::Rc, time::Duration};

use anyhow::Context;
use time::format_description::well_known::Rfc3339;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::{
    acting::{Acting, Reports},
    confirm::confirm,
    exit::{Ended, ExitStatus},
    filter::Where,
    interrupts::Interrupts,
    output::{counted, note, progress, progress_ends},
};
use crate::{
    domain::escape_control,
    postgres::{ActedRecord, Listed, PageRequest, RecordFilter},
};

/// The options of a command that can act on many records.
#[derive(Debug, clap::Args)]
pub(super) struct Many {
    #[command(flatten)]
    conditions: Where,
    /// Act on so many of the records that match, at most; the oldest come first
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// Acts a second, at most
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// Act on the records that match without asking
    #[arg(long)]
    yes: bool,
}

/// The records that an act can be about.
pub(super) struct Kind {
    /// The command.
    pub(super) command: &'static str,
    /// Narrows the conditions to records that the command can act on; `Err`: they exclude all of these.
    pub(super) narrow: fn(&mut RecordFilter) -> Result<(), &'static str>,
}

/// Rows that are looked at for a count or a page.
const SCAN: u32 = 200_000;
/// Records of a preview.
const SAMPLE: usize = 5;

impl Many {
    /// Returns whether records are selected by conditions.
    pub(super) fn is_given(&self) -> bool {
        !self.conditions.is_empty()
    }

    /// Returns the ids to act on: those of the command line, or those of the records that match, after a preview and a
    /// confirmation.
    pub(super) async fn ids(
        &self,
        acting: &Acting,
        kind: &Kind,
        given: &[String],
    ) -> anyhow::Result<Vec<String>> {
        match (given.is_empty(), self.is_given()) {
            (false, false) => return Ok(given.to_vec()),
            (true, true) => {}
            (false, true) => return Err(wrong("give ids or --where, not both").into()),
            (true, false) => return Err(wrong("give an id, or conditions with --where").into()),
        }
        let mut filter = self.conditions.filter()?;
        (kind.narrow)(&mut filter).map_err(wrong)?;
        let found = self.find(acting, &filter).await?;
        if found.is_empty() {
            return Err(ExitStatus::NothingFound.because("no record matches").into());
        }
        self.preview(acting, kind, &filter, &found).await?;
        confirm(&format!("{} {}?", kind.command, counted(found.len(), "record")), self.yes)?;
        Ok(found.iter().map(|record| record.id.to_string()).collect())
    }

    /// Finds the records that match, the oldest first, at most `limit`.
    async fn find(&self, acting: &Acting, filter: &RecordFilter) -> anyhow::Result<Vec<Listed>> {
        let (mut found, mut after) = (Vec::new(), None::<Uuid>);
        let limit = self.limit as usize;
        while found.len() < limit {
            let request = PageRequest {
                newest_first: false,
                after,
                limit: u32::try_from(limit - found.len()).unwrap_or(u32::MAX),
                scan: SCAN,
            };
            let page = acting.store.reader().list(filter, request).await.context("database")?;
            found.extend(page.records);
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        Ok(found)
    }

    async fn preview(
        &self,
        acting: &Acting,
        kind: &Kind,
        filter: &RecordFilter,
        found: &[Listed],
    ) -> anyhow::Result<()> {
        let counted = acting.store.reader().count(filter, SCAN).await.context("database")?;
        let at_least = if counted.is_complete { "" } else { "at least " };
        let count = counted.count.max(found.len() as u64);
        note(format_args!(
            "{} acts on {} of {at_least}{count} records that match, the oldest first:",
            kind.command,
            found.len()
        ));
        for record in found.iter().take(SAMPLE) {
            note(format_args!(
                "  {} {} {} {} {} {} {} {}",
                record.created_at.format(&Rfc3339).unwrap_or_default(),
                escape_control(&record.merchant_payout_id),
                escape_control(&record.merchant_id),
                escape_control(&record.connector),
                record.amount_minor,
                escape_control(&record.currency),
                record.state,
                record.error_code.as_deref().unwrap_or_default()
            ));
        }
        if found.len() > SAMPLE {
            note(format_args!("  and {} more", found.len() - SAMPLE));
        }
        Ok(())
    }

    /// Returns what keeps the acts to the rate.
    pub(super) fn pace(&self) -> Pace {
        Pace { interval: Duration::from_secs(1) / self.rate, next: Instant::now() }
    }
}

/// The records of a command, in order.
pub(super) struct Each<'a> {
    pub(super) acting: &'a Acting,
    pub(super) ids: &'a [String],
    /// Chooses the merchant if several use the same `merchant_payout_id`.
    pub(super) merchant: Option<&'a str>,
    /// Keeps the acts to a rate.
    pub(super) pace: Option<Pace>,
}

impl Each<'_> {
    /// Acts on each record, and reports it. An act that returns `None` is reported later.
    ///
    /// Ctrl-C ends the acts after the one under way: no record is left in between, and the reports say how many are left.
    /// A second one ends the command at once; the database has the act under way completely or not at all.
    pub(super) async fn act(
        mut self,
        reports: &mut Reports,
        mut act: impl AsyncFnMut(&str, &Rc<ActedRecord>) -> anyhow::Result<Option<String>>,
    ) -> anyhow::Result<()> {
        let (mut interrupts, all) = (Interrupts::listen()?, self.ids.len());
        for (number, id) in self.ids.iter().enumerate() {
            if all > 1 {
                progress(format_args!("{number} of {all} records processed"));
            }
            if interrupts.end_wait(wait(self.pace.as_mut())).await {
                reports.interrupted(&self.ids[number..]);
                return Ok(());
            }
            let record = match self.acting.select(id, self.merchant).await {
                Ok(record) => Rc::new(record),
                Err(error) => {
                    reports.add(id, None, Err(error))?;
                    continue;
                }
            };
            let Some(acted) = interrupts.finish(Box::pin(act(id, &record))).await else {
                let id = escape_control(id);
                anyhow::bail!("interrupted within the act on {id}: `show {id}` says whether it was done");
            };
            if let Some(acted) = acted.transpose() {
                reports.add(id, Some(&record), acted)?;
            }
        }
        progress_ends();
        if interrupts.is_seen().await {
            reports.interrupted(&[]);
        }
        Ok(())
    }
}

async fn wait(pace: Option<&mut Pace>) {
    if let Some(pace) = pace {
        pace.wait().await;
    }
}

/// Keeps acts to a rate.
pub(super) struct Pace {
    interval: Duration,
    next: Instant,
}

impl Pace {
    /// Waits until the next act may begin.
    pub(super) async fn wait(&mut self) {
        sleep_until(self.next).await;
        self.next = Instant::now() + self.interval;
    }
}

fn wrong(reason: &str) -> Ended {
    ExitStatus::WrongUse.because(reason)
}
