//! Describes Revolut for the suite, and tests its access tokens.

use std::time::Duration;

use futures_util::future::join_all;
use payout_link_worker::{
    connectors::AskedLink,
    domain::{Finding, LinkAnswer, LinkStatus, Outcome, PayoutStatus},
    limits::RateLimit,
};
use provider_simulators::providers::{
    Duplicates, Fault, FaultRule, LinkChange, Operation, Provider, ProviderSimulator, RevolutClient,
    RevolutSettings, Settings,
};

use crate::{
    accounts::{self, revolut_client as client},
    description::{
        Became::{Ended, Link, Underway},
        Description, Repeat, Tested,
    },
};

fn at_once(client: RevolutClient) -> RevolutSettings {
    RevolutSettings { at_once: true, ..RevolutSettings::new(client) }
}

pub static REVOLUT: Description = Description {
    account: &accounts::REVOLUT,
    access_token: "canary-access",
    statuses: &[
        ("active", Link(PayoutStatus::RequiresFulfillment)),
        ("created", Underway),
        ("awaiting", Underway),
        // A claimed link is paid, and has no URL to publish.
        ("processing", Underway),
        ("processed", Underway),
        ("expired", Ended(PayoutStatus::Expired)),
        ("cancelled", Ended(PayoutStatus::Cancelled)),
        ("failed", Ended(PayoutStatus::Failed)),
        // The simulator shows a URL only for active links.
        ("new_word", Underway),
    ],
    follow: &[
        ("created", LinkStatus::Unclaimed, PayoutStatus::Initiated),
        ("awaiting", LinkStatus::Unclaimed, PayoutStatus::RequiresConfirmation),
        ("active", LinkStatus::Unclaimed, PayoutStatus::RequiresFulfillment),
        ("processing", LinkStatus::Processing, PayoutStatus::Pending),
        ("processed", LinkStatus::Succeeded, PayoutStatus::Success),
        ("expired", LinkStatus::Expired, PayoutStatus::Expired),
        ("cancelled", LinkStatus::Cancelled, PayoutStatus::Cancelled),
        ("failed", LinkStatus::PayoutFailed, PayoutStatus::Failed),
    ],
    repeat: Repeat::AskedFor,
    asks: Some(Operation::List),
    try_later: &[],
    lifetime_seconds: Some(7 * 86_400),
    required: &[("/customer/name", "customer.name")],
    refused: &[
        ("/connector_payout_id", "\"x\"", "UNSUPPORTED_BY_CONNECTOR", "connector_payout_id"),
        ("/amount/minor_amount", "99", "UNSUPPORTED_BY_CONNECTOR", "amount.minor_amount"),
        ("/amount/minor_amount", "250001", "UNSUPPORTED_BY_CONNECTOR", "amount.minor_amount"),
    ],
    feature_data: &[
        ("{}", None),
        (r#"{"expiry_period": "P1D", "payout_methods": ["revolut", "bank_account"]}"#, None),
        (r#"{"save_counterparty": true, "transfer_reason_code": "refund", "reference": "po"}"#, None),
        (r#"{"account_id": "5d6e7f80-1111-4222-8333-944455566601"}"#, None),
        (r#"{"account_id": "canary"}"#, Some("account_id")),
        (r#"{"expiry_period": "P8D"}"#, Some("expiry_period")),
        (r#"{"payout_methods": ["canary"]}"#, Some("payout_methods")),
        (r#"{"payout_methods": []}"#, Some("payout_methods")),
        (r#"{"reference": ""}"#, Some("reference")),
        (r#"{"save_counterparty": "canary"}"#, Some("save_counterparty")),
    ],
};

conformance!(REVOLUT);

async fn tested(provider: RevolutSettings) -> Tested {
    let simulator = ProviderSimulator::start(Settings::new(Provider::Revolut(provider))).await.unwrap();
    Tested::beside(simulator, &REVOLUT)
}

fn token_calls(tested: &Tested) -> usize {
    tested.simulator.ledger().calls_of(Operation::Token).count()
}

/// Checks that many calls that need a token at once request one token.
#[tokio::test(flavor = "multi_thread")]
async fn one_refresh_serves_all_who_wait() {
    let tested = tested(at_once(client())).await;
    let jobs: Vec<_> = (0..10).map(|n| REVOLUT.job(&format!("po_{n}"))).collect();
    join_all(jobs.iter().map(|job| tested.created(job))).await;
    assert_eq!(token_calls(&tested), 1);
    // A token that the API rejects is replaced once, by the first call.
    tested.simulator.forget_tokens();
    let jobs: Vec<_> = (10..20).map(|n| REVOLUT.job(&format!("po_{n}"))).collect();
    join_all(jobs.iter().map(|job| tested.created(job))).await;
    assert_eq!(token_calls(&tested), 2);
    assert_eq!(tested.simulator.ledger().links.len(), 20);
}

/// Checks that a lifetime longer than any clock can count is a long lifetime, and no panic.
#[tokio::test]
async fn a_token_may_be_said_to_live_for_ever() {
    let lifetime = Duration::from_secs(u64::MAX);
    let tested = tested(at_once(RevolutClient { access_token_lifetime: lifetime, ..client() })).await;
    tested.created(&REVOLUT.job("po_1")).await;
    tested.created(&REVOLUT.job("po_2")).await;
    assert_eq!(token_calls(&tested), 1);
}

/// Checks that a 401 leads to one refresh and one repeat, not to a loop.
#[tokio::test]
async fn a_401_leads_to_one_refresh_and_one_repeat() {
    let tested = tested(at_once(client())).await;
    tested.created(&REVOLUT.job("po_1")).await;
    tested.simulator.inject_fault(FaultRule::new(Fault::status(401)).times(1));
    tested.created(&REVOLUT.job("po_2")).await;
    assert_eq!((token_calls(&tested), tested.simulator.ledger().creates().count()), (2, 3));
    tested.simulator.inject_fault(FaultRule::new(Fault::status(401)).always());
    let outcome = tested.create(&REVOLUT.job("po_3")).await;
    assert!(matches!(outcome, Outcome::TryLater { .. }), "{outcome:?}");
    assert_eq!((token_calls(&tested), tested.simulator.ledger().creates().count()), (3, 5));
    assert_eq!(tested.simulator.ledger().links.len(), 2);
}

/// Checks that a job's own token is never refreshed.
#[tokio::test]
async fn a_jobs_own_token_is_used_as_it_is() {
    let tested = tested(at_once(client())).await;
    let mut job = REVOLUT.json("po_1");
    job["access_token"] = "expired".into();
    let outcome = tested.create(&crate::description::decoded(&job)).await;
    assert!(matches!(outcome, Outcome::Declined(_)), "{outcome:?}");
    assert_eq!(token_calls(&tested), 0);
}

/// Checks that a token is refreshed before any call is rejected because of it.
#[tokio::test]
async fn a_token_is_refreshed_ahead_of_its_end() {
    // The refresh comes a quarter of the lifetime ahead: here after nine seconds.
    let lifetime = Duration::from_secs(12);
    let tested = tested(at_once(RevolutClient { access_token_lifetime: lifetime, ..client() })).await;
    tested.created(&REVOLUT.job("po_1")).await;
    let given = std::time::Instant::now();
    while token_calls(&tested) == 1 {
        assert_eq!(tested.connector().check().await, Ok(()));
        assert!(given.elapsed() < Duration::from_secs(30), "it is never refreshed");
    }
    let refused = tested.simulator.ledger().calls.iter().filter(|call| call.status == Some(401)).count();
    assert_eq!(refused, 0, "it was refreshed before it ended");
}

/// Checks that a failed early refresh has no effect as long as the token is valid.
#[tokio::test]
async fn a_refresh_that_fails_early_leaves_the_token_in_use() {
    // Given a token that is refreshed after nine seconds and valid for three more,
    let lifetime = Duration::from_secs(12);
    let tested = tested(at_once(RevolutClient { access_token_lifetime: lifetime, ..client() })).await;
    tested.created(&REVOLUT.job("po_1")).await;
    let given = std::time::Instant::now();
    // and a token endpoint that fails,
    tested.simulator.inject_fault(FaultRule::new(Fault::status(500)).on(Operation::Token).always());
    // then the calls use the old token, also those that tried to refresh it.
    while token_calls(&tested) == 1 {
        assert_eq!(tested.connector().check().await, Ok(()));
        assert!(given.elapsed() < Duration::from_secs(30), "it is never refreshed");
    }
}

/// Checks that without a token the outcome is known: nothing was sent.
#[tokio::test]
async fn a_token_that_is_not_issued_leaves_no_unknown_outcome() {
    let tested = tested(at_once(client())).await;
    for fault in [Fault::Reset, Fault::Silence, Fault::Close] {
        tested.simulator.inject_fault(FaultRule::new(fault.clone()).on(Operation::Token));
        let outcome = tested.create(&REVOLUT.job("po_1")).await;
        assert!(matches!(outcome, Outcome::NotSent(_)), "{fault:?}: {outcome:?}");
    }
    for status in [400, 401, 429, 500, 503] {
        let fault = Fault::status_with_retry_after(status, "7");
        tested.simulator.inject_fault(FaultRule::new(fault).on(Operation::Token));
        match tested.create(&REVOLUT.job("po_1")).await {
            Outcome::TryLater { retry_after, .. } => assert_eq!(retry_after, Some(Duration::from_secs(7))),
            other => panic!("{status}: {other:?}"),
        }
    }
    assert_eq!(tested.simulator.ledger().creates().count(), 0);
    tested.created(&REVOLUT.job("po_1")).await;
}

/// Checks that a repeat may be answered with the link, instead of the error 3020.
#[tokio::test]
async fn a_repeat_that_is_answered_with_the_link_is_taken() {
    let provider = RevolutSettings { duplicates: Duplicates::SameLink, ..at_once(client()) };
    let tested = tested(provider).await;
    let first = tested.created(&REVOLUT.job("po_1")).await;
    let again = tested.created(&REVOLUT.job("po_1")).await;
    assert_eq!(first.connector_payout_id, again.connector_payout_id);
}

/// Checks that a link is found on a later page, and that a look-up does not read the whole history.
#[tokio::test]
async fn a_look_up_reads_page_after_page() {
    let tested = tested(at_once(client())).await;
    let first = tested.created(&REVOLUT.job("po_first")).await;
    for number in 0..120 {
        tested.created(&REVOLUT.job(&format!("po_{number}"))).await;
    }
    let Finding::Found(found) = tested.find(&REVOLUT.job("po_first"), None).await else { panic!() };
    assert_eq!(found.connector_payout_id, first.connector_payout_id);
    assert!(matches!(tested.find(&REVOLUT.job("po_none"), None).await, Finding::NotFound { .. }));
    assert_eq!(tested.simulator.ledger().calls_of(Operation::List).count(), 4);
}

/// Checks that one list answers for many links. Changed links are read by their ids, or listed if they are many.
#[tokio::test]
async fn one_list_follows_many_links() {
    let tested = tested(at_once(client())).await;
    let mut links = Vec::new();
    for number in 0..120 {
        links.push(tested.followed(&REVOLUT.job(&format!("po_{number}"))).await);
    }
    let calls = || {
        let ledger = tested.simulator.ledger();
        (ledger.calls_of(Operation::List).count(), ledger.calls_of(Operation::Get).count())
    };
    let count = async |status: LinkStatus| {
        let answers = tested.connector().ask_about(&links, &RateLimit::new(None)).await;
        let is_so = |answer: &&LinkAnswer| matches!(answer, LinkAnswer::Reported(report) if report.status == Some(status));
        assert_eq!(answers.len(), links.len());
        answers.iter().filter(is_so).count()
    };
    // 100,000 bytes hold 97 links.
    assert_eq!(count(LinkStatus::Unclaimed).await, 120);
    assert_eq!(calls(), (2, 0));
    let pay = |number: usize| {
        let id = &links[number].connector_payout_id;
        tested.simulator.change(id, LinkChange::Pay).unwrap();
    };
    pay(3);
    pay(100);
    assert_eq!(count(LinkStatus::Succeeded).await, 2);
    assert_eq!(calls(), (4, 2));
    (10..60).for_each(pay);
    assert_eq!(count(LinkStatus::Succeeded).await, 52);
    assert_eq!(calls(), (6, 2));
    // A rate limit ends the question. The connector does not ask again at once.
    let fault = Fault::status_with_retry_after(429, "7");
    tested.simulator.inject_fault(FaultRule::new(fault).on(Operation::List).always());
    assert_eq!(count(LinkStatus::Unclaimed).await, 0);
    assert_eq!(calls(), (7, 2));
}

/// Checks that a question makes at most eight calls. The links that it does not reach are asked about later.
#[tokio::test]
async fn a_question_has_an_end() {
    let tested = tested(at_once(client())).await;
    let links = paid(&tested, 20).await;
    let before = tested.simulator.ledger().calls.len();
    let answers = tested.connector().ask_about(&links, &RateLimit::new(None)).await;
    assert_eq!(tested.simulator.ledger().calls.len() - before, 8);
    let is_reached = |answer: &LinkAnswer| matches!(answer, LinkAnswer::Reported(_));
    assert!(answers[..8].iter().all(is_reached), "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| is_reached(answer)).count(), 8);
}

/// Checks that the calls of a question count against the account's rate limit.
#[tokio::test]
async fn a_question_makes_no_call_past_the_rate_limit() {
    let tested = tested(at_once(client())).await;
    let links = paid(&tested, 20).await;
    // Of 20 calls in a minute two may be made at once, beside the first call, which its caller reserved.
    let limit = RateLimit::new(Some(20));
    for expected in [3, 1] {
        let before = tested.simulator.ledger().calls.len();
        let answers = tested.connector().ask_about(&links, &limit).await;
        assert_eq!(tested.simulator.ledger().calls.len() - before, expected);
        let reported = answers.iter().filter(|answer| matches!(answer, LinkAnswer::Reported(_)));
        assert_eq!((answers.len(), reported.count()), (links.len(), expected));
    }
}

/// Returns links that were paid: each one's transaction is asked about by a call of its own.
async fn paid(tested: &Tested, count: usize) -> Vec<AskedLink> {
    let mut links = Vec::new();
    for number in 0..count {
        let link = tested.followed(&REVOLUT.job(&format!("po_{number}"))).await;
        tested.simulator.change(&link.connector_payout_id, LinkChange::Pay).unwrap();
        let LinkAnswer::Reported(report) = tested.ask(&link).await else { panic!() };
        links.push(AskedLink {
            status: LinkStatus::Succeeded,
            provider_payout_id: report.provider_payout_id,
            ..link
        });
    }
    links
}

/// Checks that links are found although their time of creation is a guess: a link that is not in the list is read by
/// its id.
#[tokio::test]
async fn links_that_are_older_or_younger_than_they_seem_are_found() {
    let tested = tested(at_once(client())).await;
    let mut links = Vec::new();
    for number in 0..3 {
        let link = tested.followed(&REVOLUT.job(&format!("po_{number}"))).await;
        let expires_at = link.expires_at.map(|end| end - Duration::from_hours(24));
        links.push(AskedLink { expires_at, ..link });
    }
    let answers = tested.connector().ask_about(&links, &RateLimit::new(None)).await;
    assert!(answers.iter().all(|answer| matches!(answer, LinkAnswer::Reported(_))), "{answers:?}");
    let ledger = tested.simulator.ledger();
    assert_eq!((ledger.calls_of(Operation::List).count(), ledger.calls_of(Operation::Get).count()), (1, 3));
}

/// Checks that a list that is longer than an answer may be is read in shorter pages.
#[tokio::test]
async fn a_list_that_is_too_long_is_asked_for_in_shorter_pages() {
    let tested = tested(at_once(client())).await;
    let mut links = Vec::new();
    for number in 0..90 {
        let mut job = REVOLUT.json(&format!("po_{number}"));
        job["customer"]["name"] = "é".repeat(250).into();
        job["description"] = "é".repeat(100).into();
        links.push(tested.followed(&crate::description::decoded(&job)).await);
    }
    let answers = tested.connector().ask_about(&links, &RateLimit::new(None)).await;
    assert!(answers.iter().all(|answer| matches!(answer, LinkAnswer::Reported(_))), "{answers:?}");
    let ledger = tested.simulator.ledger();
    assert_eq!((ledger.calls_of(Operation::List).count(), ledger.calls_of(Operation::Get).count()), (3, 0));
}
