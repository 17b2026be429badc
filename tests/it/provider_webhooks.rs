//! Tests webhooks of providers: they are authenticated and stored once, and the provider is asked about the link at
//! once.

use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use futures_util::future::join_all;
use provider_simulators::sandbox::{Announce, LinkChange, Operation, When};
use reqwest::{Method, StatusCode};
use serde_json::json;
use sqlx::AssertSqlSafe;
use time::OffsetDateTime;

use crate::{
    proxy::{Kind, Mode, Proxy},
    support::{Setup, TestEnv, Worker, eventually, job},
};

const SECRET: &str = "canary-inbound-secret";
const SECOND: Duration = Duration::from_secs(1);
/// Allows for a machine that has other work.
const SLACK: Duration = Duration::from_millis(700);

fn setup() -> Setup {
    Setup::default()
        .set("worker.provider_webhooks_listen", "127.0.0.1:0")
        .set("connectors.sandbox.follow.webhook_secrets", json!([SECRET]))
        // No question of the schedule is due while the test runs.
        .set("connectors.sandbox.follow.min_interval_seconds", 3600)
}

/// A test environment whose worker accepts webhooks.
struct Inbound {
    env: TestEnv,
    worker: Worker,
    url: String,
    client: reqwest::Client,
}

impl Inbound {
    async fn start(env: TestEnv) -> Self {
        let worker = env.start_worker().await;
        let url = worker.provider_webhooks_url().await;
        Self { env, worker, url, client: reqwest::Client::new() }
    }

    fn of(&self, account: &str) -> String {
        format!("{}/connectors/{account}/webhooks", self.url)
    }

    /// Creates a link, and returns its id at the provider.
    async fn link(&self, id: &str) -> String {
        self.env.publish(job(id).with("webhook_url", self.env.webhook_url())).await;
        let result = self.env.result_of(id).await;
        result.json()["connector_payout_id"].as_str().unwrap().to_owned()
    }

    /// Sends a webhook with the proof of a secret.
    async fn send(&self, account: &str, secret: &str, body: &str) -> Answer {
        let signed_at = OffsetDateTime::now_utc().unix_timestamp().to_string();
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let tag = hmac::sign(&key, format!("{signed_at}.{body}").as_bytes());
        let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let request = self
            .client
            .post(self.of(account))
            .header("sandbox-timestamp", signed_at)
            .header("sandbox-signature", format!("v1={hex}"))
            .body(body.to_owned());
        answer(request).await
    }

    /// Sends an authentic webhook about a link.
    async fn announce(&self, event: &str, link: &str) -> StatusCode {
        self.send("sandbox", SECRET, &about(event, link)).await.status
    }

    async fn count(&self, query: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_one(&self.env.pool).await.unwrap()
    }

    async fn stored(&self) -> i64 {
        self.count("SELECT count(*) FROM provider_webhooks").await
    }

    /// Returns the number of the account's webhooks with this outcome.
    async fn measured(&self, connector: &str, outcome: &str) -> u64 {
        let text = self.worker.metrics().await;
        let series = format!(
            "payout_links_provider_webhooks_total{{connector=\"{connector}\",outcome=\"{outcome}\"}} "
        );
        let value = text.lines().find_map(|line| line.strip_prefix(&series)).expect("the series is there");
        value.parse().unwrap()
    }

    /// Waits for so many events of the merchant, and returns them.
    async fn events(&self, count: usize) -> Vec<String> {
        let received = self.env.webhooks(count).await;
        received.into_iter().map(|webhook| webhook.event_type.unwrap()).collect()
    }
}

/// An answer without the headers that differ from one to the next.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: StatusCode,
    headers: Vec<(String, String)>,
    body: String,
}

async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let headers = response.headers().iter().filter(|(name, _)| *name != "date");
    let headers =
        headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    Answer { status: response.status(), headers, body: response.text().await.unwrap() }
}

fn about(event: &str, link: &str) -> String {
    json!({ "id": event, "type": "link.status_changed", "link": { "id": link } }).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_the_provider_announces_reaches_the_merchant_at_once() {
    // Given a link with its next question in an hour,
    let inbound = Inbound::start(setup().build().await).await;
    let link = inbound.link("po_1").await;
    inbound.env.provider.announce(Some(Announce::to(inbound.of("sandbox"), SECRET)));
    assert_eq!(inbound.events(1).await, ["payout_link.created"]);
    // when the provider announces its changes,
    let mut delays = Vec::new();
    for (change, event) in [
        (LinkChange::Claim, "payout_link.claimed"),
        (LinkChange::Pay, "payout_link.succeeded"),
        (LinkChange::Reverse, "payout_link.reversed"),
    ] {
        let (count, started) = (inbound.env.merchant.received().len() + 1, Instant::now());
        inbound.env.provider.change(&link, change).unwrap();
        // then the merchant receives them,
        assert_eq!(inbound.events(count).await.last().unwrap(), event);
        delays.push(started.elapsed());
    }
    // and not by the next round of the follower, which began a pause of a second or two after each.
    assert!(delays[1..].iter().any(|delay| *delay < SLACK), "{delays:?}");
    eventually("three webhooks of the provider", async || {
        (inbound.measured("sandbox", "accepted").await == 3).then_some(())
    })
    .await;
    // For a link that is over, one more webhook leads to one more question, and to no event.
    let over = "SELECT count(*) FROM payout_links WHERE follow_due_at IS NULL AND follow_holder IS NULL";
    eventually("the link is over", async || (inbound.count(over).await == 1).then_some(())).await;
    let asked = "SELECT (extract(epoch FROM asked_at) * 1000000)::bigint FROM payout_links";
    let before = inbound.count(asked).await;
    assert_eq!(inbound.announce("evt_late", &link).await, StatusCode::OK);
    eventually("one more question", async || (inbound.count(asked).await > before).then_some(())).await;
    eventually("the link is over", async || (inbound.count(over).await == 1).then_some(())).await;
    assert_eq!(inbound.env.merchant.received().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_without_proof_is_answered_alike_and_changes_nothing() {
    let inbound = Inbound::start(setup().build().await).await;
    let link = inbound.link("po_1").await;
    let due = "SELECT count(*) FROM payout_links WHERE follow_due_at > now() + interval '1 minute'";
    assert_eq!(inbound.count(due).await, 1);
    let body = about("evt_1", &link);
    // A wrong secret, no proof, a body of another form, an unknown link, and an account without secrets.
    let refused = inbound.send("sandbox", "another-secret", &body).await;
    assert_eq!((refused.status, refused.body.as_str()), (StatusCode::UNAUTHORIZED, ""));
    let bare = inbound.client.post(inbound.of("sandbox")).body(body.clone());
    assert_eq!(answer(bare).await, refused);
    for (account, secret, body) in [
        ("sandbox", "", body.as_str()),
        ("sandbox", "another-secret", "{"),
        ("sandbox", "another-secret", &about("evt_1", "another-link")),
        ("mute", SECRET, &body),
        ("mute", "", &body),
    ] {
        assert_eq!(inbound.send(account, secret, body).await, refused, "{account} {secret} {body}");
    }
    assert_eq!(inbound.measured("sandbox", "not_authentic").await, 5);
    assert_eq!(inbound.measured("mute", "not_authentic").await, 2);
    // Another path is answered like an unknown account, and another method as for every account.
    let elsewhere = inbound.send("nowhere", SECRET, &body).await;
    assert_eq!((elsewhere.status, elsewhere.body.as_str()), (StatusCode::NOT_FOUND, ""));
    for path in ["/", "/metrics", "/health/live", "/connectors/sandbox", "/connectors/%ff/webhooks"] {
        let request = inbound.client.post(format!("{}{path}", inbound.url)).body(body.clone());
        assert_eq!(answer(request).await, elsewhere, "{path}");
    }
    for account in ["sandbox", "nowhere"] {
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            let status = answer(inbound.client.request(method, inbound.of(account))).await.status;
            assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
        }
    }
    // Nothing is stored, and the worker does not ask about the link.
    assert_eq!((inbound.stored().await, inbound.count(due).await), (0, 1));
    assert!(!inbound.worker.log().contains(SECRET));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authentic_webhook_is_accepted_whatever_it_is_about() {
    let inbound = Inbound::start(setup().build().await).await;
    let link = inbound.link("po_1").await;
    // A repeat is accepted, but stored and asked about once.
    let asked = "SELECT count(*) FROM payout_links WHERE asked_at IS NOT NULL";
    assert_eq!(inbound.announce("evt_1", &link).await, StatusCode::OK);
    eventually("the provider is asked", async || (inbound.count(asked).await == 1).then_some(())).await;
    sqlx::query("UPDATE payout_links SET asked_at = NULL").execute(&inbound.env.pool).await.unwrap();
    for _ in 0..3 {
        assert_eq!(inbound.announce("evt_1", &link).await, StatusCode::OK);
    }
    assert_eq!((inbound.stored().await, inbound.measured("sandbox", "duplicate").await), (1, 3));
    let due = "SELECT count(*) FROM payout_links WHERE follow_due_at <= now() + interval '1 minute'";
    assert_eq!((inbound.count(due).await, inbound.count(asked).await), (0, 0));
    // Another link of the account, a link of another account, no link, and another form.
    assert_eq!(inbound.announce("evt_2", "another-link").await, StatusCode::OK);
    sqlx::query("UPDATE payout_links SET connector = 'mute'").execute(&inbound.env.pool).await.unwrap();
    assert_eq!(inbound.announce("evt_3", &link).await, StatusCode::OK);
    let other = json!({ "id": "evt_4", "type": "account.changed" }).to_string();
    assert_eq!(inbound.send("sandbox", SECRET, &other).await.status, StatusCode::OK);
    for body in ["", "[]", "{\"id\":7}"] {
        assert_eq!(inbound.send("sandbox", SECRET, body).await.status, StatusCode::OK);
    }
    assert_eq!(inbound.measured("sandbox", "unknown_link").await, 3);
    assert_eq!(inbound.measured("sandbox", "unreadable").await, 3);
    assert_eq!((inbound.count(due).await, inbound.count(asked).await), (0, 0));
    // 256 KiB are the limit.
    let event = about("evt_5", &link);
    let long = format!("{event}{}", " ".repeat(256 * 1024 - event.len()));
    assert_eq!(inbound.send("sandbox", SECRET, &long).await.status, StatusCode::OK);
    assert_eq!(
        inbound.send("sandbox", SECRET, &format!("{long} ")).await.status,
        StatusCode::PAYLOAD_TOO_LARGE
    );
}

/// Checks a webhook during a question, because the provider's answer may be older than its webhook.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_whose_webhook_comes_during_a_question_is_asked_about_once_more() {
    let inbound = Inbound::start(setup().build().await).await;
    let link = inbound.link("po_1").await;
    // Given an answer under way: first one without a change, then one with an event,
    for (round, changes) in
        [&[LinkChange::Claim][..], &[LinkChange::Process, LinkChange::Pay]].iter().enumerate()
    {
        let (last, before) = changes.split_last().unwrap();
        for change in before {
            inbound.env.provider.change(&link, *change).unwrap();
        }
        let held = inbound.env.provider.hold_next(Operation::Get, When::After);
        assert_eq!(inbound.announce(&format!("evt_{round}_early"), &link).await, StatusCode::OK);
        held.arrived().await;
        // when the link changes and the provider announces it,
        inbound.env.provider.change(&link, *last).unwrap();
        assert_eq!(inbound.announce(&format!("evt_{round}_late"), &link).await, StatusCode::OK);
        held.release();
        // then the merchant gets the event.
        let event = if round == 0 { "payout_link.claimed" } else { "payout_link.succeeded" };
        eventually(event, async || {
            let received = inbound.env.merchant.received();
            received.iter().any(|webhook| webhook.event_type.as_deref() == Some(event)).then_some(())
        })
        .await;
    }
    let events = inbound.events(4).await;
    let expected =
        ["created", "claimed", "processing", "succeeded"].map(|event| format!("payout_link.{event}"));
    assert_eq!(events, expected);
    assert_eq!(inbound.measured("sandbox", "accepted").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_cannot_be_stored_is_answered_within_a_second_and_accepted_later() {
    // Given a worker whose database is behind a proxy,
    let database = url::Url::parse(&std::env::var("DATABASE_URL").unwrap()).unwrap();
    let address = database.socket_addrs(|| Some(5432)).unwrap();
    let proxy = Proxy::start(Kind::to(address)).await;
    let mut env = setup().build().await;
    let mut url = database;
    url.set_port(Some(proxy.port())).unwrap();
    url.set_path(env.pool.connect_options().get_database().unwrap());
    env.set("database.url", &url);
    let inbound = Inbound::start(env).await;
    let link = inbound.link("po_1").await;
    let in_time = async |number: usize| {
        let started = Instant::now();
        let status = inbound.announce(&format!("evt_{number}"), &link).await;
        assert!(started.elapsed() < SECOND + SLACK, "{:?}", started.elapsed());
        status
    };
    // when another session has locked the table,
    let mut other = inbound.env.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE payout_links IN ACCESS EXCLUSIVE MODE").execute(&mut *other).await.unwrap();
    // then none of many webhooks is accepted, and all are answered in time, over two sessions.
    let answers = join_all((0..100).map(in_time)).await;
    assert!(answers.iter().all(|status| *status == StatusCode::SERVICE_UNAVAILABLE), "{answers:?}");
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND application_name = 'payout-link-worker provider webhooks'";
    let sessions = inbound.count(sessions).await;
    assert!((1..=2).contains(&sessions), "{sessions}");
    assert_eq!(inbound.measured("sandbox", "unavailable").await, 100);
    other.rollback().await.unwrap();
    // The provider sends them again.
    eventually("the webhook is accepted", async || (in_time(0).await == StatusCode::OK).then_some(())).await;
    // The same holds if the database is silent, or refuses connections.
    for (number, mode) in [Mode::Silent, Mode::Refuse].into_iter().enumerate() {
        proxy.set(mode);
        for _ in 0..3 {
            assert_eq!(in_time(1 + number).await, StatusCode::SERVICE_UNAVAILABLE, "{mode:?}");
        }
        proxy.heal();
        eventually("the webhook is accepted", async || {
            (in_time(1 + number).await == StatusCode::OK).then_some(())
        })
        .await;
    }
    // Each is stored once. An earlier webhook may have been stored after its 503, and its provider sends it again.
    let stored = inbound.stored().await;
    assert!(stored >= 3, "{stored}");
    for number in 0..3 {
        assert_eq!(in_time(number).await, StatusCode::OK);
    }
    assert_eq!(inbound.stored().await, stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_without_proof_delays_no_job_and_stores_nothing() {
    let inbound = Inbound::start(setup().build().await).await;
    let body = "x".repeat(100 * 1024);
    let flood = async {
        loop {
            let sent = (0..40).map(async |_| {
                let forged = inbound.client.post(inbound.of("sandbox")).body(body.clone());
                let forged = forged.header("sandbox-timestamp", "1").header("sandbox-signature", "v1=00");
                let _ = forged.send().await;
            });
            join_all(sent).await;
        }
    };
    let jobs = async {
        eventually("the flood", async || {
            (inbound.measured("sandbox", "not_authentic").await > 100).then_some(())
        })
        .await;
        let started = Instant::now();
        for number in 0..30 {
            inbound.env.publish(job(&format!("po_{number}"))).await;
        }
        for number in 0..30 {
            inbound.env.result_of(&format!("po_{number}")).await;
        }
        started.elapsed()
    };
    let took = tokio::select! {
        () = flood => unreachable!("the flood has no end"),
        took = jobs => took,
    };
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(inbound.stored().await, 0);
    let memory = inbound.worker.peak_memory();
    assert!(memory < 150 * 1024 * 1024, "{memory}");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_whose_webhooks_nobody_took_are_found_by_asking() {
    // Given a provider whose webhooks find no listener, and which does not repeat them later,
    let env = Setup::default()
        .set("connectors.sandbox.follow.min_interval_seconds", 1)
        .set("connectors.sandbox.follow.max_interval_seconds", 1)
        .build()
        .await;
    let _worker = env.start_worker().await;
    env.provider.announce(Some(Announce::to("http://127.0.0.1:1/connectors/sandbox/webhooks", SECRET)));
    let created = async |id: &str| {
        env.publish(job(id).with("webhook_url", env.webhook_url())).await;
        env.result_of(id).await.json()["connector_payout_id"].as_str().unwrap().to_owned()
    };
    let (paid, expired) = (created("po_1").await, created("po_2").await);
    env.wait_until_delivered("po_1").await;
    env.wait_until_delivered("po_2").await;
    // when links change, then their merchant gets the last status of each.
    env.provider.change(&paid, LinkChange::Claim).unwrap();
    env.provider.change(&paid, LinkChange::Pay).unwrap();
    env.provider.change(&expired, LinkChange::Expire).unwrap();
    let webhooks = env.webhooks(5).await;
    let types: Vec<&str> = webhooks.iter().filter_map(|webhook| webhook.event_type.as_deref()).collect();
    for wanted in ["payout_link.claimed", "payout_link.succeeded", "payout_link.expired"] {
        assert!(types.contains(&wanted), "{types:?}");
    }
    eventually("the webhooks of the provider are abandoned", async || {
        let announced = env.provider.ledger().announcements;
        (announced.len() >= 3 && announced.iter().all(|one| one.status.is_none())).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_warns_of_a_listener_that_accepts_nothing() {
    let mut env = Setup::default().set("worker.provider_webhooks_listen", "127.0.0.1:0").build().await;
    let warning =
        "warning worker.provider_webhooks_listen is set, and no connector has follow.webhook_secrets";
    let check = |env: &TestEnv| String::from_utf8(env.run(&["check"]).stdout).unwrap();
    let said = check(&env);
    assert!(said.contains(warning) && said.contains("ok      provider webhooks port"), "{said}");
    env.set("connectors.sandbox.follow.webhook_secrets", json!([SECRET]));
    let said = check(&env);
    assert!(!said.contains(warning) && !said.contains(SECRET), "{said}");
}
