//! Tests webhooks, and the retries of those that a merchant does not accept.

use std::{io, net::TcpListener, time::Duration};

use provider_simulators::sandbox::{Fault, FaultRule, Garbage, Receiver};
use serde_json::json;

use crate::support::{Setup, TestEnv, WEBHOOK_SECRET, job};

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_fails_is_posted_again_under_the_same_id() {
    // Given a merchant that fails twice,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    env.merchant.inject_fault(FaultRule::new(Fault::status(500)).times(2));
    // when a payout is done,
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    // then the result does not wait for it,
    env.result_of("po_1").await;
    // and the third attempt succeeds: all have the same id and body, each with a signature of its own time.
    let posts = env.webhooks(3).await;
    assert!(posts.iter().all(|post| post.verified && post.id == posts[0].id && post.body == posts[0].body));
    assert!(posts[2].at - posts[1].at >= Duration::from_secs(1), "never earlier than the schedule");
    let shown = env.wait_until_delivered("po_1").await;
    assert_eq!(shown["event"]["webhook_state"], "delivered");
    assert_eq!(shown["event"]["webhook_attempts"], 3);
    assert_eq!(shown["state"], "created");
    assert_eq!(env.results_of("po_1").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merchant_that_says_410_gets_no_more() {
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    env.merchant.inject_fault(Fault::status(410));
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    let shown = env.wait_until_delivered("po_1").await;
    assert_eq!(shown["event"]["webhook_state"], "abandoned");
    assert_eq!(shown["event"]["webhook_attempts"], 1);
    assert_eq!(shown["state"], "created");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_given_up_when_the_schedule_runs_out() {
    let env = Setup::default().set("webhooks.schedule_seconds", "[1]").build().await;
    let _worker = env.start_worker().await;
    env.merchant.inject_fault(FaultRule::new(Fault::status(503)).always());
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    let shown = env.wait_until_delivered("po_1").await;
    assert_eq!(shown["event"]["webhook_state"], "abandoned");
    assert_eq!(shown["event"]["webhook_attempts"], 2);
    assert_eq!(shown["state"], "created");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed() {
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    let elsewhere = TestEnv::new().await;
    let location = elsewhere.merchant.url().parse().unwrap();
    env.merchant.inject_fault(Fault::Redirect { location: Some(location) });
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    let shown = env.wait_until_delivered("po_1").await;
    assert_eq!(shown["event"]["webhook_attempts"], 2);
    assert!(elsewhere.merchant.received().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_of_a_merchant_is_honoured() {
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    env.merchant.inject_fault(Fault::status_with_retry_after(429, "3"));
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    let posts = env.webhooks(2).await;
    assert!(posts[1].at - posts[0].at >= Duration::from_secs(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merchant_that_never_answers_delays_no_other() {
    // Given two merchants, one of which never answers,
    let env = Setup::default().set("webhooks.host_concurrency", 2).build().await;
    let _worker = env.start_worker().await;
    // (another address of the same machine counts as another host)
    let hanging = Receiver::listen("127.0.0.2:0".parse().unwrap(), &[]).await.unwrap();
    hanging.inject_fault(FaultRule::new(Fault::Silence).always());
    for number in 0..20 {
        let job = job(&format!("slow_{number}")).with("webhook_url", json!(hanging.url()));
        env.publish(job).await;
    }
    // then the other's webhooks arrive, and every result is published.
    for number in 0..20 {
        env.publish(job(&format!("po_{number}")).with("webhook_url", env.webhook_url())).await;
    }
    env.webhooks(20).await;
    for number in 0..20 {
        assert_eq!(env.result_of(&format!("slow_{number}")).await.kind(), "payout_link.created");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_answer_is_not_read_to_its_end() {
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    env.publish(job("po_0").with("webhook_url", env.webhook_url())).await;
    env.wait_until_delivered("po_0").await;
    let before = worker.peak_memory();
    // 32 MiB arrive faster than any timeout.
    env.merchant.inject_fault(Fault::Garbage(Garbage::Huge));
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    let shown = env.wait_until_delivered("po_1").await;
    assert_eq!(shown["event"]["webhook_state"], "delivered");
    let more = worker.peak_memory() - before;
    assert!(more < 16 * 1024 * 1024, "{more} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn this_machines_own_name_is_rejected() {
    // Given a worker without allowed networks, and a merchant with the name of this machine,
    let env = Setup::default()
        .set("webhooks.allowed_networks", "[]")
        .set("webhooks.schedule_seconds", "[1]")
        .build()
        .await;
    let _worker = env.start_worker().await;
    let url = env.merchant.url().replace("127.0.0.1", "localhost");
    env.publish(job("po_1").with("webhook_url", json!(url))).await;
    // then the job is rejected, and no webhook is sent.
    let result = env.result_of("po_1").await;
    assert_eq!(result.error_code().as_deref(), Some("INVALID_JOB"));
    assert_eq!(result.field().as_deref(), Some("webhook_url"));
    assert!(env.merchant.received().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_merchant_has_its_own_secret_and_both_sign_while_it_rotates() {
    let env = TestEnv::new().await;
    let old = "whsec_b2xkIHNlY3JldCBvZiBhIG1lcmNoYW50ISE=";
    let new = WEBHOOK_SECRET;
    let secrets = format!("[\"{old}\", \"{new}\"]");
    let worker = env.launch_worker(&[("PAYOUT_LINK__WEBHOOKS__MERCHANT_SECRETS__M_1", secrets)]);
    worker.says("connected to RabbitMQ, consuming").await;
    env.publish(job("po_1").merchant("m_1").with("webhook_url", env.webhook_url())).await;
    let posts = env.webhooks(1).await;
    assert!(posts[0].verified, "the receiver knows the new secret alone");
    assert_eq!(posts[0].headers["webhook-signature"].split(' ').count(), 2);
}

/// Checks that `keys public` prints the keys with which merchants verify, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn public_keys_are_reported_and_no_secret() {
    let mut env = TestEnv::new().await;
    let pair = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
    env.set("webhooks.merchant_secrets.m_1", format!("[\"{pair}\", \"{WEBHOOK_SECRET}\"]"));
    let output = env.run(&["keys", "public"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=  m_1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_proxy_of_the_environment_gets_a_payout() {
    // Given a worker whose environment names a proxy for everything,
    let env = TestEnv::new().await;
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let url = format!("http://{}", proxy.local_addr().unwrap());
    let mut environment: Vec<(&str, String)> =
        ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"]
            .map(|name| (name, url.clone()))
            .into();
    environment.extend(["NO_PROXY", "no_proxy"].map(|name| (name, String::new())));
    let worker = env.launch_worker(&environment);
    worker.says("connected to RabbitMQ, consuming").await;
    // when a payout is done,
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    // then the proxy received neither the call nor the webhook.
    let shown = env.wait_until_delivered("po_1").await;
    assert_eq!(shown["event"]["webhook_attempts"], 1);
    assert!(env.merchant.received()[0].verified);
    assert_eq!(proxy.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_merchant_gets_a_secret_of_its_own_from_a_master_secret() {
    // Given a master secret, and a merchant that has its derived secret,
    let mut env = TestEnv::new().await;
    let worker = env.start_worker().await;
    for merchant in ["m_1", "m_2"] {
        env.publish(job("po_1").merchant(merchant).with("webhook_url", env.webhook_url())).await;
    }
    assert!(env.webhooks(2).await.iter().all(|post| post.verified));
    // (without a merchant id, merchants share a secret, and the log says so)
    worker.says("merchants share webhooks.secrets").await;
    worker.stop().await;
    env.set("webhooks.master_secrets", "[\"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"]");
    let printed = |merchant| String::from_utf8(env.run(&["webhook-secret", merchant]).stdout).unwrap();
    let (own, others) = (printed("m_1"), printed("m_2"));
    let receiver = Receiver::start(&[own.trim().to_owned()]).await.unwrap();
    assert_ne!(own, others);
    // when webhooks are signed for it and for another,
    let _worker = env.start_worker().await;
    for (id, merchant) in [("po_2", "m_1"), ("po_3", "m_2")] {
        env.publish(job(id).merchant(merchant).with("webhook_url", json!(receiver.url()))).await;
        env.wait_until_delivered(id).await;
    }
    // then it can verify only its own.
    let posts = receiver.received();
    let verified = |id| posts.iter().any(|post| post.verified && post.body.contains(id));
    assert!(verified("po_2") && !verified("po_3"));
}
