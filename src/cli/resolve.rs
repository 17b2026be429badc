//! `resolve`: ends an unknown record. The provider is asked first where it can be asked, and a contradiction is refused. So
//! is the finding that nothing was created, where nothing checks it.

use std::time::Duration;

use anyhow::Context;
use secrecy::SecretString;
use serde_json::json;
use time::OffsetDateTime;

use super::{
    acting::{Acting, Reports, described},
    actor::Act,
    bulk::{Each, Kind, Many},
    exit::ExitStatus,
    output::Output,
};
use crate::{
    config::Config,
    connectors::{Account, link_url},
    contract::{self, EventContent},
    domain::{Conclusion, CreatedLink, Finding, LinkAnswer, PayoutLinkState, PayoutStatus, escape_control},
    postgres::{Acted, ActedRecord, NewAct, Operator},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The unknown record: merchant_payout_id, record id or event id. With --created also one that was resolved with
    /// --not-created
    id: Option<String>,
    #[command(flatten)]
    finding: FindingArguments,
    /// The link's URL, if the provider does not say it
    #[arg(long, value_name = "URL", requires = "created", conflicts_with = "not_created", value_parser = link)]
    url: Option<SecretString>,
    /// Resolve it although the provider contradicts, does not answer, or cannot be asked whether it created nothing
    #[arg(long)]
    force: bool,
    /// x-merchant-id, if several merchants use the same merchant_payout_id
    #[arg(long, value_name = "ID")]
    merchant: Option<String>,
    #[command(flatten)]
    many: Many,
    #[command(flatten)]
    act: Act,
}

const KIND: Kind = Kind {
    command: "resolve",
    narrow: |filter| match filter.states[..] {
        [] | [PayoutLinkState::Unknown] => {
            filter.states = vec![PayoutLinkState::Unknown];
            Ok(())
        }
        _ => Err("only unknown records are resolved"),
    },
};

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct FindingArguments {
    /// The provider created the link, under this id
    #[arg(long, value_name = "CONNECTOR_PAYOUT_ID")]
    created: Option<String>,
    /// The provider created nothing. Needs --force where the provider cannot be asked
    #[arg(long)]
    not_created: bool,
}

/// The provider's answer before an act.
#[derive(Debug, Default)]
struct Said {
    /// In one word, for the act's details.
    word: &'static str,
    /// Why the operator's finding is refused without `--force`.
    objection: Option<String>,
    /// The link, if the provider returned it.
    link: Option<CreatedLink>,
    expires_at: Option<OffsetDateTime>,
}

pub(super) async fn run(
    config: &Config,
    output: Output,
    arguments: &Arguments,
) -> anyhow::Result<ExitStatus> {
    let acting = Acting::open(config).await?;
    if arguments.many.is_given() && arguments.finding.created.is_some() {
        let reason = "--created names the link of one record: give its id, not --where";
        return Err(ExitStatus::WrongUse.because(reason).into());
    }
    let ids = arguments.many.ids(&acting, &KIND, arguments.id.as_slice()).await?;
    let (operator, mut reports) = (arguments.act.operator(), Reports::new(output));
    let merchant = arguments.merchant.as_deref();
    Each { acting: &acting, ids: &ids, merchant, pace: Some(arguments.many.pace()) }
        .act(&mut reports, async |_, record| {
            let acted = match &arguments.finding.created {
                Some(link) => resolve_created(&acting, record, link, arguments).await,
                None => resolve_not_created(&acting, record, arguments.force, &operator).await,
            };
            acted.map(Some)
        })
        .await?;
    reports.end()
}

/// Ends an unknown record as created, with the link that has this id at the provider.
async fn resolve_created(
    acting: &Acting,
    record: &ActedRecord,
    id: &str,
    arguments: &Arguments,
) -> anyhow::Result<String> {
    let is_correction = record.is_resolved_as_not_created();
    let account = if is_correction { acting.account(record)? } else { unknown(acting, record).await? };
    let said = ask_about_created(acting, account, record, id).await;
    if let Some(objection) = said.objection.as_ref().filter(|_| !arguments.force) {
        return Err(acting.refused(record, format!("{objection}. --force resolves it all the same")).await);
    }
    let url = match (&said.link, &arguments.url) {
        (Some(link), _) => link.url.clone(),
        (None, Some(url)) => url.clone(),
        (None, None) => {
            let reason = "the provider does not say the link's URL: give it with --url";
            return Err(ExitStatus::WrongUse.because(reason).into());
        }
    };
    let link = CreatedLink {
        connector_payout_id: id.to_owned(),
        payout_status: said
            .link
            .as_ref()
            .map_or(PayoutStatus::RequiresFulfillment, |link| link.payout_status),
        unknown_status: None,
        url,
        expires_at: said.link.as_ref().and_then(|link| link.expires_at).or(said.expires_at),
        status_code: said.link.as_ref().map_or(record.status_code, |link| link.status_code),
    };
    let mut content = content(record, &Conclusion::Created(link.clone()));
    let mut question = account.first_question(&link, record.now);
    // It may have been claimed long ago.
    question.ask_after = question.ask_after.map(|_| Duration::ZERO);
    content.link = Some(question);
    let details = json!({
        "to": "created", "connector_payout_id": id, "provider": said.word, "forced": said.objection.is_some(),
        "before": record.conclusion_before(),
    });
    store(acting, record, &content, &arguments.act.operator(), "resolve", &details).await?;
    let before = if is_correction { FAILED_BEFORE } else { "" };
    Ok(format!("created, with the link {} at {}{before}", escape_control(id), account.name))
}

const FAILED_BEFORE: &str = ". The merchant got payout_link.failed before: if the payout was sent again since then, \
                             `cancel` one of the two links";

/// Ends an unknown record as failed: the provider created nothing.
pub(super) async fn resolve_not_created(
    acting: &Acting,
    record: &ActedRecord,
    force: bool,
    operator: &Operator,
) -> anyhow::Result<String> {
    let account = unknown(acting, record).await?;
    let said = ask_about_nothing(acting, account, record).await;
    if let Some(objection) = said.objection.as_ref().filter(|_| !force) {
        return Err(acting.refused(record, format!("{objection}. --force resolves it all the same")).await);
    }
    let content = content(record, &Conclusion::NotCreated);
    let details = json!({
        "to": "failed", "provider": said.word, "forced": said.objection.is_some(), "before": record.conclusion_before(),
    });
    store(acting, record, &content, operator, "resolve", &details).await?;
    Ok("failed, because nothing was created; `retry` may try it again".into())
}

/// Ends an unknown record with the link that the provider returned.
pub(super) async fn resolve_found(
    acting: &Acting,
    account: &Account,
    record: &ActedRecord,
    link: CreatedLink,
    operator: &Operator,
) -> anyhow::Result<()> {
    let mut content = content(record, &Conclusion::Created(link.clone()));
    content.link = Some(account.first_question(&link, record.now));
    let details = json!({
        "to": "created", "connector_payout_id": link.connector_payout_id, "provider": "found",
        "before": record.conclusion_before(),
    });
    store(acting, record, &content, operator, "look-up", &details).await
}

/// Reads `--url`.
fn link(text: &str) -> Result<SecretString, String> {
    // Whether http is allowed is a setting of the account, which is not read yet.
    link_url(text, true)
        .ok_or_else(|| "expected an absolute https URL without a user name, 2048 bytes at most".into())
}

/// Returns the account of an unknown record.
async fn unknown<'a>(acting: &'a Acting, record: &ActedRecord) -> anyhow::Result<&'a Account> {
    if record.state() != PayoutLinkState::Unknown {
        let reason = format!("the record is {}: only an unknown record is resolved", record.state());
        return Err(acting.refused(record, reason).await);
    }
    Ok(acting.account(record)?)
}

async fn store(
    acting: &Acting,
    record: &ActedRecord,
    content: &EventContent,
    operator: &Operator,
    command: &str,
    details: &serde_json::Value,
) -> anyhow::Result<()> {
    let act = NewAct { operator, command, details };
    match acting.store.resolve(record, content, act).await.context("database")? {
        Acted::Done => Ok(()),
        Acted::Changed | Acted::Unpublished => Err(acting.changed(record).await),
    }
}

fn content(record: &ActedRecord, conclusion: &Conclusion) -> EventContent {
    let (id, status_code) = (record.concluded.connector_payout_id.as_deref(), record.status_code);
    let status_code = conclusion.link().map_or(status_code, |link| link.status_code);
    contract::conclusion(
        &record.merchant_payout_id,
        conclusion,
        id,
        status_code,
        record.last_sequence + 1,
        record.now,
    )
}

/// Asks whether the link with this id exists, and whether it is the one of this record.
async fn ask_about_created(acting: &Acting, account: &Account, record: &ActedRecord, id: &str) -> Said {
    if is_elsewhere(account, record) {
        return Said { word: "not_asked", objection: Some(ELSEWHERE.into()), ..Said::default() };
    }
    let (expires_at, existence) = match acting.ask_about(account, id).await {
        LinkAnswer::Reported(report) => (report.expires_at, Ok(())),
        LinkAnswer::NotFound { .. } => {
            (None, Err(("not_found", format!("{} has no link {}", account.name, escape_control(id)))))
        }
        LinkAnswer::Unanswered { error, .. } => {
            (None, Err(("unanswered", format!("{} does not answer: {}", account.name, described(&error)))))
        }
    };
    if let Err((word, objection)) = existence {
        return Said { word, objection: Some(objection), ..Said::default() };
    }
    let objection = match account.connector.replay_rule().look_up() {
        None => None,
        Some(_) => another_link(acting.find(account, record, None).await, account, id),
    };
    if let Some(objection) = objection {
        return Said { word: "another", objection: Some(objection), expires_at, ..Said::default() };
    }
    match acting.find(account, record, Some(id)).await {
        Some(Finding::Found(link)) if link.connector_payout_id == id => {
            Said { word: "found", link: Some(link), expires_at, objection: None }
        }
        // A connector that cannot look up by its own id answered about the record's key.
        Some(Finding::Found(link)) => {
            let objection = of_another(account, &link.connector_payout_id);
            Said { word: "another", objection: Some(objection), expires_at, ..Said::default() }
        }
        _ => Said { word: "found", expires_at, ..Said::default() },
    }
}

/// Returns an objection if the provider has another link, or none, for the record's key.
fn another_link(finding: Option<Finding>, account: &Account, id: &str) -> Option<String> {
    match finding? {
        Finding::Found(CreatedLink { connector_payout_id, .. })
        | Finding::Underway { connector_payout_id, .. }
        | Finding::Ended { connector_payout_id, .. } => {
            (connector_payout_id != id).then(|| of_another(account, &connector_payout_id))
        }
        Finding::NotFound { .. } => Some(format!(
            "{} has no link for this record's key, so {} is another payout's",
            account.name,
            escape_control(id)
        )),
        // The link itself was answered about.
        Finding::Unanswered { .. } => None,
    }
}

fn of_another(account: &Account, id: &str) -> String {
    format!("{} has the link {} for this record's key", account.name, escape_control(id))
}

/// Asks whether there is nothing for this record at the provider.
async fn ask_about_nothing(acting: &Acting, account: &Account, record: &ActedRecord) -> Said {
    let objecting = |word, objection| Said { word, objection: Some(objection), ..Said::default() };
    if let Some(id) = &record.concluded.connector_payout_id {
        let objection = format!("{} has created the payout {} before", account.name, escape_control(id));
        return objecting("created_before", objection);
    }
    let Some(look_up) = account.connector.replay_rule().look_up() else {
        let name = &account.name;
        let objection = format!(
            "{name} cannot be asked by our reference, so nothing checks that it created nothing. Search its dashboard or \
             list first, for the idempotency key that `show` prints, the amount and the recipient. If a link exists, give \
             its id with --created"
        );
        return objecting("not_asked", objection);
    };
    if is_elsewhere(account, record) {
        return objecting("not_asked", ELSEWHERE.into());
    }
    match acting.find(account, record, None).await {
        None => objecting("not_asked", "the request is deleted, so the provider cannot be asked".into()),
        Some(
            Finding::Found(CreatedLink { connector_payout_id, .. })
            | Finding::Underway { connector_payout_id, .. }
            | Finding::Ended { connector_payout_id, .. },
        ) => objecting("found", of_another(account, &connector_payout_id)),
        Some(Finding::Unanswered { error, .. }) => {
            objecting("unanswered", format!("{} does not answer: {}", account.name, described(&error)))
        }
        Some(Finding::NotFound { .. }) => {
            let settled = record.last_called_at.map(|called_at| called_at + look_up.settle);
            match settled.filter(|settled| *settled > record.now) {
                Some(settled) => {
                    let left = (settled - record.now).whole_seconds() + 1;
                    objecting("not_settled", format!("nothing is found yet, and it counts in {left} s only"))
                }
                None => Said { word: "not_found", ..Said::default() },
            }
        }
    }
}

/// Returns whether the record was called in another account than the configured one, which does not see its link.
fn is_elsewhere(account: &Account, record: &ActedRecord) -> bool {
    record.concluded.account.as_ref().is_some_and(|called| *called != account.id)
}

const ELSEWHERE: &str =
    "it was called in another account than the connector is configured with, so the provider cannot be asked";
