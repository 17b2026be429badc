//! Unknown outcomes that this worker cannot resolve by itself: another account, a clock that stepped, lost writes.

use super::*;

#[test]
fn an_unknown_outcome_in_another_account_stays_unknown() {
    let other = Circumstances {
        account: AccountId::of("sandbox", "https://pay.example", "another"),
        ..at(start() + SECOND)
    };
    let word = |progress: &Progress, rule, seen: &Circumstances| match next(progress, rule, &policy(), seen) {
        Next::Call { .. } => "call",
        Next::LookUp { .. } => "look up",
        Next::Conclude(Conclusion::Unknown(_)) => "unknown",
        Next::Conclude(_) => "another end",
    };
    let underway = Outcome::Underway { connector_payout_id: "plink_1".into(), status_code: 201 };
    for (outcome, rule, here, there) in [
        (Outcome::Unknown(error(500)), SAME_KEY, "call", "unknown"),
        (Outcome::Unknown(error(500)), SAME_KEY_OR_ASK, "call", "unknown"),
        (Outcome::Unknown(error(500)), ASK, "look up", "unknown"),
        (Outcome::AlreadyExists(error(400)), SAME_KEY_OR_ASK, "look up", "unknown"),
        (underway, ASK, "look up", "unknown"),
        // Certain that nothing happened there.
        (Outcome::NotSent(error(0)), ASK, "call", "call"),
        (try_later(None), SAME_KEY, "call", "call"),
    ] {
        let called = Progress { account: Some(account()), ..after(outcome.clone()) };
        assert_eq!(word(&called, rule, &at(start() + SECOND)), here, "{outcome:?} {rule:?}");
        assert_eq!(word(&called, rule, &other), there, "{outcome:?} {rule:?} in another account");
        // An earlier version does not say which account it called.
        let unsaid = Progress { account: None, ..called };
        assert_eq!(word(&unsaid, rule, &other), here, "{outcome:?} {rule:?} by an earlier version");
    }
    // Later answers of this account count.
    let mut found = Progress { account: Some(account()), ..after(Outcome::Unknown(error(500))) };
    found.record(Outcome::Created(link()), start() + SECOND);
    assert_eq!(word(&found, ASK, &other), "another end");
}

#[test]
fn not_there_counts_only_after_a_settle_time_of_a_clock_that_runs_steadily() {
    // Called at the start, asked `asked` seconds after it; the clock is watched since `since` seconds after it.
    for (since, after_step, asked, is_reliable) in [
        (-100, false, 59, false),
        (-100, false, 60, true),
        // A worker that has started since: the clock may have stepped before.
        (30, false, 60, false),
        (30, false, 89, false),
        (30, false, 90, true),
        // It stepped forward by an hour, half a minute after the call.
        (3630, true, 3630, false),
        (3630, true, 3689, false),
        (3630, true, 3690, true),
        // It stepped back by an hour: the call seems to be in the future.
        (-3600, true, -3541, false),
        (-3600, true, -3540, true),
    ] {
        let seconds = |seconds| start() + time::Duration::seconds(seconds);
        let seen = Circumstances {
            steady: Steady { since: seconds(since), after_step, set_back: None },
            ..at(seconds(asked))
        };
        let mut progress = after(Outcome::Unknown(error(500)));
        progress.record_finding(Finding::NotFound { status_code: 200 }, ASK, &seen);
        assert_eq!(progress.in_doubt_since.is_none(), is_reliable, "{since} {asked}");
        match next(&progress, ASK, &policy(), &seen) {
            Next::Call { .. } => assert!(is_reliable, "{since} {asked}"),
            Next::LookUp { after } => assert!(!is_reliable && after <= SETTLE.settle, "{since} {asked}"),
            Next::Conclude(conclusion) => panic!("{since} {asked}: {conclusion:?}"),
        }
    }
}

#[test]
fn a_clock_that_stepped_does_not_narrow_a_look_up() {
    let progress = after(Outcome::Unknown(error(500)));
    for (since, after_step, now, narrows) in [
        (-100, false, 60, true),
        (-100, true, 60, true),
        // Before this worker looked at it, and nothing speaks against it.
        (30, false, 60, true),
        (30, true, 60, false),
        (-3600, false, -3500, false),
    ] {
        let seconds = |seconds| start() + time::Duration::seconds(seconds);
        let seen = Circumstances {
            steady: Steady { since: seconds(since), after_step, set_back: None },
            ..at(seconds(now))
        };
        let first = progress.first_call_to_narrow_by(&seen);
        assert_eq!(first, narrows.then(start), "{since} {after_step} {now}");
    }
}

#[test]
fn after_a_restore_what_was_written_before_is_asked_about_before_it_is_called() {
    let restored = RetryPolicy { ask_before_calling_since: Some(start() + HOUR), ..policy() };
    let now = start() + 2 * HOUR;
    let parked = || Progress::new(start());
    let retried = || after(try_later(None));
    for (progress, rule, first) in [
        (parked(), ASK, "look up"),
        (parked(), SAME_KEY_OR_ASK, "look up"),
        // A window of an hour that began when the record was written, or its first call.
        (parked(), SAME_KEY, "unknown"),
        (parked(), ReplayRule::SameKey { window: 24 * HOUR, look_up: None }, "call"),
        (parked(), ReplayRule::Never, "unknown"),
        (retried(), ASK, "look up"),
        // Written since: nothing of it is lost.
        (Progress::new(start() + HOUR), ASK, "call"),
        (Progress::new(start() + HOUR), ReplayRule::Never, "call"),
        (Progress { last_called_at: Some(start() + HOUR), ..retried() }, ASK, "call"),
    ] {
        let mut progress = Progress { last: None, ..progress };
        let is_marked = progress.mark_lost_calls_unknown(&restored, now);
        assert_eq!(is_marked, progress.in_doubt_since.is_some());
        assert_eq!(step(&progress, rule, 2 * HOUR), first, "{progress:?} {rule:?}");
        assert!(!Progress::new(start()).mark_lost_calls_unknown(&policy(), now));
    }
    // "Not there" counts a settle time after this worker began to look at the clock, which is after the restore.
    let mut asked = parked();
    asked.mark_lost_calls_unknown(&restored, now);
    let steady = Steady { since: now, after_step: false, set_back: None };
    let seen = |passed| Circumstances { steady, ..at(now + passed) };
    asked.record_finding(Finding::NotFound { status_code: 200 }, ASK, &seen(59 * SECOND));
    assert!(matches!(next(&asked, ASK, &restored, &seen(59 * SECOND)), Next::LookUp { .. }));
    asked.record_finding(Finding::NotFound { status_code: 200 }, ASK, &seen(60 * SECOND));
    assert!(matches!(next(&asked, ASK, &restored, &seen(60 * SECOND)), Next::Call { .. }));
}

#[test]
fn a_clock_that_was_set_back_does_not_lengthen_a_window() {
    // Called at the start, and ten minutes before its end the window of an hour is too close to it.
    let mut progress = after(Outcome::Unknown(error(500)));
    progress.last = None;
    for (now, back, seen_until, is_called) in [
        (49, 0, 0, true),
        (51, 0, 0, false),
        // Twenty minutes later the clock was set back by as much.
        (29, 20, 20, true),
        (31, 20, 20, false),
        // It was set back before the call, by a day.
        (49, 1440, -1, true),
        // It was set back out of sight: the call seems to be in the future.
        (-1, 0, 0, false),
    ] {
        let minutes = |minutes| start() + time::Duration::minutes(minutes);
        let set_back = SetBack { by: time::Duration::minutes(back), seen_until: minutes(seen_until) };
        let steady = Steady { since: start() - HOUR, after_step: true, set_back: Some(set_back) };
        let seen = Circumstances { steady, ..at(minutes(now)) };
        let is_next = matches!(next(&progress, SAME_KEY, &policy(), &seen), Next::Call { .. });
        assert_eq!(is_next, is_called, "{now} {back}");
        let asks = matches!(next(&progress, SAME_KEY_OR_ASK, &policy(), &seen), Next::LookUp { .. });
        assert_eq!(asks, !is_called, "{now} {back}");
    }
}
