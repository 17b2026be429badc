//! Tests a service that goes away and comes back. These tests have their own servers.

use std::{net::SocketAddr, time::Duration};

use serde_json::json;

use crate::{
    proxy::{Kind, Mode, Proxy},
    support::{Service, Setup, TestEnv, eventually, job},
};

const CONSUMING: &str = "payout_links_consuming";
const DATABASE_UP: &str = "payout_links_database_up";

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_killed_and_comes_back_loses_nothing() {
    let database = Service::start("postgres").await;
    let env = Setup::default().database(&database.url).build().await;
    let worker = env.start_worker().await;
    // Given a call that is under way,
    let call = env.provider.hold_next_answer();
    env.publish(job("po_0")).await;
    call.arrived().await;
    // when the database is killed, the call returns, and more jobs come,
    database.kill();
    call.release();
    for number in 1..20 {
        env.publish(job(&format!("po_{number}")).with("webhook_url", env.webhook_url())).await;
    }
    worker.measures(DATABASE_UP, 0).await;
    database.restart();
    // then every job has one link.
    for number in 0..20 {
        assert_eq!(env.result_of(&format!("po_{number}")).await.kind(), "payout_link.created");
    }
    env.webhooks(19).await;
    assert_eq!(env.provider.ledger().links.len(), 20);
    assert!(worker.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_consumed_while_the_database_is_away() {
    const JOBS: u32 = 5;
    // Given a worker whose database is away,
    let database = Service::start("postgres").await;
    let env = Setup::default().database(&database.url).build().await;
    let worker = env.start_worker().await;
    database.kill();
    env.publish(job("po_0")).await;
    worker.measures(DATABASE_UP, 0).await;
    worker.measures(CONSUMING, 0).await;
    // when jobs come, then all of them are in the queue, the first one too,
    for number in 1..=JOBS {
        env.publish(job(&format!("po_{number}"))).await;
    }
    let ready = async || (env.ready(&env.names.jobs_queue).await == JOBS + 1).then_some(());
    eventually("every job is in the queue", ready).await;
    worker.measures(CONSUMING, 0).await;
    // and they are carried out once the database is back.
    database.restart();
    for number in 0..=JOBS {
        assert_eq!(env.result_of(&format!("po_{number}")).await.kind(), "payout_link.created");
    }
    assert!(worker.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_and_comes_back_loses_nothing() {
    let broker = Service::start("rabbitmq").await;
    let mut env = Setup::default().broker(&broker.url).without_listener().build().await;
    env.start_worker().await.stop().await;
    broker.settle();
    env.reconnect().await;
    let worker = env.start_worker().await;
    let call = env.provider.hold_next_call();
    env.publish(job("po_0").with("webhook_url", env.webhook_url())).await;
    call.arrived().await;
    // The webhook does not wait for the broker.
    broker.kill();
    worker.measures(CONSUMING, 0).await;
    call.release();
    env.webhooks(1).await;
    assert_eq!(env.shown("po_0").unwrap()["event"]["published_at"], json!(null));
    broker.restart();
    // The result waits for the broker, and is published when it is back.
    let published = |shown: &serde_json::Value| shown["event"]["published_at"].is_string();
    env.wait_until_shown("po_0", "published", published).await;
    worker.measures(CONSUMING, 1).await;
    assert_eq!(env.provider.ledger().links.len(), 1);
    assert!(worker.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_whose_confirm_never_comes_is_published_again_under_its_id() {
    // Given a worker that receives nothing from the broker any more, while the broker receives everything from it,
    let (env, broker) = behind_a_proxy("broker", "AMQP_URL").await;
    let worker = env.start_worker().await;
    let call = env.provider.hold_next_call();
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    call.arrived().await;
    broker.set(Mode::AnswersLost);
    call.release();
    // when its result is published, and the connection works again,
    let first = env.result_of("po_1").await;
    env.webhooks(1).await;
    assert_eq!(env.shown("po_1").unwrap()["event"]["published_at"], json!(null));
    broker.heal();
    // then it is published again, unchanged, and counts as published only now.
    env.wait_until_delivered("po_1").await;
    let results = env.wait_for_results("po_1", 2).await;
    assert!(results.iter().all(|result| result.id() == first.id() && result.body == first.body));
    assert_eq!(env.provider.ledger().links.len(), 1);
    assert_eq!(env.webhooks(1).await.len(), 1);
    assert!(worker.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_the_broker_that_has_fallen_silent_is_noticed_by_its_heartbeat() {
    let (env, broker) = behind_a_proxy("broker", "AMQP_URL").await;
    let worker = env.start_worker().await;
    // The connection is half-open: nothing is closed and nothing arrives. The worker publishes nothing, so only the
    // heartbeat can notice it.
    broker.set(Mode::Silent);
    worker.measures(CONSUMING, 0).await;
    broker.heal();
    worker.measures(CONSUMING, 1).await;
    env.publish(job("po_1")).await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
    assert!(worker.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_costs_neither_cpu_nor_memory() {
    // Given a worker that has done its first jobs,
    let (mut env, broker) = behind_a_proxy("broker", "AMQP_URL").await;
    let database = in_front_of("DATABASE_URL").await;
    let url = env.pool.connect_options();
    let url =
        format!("postgres://{}@{}/{}", url.get_username(), database.address(), url.get_database().unwrap());
    env.set("database.url", url);
    env.set("log.filter", "info");
    let worker = env.start_worker().await;
    for number in 0..50 {
        env.publish(job(&format!("po_{number}")).with("webhook_url", env.webhook_url())).await;
    }
    env.webhooks(50).await;
    // when the broker, and then the database, are away for `OUTAGE_SECONDS`, with waiting jobs,
    let length = std::env::var("OUTAGE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    for (service, proxy, series) in [("RabbitMQ", &broker, CONSUMING), ("PostgreSQL", &database, DATABASE_UP)]
    {
        let (cpu, memory) = (worker.cpu(), worker.peak_memory());
        proxy.set(Mode::Refuse);
        worker.measures(series, 0).await;
        // This wait is the length of the outage.
        tokio::time::sleep(Duration::from_secs(length)).await;
        let (cpu, more) = (worker.cpu().saturating_sub(cpu), worker.peak_memory().saturating_sub(memory));
        println!("{service} away for {length} s: {cpu:?} of CPU, {} KiB more at the peak", more / 1024);
        // then the worker uses little CPU and memory. (A loop without a pause uses a core, and a debug build is
        // slow.)
        assert!(cpu < Duration::from_secs(length) / 3, "{service}: {cpu:?} of CPU");
        assert!(more < 32 << 20, "{service}: {more} bytes more");
        proxy.heal();
    }
    for number in 50..60 {
        env.publish(job(&format!("po_{number}"))).await;
    }
    for number in 50..60 {
        assert_eq!(env.result_of(&format!("po_{number}")).await.kind(), "payout_link.created");
    }
    assert!(worker.stop().await.success());
}

/// Builds a test environment whose workers reach a service through a proxy.
async fn behind_a_proxy(service: &str, variable: &str) -> (TestEnv, Proxy) {
    let proxy = in_front_of(variable).await;
    let mut url: url::Url = std::env::var(variable).unwrap().parse().unwrap();
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(proxy.port())).unwrap();
    let mut env = TestEnv::new().await;
    env.set(&format!("{service}.url"), url);
    env.set("broker.heartbeat_seconds", 2);
    (env, proxy)
}

async fn in_front_of(variable: &str) -> Proxy {
    let url: url::Url = std::env::var(variable).unwrap().parse().unwrap();
    let default = if variable == "AMQP_URL" { 5672 } else { 5432 };
    let target: Vec<SocketAddr> = url.socket_addrs(|| Some(default)).unwrap();
    Proxy::start(Kind::to(target)).await
}
