//! `run`: builds the ports, starts the pipeline, and shuts it down in order.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use futures_util::future::join_all;
use tokio::{
    task::{JoinError, JoinHandle, spawn_blocking},
    time::{sleep, timeout},
};

use crate::{
    config::Config,
    domain::retry::jittered,
    pipeline::Pipeline,
    postgres::{self, Remembered, Store, StoreError},
    rabbitmq::{BrokerError, Consumer, Publisher, Stopper},
    runtime::file_limit,
    runtime::health,
    runtime::provider_webhooks,
    runtime::shutdown::Signals,
    webhooks::Webhooks,
};

/// The limit of jobs queues that earlier versions declared. The argument cannot change once a queue exists.
const LOW_DELIVERY_LIMIT: u32 = 1000;

/// Runs the worker until a signal, or until an error that waiting does not resolve.
///
/// # Errors
///
/// If the worker cannot start, or stops for another reason than a signal.
pub async fn run(config: &Config, mut signals: Signals) -> anyhow::Result<()> {
    file_limit::provide(config.open_files());
    if config.broker.delivery_limit < LOW_DELIVERY_LIMIT {
        tracing::warn!(
            delivery_limit = config.broker.delivery_limit,
            "broker.delivery_limit is low: after some restarts and reconnects RabbitMQ would dead-letter valid jobs"
        );
    }
    let health_listener = health::bind(config.worker.health_listen).await?;
    let webhooks_listener = provider_webhooks::bind(config.worker.provider_webhooks_listen).await?;
    if let Some(warning) = config.provider_webhooks_warning() {
        tracing::warn!("{warning}");
    }
    let (publisher, mut publishing) = Publisher::start(config.broker());
    // Concurrently with the database: it reads the system's certificates.
    let settings = config.webhooks();
    let webhooks = spawn_blocking(|| Webhooks::new(settings));
    let store = tokio::select! {
        store = open_store(config) => store?,
        () = signals.next() => return Ok(()),
    };
    tokio::select! {
        compared = compare_with_last_start(config, &store) => compared?,
        () = signals.next() => return Ok(()),
    }
    let webhooks = webhooks.await?.context("cannot make the webhook client")?;
    let connectors = config.connectors().context("cannot make the client of a connector")?;
    let pipeline = Pipeline::new(store, publisher, connectors, webhooks, config.pipeline());

    // The publisher first: no job is taken before the topology exists and results can be published.
    tokio::select! {
        () = pipeline.publisher.wait_until_up() => {}
        ended = &mut publishing => return Err(broker_ended(ended)),
        () = signals.next() => return Ok(()),
    }
    // Before the first claim, which depends on the observed clock.
    if let Err(error) = pipeline.store.look_at_clock().await {
        tracing::debug!(%error, "database clock not read");
    }
    // Before the first job: a pause may be older than this worker.
    if let Err(error) = pipeline.look_at_pauses().await {
        tracing::warn!(%error, "pauses not read, will retry");
    }
    pipeline.learn_paused_hosts().await;
    let services = pipeline.start_services();
    let (consumer, mut consuming) = Consumer::start(config.broker(), pipeline.may_consume());
    let stopper = consumer.stopper();
    let probe = postgres::Probe::new(&config.database())?;
    let health = health::start(health_listener, &pipeline, consumer.is_up(), consumer.unsettled(), probe)?;
    let store = postgres::ProviderWebhooks::new(&config.database())?;
    let provider_webhooks = provider_webhooks::start(webhooks_listener, &pipeline, store)?;
    let mut taking = tokio::spawn(pipeline.clone().take_jobs(consumer));
    tracing::info!("worker started");

    let failed = tokio::select! {
        () = signals.next() => None,
        ended = &mut publishing => Some(broker_ended(ended)),
        ended = &mut consuming => Some(broker_ended(ended)),
        error = pipeline.unusable() => Some(error.into()),
        ended = &mut taking => {
            Some(anyhow::anyhow!("the task that takes jobs ended: {:?}", ended.err()))
        }
    };
    stopper.cancel();
    pipeline.stop();
    tracing::info!("stopping: no new jobs, draining");
    let grace = Duration::from_secs(config.worker.grace_period_seconds);
    let is_abandoned = tokio::select! {
        stopped = timeout(grace, finish(&pipeline, &stopper, taking, services)) => {
            if stopped.is_err() {
                tracing::warn!(jobs = pipeline.jobs_in_flight(), "grace period over, remaining work abandoned until its leases expire");
                pipeline.abandon_all().await;
            }
            stopped.is_err()
        }
        () = signals.next() => {
            tracing::warn!("a second signal: stopping at once, remaining work abandoned until its leases expire");
            pipeline.abandon_all().await;
            true
        }
    };
    drop((health, provider_webhooks));
    match failed {
        Some(error) => Err(error),
        // Abandoned work still uses connections, so closing them would wait in vain.
        None if is_abandoned => Ok(()),
        None => {
            let _ = timeout(Duration::from_secs(5), consuming).await;
            let _ = timeout(Duration::from_secs(5), pipeline.store.close()).await;
            tracing::info!("stopped");
            Ok(())
        }
    }
}

/// Drains the pipeline, then closes the consumer: unacknowledged deliveries return to the queue.
async fn finish(
    pipeline: &Arc<Pipeline>,
    stopper: &Stopper,
    taking: JoinHandle<()>,
    services: Vec<JoinHandle<()>>,
) {
    // These spawn tasks, so they have to end before the pipeline can drain.
    if !taking.is_finished() {
        let _ = taking.await;
    }
    join_all(services).await;
    pipeline.drained().await;
    stopper.close();
}

/// Opens the store. Waits for a database that is starting; a wrong password is an error.
async fn open_store(config: &Config) -> anyhow::Result<Store> {
    let keys = config.key_ring().context("keys")?;
    let mut is_logged = false;
    let pool = loop {
        match open_pool(config).await {
            Ok(pool) => break pool,
            Err(StoreError::Unavailable(reason)) => {
                if !is_logged {
                    tracing::warn!(reason, "database unavailable at start, will retry");
                    is_logged = true;
                }
                sleep(jittered(Duration::from_secs(1), Duration::from_secs(2))).await;
            }
            Err(error) => bail!("database: {error}"),
        }
    };
    Ok(Store::new(pool, keys, config.store()))
}

async fn open_pool(config: &Config) -> Result<sqlx::PgPool, StoreError> {
    let pool = postgres::connect(&config.database()).await?;
    postgres::examine(&pool).await?;
    postgres::schema(&pool, config.worker.migrate).await?;
    if config.worker.migrate {
        postgres::migrate(&pool).await?;
    }
    postgres::is_fit(&pool).await?;
    Ok(pool)
}

/// Compares settings that records depend on with those of the last start.
async fn compare_with_last_start(config: &Config, store: &Store) -> anyhow::Result<()> {
    let deployment = &config.worker.deployment;
    match store.remember("worker.deployment", deployment).await? {
        Remembered::Same | Remembered::New => {}
        // Earlier versions had no name.
        Remembered::Other(None) if deployment.is_empty() => {
            store.replace_remembered("worker.deployment", deployment).await?;
        }
        Remembered::Other(before) => bail!(
            "worker.deployment is {deployment:?} and was {:?}: it is part of every idempotency key and cannot change once there are records",
            before.unwrap_or_default()
        ),
    }
    let default = config.jobs.default_connector.as_deref().unwrap_or_default();
    match store.remember("jobs.default_connector", default).await? {
        Remembered::Same | Remembered::New => {}
        Remembered::Other(before) => {
            if let Some(before) = before {
                tracing::warn!(
                    before,
                    now = default,
                    "jobs.default_connector has changed: new jobs without x-connector go to the new one"
                );
            }
            store.replace_remembered("jobs.default_connector", default).await?;
        }
    }
    Ok(())
}

fn broker_ended(ended: Result<Result<(), BrokerError>, JoinError>) -> anyhow::Error {
    match ended {
        Ok(Ok(())) => anyhow::anyhow!("RabbitMQ: a connection was closed"),
        Ok(Err(error)) => anyhow::anyhow!("RabbitMQ: {error}"),
        Err(error) => anyhow::anyhow!("RabbitMQ: a connection's task ended: {error}"),
    }
}
