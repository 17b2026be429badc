//! The findings of `status`, and their urgency.

use time::macros::datetime;

use super::*;
use crate::postgres::{AccountStatus, EventStatus, HostStatus, LastAttempts, OpenBreaker, Pile, SeenWorkers};

const NOW: OffsetDateTime = datetime!(2026-11-29 06:00 UTC);

#[expect(clippy::unnecessary_wraps, reason = "the fields that it fills are optional")]
fn ago(minutes: i64) -> Option<OffsetDateTime> {
    Some(NOW - Duration::minutes(minutes))
}

fn worker(version: Option<&str>) -> SeenWorkers {
    SeenWorkers { version: version.map(str::to_owned), count: 2 }
}

fn well() -> DatabaseStatus {
    DatabaseStatus {
        unknown: Pile::default(),
        accounts: Vec::new(),
        breakers: Vec::new(),
        pauses: Vec::new(),
        events: EventStatus::default(),
        hosts: Vec::new(),
        workers: Some(vec![worker(Some("0.2.0"))]),
        sealing_keys: vec!["k1".into()],
        clock_offset_ms: 20,
    }
}

fn account() -> AccountStatus {
    AccountStatus {
        connector: "xendit".into(),
        open: 3,
        retrying: 0,
        unknown: 0,
        unknown_since: None,
        overdue: 0,
        due_since: None,
        most_delayed_merchant: None,
        last_attempts: Vec::new(),
    }
}

fn attempts(status_code: i32) -> LastAttempts {
    let (connector, kind, outcome) = ("xendit".into(), "create".into(), "try_later".into());
    LastAttempts { connector, kind, outcome, status_code, count: 20, detail: None }
}

fn breaker(minutes: i64) -> OpenBreaker {
    OpenBreaker { connector: "xendit".into(), workers: 2, opened_at: ago(minutes).unwrap() }
}

fn names(status: &DatabaseStatus, known: &Known<'_>) -> Vec<(Severity, &'static str)> {
    findings(status, known, NOW).iter().map(|finding| (finding.severity, finding.name)).collect()
}

#[test]
fn a_deployment_that_works_has_no_finding() {
    let known = Known {
        queues: Some(QueueCounts { jobs: 1000, dead_letters: 0, unrouted: 0 }),
        accounts: Some(vec!["xendit"]),
        sealing_keys: Some(vec!["k1".into()]),
    };
    assert_eq!(names(&DatabaseStatus { accounts: vec![account()], ..well() }, &known), []);
    // A standby does not show its workers.
    assert_eq!(names(&DatabaseStatus { workers: None, ..well() }, &known), []);
}

#[test]
fn each_trouble_has_its_finding_and_its_severity() {
    use Severity::{Act, Watch};
    let of = |account: AccountStatus| DatabaseStatus { accounts: vec![account], ..well() };
    let events = |events: EventStatus| DatabaseStatus { events, ..well() };
    let pile = |oldest| Pile { count: 1, oldest };
    let host = HostStatus { host: "m.example".into(), failing: 4, max_attempts: 2, oldest: NOW, next: None };
    for (status, expected) in [
        (DatabaseStatus { unknown: pile(ago(1)), ..well() }, (Act, "unknown_payouts")),
        (of(AccountStatus { unknown: 1, unknown_since: ago(1), ..account() }), (Watch, "unresolved_calls")),
        (of(AccountStatus { unknown: 1, unknown_since: ago(16), ..account() }), (Act, "unresolved_calls")),
        (of(AccountStatus { overdue: 1, due_since: ago(2), ..account() }), (Watch, "overdue_records")),
        (of(AccountStatus { overdue: 1, due_since: ago(6), ..account() }), (Act, "overdue_records")),
        (of(AccountStatus { retrying: 1, ..account() }), (Watch, "retrying_records")),
        (
            of(AccountStatus { retrying: 1, last_attempts: vec![attempts(401)], ..account() }),
            (Act, "refused_credential"),
        ),
        (
            of(AccountStatus { retrying: 1, last_attempts: vec![attempts(503)], ..account() }),
            (Watch, "retrying_records"),
        ),
        (DatabaseStatus { breakers: vec![breaker(1)], ..well() }, (Watch, "open_breaker")),
        (DatabaseStatus { breakers: vec![breaker(6)], ..well() }, (Act, "open_breaker")),
        (DatabaseStatus { workers: Some(vec![]), ..well() }, (Act, "no_workers")),
        (
            DatabaseStatus { workers: Some(vec![worker(None), worker(Some("0.2.0"))]), ..well() },
            (Watch, "mixed_versions"),
        ),
        (
            events(EventStatus { unpublished: pile(ago(2)), ..EventStatus::default() }),
            (Watch, "unpublished_results"),
        ),
        (
            events(EventStatus { unpublished: pile(ago(6)), ..EventStatus::default() }),
            (Act, "unpublished_results"),
        ),
        (events(EventStatus { due_since: ago(6), ..EventStatus::default() }), (Act, "events_wait")),
        (
            events(EventStatus { abandoned_webhooks: pile(ago(6)), ..EventStatus::default() }),
            (Act, "abandoned_webhooks"),
        ),
        (DatabaseStatus { hosts: vec![host], ..well() }, (Watch, "failing_host")),
        (DatabaseStatus { clock_offset_ms: -61_000, ..well() }, (Act, "clocks_differ")),
    ] {
        assert_eq!(names(&status, &Known::default()), [expected]);
    }
    let known = Known {
        queues: Some(QueueCounts { jobs: 0, dead_letters: 2, unrouted: 1 }),
        accounts: Some(vec!["sandbox"]),
        sealing_keys: Some(vec!["k2".into()]),
    };
    let expected =
        [(Act, "missing_keys"), (Act, "missing_account"), (Act, "dead_letters"), (Act, "unrouted_results")];
    assert_eq!(names(&of(account()), &known), expected);
    let last = findings(&of(account()), &known, NOW).pop().unwrap();
    assert_eq!(last.next, "dead-letters list --queue results");
}

#[test]
fn records_of_a_paused_account_need_nobody() {
    let pause = Pause {
        kind: "account".into(),
        name: "xendit".into(),
        paused_at: NOW,
        actor: "ada".into(),
        reason: "maintenance".into(),
    };
    let status = DatabaseStatus {
        accounts: vec![AccountStatus { overdue: 1, due_since: ago(6), ..account() }],
        pauses: vec![pause],
        ..well()
    };
    let all = findings(&status, &Known::default(), NOW);
    assert_eq!(
        (all[0].text.as_str(), all[0].next.as_str()),
        ("paused: account xendit, by ada: maintenance", "resume account xendit")
    );
    assert!(all.iter().all(|finding| finding.severity == Severity::Watch));
}

#[test]
fn the_worst_comes_first_with_the_last_attempts() {
    let attempts = LastAttempts { detail: Some("maintenance".into()), ..attempts(503) };
    let status = DatabaseStatus {
        unknown: Pile { count: STATUS_SCAN, oldest: ago(600) },
        accounts: vec![AccountStatus { retrying: 3, last_attempts: vec![attempts], ..account() }],
        workers: Some(Vec::new()),
        ..well()
    };
    let all = findings(&status, &Known::default(), NOW);
    let names: Vec<&str> = all.iter().map(|finding| finding.name).collect();
    assert_eq!(names, ["unknown_payouts", "no_workers", "retrying_records"]);
    assert!(!all[0].complete);
    assert!(
        all[2].text.ends_with("the last attempts: 20 × create try_later 503 (maintenance)"),
        "{}",
        all[2].text
    );
}
