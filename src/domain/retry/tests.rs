//! One table of decisions for each replay rule.

mod unknown;

use super::*;
use crate::domain::{CreatedLink, Finding, Outcome, PayoutStatus, SetBack};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
const SETTLE: LookUp = LookUp { settle: Duration::from_mins(1) };
const SAME_KEY: ReplayRule = ReplayRule::SameKey { window: HOUR, look_up: None };
const SAME_KEY_OR_ASK: ReplayRule = ReplayRule::SameKey { window: HOUR, look_up: Some(SETTLE) };
const ASK: ReplayRule = ReplayRule::LookUp(SETTLE);

fn policy() -> RetryPolicy {
    RetryPolicy {
        initial: SECOND,
        max_interval: 300 * SECOND,
        max_age: 24 * HOUR,
        max_attempts: 100,
        window_margin: 600 * SECOND,
        ask_before_calling_since: None,
    }
}

fn account() -> AccountId {
    AccountId::of("sandbox", "https://pay.example", "acme")
}

/// Returns the time of a clock that was watched long before the start.
fn at(now: OffsetDateTime) -> Circumstances {
    Circumstances {
        now,
        steady: Steady { since: start() - 100 * HOUR, after_step: false, set_back: None },
        account: account(),
    }
}

fn start() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn error(status_code: u16) -> ConnectorError {
    ConnectorError::new(status_code, None, "no", None)
}

fn link() -> CreatedLink {
    CreatedLink {
        connector_payout_id: "plink_1".into(),
        payout_status: PayoutStatus::RequiresFulfillment,
        unknown_status: None,
        url: "https://pay.example/l/1".into(),
        expires_at: None,
        status_code: 201,
    }
}

/// Returns the progress after one call, begun at the start, that came to `outcome`.
fn after(outcome: Outcome) -> Progress {
    let mut progress = Progress {
        attempts: 1,
        first_called_at: Some(start()),
        last_called_at: Some(start()),
        ..Progress::new(start())
    };
    progress.record(outcome, start() + SECOND);
    progress
}

/// Returns the next step in a word.
fn step(progress: &Progress, rule: ReplayRule, passed: Duration) -> &'static str {
    match next(progress, rule, &policy(), &at(start() + passed)) {
        Next::Call { .. } => "call",
        Next::LookUp { .. } => "look up",
        Next::Conclude(Conclusion::Created(_)) => "created",
        Next::Conclude(Conclusion::Declined { .. }) => "rejected",
        Next::Conclude(Conclusion::Unavailable(_)) => "unavailable",
        Next::Conclude(Conclusion::Unknown(_)) => "unknown",
        Next::Conclude(Conclusion::NotCreated) => "not created",
        Next::Conclude(Conclusion::Cancelled) => "cancelled",
    }
}

fn try_later(retry_after: Option<Duration>) -> Outcome {
    Outcome::TryLater { error: error(429), retry_after }
}

#[test]
fn a_first_call_is_made_however_long_its_job_waited() {
    for rule in [SAME_KEY, ASK, ReplayRule::Never] {
        assert_eq!(step(&Progress::new(start()), rule, Duration::ZERO), "call");
        assert_eq!(step(&Progress::new(start()), rule, 48 * HOUR), "call");
    }
}

#[test]
fn a_cancelled_record_is_ended_only_before_its_first_call() {
    let cancelled = |progress: Progress| Progress { cancel_is_requested: true, ..progress };
    for rule in [SAME_KEY, ASK, ReplayRule::Never] {
        assert_eq!(step(&cancelled(Progress::new(start())), rule, SECOND), "cancelled");
        // A call that was not sent may be one of several.
        for outcome in [Outcome::NotSent(error(0)), try_later(None)] {
            assert_eq!(step(&cancelled(after(outcome)), rule, SECOND), "call");
        }
        assert_eq!(step(&cancelled(after(Outcome::Created(link()))), rule, SECOND), "created");
        let unknown = Progress { in_doubt_since: Some(start()), ..Progress::new(start()) };
        assert_ne!(step(&cancelled(unknown), rule, SECOND), "cancelled");
    }
}

#[test]
fn the_rule_matters_only_for_an_unknown_outcome() {
    for rule in [SAME_KEY, SAME_KEY_OR_ASK, ASK, ReplayRule::Never] {
        for (outcome, soon, late) in [
            (Outcome::Created(link()), "created", "created"),
            (Outcome::Declined(error(422)), "rejected", "rejected"),
            (Outcome::NotSent(error(0)), "call", "unavailable"),
            (try_later(None), "call", "unavailable"),
        ] {
            assert_eq!(step(&after(outcome.clone()), rule, SECOND), soon, "{outcome:?} {rule:?}");
            assert_eq!(step(&after(outcome.clone()), rule, 25 * HOUR), late, "{outcome:?} {rule:?}");
        }
    }
}

#[test]
fn an_unknown_outcome_is_resolved_by_the_replay_rule() {
    let unknown = after(Outcome::Unknown(error(500)));
    for (rule, passed, expected) in [
        (SAME_KEY, SECOND, "call"),
        (SAME_KEY, 40 * 60 * SECOND, "call"),
        // Ten minutes before the window ends is too close to it.
        (SAME_KEY, 51 * 60 * SECOND, "unknown"),
        (SAME_KEY_OR_ASK, SECOND, "call"),
        (SAME_KEY_OR_ASK, 51 * 60 * SECOND, "look up"),
        (ASK, SECOND, "look up"),
        (ASK, 25 * HOUR, "look up"),
        (ReplayRule::Never, SECOND, "unknown"),
    ] {
        assert_eq!(step(&unknown, rule, passed), expected, "{rule:?} after {passed:?}");
    }
}

#[test]
fn a_record_of_a_failed_worker_is_unknown_and_never_repeated_blindly() {
    let left = Progress { in_doubt_since: Some(start()), last: None, ..after(Outcome::NotSent(error(0))) };
    for (rule, expected) in [(SAME_KEY, "call"), (ASK, "look up"), (ReplayRule::Never, "unknown")] {
        assert_eq!(step(&left, rule, 46 * SECOND), expected, "{rule:?}");
    }
}

#[test]
fn an_unknown_outcome_stays_unknown() {
    for later in [Outcome::Declined(error(422)), Outcome::NotSent(error(0)), try_later(None)] {
        let mut progress = after(Outcome::Unknown(error(500)));
        progress.record(later.clone(), start() + 2 * SECOND);
        assert_eq!(step(&progress, ReplayRule::Never, 3 * SECOND), "unknown", "{later:?}");
        assert_eq!(step(&progress, ASK, 3 * SECOND), "look up", "{later:?}");
        assert_eq!(step(&progress, SAME_KEY, 25 * HOUR), "unknown", "{later:?}");
    }
    // A declined retry is looked up if possible; otherwise it stays unknown.
    let mut declined = after(Outcome::Unknown(error(500)));
    declined.record(Outcome::Declined(error(422)), start() + 2 * SECOND);
    assert_eq!(step(&declined, SAME_KEY, 3 * SECOND), "unknown");
    assert_eq!(step(&declined, SAME_KEY_OR_ASK, 3 * SECOND), "look up");
    // A link settles it.
    declined.record(Outcome::Created(link()), start() + 3 * SECOND);
    assert_eq!(step(&declined, SAME_KEY, 4 * SECOND), "created");
}

#[test]
fn not_there_counts_only_after_the_settle_time() {
    let early = start() + 30 * SECOND;
    let mut progress = after(Outcome::Unknown(error(500)));
    progress.record_finding(Finding::NotFound { status_code: 200 }, ASK, &at(early));
    assert!(progress.in_doubt_since.is_some());
    let Next::LookUp { after: wait } = next(&progress, ASK, &policy(), &at(early)) else {
        panic!("not asked again")
    };
    assert_eq!(wait, 30 * SECOND);
    // After it, nothing was made: the next call is a first call again, with a window of its own.
    progress.record_finding(Finding::NotFound { status_code: 200 }, ASK, &at(early + wait));
    assert_eq!((progress.in_doubt_since, progress.first_called_at), (None, None));
    assert_eq!(step(&progress, ASK, 60 * SECOND), "call");
    assert_eq!(step(&progress, ASK, 25 * HOUR), "unavailable");
}

#[test]
fn what_is_found_ends_it() {
    let mut found = after(Outcome::Unknown(error(500)));
    found.record_finding(Finding::Found(link()), ASK, &at(start() + SECOND));
    assert_eq!(step(&found, ASK, SECOND), "created");
    let mut ended = after(Outcome::Unknown(error(500)));
    let gone = Finding::Ended {
        error: error(200),
        payout_status: PayoutStatus::Cancelled,
        connector_payout_id: "plink_1".into(),
    };
    ended.record_finding(gone, ASK, &at(start() + SECOND));
    assert_eq!(step(&ended, ASK, SECOND), "rejected");
}

#[test]
fn a_question_that_is_not_answered_is_asked_until_time_is_up() {
    let mut progress = after(Outcome::Unknown(error(500)));
    let unanswered = Finding::Unanswered { error: error(503), retry_after: Some(7 * SECOND) };
    progress.record_finding(unanswered, ASK, &at(start() + SECOND));
    let Next::LookUp { after: wait } = next(&progress, ASK, &policy(), &at(start() + SECOND)) else {
        panic!()
    };
    assert!(wait >= 7 * SECOND);
    assert_eq!(step(&progress, ASK, 25 * HOUR), "unknown");
}

#[test]
fn a_link_that_is_not_ready_is_asked_for_and_never_made_again() {
    let underway = Outcome::Underway { connector_payout_id: "plink_1".into(), status_code: 201 };
    for rule in [SAME_KEY, ASK, ReplayRule::Never] {
        let mut progress = after(underway.clone());
        assert_eq!(step(&progress, rule, SECOND), "look up");
        progress.record_finding(Finding::NotFound { status_code: 404 }, rule, &at(start() + 2 * HOUR));
        assert_eq!(step(&progress, rule, 2 * HOUR), "look up");
        assert_eq!(step(&progress, rule, 25 * HOUR), "unknown");
    }
}

#[test]
fn what_takes_long_is_asked_about_ever_more_rarely() {
    let mut progress = after(Outcome::Underway { connector_payout_id: "plink_1".into(), status_code: 201 });
    // Just taken up by a worker: asked at once.
    progress.last = None;
    let Next::LookUp { after: wait } = next(&progress, ASK, &policy(), &at(start() + HOUR)) else { panic!() };
    assert_eq!(wait, Duration::ZERO);
    // The first look-up came after twenty minutes: the next one is minutes away, in any worker.
    let underway = Finding::Underway { connector_payout_id: "plink_1".into(), status_code: 200 };
    progress.record_finding(underway, ASK, &at(start() + HOUR / 3));
    let Next::LookUp { after: wait } = next(&progress, ASK, &policy(), &at(start() + HOUR / 3)) else {
        panic!()
    };
    assert!(wait >= 150 * SECOND && wait <= 300 * SECOND, "{wait:?}");
}

#[test]
fn what_is_there_already_is_asked_for_or_left_unknown_and_never_failed() {
    let there = after(Outcome::AlreadyExists(error(400)));
    assert_eq!(step(&there, SAME_KEY_OR_ASK, SECOND), "look up");
    assert_eq!(step(&there, ASK, SECOND), "look up");
    // A retry would get the same answer.
    assert_eq!(step(&there, SAME_KEY, SECOND), "unknown");
    assert_eq!(step(&there, ReplayRule::Never, SECOND), "unknown");
}

#[test]
fn attempts_have_an_end() {
    let mut progress = after(Outcome::NotSent(error(0)));
    progress.attempts = 100;
    assert_eq!(step(&progress, SAME_KEY, SECOND), "unavailable");
    progress.record(Outcome::Unknown(error(500)), start());
    assert_eq!(step(&progress, SAME_KEY, SECOND), "unknown");
}

#[test]
fn waits_double_with_jitter_up_to_their_limit() {
    for (attempts, middle) in [(1, SECOND), (2, 2 * SECOND), (5, 16 * SECOND)] {
        let progress = Progress { attempts, ..after(Outcome::NotSent(error(0))) };
        let Next::Call { after: wait } = next(&progress, ASK, &policy(), &at(start())) else { panic!() };
        assert!(wait >= middle / 2 && wait <= middle * 3 / 2, "{attempts}: {wait:?}");
    }
    for attempts in [9, 20, 40, 99] {
        let progress = Progress { attempts, ..after(Outcome::NotSent(error(0))) };
        let Next::Call { after: wait } = next(&progress, ASK, &policy(), &at(start())) else { panic!() };
        assert!(wait <= 300 * SECOND, "{attempts}: {wait:?}");
    }
    let progress = after(try_later(Some(1000 * SECOND)));
    let Next::Call { after: wait } = next(&progress, ASK, &policy(), &at(start())) else { panic!() };
    assert_eq!(wait, 1000 * SECOND, "Retry-After, to the letter");
}

#[test]
fn a_connector_cannot_put_a_job_off_beyond_its_age() {
    for asked in [48 * HOUR, Duration::from_secs(u64::MAX)] {
        let progress = after(try_later(Some(asked)));
        let Next::Call { after: wait } = next(&progress, ASK, &policy(), &at(start())) else { panic!() };
        assert_eq!(wait, 24 * HOUR);
        // Then the record is concluded as unavailable.
        let last = next(&progress, ASK, &policy(), &at(start() + 24 * HOUR));
        assert!(matches!(last, Next::Conclude(Conclusion::Unavailable(_))), "{last:?}");
    }
}

#[test]
fn a_webhooks_wait_is_ten_to_twenty_per_cent_longer_and_never_shorter() {
    for _ in 0..1000 {
        let wait = later(100 * SECOND);
        assert!(wait >= 109 * SECOND && wait <= 121 * SECOND, "{wait:?}");
    }
    assert_eq!(later(Duration::ZERO), Duration::ZERO);
}

#[test]
fn a_question_is_spread_over_an_eighth_of_its_interval_and_never_too_early() {
    let waits: Vec<Duration> = (0..1000).map(|_| spread(80 * SECOND)).collect();
    assert!(waits.iter().all(|wait| (80 * SECOND..=90 * SECOND).contains(wait)), "{waits:?}");
    let in_first_half = waits.iter().filter(|wait| **wait < 85 * SECOND).count();
    assert!((300..700).contains(&in_first_half), "{in_first_half}");
    assert_eq!(spread(Duration::ZERO), Duration::ZERO);
}
