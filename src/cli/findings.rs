//! Decides what an operator has to know, from what the database and the broker show: the worst first.

use serde::Serialize;
use time::{Duration, OffsetDateTime};

use crate::{
    postgres::{AccountStatus, DatabaseStatus, OVERDUE_SECONDS, Pause, STATUS_SCAN},
    rabbitmq::QueueCounts,
};

/// Whether someone has to do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Severity {
    /// It does not end by itself.
    Act,
    /// Workers deal with it; it explains why something waits.
    Watch,
}

/// One thing that an operator has to know.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    /// A name for scripts; it does not change.
    pub(super) name: &'static str,
    pub(super) text: String,
    pub(super) count: i64,
    /// Whether all were counted; otherwise there are at least `count`.
    pub(super) complete: bool,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(super) since: Option<OffsetDateTime>,
    /// The command that shows more.
    pub(super) next: String,
}

/// Facts beside the database's status.
#[derive(Debug, Default)]
pub(super) struct Known<'a> {
    /// Messages in the worker's queues; `None`: the broker was not asked, or did not answer.
    pub(super) queues: Option<QueueCounts>,
    /// The configured connector accounts; `None`: the configuration has none.
    pub(super) accounts: Option<Vec<&'a str>>,
    /// The configured sealing keys; `None`: the configuration has none.
    pub(super) sealing_keys: Option<Vec<String>>,
}

/// An open record whose outcome is unknown is resolved by the replay rule: within minutes, if the provider answers.
const UNKNOWN_LIMIT: Duration = Duration::minutes(15);
const OVERDUE: Duration = Duration::seconds(OVERDUE_SECONDS as i64);
/// As the alerts `RecordsWait` and `EventsWait`.
const DUE_LIMIT: Duration = Duration::minutes(5);
/// As the alert `ClocksDiffer`.
const CLOCK_LIMIT_MS: i64 = 60_000;

/// Returns what an operator has to know, the worst first: money that may have moved, then work that nobody does, then
/// what waits.
pub(super) fn findings(status: &DatabaseStatus, known: &Known<'_>, now: OffsetDateTime) -> Vec<Finding> {
    let mut all = Vec::new();
    unknown_payouts(status, now, &mut all);
    workers(status, &mut all);
    paused(status, &mut all);
    keys_and_accounts(status, known, &mut all);
    breakers(status, now, &mut all);
    waiting_records(status, now, &mut all);
    undelivered(status, now, &mut all);
    letters(known, &mut all);
    clock(status, &mut all);
    // Stable: within a severity the order above remains.
    all.sort_by_key(|finding| finding.severity);
    all
}

fn finding(
    severity: Severity,
    name: &'static str,
    text: impl Into<String>,
    next: impl Into<String>,
) -> Finding {
    let (text, next) = (text.into(), next.into());
    Finding { severity, name, text, count: 1, complete: true, since: None, next }
}

impl Finding {
    fn counted(self, count: i64) -> Self {
        Self { count, complete: count < STATUS_SCAN, ..self }
    }

    fn since(self, since: Option<OffsetDateTime>) -> Self {
        Self { since, ..self }
    }
}

/// Returns `Act` if it has lasted too long for workers to deal with it.
fn by_age(since: Option<OffsetDateTime>, limit: Duration, now: OffsetDateTime) -> Severity {
    if since.is_some_and(|since| now - since > limit) { Severity::Act } else { Severity::Watch }
}

fn unknown_payouts(status: &DatabaseStatus, now: OffsetDateTime, all: &mut Vec<Finding>) {
    if status.unknown.count > 0 {
        let text = "payouts are concluded as unknown: a link may exist, and nothing else resolves them";
        all.push(
            finding(Severity::Act, "unknown_payouts", text, "list --state unknown --oldest-first")
                .counted(status.unknown.count)
                .since(status.unknown.oldest),
        );
    }
    for account in status.accounts.iter().filter(|account| account.unknown > 0) {
        let text = format!("calls to {} have an outcome that is unknown so far", account.connector);
        let next = format!("list --unknown --state open --connector {}", account.connector);
        all.push(
            finding(by_age(account.unknown_since, UNKNOWN_LIMIT, now), "unresolved_calls", text, next)
                .counted(account.unknown)
                .since(account.unknown_since),
        );
    }
}

fn workers(status: &DatabaseStatus, all: &mut Vec<Finding>) {
    let Some(workers) = &status.workers else { return };
    if workers.is_empty() {
        all.push(finding(Severity::Act, "no_workers", "no worker is connected to the database", "check"));
    }
    if workers.len() > 1 {
        let versions: Vec<String> = workers
            .iter()
            .map(|seen| {
                format!("{} × {}", seen.count, seen.version.as_deref().unwrap_or("an earlier version"))
            })
            .collect();
        let text = format!("workers of several versions run: {}", versions.join(", "));
        all.push(finding(Severity::Watch, "mixed_versions", text, "check"));
    }
}

fn paused(status: &DatabaseStatus, all: &mut Vec<Finding>) {
    for Pause { kind, name, paused_at, actor, reason } in &status.pauses {
        let (target, next) = match kind.as_str() {
            "webhook_host" => (format!("webhooks to {name}"), format!("webhooks resume-host {name}")),
            _ => (format!("{kind} {name}"), format!("resume {kind} {name}")),
        };
        let text = format!("paused: {}, by {actor}: {reason}", target.trim_end());
        all.push(finding(Severity::Watch, "paused", text, next.trim_end()).since(Some(*paused_at)));
    }
}

/// Returns whether an operator has paused an account's calls.
fn is_paused(status: &DatabaseStatus, connector: &str) -> bool {
    status.pauses.iter().any(|pause| pause.kind == "account" && pause.name == connector)
}

fn keys_and_accounts(status: &DatabaseStatus, known: &Known<'_>, all: &mut Vec<Finding>) {
    if let Some(ring) = &known.sealing_keys {
        let missing: Vec<&str> = status.sealing_keys.iter().map(String::as_str).collect();
        let missing: Vec<&str> =
            missing.into_iter().filter(|key| !ring.iter().any(|own| own == key)).collect();
        if !missing.is_empty() {
            let text = format!(
                "sealing keys of recent records are not in this configuration: {}",
                missing.join(", ")
            );
            all.push(
                finding(Severity::Act, "missing_keys", text, "keys status").counted(count(missing.len())),
            );
        }
    }
    let Some(accounts) = &known.accounts else { return };
    for account in &status.accounts {
        if !accounts.contains(&account.connector.as_str()) {
            let text =
                format!("records are open for {}, which this configuration does not have", account.connector);
            let next = format!("list --state open --connector {}", account.connector);
            all.push(finding(Severity::Act, "missing_account", text, next).counted(account.open));
        }
    }
}

fn breakers(status: &DatabaseStatus, now: OffsetDateTime, all: &mut Vec<Finding>) {
    for breaker in &status.breakers {
        let connector = &breaker.connector;
        let text = format!("workers have an open circuit breaker of {connector}: its calls wait");
        // Their outcome may be unknown so far: those are not among the ones that are retried.
        let next = format!("list --state open --connector {connector}");
        all.push(
            finding(by_age(Some(breaker.opened_at), DUE_LIMIT, now), "open_breaker", text, next)
                .counted(breaker.workers)
                .since(Some(breaker.opened_at)),
        );
    }
}

fn waiting_records(status: &DatabaseStatus, now: OffsetDateTime, all: &mut Vec<Finding>) {
    for account in &status.accounts {
        let connector = &account.connector;
        let said: Vec<String> = account.last_attempts.iter().take(3).map(said).collect();
        let said =
            if said.is_empty() { String::new() } else { format!("; the last attempts: {}", said.join(", ")) };
        // The count looks at the records that are served first; the time is of all.
        if account.overdue > 0 || by_age(account.due_since, OVERDUE, now) == Severity::Act {
            let merchant = account.most_delayed_merchant.as_deref();
            let merchant = match merchant.filter(|_| !is_paused(status, connector)) {
                None => String::new(),
                Some("") => "; the oldest is of a job without a merchant".into(),
                Some(merchant) => format!("; the oldest is of merchant {merchant}"),
            };
            let text = format!("records of {connector} have been due for more than a minute{merchant}{said}");
            let next = format!("list --overdue --oldest-first --connector {connector}");
            // Records of a paused account wait because an operator wants it.
            let severity = match is_paused(status, connector) {
                true => Severity::Watch,
                false => by_age(account.due_since, DUE_LIMIT, now),
            };
            all.push(
                finding(severity, "overdue_records", text, next)
                    .counted(account.overdue.max(1))
                    .since(account.due_since),
            );
        } else if account.retrying > 0 && !is_refused(account) {
            let text = format!("records of {connector} wait for another attempt{said}");
            let next = format!("list --retrying --connector {connector}");
            all.push(finding(Severity::Watch, "retrying_records", text, next).counted(account.retrying));
        }
        if is_refused(account) {
            let text = format!("records of {connector} wait until the provider accepts the credential{said}");
            all.push(
                finding(Severity::Act, "refused_credential", text, "check").counted(account.retrying.max(1)),
            );
        }
    }
}

/// Returns whether the provider refuses the account's credential: no attempt succeeds before a person has renewed it.
fn is_refused(account: &AccountStatus) -> bool {
    account.last_attempts.first().is_some_and(|last| matches!(last.status_code, 401 | 403))
}

/// Describes attempts that came to the same.
fn said(last: &crate::postgres::LastAttempts) -> String {
    let status = if last.status_code == 0 { String::new() } else { format!(" {}", last.status_code) };
    let detail = last.detail.as_deref().map(|detail| format!(" ({detail})")).unwrap_or_default();
    format!("{} × {} {}{status}{detail}", last.count, last.kind, last.outcome)
}

fn undelivered(status: &DatabaseStatus, now: OffsetDateTime, all: &mut Vec<Finding>) {
    let events = &status.events;
    if events.unpublished.count > 0 {
        let severity = by_age(events.unpublished.oldest, DUE_LIMIT, now);
        let text = "results are not published a minute after their event";
        all.push(
            finding(severity, "unpublished_results", text, "check")
                .counted(events.unpublished.count)
                .since(events.unpublished.oldest),
        );
    }
    if by_age(events.due_since, DUE_LIMIT, now) == Severity::Act {
        let text = "results or webhooks are due, and no worker delivers them";
        all.push(finding(Severity::Act, "events_wait", text, "check").since(events.due_since));
    }
    if events.abandoned_webhooks.count > 0 {
        let text = "webhooks of the last day were abandoned: their merchants have not got them";
        all.push(
            finding(Severity::Act, "abandoned_webhooks", text, "webhooks list")
                .counted(events.abandoned_webhooks.count)
                .since(events.abandoned_webhooks.oldest),
        );
    }
    for host in &status.hosts {
        let text = format!(
            "webhooks to {} fail and are tried again, after {} attempts at most",
            host.host, host.max_attempts
        );
        all.push(
            finding(Severity::Watch, "failing_host", text, "webhooks list")
                .counted(host.failing)
                .since(Some(host.oldest)),
        );
    }
}

fn letters(known: &Known<'_>, all: &mut Vec<Finding>) {
    let Some(queues) = known.queues else { return };
    let (dead, unrouted) = ("dead letters: jobs that were rejected", "results that no queue was bound for");
    for (messages, name, text, next) in [
        (queues.dead_letters, "dead_letters", dead, "dead-letters list"),
        (queues.unrouted, "unrouted_results", unrouted, "dead-letters list --queue results"),
    ] {
        if messages > 0 {
            let finding = finding(Severity::Act, name, text, next);
            all.push(Finding { count: messages.into(), ..finding });
        }
    }
}

fn clock(status: &DatabaseStatus, all: &mut Vec<Finding>) {
    let offset = status.clock_offset_ms;
    if offset.abs() > CLOCK_LIMIT_MS {
        let way = if offset > 0 { "ahead of" } else { "behind" };
        let text = format!("the database's clock is {} s {way} this machine's", offset.abs() / 1000);
        all.push(finding(Severity::Act, "clocks_differ", text, "check"));
    }
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
