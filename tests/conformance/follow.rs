//! Tests the answers to questions about links, after their creation.

use std::time::Duration;

use payout_link_worker::{
    connectors::{AskedLink, Kind, LinkReference, ProviderWebhook, WebhookProblem},
    domain::{LinkAnswer, LinkReport, LinkStatus, PayoutStatus},
    limits::RateLimit,
};
use provider_simulators::{
    providers::{Announce, Behaviour, Fault, FaultRule, Garbage, LinkChange, Operation},
    sandbox::{Received, Receiver},
};
use secrecy::SecretString;
use time::OffsetDateTime;

use crate::description::{Description, Tested};

fn reported(answer: LinkAnswer) -> LinkReport {
    match answer {
        LinkAnswer::Reported(report) => report,
        other => panic!("{other:?}"),
    }
}

impl Tested {
    async fn report(&self, link: &AskedLink) -> LinkReport {
        reported(self.ask(link).await)
    }

    /// Applies a report to the link, as the worker does.
    async fn report_after(&self, link: &mut AskedLink, change: LinkChange) -> LinkReport {
        self.simulator.change(&link.connector_payout_id, change).unwrap();
        let report = self.report(link).await;
        link.status = report.status.unwrap();
        link.provider_payout_id = report.provider_payout_id.clone().or(link.provider_payout_id.take());
        report
    }
}

pub async fn every_status_is_reported(description: &Description) {
    let tested = Tested::start(description).await;
    for (number, (word, status, payout_status)) in description.follow.iter().enumerate() {
        let links = [
            tested.followed(&description.job(&format!("one_{number}"))).await,
            tested.followed(&description.job(&format!("two_{number}"))).await,
        ];
        for link in &links {
            tested.simulator.set_status(&link.connector_payout_id, word);
        }
        // The link is asked about alone and, if the provider can, together with others.
        let mut answers = vec![tested.ask(&links[0]).await];
        answers.extend(tested.connector().ask_about(&links, &RateLimit::new(None)).await);
        assert_eq!(answers.len(), 3);
        for answer in answers {
            let report = reported(answer);
            assert_eq!(
                (report.status, report.payout_status, report.provider_status.as_str()),
                (Some(*status), *payout_status, *word)
            );
        }
    }
    assert_eq!(tested.connector().unknown_statuses(), 0);
    // An unknown status of a later version leaves the link open, and is reported.
    let link = tested.followed(&description.job("po_1")).await;
    tested.simulator.set_status(&link.connector_payout_id, "new_word");
    let report = tested.report(&link).await;
    assert_eq!((report.status, report.provider_status.as_str()), (None, "new_word"));
    assert_eq!(tested.connector().unknown_statuses(), 1);
}

pub async fn a_link_is_followed_until_its_money_comes_back(description: &Description) {
    let tested = Tested::start(description).await;
    let mut link = tested.followed(&description.job("po_1")).await;
    assert_eq!(tested.report(&link).await.status, Some(LinkStatus::Unclaimed));
    let claimed = tested.report_after(&mut link, LinkChange::Claim).await;
    assert!(claimed.status.unwrap().is_under_way(), "{claimed:?}");
    let paid = tested.report_after(&mut link, LinkChange::Pay).await;
    assert_eq!((paid.status, paid.payout_status), (Some(LinkStatus::Succeeded), PayoutStatus::Success));
    // Nothing more happens to the link for a while.
    let still = tested.report(&link).await;
    assert_eq!(still.status, Some(LinkStatus::Succeeded));
    let back = tested.report_after(&mut link, LinkChange::Reverse).await;
    assert_eq!((back.status, back.payout_status), (Some(LinkStatus::Reversed), PayoutStatus::Reversed));
}

pub async fn a_payout_that_fails_is_reported(description: &Description) {
    let tested = Tested::start(description).await;
    let mut link = tested.followed(&description.job("po_1")).await;
    tested.report_after(&mut link, LinkChange::Claim).await;
    if tested.simulator.change(&link.connector_payout_id, LinkChange::Fail).is_ok() {
        let report = tested.report(&link).await;
        assert_eq!(
            (report.status, report.payout_status),
            (Some(LinkStatus::PayoutFailed), PayoutStatus::Failed)
        );
        assert!(!report.error.unwrap().message.is_empty());
    } else {
        // At this provider the recipient may claim again.
        let report = tested.report_after(&mut link, LinkChange::Reopen).await;
        assert_eq!(report.status, Some(LinkStatus::Unclaimed));
        let again = tested.report_after(&mut link, LinkChange::Claim).await;
        assert!(again.status.unwrap().is_under_way(), "{again:?}");
    }
}

pub async fn an_end_is_reported_by_the_provider_alone(description: &Description) {
    let tested = Tested::start(description).await;
    let mut link = tested.followed(&description.job("po_1")).await;
    let report = tested.report_after(&mut link, LinkChange::Expire).await;
    // If the provider never ends a link, the worker cancels it.
    let kind = Kind::named(description.account.kind).unwrap();
    let expected = if kind.follow.cancels_expired { LinkStatus::Unclaimed } else { LinkStatus::Expired };
    assert_eq!(report.status, Some(expected));
    if kind.follow.cancels_expired {
        tested.connector().cancel_link(&link.connector_payout_id).await.unwrap();
        assert_eq!(tested.report(&link).await.status, Some(LinkStatus::Cancelled));
        // A form that was opened in time may be submitted even then.
        tested.simulator.late_submit(&link.connector_payout_id).unwrap();
        assert_eq!(tested.report(&link).await.status, Some(LinkStatus::Processing));
    }
}

pub async fn a_link_is_cancelled_in_no_status_but_an_open_one(description: &Description) {
    let tested = Tested::start(description).await;
    let mut cancelled = 0;
    for (number, (word, before, _)) in description.follow.iter().enumerate() {
        let link = tested.followed(&description.job(&format!("po_{number}"))).await;
        tested.simulator.set_status(&link.connector_payout_id, word);
        let outcome = tested.connector().cancel_link(&link.connector_payout_id).await;
        let after = tested.report(&link).await.status;
        // The outcome is correct in both cases: success means a cancelled link, and an error means one that is not
        // cancelled.
        assert_eq!(outcome.is_ok(), after == Some(LinkStatus::Cancelled), "{word}: {outcome:?} {after:?}");
        if before.is_final() || *before == LinkStatus::Succeeded {
            assert_eq!(after, Some(*before), "{word}");
        }
        cancelled += usize::from(outcome.is_ok() && *before == LinkStatus::Unclaimed);
        // A second cancel has the same outcome.
        let again = tested.connector().cancel_link(&link.connector_payout_id).await;
        assert_eq!(again.is_ok(), outcome.is_ok(), "{word}: {again:?}");
    }
    assert!(cancelled > 0);
}

/// Checks that no link ends because of a rate limit, a rejected credential or an outage.
pub async fn nothing_follows_from_a_question_without_an_answer(description: &Description) {
    let tested = Tested::start(description).await;
    let links =
        [tested.followed(&description.job("po_1")).await, tested.followed(&description.job("po_2")).await];
    for fault in [
        Fault::status(400),
        Fault::status(401),
        Fault::status(403),
        Fault::status_with_retry_after(429, "7"),
        Fault::status(500),
        Fault::status(503),
        Fault::Reset,
        Fault::Redirect { location: None },
        Fault::Garbage(Garbage::Html),
        Fault::Garbage(Garbage::NotJson),
        Fault::Garbage(Garbage::Empty),
        // The answer is about another link.
        Fault::Garbage(Garbage::InsecureUrl),
    ] {
        for operation in [Operation::Get, Operation::List] {
            tested.simulator.inject_fault(FaultRule::new(fault.clone()).on(operation).always());
        }
        let mut answers = vec![tested.ask(&links[0]).await];
        answers.extend(tested.connector().ask_about(&links, &RateLimit::new(None)).await);
        assert_eq!(answers.len(), 3);
        for answer in answers {
            let LinkAnswer::Unanswered { error, retry_after } = answer else {
                panic!("{fault:?}: {answer:?}")
            };
            assert!(!error.message.contains("canary"), "{error:?}");
            if error.status_code == 429 {
                assert_eq!(retry_after, Some(Duration::from_secs(7)));
            }
        }
        tested.simulator.clear_faults();
    }
    // A 404 of a gateway is not the provider's answer.
    let body = Some("<html>canary</html>".into());
    let code = 404.try_into().unwrap();
    let fault = FaultRule::new(Fault::Status { code, retry_after: None, body });
    tested.simulator.inject_fault(fault.on(Operation::Get).always());
    let answer = tested.ask(&links[0]).await;
    assert!(matches!(answer, LinkAnswer::Unanswered { .. }), "{answer:?}");
    tested.simulator.clear_faults();
    // Rejected tokens are replaced, if the provider uses tokens.
    tested.simulator.forget_tokens();
    for answer in tested.connector().ask_about(&links, &RateLimit::new(None)).await {
        assert_eq!(reported(answer).status, Some(LinkStatus::Unclaimed));
    }
}

pub async fn a_link_that_is_not_there_is_not_found(description: &Description) {
    let tested = Tested::start(description).await;
    let there = tested.followed(&description.job("po_1")).await;
    let absent = AskedLink { connector_payout_id: "no-such-link".into(), ..there.clone() };
    let answers = tested.connector().ask_about(&[absent, there], &RateLimit::new(None)).await;
    assert!(matches!(answers[0], LinkAnswer::NotFound { .. }), "{answers:?}");
    assert!(matches!(answers[1], LinkAnswer::Reported(_)), "{answers:?}");
}

const SECRET: &str = "webhook-secret-canary";
const DEADLINE: Duration = Duration::from_secs(10);

/// Returns a link that was claimed and paid, with its webhooks.
async fn announced(tested: &Tested, id: &str, description: &Description, behaviour: Behaviour) -> Announced {
    let receiver = Receiver::start(&[]).await.unwrap();
    let link = tested.followed(&description.job(id)).await;
    tested.simulator.announce(Some(Announce::to(receiver.url(), SECRET).with(behaviour)));
    tested.simulator.change(&link.connector_payout_id, LinkChange::Claim).unwrap();
    tested.simulator.change(&link.connector_payout_id, LinkChange::Pay).unwrap();
    // Each behaviour announces a payment, with or without a claim before it.
    let count = 1 + behaviour.repeat as usize;
    let received = receiver.until(|received| received.len() >= count);
    let received = tokio::time::timeout(DEADLINE, received).await.expect("a webhook");
    tested.simulator.announce(None);
    Announced { link, received }
}

struct Announced {
    link: AskedLink,
    received: Vec<Received>,
}

fn read(tested: &Tested, secrets: &[&str], webhook: &Received) -> Result<ProviderWebhook, WebhookProblem> {
    let secrets: Vec<SecretString> = secrets.iter().map(|secret| (*secret).into()).collect();
    let header = |(name, value): (&String, &String)| {
        (name.parse::<reqwest::header::HeaderName>().unwrap(), value.parse().unwrap())
    };
    let headers = webhook.headers.iter().map(header).collect();
    let now = OffsetDateTime::now_utc();
    tested.connector().read_webhook(&secrets, &headers, webhook.body.as_bytes(), now)
}

pub async fn webhooks_of_the_provider_name_their_link(description: &Description) {
    let tested = Tested::start(description).await;
    let behaviour = Behaviour { repeat: 1, ..Behaviour::default() };
    let Announced { link, received } = announced(&tested, "po_1", description, behaviour).await;
    let expected = LinkReference::ConnectorPayoutId(link.connector_payout_id.clone());
    let webhooks: Vec<ProviderWebhook> =
        received.iter().map(|webhook| read(&tested, &["old", SECRET], webhook).unwrap()).collect();
    assert!(webhooks.iter().any(|webhook| webhook.link == expected), "{webhooks:?}");
    // A repeated webhook has the same deduplication key.
    assert_eq!(webhooks[0].dedupe_key, webhooks[1].dedupe_key, "{webhooks:?}");
    for secrets in [&[][..], &["old"], &[""]] {
        assert_eq!(read(&tested, secrets, &received[0]), Err(WebhookProblem::NotAuthentic), "{secrets:?}");
    }
}

pub async fn webhooks_without_the_providers_proof_are_refused(description: &Description) {
    let tested = Tested::start(description).await;
    let signs_a_time = description.account.kind == "revolut";
    for (number, (behaviour, is_accepted)) in [
        (Behaviour { unsigned: true, ..Behaviour::default() }, false),
        (Behaviour { wrong_secret: true, ..Behaviour::default() }, false),
        (Behaviour { old_timestamp: true, ..Behaviour::default() }, !signs_a_time),
        // The worker asks the provider, whatever status the webhook has.
        (Behaviour { old_status: true, ..Behaviour::default() }, true),
    ]
    .into_iter()
    .enumerate()
    {
        let announced = announced(&tested, &format!("po_{number}"), description, behaviour).await;
        let read = read(&tested, &[SECRET], &announced.received[0]);
        match is_accepted {
            true => assert!(read.is_ok(), "{behaviour:?}: {read:?}"),
            false => assert_eq!(read, Err(WebhookProblem::NotAuthentic), "{behaviour:?}"),
        }
    }
}
