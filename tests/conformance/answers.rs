//! Tests the outcome of each response of a provider.

use payout_link_worker::domain::{ConnectorError, Finding, Outcome, idempotency_key};
use provider_simulators::providers::{Fault, FaultRule, Garbage, Operation};
use secrecy::ExposeSecret;
use serde_json::json;
use time::OffsetDateTime;

use crate::description::{Became, Description, Repeat, Tested, decoded};

pub async fn a_job_becomes_a_link(description: &Description) {
    let tested = Tested::start(description).await;
    let job = description.job("po_1");
    let link = tested.created(&job).await;
    let ledger = tested.simulator.ledger();
    assert_eq!((ledger.links.len(), ledger.creates().count()), (1, 1));
    assert_eq!(link.url.expose_secret(), ledger.links[0].url);
    assert_eq!(link.connector_payout_id, ledger.links[0].id);
    // The job alone determines the reference.
    assert_eq!(ledger.links[0].reference, (description.account.reference)(&idempotency_key("", "po_1")));
    assert!(description.account.is_of(&ledger.links[0], description.account.money()));
    let (_, became) = description.statuses[0];
    assert_eq!(became, Became::Link(link.payout_status));
    let left = link.expires_at.map(|end| (end - OffsetDateTime::now_utc()).whole_seconds());
    match (left, description.lifetime_seconds) {
        (None, None) => {}
        (Some(left), Some(lifetime)) => assert!((lifetime - 60..=lifetime).contains(&left), "{left}"),
        (left, lifetime) => panic!("{left:?} and not {lifetime:?}"),
    }
}

fn finding(finding: &Finding) -> Option<Became> {
    match finding {
        Finding::Found(link) => Some(Became::Link(link.payout_status)),
        Finding::Underway { .. } => Some(Became::Underway),
        Finding::Ended { payout_status, .. } => Some(Became::Ended(*payout_status)),
        Finding::NotFound { .. } | Finding::Unanswered { .. } => None,
    }
}

pub async fn every_status_has_its_meaning(description: &Description) {
    let tested = Tested::start(description).await;
    for (number, (status, became)) in description.statuses.iter().enumerate() {
        let job = description.job(&format!("po_{number}"));
        let link = tested.created(&job).await;
        tested.simulator.set_status(&link.connector_payout_id, status);
        // The link is found by the connector's id, and by our reference if the provider allows it.
        let by_id = tested.find(&job, Some(&link.connector_payout_id)).await;
        assert_eq!(finding(&by_id), Some(*became), "{status}: {by_id:?}");
        if description.asks.is_some() {
            let by_reference = tested.find(&job, None).await;
            assert_eq!(finding(&by_reference), Some(*became), "{status}: {by_reference:?}");
        }
    }
    // A link may have each status from its creation on.
    for (number, (status, became)) in description.statuses.iter().enumerate() {
        tested.simulator.set_stages(&[status]);
        let outcome = tested.create(&description.job(&format!("first_{number}"))).await;
        let as_it_should = match (&outcome, became) {
            (Outcome::Created(link), Became::Link(expected)) => link.payout_status == *expected,
            (Outcome::Underway { .. }, Became::Underway) | (Outcome::Declined(_), Became::Ended(_)) => true,
            _ => false,
        };
        assert!(as_it_should, "{status}: {outcome:?}");
    }
}

pub async fn a_link_that_is_not_there_yet_is_asked_for(description: &Description) {
    let underway = description.statuses.iter().find(|(_, became)| *became == Became::Underway);
    let Some((underway, _)) = underway else { return };
    let tested = Tested::start(description).await;
    tested.simulator.set_stages(&[underway, underway, description.statuses[0].0]);
    let job = description.job("po_1");
    let Outcome::Underway { connector_payout_id, .. } = tested.create(&job).await else { panic!() };
    let still = tested.find(&job, Some(&connector_payout_id)).await;
    assert!(matches!(still, Finding::Underway { .. }), "{still:?}");
    let found = tested.find(&job, Some(&connector_payout_id)).await;
    assert!(matches!(found, Finding::Found(_)), "{found:?}");
    assert_eq!(tested.simulator.ledger().creates().count(), 1);
}

fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Created(_) => "created",
        Outcome::Underway { .. } => "underway",
        Outcome::Declined(_) => "declined",
        Outcome::NotSent(_) => "not sent",
        Outcome::TryLater { .. } => "try later",
        Outcome::AlreadyExists(_) => "already there",
        Outcome::Unknown(_) => "unknown",
    }
}

fn error(outcome: &Outcome) -> Option<&ConnectorError> {
    match outcome {
        Outcome::Declined(error)
        | Outcome::NotSent(error)
        | Outcome::TryLater { error, .. }
        | Outcome::AlreadyExists(error)
        | Outcome::Unknown(error) => Some(error),
        Outcome::Created(_) | Outcome::Underway { .. } => None,
    }
}

/// Checks the provider's errors, in its own form, and the same statuses from a proxy in between.
pub async fn errors_are_judged(description: &Description) {
    let tested = Tested::start(description).await;
    let own = [
        (400, "declined"),
        (404, "try later"),
        (422, "declined"),
        (403, "try later"),
        (429, "try later"),
        (408, "unknown"),
        (409, "unknown"),
        (418, "unknown"),
        (500, "unknown"),
        (502, "unknown"),
        (503, "unknown"),
        (504, "unknown"),
    ];
    for (status, expected) in own {
        tested.simulator.inject_fault(Fault::status(status));
        let outcome = tested.create(&description.job(&format!("po_{status}"))).await;
        assert_eq!(name(&outcome), expected, "{status}: {outcome:?}");
        let error = error(&outcome).unwrap();
        assert_eq!(error.status_code, status);
        assert!(error.code.is_some() && !error.message.is_empty(), "{error:?}");
    }
    // A page that a proxy wrote is not the provider's decline.
    for (status, expected) in [(400, "unknown"), (404, "unknown"), (422, "unknown"), (429, "try later")] {
        let body = Some("<html>canary</html>".into());
        let code = status.try_into().unwrap();
        tested.simulator.inject_fault(Fault::Status { code, retry_after: None, body });
        let outcome = tested.create(&description.job(&format!("proxy_{status}"))).await;
        assert_eq!(name(&outcome), expected, "{status}: {outcome:?}");
        assert!(!format!("{outcome:?}").contains("canary"));
    }
    assert!(tested.simulator.ledger().links.is_empty());
}

pub async fn a_call_that_may_have_been_carried_out_is_unknown(description: &Description) {
    let tested = Tested::start(description).await;
    let faults = [
        Fault::Reset,
        Fault::Close,
        Fault::Truncated,
        Fault::Stalled,
        Fault::Silence,
        Fault::Redirect { location: None },
        Fault::Garbage(Garbage::Html),
        Fault::Garbage(Garbage::NotJson),
        Fault::Garbage(Garbage::Empty),
        Fault::Garbage(Garbage::InsecureUrl),
        Fault::Garbage(Garbage::Huge),
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        tested.simulator.inject_fault(FaultRule::new(fault.clone()).after_the_work());
        let outcome = tested.create(&description.job(&format!("po_{number}"))).await;
        assert_eq!(name(&outcome), "unknown", "{fault:?}: {outcome:?}");
    }
    // The link is created although the answer has no URL.
    tested.simulator.inject_fault(FaultRule::new(Fault::Garbage(Garbage::MissingFields)).after_the_work());
    let outcome = tested.create(&description.job("po_bare")).await;
    assert!(matches!(name(&outcome), "unknown" | "underway"), "{outcome:?}");
    // The answer is slow, but in time.
    tested.simulator.inject_fault(Fault::Slow { milliseconds: 500 });
    tested.created(&description.job("po_slow")).await;
}

pub async fn a_request_that_never_left_is_not_sent(description: &Description) {
    for nobody in ["http://127.0.0.1:1", "http://nobody.invalid"] {
        let tested = Tested::calling(nobody, description).await;
        let outcome = tested.create(&description.job("po_1")).await;
        assert_eq!(name(&outcome), "not sent", "{outcome:?}");
        assert!(tested.connector().check().await.is_err());
    }
}

pub async fn a_question_without_an_answer_settles_nothing(description: &Description) {
    let tested = Tested::start(description).await;
    let job = description.job("po_1");
    let link = tested.created(&job).await;
    let questions =
        [(Some(Operation::Get), Some(link.connector_payout_id.as_str())), (description.asks, None)];
    for (operation, id) in questions {
        let Some(operation) = operation else { continue };
        for fault in [
            Fault::status(400),
            Fault::status(401),
            Fault::status(429),
            Fault::status(500),
            Fault::Reset,
            Fault::Silence,
            Fault::Redirect { location: None },
            Fault::Garbage(Garbage::Html),
            Fault::Garbage(Garbage::NotJson),
            Fault::Garbage(Garbage::Empty),
            Fault::Garbage(Garbage::InsecureUrl),
        ] {
            // A connector may look up by the id or by a list.
            tested.simulator.inject_fault(FaultRule::new(fault.clone()).on(operation).always());
            tested.simulator.inject_fault(FaultRule::new(fault.clone()).on(Operation::List).always());
            let found = tested.find(&job, id).await;
            assert!(matches!(found, Finding::Unanswered { .. }), "{fault:?}: {found:?}");
            tested.simulator.clear_faults();
        }
    }
}

pub async fn a_repeat_makes_no_second_link(description: &Description) {
    if description.repeat == Repeat::SecondLink {
        return;
    }
    let tested = Tested::start(description).await;
    let job = description.job("po_1");
    let first = tested.created(&job).await;
    let again = tested.create(&job).await;
    assert_eq!(name(&again), "already there", "{again:?}");
    assert_eq!(tested.simulator.ledger().links.len(), 1);
    if description.repeat == Repeat::AskedFor {
        let Finding::Found(found) = tested.find(&job, None).await else { panic!() };
        assert_eq!(found.connector_payout_id, first.connector_payout_id);
        assert_eq!(found.url.expose_secret(), first.url.expose_secret());
        assert_eq!(found.expires_at, first.expires_at);
    }
}

pub async fn a_payout_that_was_never_created_is_not_found(description: &Description) {
    if description.asks.is_none() {
        return;
    }
    let tested = Tested::start(description).await;
    tested.created(&description.job("po_other")).await;
    let found = tested.find(&description.job("po_1"), None).await;
    assert!(matches!(found, Finding::NotFound { .. }), "{found:?}");
    // A link with our reference and another amount is neither our link nor "not found".
    let mut other = description.json("po_other");
    other["amount"]["minor_amount"] = (description.job("po_other").amount.minor_units() + 100).into();
    let found = tested.find(&decoded(&other), None).await;
    assert!(matches!(found, Finding::Unanswered { .. }), "{found:?}");
}

pub async fn a_wait_is_the_providers(description: &Description) {
    let tested = Tested::start(description).await;
    for status in description.try_later.iter().copied().chain([429]) {
        tested.simulator.inject_fault(Fault::status_with_retry_after(status, "7"));
        match tested.create(&description.job("po_1")).await {
            Outcome::TryLater { retry_after, .. } => {
                assert_eq!(retry_after, Some(std::time::Duration::from_secs(7)), "{status}");
            }
            other => panic!("{status}: {other:?}"),
        }
    }
}

pub async fn credentials_are_tried(description: &Description) {
    let tested = Tested::start(description).await;
    assert_eq!(tested.connector().check().await, Ok(()));
    assert!(tested.simulator.ledger().links.is_empty(), "it is harmless");
    // A wrong credential of the deployment fails no payout.
    let wrong = Tested::with_a_wrong_secret(description).await;
    let said = wrong.connector().check().await.unwrap_err();
    assert!(!said.contains("canary"), "{said}");
    let outcome = wrong.create(&description.job("po_1")).await;
    assert_eq!(name(&outcome), "try later", "{outcome:?}");
    assert!(!format!("{outcome:?}").contains("canary"));
}

pub async fn the_jobs_own_credential_goes_first(description: &Description) {
    let wrong = Tested::with_a_wrong_secret(description).await;
    let mut job = description.json("po_1");
    job["access_token"] = json!(description.access_token);
    wrong.created(&decoded(&job)).await;
    // A wrong credential of the job concerns only that job.
    let tested = Tested::start(description).await;
    job["access_token"] = json!("not:it");
    let outcome = tested.create(&decoded(&job)).await;
    assert_eq!(name(&outcome), "declined", "{outcome:?}");
}

pub async fn a_link_is_cancelled(description: &Description) {
    let tested = Tested::start(description).await;
    let job = description.job("po_1");
    let link = tested.created(&job).await;
    tested.connector().cancel_link(&link.connector_payout_id).await.unwrap();
    let found = tested.find(&job, Some(&link.connector_payout_id)).await;
    assert!(matches!(found, Finding::Ended { .. }), "{found:?}");
    // A second cancel succeeds too. A cancel of an unknown link fails.
    tested.connector().cancel_link(&link.connector_payout_id).await.unwrap();
    let error = tested.connector().cancel_link("no-such-link").await.unwrap_err();
    assert!(error.status_code >= 400, "{error:?}");
}
