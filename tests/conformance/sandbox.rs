//! Tests the sandbox's connector: questions, cancellation and webhooks. The other tests use it for everything else.

use std::time::Duration;

use payout_link_worker::{
    config,
    connectors::{AskedLink, Connector, Connectors, LinkReference, WebhookProblem},
    domain::{LinkAnswer, LinkReport, LinkStatus},
    limits::RateLimit,
};
use provider_simulators::{
    providers::{Announce, Behaviour},
    sandbox::{Fault, FaultRule, LinkChange, Operation, Receiver, Sandbox, Settings},
};
use secrecy::SecretString;
use serde_json::{Value, json};
use time::OffsetDateTime;

const EXAMPLE: &str = include_str!("../../config.example.toml");
const TOKEN: &str = "token-canary";
const SECRET: &str = "webhook-secret-canary";

struct Env {
    sandbox: Sandbox,
    connectors: Connectors,
}

impl Env {
    async fn start() -> Self {
        let sandbox = Sandbox::start(Settings::new(TOKEN)).await.unwrap();
        let url = sandbox.url();
        let section =
            format!("[connectors.tested]\nkind = \"sandbox\"\nurl = \"{url}\"\ntoken = \"{TOKEN}\"\n");
        let file = std::env::temp_dir().join(format!("conformance-{}.toml", uuid::Uuid::new_v4()));
        std::fs::write(&file, format!("{EXAMPLE}\n{section}")).unwrap();
        let config = config::load(Some(&file), std::iter::empty());
        std::fs::remove_file(file).unwrap();
        Self { sandbox, connectors: config.unwrap().connectors().unwrap() }
    }

    fn connector(&self) -> &dyn Connector {
        &*self.connectors.choose(Some("tested")).unwrap().connector
    }

    /// Creates a link without the worker.
    async fn link(&self, reference: &str) -> AskedLink {
        let body = json!({
            "reference": reference,
            "amount": { "minor_amount": 1250, "currency": "EUR" },
            "destination_currency": "EUR",
        });
        let answer = reqwest::Client::new()
            .post(format!("{}/v1/payout-links", self.sandbox.url()))
            .bearer_auth(TOKEN)
            .header("idempotency-key", reference)
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        let link: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        AskedLink {
            connector_payout_id: link["id"].as_str().unwrap().to_owned(),
            provider_payout_id: None,
            status: LinkStatus::Unclaimed,
            expires_at: None,
            is_cancelled: false,
        }
    }

    async fn ask(&self, link: &AskedLink) -> LinkAnswer {
        self.connector().ask_about(std::slice::from_ref(link), &RateLimit::new(None)).await.pop().unwrap()
    }

    async fn report(&self, link: &AskedLink) -> LinkReport {
        match self.ask(link).await {
            LinkAnswer::Reported(report) => report,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_link_is_followed_until_its_money_comes_back() {
    let env = Env::start().await;
    let link = env.link("key_1").await;
    assert_eq!(env.report(&link).await.status, Some(LinkStatus::Unclaimed));
    for (change, expected) in [
        (LinkChange::Claim, LinkStatus::Claimed),
        (LinkChange::Process, LinkStatus::Processing),
        (LinkChange::Reopen, LinkStatus::Unclaimed),
        (LinkChange::Claim, LinkStatus::Claimed),
        (LinkChange::Pay, LinkStatus::Succeeded),
        (LinkChange::Reverse, LinkStatus::Reversed),
    ] {
        env.sandbox.change(&link.connector_payout_id, change).unwrap();
        let report = env.report(&link).await;
        assert_eq!(report.status, Some(expected));
        let changed_at = env.sandbox.history(&link.connector_payout_id).last().unwrap().at;
        assert_eq!(report.occurred_at, Some(changed_at));
    }
}

#[tokio::test]
async fn a_payout_that_fails_is_reported_with_its_reason() {
    let env = Env::start().await;
    let link = env.link("key_1").await;
    for change in [LinkChange::Claim, LinkChange::Fail] {
        env.sandbox.change(&link.connector_payout_id, change).unwrap();
    }
    let report = env.report(&link).await;
    assert_eq!(report.status, Some(LinkStatus::PayoutFailed));
    assert_eq!(report.error.unwrap().code.as_deref(), Some("payout_failed"));
}

#[tokio::test]
async fn a_link_is_cancelled_unless_it_was_claimed_or_has_ended() {
    let env = Env::start().await;
    let open = env.link("key_1").await;
    for _ in 0..2 {
        env.connector().cancel_link(&open.connector_payout_id).await.unwrap();
        assert_eq!(env.report(&open).await.status, Some(LinkStatus::Cancelled));
    }
    for (number, change) in [LinkChange::Claim, LinkChange::Expire].into_iter().enumerate() {
        let link = env.link(&format!("other_{number}")).await;
        env.sandbox.change(&link.connector_payout_id, change).unwrap();
        let before = env.report(&link).await.status;
        env.connector().cancel_link(&link.connector_payout_id).await.unwrap_err();
        assert_eq!(env.report(&link).await.status, before, "{change}");
    }
    let error = env.connector().cancel_link("no-such-link").await.unwrap_err();
    assert_eq!(error.status_code, 404);
}

#[tokio::test]
async fn nothing_follows_from_a_question_without_an_answer() {
    let env = Env::start().await;
    let link = env.link("key_1").await;
    for fault in [
        Fault::status(401),
        Fault::status(403),
        Fault::status_with_retry_after(429, "7"),
        Fault::status(500),
        Fault::Reset,
    ] {
        env.sandbox.inject_fault(FaultRule::new(fault.clone()).on(Operation::Get));
        let answer = env.ask(&link).await;
        let LinkAnswer::Unanswered { error, retry_after } = answer else { panic!("{fault:?}: {answer:?}") };
        let expected = (error.status_code == 429).then_some(Duration::from_secs(7));
        assert_eq!(retry_after, expected, "{fault:?}");
    }
    let absent = AskedLink { connector_payout_id: "no-such-link".into(), ..link };
    assert!(matches!(env.ask(&absent).await, LinkAnswer::NotFound { .. }));
}

#[tokio::test]
async fn webhooks_are_read_if_they_have_the_sandboxs_proof_and_are_new() {
    let env = Env::start().await;
    let receiver = Receiver::start(&[]).await.unwrap();
    for (number, (behaviour, is_accepted)) in [
        (Behaviour::default(), true),
        (Behaviour { unsigned: true, ..Behaviour::default() }, false),
        (Behaviour { wrong_secret: true, ..Behaviour::default() }, false),
        (Behaviour { old_timestamp: true, ..Behaviour::default() }, false),
    ]
    .into_iter()
    .enumerate()
    {
        let link = env.link(&format!("key_{number}")).await;
        env.sandbox.announce(Some(Announce::to(receiver.url(), SECRET).with(behaviour)));
        env.sandbox.change(&link.connector_payout_id, LinkChange::Claim).unwrap();
        let about_it = |body: &str| body.contains(&link.connector_payout_id);
        let received = receiver.until(|received| received.iter().any(|webhook| about_it(&webhook.body)));
        let received = tokio::time::timeout(Duration::from_secs(10), received).await.expect("a webhook");
        let webhook = received.iter().find(|webhook| about_it(&webhook.body)).unwrap();
        let header = |(name, value): (&String, &String)| {
            (name.parse::<reqwest::header::HeaderName>().unwrap(), value.parse().unwrap())
        };
        let headers = webhook.headers.iter().map(header).collect();
        let (secrets, now) = ([SecretString::from(SECRET)], OffsetDateTime::now_utc());
        let read = env.connector().read_webhook(&secrets, &headers, webhook.body.as_bytes(), now);
        if is_accepted {
            let expected = LinkReference::ConnectorPayoutId(link.connector_payout_id.clone());
            assert_eq!(read.unwrap().link, expected);
        } else {
            assert_eq!(read, Err(WebhookProblem::NotAuthentic), "{behaviour:?}");
        }
    }
}
