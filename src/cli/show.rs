//! `show`: prints a record and the timeline of all that happened to it. It never decrypts anything.

use std::fmt::Write;

use anyhow::Context;
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::{
    acting::no_record,
    exit::ExitStatus,
    output::{Format, Output, counted},
    waits::Waits,
};
use crate::{
    config::Config,
    domain::{
        escape_control, idempotency_key_of, idempotency_uuid,
        retry::{Horizon, horizon},
    },
    postgres::{Reader, Search, Shown, ShownEvent},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Any id of the record: merchant_payout_id, record id, event id, connector_payout_id, provider_payout_id, or the
    /// idempotency key of its calls
    id: String,
    /// Print JSON, one object a line: the same as --output jsonl
    #[arg(long)]
    json: bool,
    /// Records that are searched for an idempotency key, the newest first: it is not stored
    #[arg(long, default_value_t = 100_000, value_name = "RECORDS")]
    scan: u32,
}

pub(super) async fn run(
    config: &Config,
    output: Output,
    arguments: &Arguments,
) -> anyhow::Result<ExitStatus> {
    let output = if arguments.json { output.with(Format::Jsonl) } else { output };
    let deployment = &config.worker.deployment;
    let reader = Reader::connect(&config.database()).await.context("database")?;
    let mut records = reader.show(&arguments.id).await.context("database")?;
    if records.is_empty() && may_be_a_key(&arguments.id) {
        let is_it = |merchant_id: &str, merchant_payout_id: &str| {
            let key = idempotency_key_of(deployment, merchant_id, merchant_payout_id);
            key == arguments.id || idempotency_uuid(&key).to_string() == arguments.id.to_ascii_lowercase()
        };
        match reader.find(arguments.scan, is_it).await.context("database")? {
            Search::Found(id) => records = reader.show(&id.to_string()).await.context("database")?,
            Search::NotThere => {}
            Search::Stopped => {
                return Err(ExitStatus::NothingFound
                    .because(format!(
                        "no record has the id {:?}, and none of the newest {} has it as its idempotency key: --scan with \
                         a larger number searches more",
                        arguments.id, arguments.scan
                    ))
                    .into());
            }
        }
    }
    if records.is_empty() {
        return Err(ExitStatus::NothingFound.because(no_record(&arguments.id)).into());
    }
    let documents = documents(config, &reader, &records).await;
    output.objects(&documents, |document| shown(document, deployment))?;
    Ok(ExitStatus::Done)
}

/// A record with what follows from the state of its deployment.
#[derive(Debug, Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    record: &'a Shown,
    /// Why it waits although it is due: pauses, and open circuit breakers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    waits_for: Vec<String>,
    /// Until when its unknown outcome is resolved by the replay rule, at most.
    #[serde(skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    resolved_until: Option<OffsetDateTime>,
    #[serde(skip)]
    horizon: Option<Horizon>,
}

async fn documents<'a>(config: &Config, reader: &Reader, records: &'a [Shown]) -> Vec<Document<'a>> {
    let is_waiting = |record: &Shown| !record.leased && record.due_at.is_some();
    let asks = |record: &Shown| record.link.as_ref().is_some_and(|link| link.ask_at.is_some());
    let waits = match records.iter().any(|record| is_waiting(record) || asks(record)) {
        true => Waits::read(reader).await,
        false => Waits::default(),
    };
    let is_unknown = |record: &Shown| record.in_doubt_since.is_some() && record.due_at.is_some();
    // Only with the account's section, which a reader may lack, is its replay rule known.
    let connectors = records.iter().any(is_unknown).then(|| config.connectors().ok()).flatten();
    let document = |record: &'a Shown| {
        let account = connectors.as_ref().and_then(|all| all.choose(Some(&record.connector)));
        let horizon = account.filter(|_| is_unknown(record)).and_then(|account| {
            let retried = record.operator_actions.iter().rfind(|action| action.command == "retry");
            let opened_at = retried.map_or(record.created_at, |action| action.at);
            let first_called_at = record.first_called_at.unwrap_or(opened_at);
            horizon(account.connector.replay_rule(), &config.pipeline().retry, first_called_at, opened_at)
        });
        let waits_for = match (is_waiting(record), asks(record)) {
            (true, _) => waits.of_creation(&record.connector, &record.merchant_id),
            (false, true) => waits.of_link(&record.connector),
            (false, false) => Vec::new(),
        };
        Document { record, waits_for, resolved_until: horizon.map(|horizon| horizon.until), horizon }
    };
    records.iter().map(document).collect()
}

/// Says what a worker does with an unknown outcome, and until when.
fn resolution(horizon: Horizon) -> String {
    let until = at(Some(horizon.until));
    match (horizon.repeats, horizon.then_asked) {
        (true, true) => {
            format!("until {until} at most by the same call under the same key, then by look-ups")
        }
        (true, false) => {
            format!("until {until} at most by the same call under the same key; then it ends as unknown")
        }
        (false, _) => format!("until {until} at most by look-ups; then it ends as unknown"),
    }
}

/// Returns whether a text has the form of an idempotency key, or of the UUID that some providers get in its place.
fn may_be_a_key(text: &str) -> bool {
    let is_key = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'));
    is_key || Uuid::parse_str(text).is_ok_and(|id| id.get_version_num() == 8)
}

fn shown(document: &Document<'_>, deployment: &str) -> String {
    let record = document.record;
    let mut text = format!("{} {}\n", escape_control(&record.merchant_payout_id), record.state);
    // Writing to a String cannot fail.
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "  {name:<20} {}", escape_control(value));
        }
    };
    line("id", &record.id.to_string());
    line("merchant_id", &record.merchant_id);
    line("connector", &record.connector);
    line("idempotency_key", &idempotency_key_of(deployment, &record.merchant_id, &record.merchant_payout_id));
    line("amount", &format!("{} minor units of {}", record.amount_minor, record.currency));
    line("payout_status", record.payout_status.as_deref().unwrap_or_default());
    line("connector_payout_id", record.connector_payout_id.as_deref().unwrap_or_default());
    line("error", record.error_code.as_deref().unwrap_or_default());
    line("accepted", &at(Some(record.created_at)));
    line("erased", &at(record.erased_at));
    line("unknown since", &at(record.in_doubt_since));
    line(if record.leased { "leased until" } else { "due" }, &at(record.due_at));
    line("leased by worker", record.worker.as_deref().unwrap_or_default());
    document.waits_for.iter().for_each(|obstacle| line("waits for", obstacle));
    line("resolved", &document.horizon.map(resolution).unwrap_or_default());
    if let Some(link) = &record.link {
        line("link", &link.status);
        line("provider status", link.provider_status.as_deref().unwrap_or_default());
        line("provider_payout_id", link.provider_payout_id.as_deref().unwrap_or_default());
        line("expires", &at(link.expires_at));
        line("asked", &at(link.asked_at));
        line("ask again", &at(link.ask_at));
        line("cancel requested", &at(link.cancel_requested_at));
    }
    for event in record.event.iter().chain(&record.later_events) {
        line("event", &format!("{} {}", event.r#type, event.id));
        line("published", &at(event.published_at));
        let attempts = counted(usize::try_from(event.webhook_attempts).unwrap_or_default(), "attempt");
        line("webhook", &format!("{}, {attempts}", event.webhook_state));
        line("event due", &at(event.due_at));
    }
    text.push_str("  timeline\n");
    for (time, entry) in timeline(record) {
        let _ = writeln!(text, "    {} {}", at(Some(time)), escape_control(&entry));
    }
    text
}

fn at(time: Option<OffsetDateTime>) -> String {
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

/// Returns what happened to a record, in the order of time.
fn timeline(record: &Shown) -> Vec<(OffsetDateTime, String)> {
    let mut all = vec![(record.created_at, "accepted".to_owned())];
    let mut push = |time: Option<OffsetDateTime>, entry: String| all.extend(time.map(|time| (time, entry)));
    push(record.refreshed_at, "duplicate with fresh secrets received".into());
    push(record.in_doubt_since, UNKNOWN.into());
    for call in &record.timeline {
        if call.kind == "duplicate" {
            push(Some(call.started_at), "another job with this key received".into());
            continue;
        }
        let detail = call.detail.as_deref().unwrap_or_default();
        let status = if call.status_code == 0 { String::new() } else { format!(" {}", call.status_code) };
        // The column has the word of an earlier version.
        let kind = if call.kind == "post" { "webhook" } else { &call.kind };
        let worker = call.worker.as_deref().map(|worker| format!(", worker {worker}")).unwrap_or_default();
        let entry =
            format!("{kind} {} {}{status} ({} ms{worker}) {detail}", call.number, call.outcome, call.took_ms);
        push(Some(call.started_at), entry.trim_end().to_owned());
    }
    for ShownEvent { r#type, id, published_at, .. } in record.event.iter().chain(&record.later_events) {
        push(*published_at, format!("published: {type} {id}"));
    }
    if let Some(link) = &record.link {
        push(link.status_changed_at, format!("link is {}", link.status));
        push(link.cancel_requested_at, "cancel requested".into());
        let because = link.cancelled_because.as_deref().unwrap_or_default();
        push(link.cancelled_at, format!("cancel at the provider began, because of {because}"));
    }
    for webhook in &record.provider_webhooks {
        push(Some(webhook.received_at), format!("provider webhook received: {}", webhook.event_type));
    }
    for request in &record.link_requests {
        let reason = request.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        push(Some(request.requested_at), format!("{} requested, not answered yet{reason}", request.kind));
    }
    for action in &record.operator_actions {
        let details = details(&action.details);
        let entry =
            format!("operator {}: {}{details}, because: {}", action.actor, action.command, action.reason);
        // The next conclusion has replaced it in the record.
        if let Some(before) = action.conclusion_before() {
            push(before.unknown_since, UNKNOWN.into());
            push(before.concluded_at, concluded(&before.state, before.error_code.as_deref()));
        }
        push(Some(action.at), entry);
    }
    push(record.erased_at, "erased".into());
    // After the operators' acts: an act that concludes a record has the same time, and comes first.
    push(record.concluded_at, concluded(record.state.as_str(), record.error_code.as_deref()));
    all.sort_by_key(|(time, _)| *time);
    all
}

const UNKNOWN: &str = "outcome of the call unknown";

fn concluded(state: &str, error_code: Option<&str>) -> String {
    format!("concluded: {state}{}", error_code.map(|code| format!(" ({code})")).unwrap_or_default())
}

/// Writes the facts of an act in words: those that are there. The conclusion before it has lines of its own.
fn details(details: &serde_json::Value) -> String {
    let serde_json::Value::Object(details) = details else { return format!(" {details}") };
    let facts: Vec<String> = details
        .iter()
        .filter_map(|(name, value)| match value {
            serde_json::Value::Null | serde_json::Value::Bool(false) | serde_json::Value::Object(_) => None,
            serde_json::Value::String(text) if text.is_empty() => None,
            serde_json::Value::Bool(true) => Some(name.clone()),
            serde_json::Value::String(text) => Some(format!("{name} {text}")),
            value => Some(format!("{name} {value}")),
        })
        .collect();
    if facts.is_empty() { String::new() } else { format!(" ({})", facts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_act_has_its_facts_in_words() {
        let facts =
            serde_json::json!({ "letter": "5dd5", "code": "", "to": null, "patched": true, "forced": false });
        assert_eq!(details(&facts), " (letter 5dd5, patched)");
        assert_eq!(details(&serde_json::json!({})), "");
    }

    #[test]
    fn the_form_of_an_idempotency_key_is_recognized() {
        let key = idempotency_key_of("", "", "po_1001");
        assert!(may_be_a_key(&key) && may_be_a_key(&idempotency_uuid(&key).to_string()));
        assert!(!may_be_a_key("po_1001") && !may_be_a_key(&Uuid::new_v4().to_string()));
    }
}
