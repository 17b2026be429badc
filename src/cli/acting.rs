//! The parts that all commands share which act on records: they find the record, ask its provider, and report the act.

use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use time::format_description::well_known::Rfc3339;
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    exit::{Ended, ExitStatus, status_of},
    output::{Format, Output, note, say},
};
use crate::{
    config::Config,
    connectors::{Account, AskedLink, Call, Connectors},
    domain::{ConnectorError, Finding, LinkAnswer, LinkStatus, escape_control, idempotency_key_of},
    postgres::{self, ActedRecord, Store},
};

/// The store and the connectors of a command that acts.
pub(super) struct Acting {
    pub(super) store: Store,
    pub(super) connectors: Connectors,
    deployment: String,
}

/// The outcome of one record, as it is printed.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) merchant_payout_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) merchant_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<Uuid>,
    /// `done`, `refused`, `not_found` or `failed`.
    pub(super) outcome: &'static str,
    pub(super) message: String,
}

impl Acting {
    pub(super) async fn open(config: &Config) -> anyhow::Result<Self> {
        let connectors = config.connectors().context("cannot make the client of a connector")?;
        let pool = postgres::connect(&config.database()).await.context("database")?;
        let store = Store::new(pool, config.key_ring()?, config.store());
        Ok(Self { store, connectors, deployment: config.worker.deployment.clone() })
    }

    /// Finds the one record that has this id.
    pub(super) async fn select(&self, id: &str, merchant: Option<&str>) -> anyhow::Result<ActedRecord> {
        let mut records = self.store.acted(id).await.context("database")?;
        if let Some(merchant) = merchant {
            records.retain(|record| record.merchant_id == merchant);
        }
        match records.len() {
            1 => Ok(records.remove(0)),
            0 => Err(ExitStatus::NothingFound.because(no_record(id)).into()),
            several => {
                let reason = format!("{several} records have the id {id:?}: select one with --merchant");
                Err(ExitStatus::WrongUse.because(reason).into())
            }
        }
    }

    /// Returns the configured account of a record.
    pub(super) fn account(&self, record: &ActedRecord) -> Result<&Account, Ended> {
        self.connectors.choose(Some(&record.connector)).ok_or_else(|| {
            let reason = format!("[connectors.{}] is not configured", record.connector);
            ExitStatus::Refused.because(reason)
        })
    }

    /// Makes the error of an act that a rule refuses, with the last act of another operator.
    pub(super) async fn refused(&self, record: &ActedRecord, reason: String) -> anyhow::Error {
        match self.last_act(record).await {
            Some(last) => ExitStatus::Refused.because(format_args!("{reason}. {last}")).into(),
            None => ExitStatus::Refused.because(reason).into(),
        }
    }

    /// Makes the error of an act that came after another change of its record.
    pub(super) async fn changed(&self, record: &ActedRecord) -> anyhow::Error {
        let reason =
            "the record has changed since it was read, and nothing was done: look at it again".to_owned();
        self.refused(record, reason).await
    }

    /// Describes the last act of an operator on a record: who did what, when and why.
    pub(super) async fn last_act(&self, record: &ActedRecord) -> Option<String> {
        self.last_act_except(record, "").await
    }

    /// Does the same, unless the last act is one of `command`.
    pub(super) async fn last_act_except(&self, record: &ActedRecord, command: &str) -> Option<String> {
        let key = (&*record.merchant_id, &*record.merchant_payout_id);
        let last = self.store.actions_of(record.id, key).await.ok()?.pop()?;
        if last.command == command {
            return None;
        }
        let at = last.at.format(&Rfc3339).unwrap_or_default();
        Some(format!(
            "The last act on it was `{}` by {} at {at}: {}",
            escape_control(&last.command),
            escape_control(&last.actor),
            escape_control(&last.reason)
        ))
    }

    /// Looks a payout up at its provider, by the provider's id if one is given, else by the idempotency key. Returns
    /// `None` if the request is not stored any more, and the provider cannot be asked without it.
    pub(super) async fn find(
        &self,
        account: &Account,
        record: &ActedRecord,
        connector_payout_id: Option<&str>,
    ) -> Option<Finding> {
        let job = record.job.as_deref()?;
        let key = idempotency_key_of(&self.deployment, &record.merchant_id, &record.merchant_payout_id);
        let call = Call {
            job,
            idempotency_key: &key,
            connector_payout_id,
            // The whole list is searched: the clock may have stepped since the first call.
            first_called_at: None,
            now: record.now,
            trace: &record.trace,
        };
        let finding = timeout(account.connector.timeout() + SLACK, account.connector.find_link(call)).await;
        let mut finding = finding.unwrap_or_else(|_| Finding::Unanswered {
            error: ConnectorError::unanswered("timed out"),
            retry_after: None,
        });
        if let Finding::Ended { error, .. } | Finding::Unanswered { error, .. } = &mut finding {
            account.redact(error, Some(job));
        }
        Some(finding)
    }

    /// Asks the provider about a link by its id there.
    pub(super) async fn ask_about(&self, account: &Account, connector_payout_id: &str) -> LinkAnswer {
        let asked = [AskedLink {
            connector_payout_id: connector_payout_id.to_owned(),
            provider_payout_id: None,
            status: LinkStatus::Unclaimed,
            expires_at: None,
            is_cancelled: false,
        }];
        let asking = account.connector.ask_about(&asked, &account.rate);
        let answers = timeout(account.connector.timeout() + SLACK, asking).await;
        let mut answer = answers.ok().and_then(|mut answers| answers.pop()).unwrap_or_else(|| {
            LinkAnswer::Unanswered { error: ConnectorError::unanswered("timed out"), retry_after: None }
        });
        if let LinkAnswer::Unanswered { error, .. } = &mut answer {
            account.redact(error, None);
        }
        answer
    }
}

/// Informs an operator of another one who ran the same command within the last hour.
pub(super) async fn note_last_act(store: &Store, command: &str) -> anyhow::Result<()> {
    if let Some(last) = store.last_act(command).await.context("database")? {
        let (actor, reason) = (escape_control(&last.actor), escape_control(&last.reason));
        note(format_args!("within the last hour {actor} ran {command}: {reason}"));
    }
    Ok(())
}

/// Says that no record has an id, and where the job may be: a rejected one has no record.
pub(super) fn no_record(id: &str) -> String {
    // Others would need quotes, of the shell and of the conditions.
    let is_plain = !id.is_empty()
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b':'));
    let letters =
        if is_plain { format!("dead-letters list --where payout={id}") } else { "dead-letters list".into() };
    format!("no record has the id {id:?}. A rejected job has no record: `{letters}` finds it")
}

/// Tolerance of a call's own timeout.
const SLACK: Duration = Duration::from_secs(1);

/// Describes an error of a provider that was asked.
pub(super) fn described(error: &ConnectorError) -> String {
    match error.status_code {
        0 => error.message.clone(),
        status => format!("{status} {}", error.message),
    }
}

/// Writes reports one by one, and knows the exit status of all of them.
pub(super) struct Reports {
    output: Output,
    /// For JSON, which is one document.
    held: Vec<Report>,
    done: usize,
    others: Vec<ExitStatus>,
    interrupted: bool,
}

impl Reports {
    pub(super) fn new(output: Output) -> Self {
        Self { output, held: Vec::new(), done: 0, others: Vec::new(), interrupted: false }
    }

    /// Reports an act on the record with this id: what was done, or why not.
    pub(super) fn add(
        &mut self,
        id: &str,
        record: Option<&ActedRecord>,
        acted: anyhow::Result<String>,
    ) -> anyhow::Result<()> {
        let (outcome, message) = match acted {
            Ok(message) => {
                self.done += 1;
                ("done", message)
            }
            Err(error) => {
                let status = status_of(&error);
                self.others.push(status);
                let outcome = match status {
                    ExitStatus::Refused => "refused",
                    ExitStatus::NothingFound => "not_found",
                    _ => "failed",
                };
                (outcome, format!("{error:#}"))
            }
        };
        let report = Report {
            merchant_payout_id: record.map_or(id, |record| &record.merchant_payout_id).to_owned(),
            merchant_id: record.map(|record| record.merchant_id.clone()).filter(|id| !id.is_empty()),
            id: record.map(|record| record.id),
            outcome,
            message,
        };
        match self.output.format() {
            Format::Text if outcome == "done" => say(text(&report)),
            Format::Text => {
                note(text(&report));
                Ok(())
            }
            Format::Jsonl => self.output.object(&report, text),
            Format::Json => {
                self.held.push(report);
                Ok(())
            }
        }
    }

    /// Says which records were not acted on after an interrupt, and how to go on.
    pub(super) fn interrupted(&mut self, left: &[String]) {
        self.interrupted = true;
        let Some(next) = left.first() else { return };
        note(format_args!(
            "interrupted: {} done, {} not done, and {} not touched. With --where, the same command goes on: a record that it \
             has acted on does not match any more. With ids, go on from {}",
            self.done,
            self.others.len(),
            left.len(),
            escape_control(next)
        ));
    }

    /// Ends the reports: `Done` if every act was done, `InPart` if some were, otherwise the status of the first.
    pub(super) fn end(self) -> anyhow::Result<ExitStatus> {
        if self.output.format() == Format::Json {
            self.output.objects(&self.held, text)?;
        }
        Ok(match (self.done, self.others.first()) {
            _ if self.interrupted => ExitStatus::InPart,
            (_, None) => ExitStatus::Done,
            (0, Some(first)) => *first,
            (_, Some(_)) => ExitStatus::InPart,
        })
    }
}

fn text(report: &Report) -> String {
    match report.outcome {
        "done" => {
            format!("{}: {}", escape_control(&report.merchant_payout_id), escape_control(&report.message))
        }
        outcome => format!(
            "{}: {}: {}",
            escape_control(&report.merchant_payout_id),
            outcome.replace('_', " "),
            escape_control(&report.message)
        ),
    }
}
