//! Tests each rule with a history that breaks it, and all rules with histories that break none.

use super::*;

const REJECTED: &str = "payout_link.rejected";
/// The number of attempts in the webhook schedule.
const TRIES: u32 = 4;

const ID: &str = "event-1";

fn job(message_id: &str) -> Published {
    Published {
        message_id: message_id.into(),
        key: "po_1".into(),
        fingerprint: "1250 EUR".into(),
        amount: "1250 EUR".into(),
        is_valid: true,
        rule: Rule::SameKey,
        wants_webhook: true,
        wants_reply: false,
        came_late: false,
    }
}

fn result(id: &str, kind: &str, correlation_id: &str) -> ReceivedMessage {
    ReceivedMessage {
        is_reply: false,
        id: Some(id.into()),
        kind: kind.into(),
        key: "po_1".into(),
        correlation_id: Some(correlation_id.into()),
        link_url: (kind == "payout_link.created").then(|| "https://links.example/1".into()),
        sequence: None,
        body: kind.into(),
        queue: None,
        is_replayed: false,
        is_redelivered: false,
        timestamp: None,
    }
}

fn post() -> Webhook {
    Webhook {
        id: Some(ID.into()),
        key: "po_1".into(),
        kind: "payout_link.created".into(),
        sequence: Some(1),
        status: Some(204),
        is_verified: true,
        body: "{}".into(),
    }
}

/// Builds a history of one job, one link, one result and one webhook, and of a rejected job.
fn good() -> History {
    let event = Event {
        id: ID.into(),
        kind: "payout_link.created".into(),
        published: true,
        due: false,
        leased: false,
        webhook_state: "delivered".into(),
        webhook_attempts: 1,
    };
    let link = Link {
        id: "plink_1".into(),
        key: "po_1".into(),
        amount: "1250 EUR".into(),
        url: Some("https://links.example/1".into()),
        history: None,
    };
    let record = Record {
        key: "po_1".into(),
        amount: "1250 EUR".into(),
        state: "created".into(),
        link_id: Some("plink_1".into()),
        is_unknown: false,
        leased: false,
        due: false,
        calls: vec!["created".into()],
        event: Some(event),
    };
    let rival = Published { fingerprint: "9 EUR".into(), amount: "9 EUR".into(), ..job("m-2") };
    History {
        published: vec![job("m-1"), rival],
        links: vec![link],
        before: vec![record.clone()],
        records: vec![record],
        messages: vec![result(ID, "payout_link.created", "m-1"), result("rejection-1", REJECTED, "m-2")],
        dead: vec![DeadLetter { message_id: Some("m-2".into()), has_reason: true }],
        webhooks: vec![post()],
        ..History::default()
    }
}

/// Builds the same history with a record that has no link.
fn without_link(state: &str, kind: &str, rule: Rule) -> History {
    let mut history = good();
    history.links.clear();
    history.before.clear();
    for job in &mut history.published {
        job.rule = rule;
    }
    let record = &mut history.records[0];
    (record.state, record.link_id) = (state.into(), None);
    record.event.as_mut().unwrap().kind = kind.into();
    history.messages[0] = result(ID, kind, "m-1");
    history
}

fn unknown(rule: Rule) -> History {
    let mut history = without_link("unknown", "payout_link.pending", rule);
    history.records[0].is_unknown = true;
    history
}

fn caught(rule: &str, history: &History, spoil: impl FnOnce(&mut History)) {
    assert_eq!(check(history, TRIES), [], "a good history to begin with");
    let mut spoilt = history.clone();
    spoil(&mut spoilt);
    let found = check(&spoilt, TRIES);
    assert!(found.iter().any(|violation| violation.rule == rule), "{rule} is not among {found:?}");
}

#[test]
fn good_ones_pass() {
    assert_eq!(check(&good(), TRIES), []);
    assert_eq!(check(&unknown(Rule::Never), TRIES), []);
    assert_eq!(check(&without_link("failed", "payout_link.failed", Rule::Never), TRIES), []);
    let mut repeated = good();
    repeated.messages.extend(repeated.messages.clone());
    repeated.dead.extend(repeated.dead.clone());
    repeated.webhooks.extend(repeated.webhooks.clone());
    assert_eq!(check(&repeated, TRIES), [], "repeats are allowed");
}

#[test]
fn r1_every_job_is_accounted_for() {
    caught("R1", &good(), |history| history.records.clear());
    caught("R1", &good(), |history| history.dead.clear());
    caught("R1", &good(), |history| history.dead[0].has_reason = false);
    caught("R1", &good(), |history| drop(history.messages.pop()));
    caught("R1", &good(), |history| history.published[0].is_valid = false);
    caught("R1", &good(), |history| history.dead[0].message_id = Some("m-1".into()));
}

#[test]
fn r2_one_link_a_key() {
    caught("R2", &good(), |history| history.links.push(history.links[0].clone()));
}

#[test]
fn r3_the_link_is_the_connectors() {
    caught("R3", &good(), |history| history.links.clear());
    caught("R3", &good(), |history| history.records[0].link_id = Some("plink_2".into()));
    caught("R3", &good(), |history| history.messages[0].link_url = Some("https://links.example/2".into()));
    caught("R3", &good(), |history| history.links[0].key = "po_2".into());
}

#[test]
fn r4_a_failure_has_no_link() {
    let failed = without_link("failed", "payout_link.failed", Rule::SameKey);
    caught("R4", &failed, |history| history.links = good().links);
}

#[test]
fn r5_unknown_only_if_the_replay_rule_left_no_other_way() {
    for rule in [Rule::SameKey, Rule::LookUp] {
        caught("R5", &unknown(Rule::Never), |history| history.published[0].rule = rule);
    }
    caught("R5", &unknown(Rule::Never), |history| history.records[0].is_unknown = false);
    caught("R5", &unknown(Rule::Never), |history| {
        history.records[0].event.as_mut().unwrap().kind = "payout_link.failed".into();
    });
    caught("R5", &unknown(Rule::Never), |history| history.records[0].event = None);
    // With keys, a later call must have been declined, or the key must exist already.
    for answer in ["declined", "already_there"] {
        let mut said_no_more = unknown(Rule::SameKey);
        said_no_more.records[0].calls = vec!["unknown".into(), answer.into()];
        caught("R5", &said_no_more, |history| history.records[0].calls = vec!["unknown".into(); 2]);
    }
}

#[test]
fn r6_a_result_an_event_always_the_same() {
    caught("R6", &good(), |history| drop(history.messages.remove(0)));
    caught("R6", &good(), |history| {
        history.messages.push(ReceivedMessage { body: b"another".to_vec(), ..history.messages[0].clone() });
    });
    caught("R6", &good(), |history| {
        history.messages.push(ReceivedMessage { body: b"another".to_vec(), ..history.messages[1].clone() });
    });
    caught("R6", &good(), |history| history.published[0].wants_reply = true);
    caught("R6", &good(), |history| {
        history.published.push(Published { came_late: true, ..job("m-3") });
    });
}

#[test]
fn r7_a_webhook_an_event_always_the_same() {
    caught("R7", &good(), |history| history.webhooks.clear());
    caught("R7", &good(), |history| history.webhooks[0].status = Some(503));
    caught("R7", &good(), |history| history.webhooks[0].is_verified = false);
    caught("R7", &good(), |history| {
        history.webhooks.push(Webhook { body: "[]".into(), ..post() });
    });
    // Abandons a webhook too early, and abandons one that may be abandoned.
    let give_up = |history: &mut History, status| {
        for record in history.before.iter_mut().chain(&mut history.records) {
            record.event.as_mut().unwrap().webhook_state = "abandoned".into();
        }
        history.webhooks[0].status = Some(status);
    };
    caught("R7", &good(), |history| give_up(history, 503));
    let mut gone = good();
    give_up(&mut gone, 410);
    assert_eq!(check(&gone, TRIES), []);
    let mut run_out = good();
    give_up(&mut run_out, 503);
    // Some attempts do not reach the merchant: the worker's own count decides.
    for record in run_out.before.iter_mut().chain(&mut run_out.records) {
        record.event.as_mut().unwrap().webhook_attempts = TRIES;
    }
    assert_eq!(check(&run_out, TRIES), []);
}

#[test]
fn r8_a_conflict_changes_nothing() {
    caught("R8", &good(), |history| history.records[0].calls.push("created".into()));
    caught("R8", &good(), |history| history.links[0].amount = "9 EUR".into());
    caught("R8", &good(), |history| history.records[0].amount = "8 EUR".into());
}

#[test]
fn r9_repeats_can_be_reported() {
    caught("R9", &good(), |history| history.messages[0].id = None);
    caught("R9", &good(), |history| history.messages.push(result("event-2", "payout_link.created", "m-1")));
    caught("R9", &good(), |history| history.messages.push(result("rejection-2", REJECTED, "m-2")));
    caught("R9", &good(), |history| history.webhooks[0].id = None);
    caught("R9", &good(), |history| history.webhooks.push(Webhook { id: Some("event-2".into()), ..post() }));
}

#[test]
fn r10_nothing_is_left() {
    caught("R10", &good(), |history| history.waiting = 1);
    caught("R10", &good(), |history| history.records[0].state = "open".into());
    caught("R10", &good(), |history| history.records[0].leased = true);
    caught("R10", &good(), |history| history.records[0].due = true);
    let spoils: [fn(&mut Event); 4] = [
        |event| event.published = false,
        |event| event.due = true,
        |event| event.leased = true,
        |event| event.webhook_state = "pending".into(),
    ];
    for spoil in spoils {
        caught("R10", &good(), |history| spoil(history.records[0].event.as_mut().unwrap()));
    }
}

#[test]
fn r11_no_secret_in_any_of_it() {
    let secrets = Secrets::new(["iban-of-ada".to_owned(), "token-of-ours".to_owned()]).unwrap();
    let found = secrets.find(b"{\"message\":\"token-of-ours is wrong\"}", || "a result".into());
    assert_eq!(found, [Leak { secret: 2, location: "a result".into() }]);
    assert_eq!(secrets.find(b"iban-of-a", || "a result".into()), []);
    caught("R11", &good(), |history| history.leaks = found);
    assert!(Secrets::new(["short".to_owned()]).is_err());
    assert_eq!(format!("{secrets:?}"), "2 secrets");
}

#[test]
fn r12_accepted_or_rejected_never_both() {
    let rejection = result("rejection-2", REJECTED, "m-1");
    // The record's message is rejected too, in either order. A dead letter counts as well, with a reason or without.
    caught("R12", &good(), |history| history.messages.push(rejection.clone()));
    caught("R12", &good(), |history| history.messages.insert(0, rejection.clone()));
    for has_reason in [true, false] {
        caught("R12", &good(), |history| {
            history.dead.push(DeadLetter { message_id: Some("m-1".into()), has_reason });
        });
    }
    // If there may be two messages under an id, nothing can be judged.
    let mut two = good();
    two.messages.push(rejection.clone());
    two.dead.push(DeadLetter { message_id: Some("m-1".into()), has_reason: true });
    two.ambiguous.insert("m-1".into());
    assert_eq!(check(&two, TRIES), []);
    // A rejected message is no other's duplicate, and gets a link.
    caught("R12", &good(), |history| history.messages.push(result(ID, "payout_link.created", "m-2")));
}

#[test]
fn r13_unknown_only_after_a_call() {
    let mut called = unknown(Rule::Never);
    called.called = Some(HashSet::from(["po_1".to_owned()]));
    caught("R13", &called, |history| history.called = Some(HashSet::new()));
    assert_eq!(check(&unknown(Rule::Never), TRIES), [], "without a listener nothing is lost");
}

#[test]
fn r14_due_work_within_its_bound() {
    let seconds = Duration::from_secs;
    let overdue = |late, well| Overdue {
        what: "po_1".into(),
        overdue: seconds(late),
        well: seconds(well),
        bound: seconds(30),
    };
    let mut in_time = good();
    in_time.overdue = vec![overdue(30, 90), overdue(90, 30)];
    caught("R14", &in_time, |history| history.overdue[0].overdue = seconds(31));
    caught("R14", &in_time, |history| history.overdue[1].well = seconds(31));
    assert_eq!(overdue(90, 10).worse(overdue(40, 40)), overdue(40, 40));
    assert_eq!(overdue(40, 40).worse(overdue(90, 10)), overdue(40, 40));
}

#[test]
fn r15_progress_until_nothing_is_left() {
    let sample = |after, finished, left| Progress { after: Duration::from_secs(after), finished, left };
    let mut steady = good();
    // Slow progress is no stall, and neither is the end.
    steady.progress =
        vec![sample(0, 5, 3), sample(60, 5, 3), sample(61, 6, 2), sample(121, 8, 0), sample(300, 8, 0)];
    caught("R15", &steady, |history| history.progress[1].after = Duration::from_millis(60_001));
    caught("R15", &steady, |history| history.progress[3].left = 1);
    let stalled =
        [sample(0, 5, 3), sample(70, 5, 3), sample(200, 5, 3), sample(201, 6, 2), sample(202, 8, 0)];
    let found = check(&History { progress: stalled.to_vec(), ..good() }, TRIES);
    assert_eq!(found.len(), 1, "one stall is reported once: {found:?}");
    let overdue = |late| Overdue {
        what: ID.into(),
        overdue: Duration::from_secs(late),
        well: Duration::ZERO,
        bound: Duration::from_mins(1),
    };
    steady.overdue_at_end = vec![overdue(60)];
    caught("R15", &steady, |history| history.overdue_at_end = vec![overdue(61)]);
}

/// Two requests may differ only in fields that neither record nor ledger show. Of their groups one is accepted, as a
/// whole.
#[test]
fn conflicts_of_one_amount_are_distinguished_by_their_rejections() {
    let mut rivals = good();
    rivals.published[1].amount = "1250 EUR".into();
    assert_eq!(check(&rivals, TRIES), []);
    caught("R1", &rivals, |history| {
        history.published.push(Published { fingerprint: "third".into(), ..job("m-3") });
    });
    caught("R1", &rivals, |history| {
        history.published.push(Published { fingerprint: "9 EUR".into(), ..job("m-3") });
    });
}

#[test]
fn r16_a_received_answer_is_not_discarded() {
    let mut answered = good();
    answered.answered = vec![Answered { key: "po_1".into(), link_id: "plink_1".into() }];
    caught("R16", &answered, |history| history.records[0].state = "unknown".into());
    caught("R16", &answered, |history| history.records.clear());
    caught("R16", &unknown(Rule::Never), |history| history.answered = answered.answered);
}

#[test]
fn r17_results_wait_for_no_merchant() {
    let event = |overdue, well| Overdue {
        what: ID.into(),
        overdue: Duration::from_secs(overdue),
        well: Duration::from_secs(well),
        bound: Duration::from_secs(10),
    };
    let mut in_time = good();
    in_time.unpublished = vec![event(10, 60), event(60, 10)];
    caught("R17", &in_time, |history| history.unpublished.push(event(11, 11)));
}

const CLAIMED: &str = "payout_link.claimed";
const SUCCEEDED: &str = "payout_link.succeeded";

/// Builds the good history with changes of its link after the creation.
fn followed(kinds: &[&str]) -> History {
    let mut history = good();
    history.links[0].history = Some(vec!["issued".into()]);
    history.asked_later = Some(HashSet::new());
    for (sequence, kind) in (2..).zip(kinds) {
        announce(&mut history, sequence, kind);
        let word = kind.trim_start_matches("payout_link.");
        history.links[0].history.as_mut().unwrap().push(word.into());
    }
    history
}

fn announce(history: &mut History, sequence: u32, kind: &str) {
    let id = format!("event-1-{sequence}");
    let link_url = good().messages[0].link_url.clone();
    history.messages.push(ReceivedMessage { sequence: Some(sequence), link_url, ..result(&id, kind, "m-1") });
    history.webhooks.push(Webhook {
        id: Some(id.clone()),
        kind: kind.into(),
        sequence: Some(sequence),
        body: kind.into(),
        ..post()
    });
    let event = Event { id, kind: kind.into(), ..history.records[0].event.clone().unwrap() };
    history.later.push(LaterEvent { key: "po_1".into(), event });
}

fn changes(history: &mut History) -> &mut Vec<String> {
    history.links[0].history.as_mut().unwrap()
}

#[test]
fn later_events_are_judged_as_the_first_one_is() {
    let paid = followed(&[CLAIMED, SUCCEEDED]);
    let mut repeated = paid.clone();
    repeated.messages.extend(paid.messages.clone());
    repeated.webhooks.extend(paid.webhooks.clone());
    assert_eq!(check(&repeated, TRIES), [], "repeats are allowed");
    caught("R3", &paid, |history| history.messages[2].link_url = Some("https://links.example/2".into()));
    caught("R6", &paid, |history| drop(history.messages.remove(2)));
    caught("R6", &paid, |history| {
        history.messages.push(ReceivedMessage { body: b"another".to_vec(), ..history.messages[2].clone() });
    });
    caught("R7", &paid, |history| drop(history.webhooks.remove(2)));
    caught("R7", &paid, |history| history.webhooks[1].status = Some(503));
    caught("R7", &paid, |history| {
        history.webhooks.push(Webhook { body: "[]".into(), ..history.webhooks[1].clone() });
    });
    caught("R9", &paid, |history| history.webhooks[1].id = Some("another".into()));
    caught("R10", &paid, |history| history.later[0].event.published = false);
    // A duplicate is answered with the newest event.
    let mut late = paid.clone();
    late.published.push(Published { came_late: true, ..job("m-3") });
    late.messages.push(ReceivedMessage { correlation_id: Some("m-3".into()), ..paid.messages[3].clone() });
    assert_eq!(check(&late, TRIES), []);
}

#[test]
fn r18_sequences_have_no_gap_and_one_id() {
    let paid = followed(&[CLAIMED, SUCCEEDED]);
    caught("R18", &paid, |history| {
        history.messages.retain(|message| message.kind != CLAIMED);
    });
    caught("R18", &paid, |history| history.messages[3].sequence = Some(4));
    caught("R18", &paid, |history| history.messages[3].sequence = Some(2));
    caught("R18", &paid, |history| history.messages[3].sequence = None);
    caught("R18", &paid, |history| history.webhooks[2].sequence = Some(2));
}

#[test]
fn r19_webhooks_arrive_in_sequence() {
    let paid = followed(&[CLAIMED, SUCCEEDED]);
    caught("R19", &paid, |history| history.webhooks.swap(1, 2));
    caught("R19", &paid, |history| history.webhooks.rotate_left(1));
    let mut repeated = paid.clone();
    repeated.webhooks.push(paid.webhooks[0].clone());
    assert_eq!(check(&repeated, TRIES), [], "a repeat may come later");
}

#[test]
fn r20_nothing_follows_a_final_status() {
    let after = |kinds: &[&str], next: &str| {
        let mut history = followed(kinds);
        let sequence = history.messages.iter().filter_map(|message| message.sequence).max().unwrap_or(1) + 1;
        announce(&mut history, sequence, next);
        changes(&mut history).push(next.trim_start_matches("payout_link.").into());
        check(&history, TRIES)
    };
    for last in ["payout_link.payout_failed", "payout_link.reversed"] {
        let found = after(&[CLAIMED, last], SUCCEEDED);
        assert!(found.iter().any(|violation| violation.rule == "R20"), "{last}: {found:?}");
    }
    for last in ["payout_link.cancelled", "payout_link.expired"] {
        assert_eq!(after(&[last], SUCCEEDED), []);
        let found = after(&[last], CLAIMED);
        assert!(found.iter().any(|violation| violation.rule == "R20"), "{last}: {found:?}");
    }
    assert_eq!(after(&[CLAIMED, SUCCEEDED], "payout_link.reversed"), []);
    let found = after(&[CLAIMED, SUCCEEDED], "payout_link.payout_failed");
    assert!(found.iter().any(|violation| violation.rule == "R20"), "{found:?}");
    // The warning is no change.
    let mut warned = followed(&[]);
    announce(&mut warned, 2, "payout_link.expiring");
    assert_eq!(check(&warned, TRIES), []);
}

#[test]
fn r21_each_change_at_most_once_and_the_last_one_always() {
    let paid = followed(&[CLAIMED, SUCCEEDED]);
    // Each is a violation: announced twice, in another order, without a change, and not at all.
    caught("R21", &paid, |history| announce(history, 4, SUCCEEDED));
    caught("R21", &paid, |history| changes(history).swap(1, 2));
    caught("R21", &paid, |history| changes(history).truncate(2));
    caught("R21", &paid, |history| changes(history).push("reversed".into()));
    caught("R21", &followed(&[]), |history| changes(history).push("claimed".into()));
    caught("R21", &followed(&[CLAIMED, "payout_link.expired"]), |history| drop(changes(history).remove(1)));
    // The next question comes later, or its time is unknown.
    let mut later = paid.clone();
    changes(&mut later).push("reversed".into());
    later.asked_later = Some(HashSet::from(["po_1".to_owned()]));
    assert_eq!(check(&later, TRIES), []);
    assert_eq!(check(&History { asked_later: None, ..later }, TRIES), []);
    // The changes were missed, reopened and claimed again, or had no status for the claim at the provider.
    let mut unseen = paid.clone();
    *changes(&mut unseen) =
        ["issued", "claimed", "issued", "claimed", "processing", "paid"].map(str::to_owned).into();
    assert_eq!(check(&unseen, TRIES), []);
    *changes(&mut unseen) = ["issued", "paid"].map(str::to_owned).into();
    assert_eq!(check(&unseen, TRIES), []);
    // The worker cancels links at their end if the provider does not end them.
    let mut ended = followed(&["payout_link.expired"]);
    changes(&mut ended)[1] = "cancelled".into();
    assert_eq!(check(&ended, TRIES), []);
}

#[test]
fn r22_no_cancelled_link_is_paid_without_the_provider() {
    let late = followed(&["payout_link.cancelled", SUCCEEDED]);
    caught("R22", &late, |history| changes(history).truncate(2));
    let paid = followed(&[CLAIMED, SUCCEEDED]);
    caught("R22", &paid, |history| *changes(history) = ["issued", "cancelled"].map(str::to_owned).into());
}

/// Builds the history of an unknown payout that an operator resolved as not created and retried. It has three
/// conclusions, and the last one's link is claimed.
fn concluded_again() -> History {
    let mut history = good();
    let kinds = ["payout_link.pending", "payout_link.failed", "payout_link.created", CLAIMED];
    let last = history.records[0].event.take().unwrap();
    let event =
        |place: usize| Event { id: format!("event-{place}"), kind: kinds[place - 1].into(), ..last.clone() };
    history.records[0].event = Some(event(3));
    history.earlier = [1, 2].map(|place| EarlierEvent { key: "po_1".into(), event: event(place) }).into();
    history.later = vec![LaterEvent { key: "po_1".into(), event: event(4) }];
    history.actions = ["resolve", "retry"]
        .map(|command| OperatorAction { key: "po_1".into(), command: command.into() })
        .into();
    let rejection = history.messages.pop().unwrap();
    history.messages.clear();
    history.webhooks.clear();
    for (number, kind) in (1..).zip(kinds) {
        let id = format!("event-{number}");
        let link_url = (number >= 3).then(|| "https://links.example/1".into());
        history.messages.push(ReceivedMessage {
            sequence: Some(number),
            link_url,
            ..result(&id, kind, "m-1")
        });
        history.webhooks.push(Webhook {
            id: Some(id),
            kind: kind.into(),
            sequence: Some(number),
            body: kind.into(),
            ..post()
        });
    }
    history.messages.push(rejection);
    history.links[0].history = Some(vec!["issued".into(), "claimed".into()]);
    history
}

#[test]
fn r23_a_record_is_concluded_again_by_an_act_of_an_operator_alone() {
    let again = concluded_again();
    for rule in ["R20", "R23"] {
        caught(rule, &again, |history| history.actions.clear());
        caught(rule, &again, |history| drop(history.actions.pop()));
    }
    caught("R23", &again, |history| history.actions.push(history.actions[0].clone()));
    // The events of earlier conclusions are published and delivered like all others.
    caught("R6", &again, |history| drop(history.messages.remove(0)));
    caught("R7", &again, |history| drop(history.webhooks.remove(1)));
    caught("R9", &again, |history| history.messages[1].id = Some("another".into()));
    caught("R9", &again, |history| history.webhooks[0].id = Some("another".into()));
    caught("R10", &again, |history| history.earlier[1].event.due = true);
    // An operator's action excuses no other violation.
    caught("R20", &again, |history| {
        history.messages[2].kind = "payout_link.succeeded".into();
        history.webhooks[2].kind = "payout_link.succeeded".into();
    });
    caught("R2", &again, |history| {
        history.links.push(Link { id: "plink_2".into(), ..history.links[0].clone() });
    });
    caught("R3", &again, |history| history.messages[2].link_url = None);
}

/// Builds the history of two webhooks that an operator had delivered again: the first run of the command died after its act was stored.
fn delivered_again() -> History {
    let mut history = followed(&[CLAIMED]);
    history.redelivered = [history.webhooks.clone(), history.webhooks.clone()].concat();
    history.records[0].event.as_mut().unwrap().webhook_attempts = 3;
    let command = "webhooks redeliver";
    history.commands = [false, true]
        .map(|is_done| CommandRun { key: "po_1".into(), command: command.into(), is_done })
        .into();
    let acts = [ID, "event-1-2", ID, "event-1-2"];
    let act =
        |id: &str| RecordedAct { key: "po_1".into(), command: command.into(), event_id: Some(id.to_owned()) };
    history.acts = acts.map(act).into();
    history
}

#[test]
fn r24_a_command_is_recorded_and_has_its_effect() {
    let again = delivered_again();
    caught("R24", &again, |history| history.acts.clear());
    caught("R24", &again, |history| history.acts.push(history.acts[0].clone()));
    caught("R24", &again, |history| history.redelivered.retain(|post| post.sequence == Some(1)));
    caught("R24", &again, |history| history.redelivered.rotate_left(1));
    caught("R24", &again, |history| history.redelivered[0].id = Some("another".into()));
    caught("R24", &again, |history| history.redelivered[0].body = "[]".into());
    caught("R8", &again, |history| history.records[0].event.as_mut().unwrap().kind = CLAIMED.into());
    caught("R8", &again, |history| history.redelivered.clear());
    // A dead letter that was corrected and requeued is accepted, and is none any more.
    let mut corrected = good();
    corrected.messages.push(result("rejection-2", REJECTED, "m-1"));
    corrected.corrected.insert("m-1".into());
    caught("R24", &corrected, |history| {
        history.dead.push(DeadLetter { message_id: Some("m-1".into()), has_reason: true });
    });
    caught("R12", &corrected, |history| history.corrected.clear());
}

/// Builds the history of three events whose results arrived at one queue.
fn in_order() -> History {
    let mut history = followed(&[CLAIMED, SUCCEEDED]);
    for message in &mut history.messages {
        message.queue = Some("results".into());
    }
    history
}

#[test]
fn r25_results_arrive_in_sequence() {
    let paid = in_order();
    caught("R25", &paid, |history| history.messages.swap(2, 3));
    caught("R25", &paid, |history| history.messages.swap(0, 2));
    caught("R25", &paid, |history| history.messages.rotate_left(1));
    // The second message is a rejection, and the third one the result with sequence 2.
    let with = |spoil: fn(&mut Vec<ReceivedMessage>)| {
        let mut history = paid.clone();
        spoil(&mut history.messages);
        check(&history, TRIES)
    };
    assert_eq!(with(|messages| messages.push(messages[0].clone())), [], "a repeat may come later");
    let answered = with(|messages| {
        messages.insert(0, ReceivedMessage { is_replayed: true, ..messages[3].clone() });
    });
    assert_eq!(answered, [], "a duplicate is answered with the newest event");
    let replied = with(|messages| {
        messages.insert(0, ReceivedMessage { is_reply: true, ..messages[3].clone() });
    });
    assert_eq!(replied, [], "a requester gets the newest event");
    // The order of old histories is unknown.
    let old = with(|messages| {
        messages.swap(2, 3);
        for message in messages {
            message.queue = None;
        }
    });
    assert_eq!(old, []);
    // A consumer that was cut off may have lost the first delivery of a result, but not that of the next one.
    let redelivered = with(|messages| {
        messages.swap(2, 3);
        messages[3].is_redelivered = true;
    });
    assert_eq!(redelivered, []);
    caught("R25", &paid, |history| {
        history.messages.swap(2, 3);
        history.messages[2].is_redelivered = true;
    });
    // A result that first came to the unrouted queue.
    let unrouted = with(|messages| {
        messages.swap(2, 3);
        messages.insert(0, ReceivedMessage { queue: None, ..messages[3].clone() });
    });
    assert_eq!(unrouted, []);
    // Each queue has its own order.
    let two_queues = with(|messages| {
        let second: Vec<ReceivedMessage> = messages
            .iter()
            .skip(2)
            .map(|message| ReceivedMessage { queue: Some("others".into()), ..message.clone() })
            .collect();
        messages.splice(0..0, second);
    });
    assert_eq!(two_queues, []);
    caught("R25", &paid, |history| {
        let second = history.messages[2..].iter().rev();
        let second =
            second.map(|message| ReceivedMessage { queue: Some("others".into()), ..message.clone() });
        let second: Vec<ReceivedMessage> = second.collect();
        history.messages.extend(second);
    });
}

/// Builds a history of rejected jobs and other letters under a retention of one day.
fn with_letters() -> History {
    let mut history = good();
    let day = Duration::from_hours(24);
    history.letter_retention = Some(LetterRetention { length: day, ended_at: 200_000 });
    history.messages[1].timestamp = Some(200_000);
    for (message_id, rejected_at) in [("young", Some(113_601)), ("old", Some(113_600)), ("no-time", None)] {
        let message_id = message_id.to_owned();
        history.letters_seen.push(SeenLetter { message_id: message_id.clone(), rejected_at });
        history.dead.push(DeadLetter { message_id: Some(message_id), has_reason: false });
    }
    history
}

#[test]
fn r26_no_letter_is_deleted_within_its_retention() {
    let letters = with_letters();
    let without = |history: &mut History, message_id: &str| {
        history.dead.retain(|letter| letter.message_id.as_deref() != Some(message_id));
    };
    caught("R26", &letters, |history| without(history, "young"));
    caught("R26", &letters, |history| without(history, "no-time"));
    let mut deleted = letters.clone();
    without(&mut deleted, "old");
    assert_eq!(check(&deleted, TRIES), []);
    // Without a retention nothing is deleted.
    let all_stay = History { letter_retention: None, ..letters.clone() };
    caught("R26", &all_stay, |history| without(history, "old"));
    // The letter of a rejected job is missed as long as its newest rejection is not past the retention.
    caught("R1", &letters, |history| without(history, "m-2"));
    let rejected_at = |timestamp| {
        let mut history = letters.clone();
        history.messages[1].timestamp = timestamp;
        history
    };
    assert_eq!(check(&rejected_at(Some(113_600)), TRIES), []);
    for timestamp in [Some(113_600), None] {
        let mut past = rejected_at(timestamp);
        without(&mut past, "m-2");
        assert_eq!(check(&past, TRIES), [], "{timestamp:?}");
        past.messages.push(ReceivedMessage { timestamp: Some(113_601), ..past.messages[1].clone() });
        let found = check(&past, TRIES);
        assert!(found.iter().any(|violation| violation.rule == "R1"), "{found:?}");
    }
}
