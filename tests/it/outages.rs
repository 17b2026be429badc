//! A service that goes away and comes back: these tests have instances of their own.

use serde_json::json;

use crate::support::{Service, Setup, eventually, job};

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_killed_and_comes_back_loses_nothing() {
    let database = Service::start("postgres").await;
    let world = Setup::default().database(&database.url).build().await;
    let worker = world.start_worker().await;
    // Given a call that is under way,
    let call = world.provider.hold_next_answer();
    world.publish(job("po_0")).await;
    call.arrived().await;
    // when the database is killed, the call returns, and more jobs come,
    database.kill();
    call.release();
    for number in 1..20 {
        world.publish(job(&format!("po_{number}")).with("webhook_url", world.webhook_url())).await;
    }
    worker.says("cannot look for what is due").await;
    database.restart();
    // then every job ends in one link.
    for number in 0..20 {
        assert_eq!(world.result_of(&format!("po_{number}")).await.kind(), "payout_link.created");
    }
    world.webhooks(19).await;
    assert_eq!(world.provider.ledger().links.len(), 20);
    assert!(worker.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_and_comes_back_loses_nothing() {
    let broker = Service::start("rabbitmq").await;
    let mut world = Setup::default().broker(&broker.url).without_listener().build().await;
    world.start_worker().await.stop().await;
    broker.settle();
    world.reconnect().await;
    let worker = world.start_worker().await;
    let call = world.provider.hold_next_call();
    world.publish(job("po_0").with("webhook_url", world.webhook_url())).await;
    call.arrived().await;
    // The webhook does not wait for the broker.
    broker.kill();
    worker.says("RabbitMQ is away").await;
    call.release();
    world.webhooks(1).await;
    assert_eq!(world.shown("po_0").unwrap()["event"]["published_at"], json!(null));
    broker.restart();
    // The result waits for it, and comes when it is back.
    let published = |shown: &serde_json::Value| shown["event"]["published_at"].is_string();
    world.wait_until_shown("po_0", "published", published).await;
    eventually("consuming again", async || {
        (worker.log().matches("connected to RabbitMQ, consuming").count() == 2).then_some(())
    })
    .await;
    assert_eq!(world.provider.ledger().links.len(), 1);
    assert!(worker.stop().await.success());
}
