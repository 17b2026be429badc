//! Builds the ports, starts the pipeline, stops it in order.

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
    runtime::shutdown::Signals,
    webhooks::Webhooks,
};

/// The jobs queues of earlier versions have 20, and keep it: the argument is frozen when a queue is made.
const LOW_DELIVERY_LIMIT: u32 = 1000;

/// Runs until a signal, or until something that does not pass by waiting.
pub async fn run(config: &Config, mut signals: Signals) -> anyhow::Result<()> {
    file_limit::provide(config.open_files());
    if config.broker.delivery_limit < LOW_DELIVERY_LIMIT {
        tracing::warn!(
            delivery_limit = config.broker.delivery_limit,
            "broker.delivery_limit is within reach of restarts and reconnects: RabbitMQ dead-letters jobs by itself then"
        );
    }
    let health_listener = health::bind(config.worker.health_listen).await?;
    let (publisher, mut publishing) = Publisher::start(config.broker());
    // Beside the database: the system's certificates are read for it.
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
    let connectors = config.connectors().context("cannot make a connector's client")?;
    let pipeline = Pipeline::new(store, publisher, connectors, webhooks, config.pipeline());

    // Results first: a job is not taken before the topology stands and its result can leave.
    tokio::select! {
        () = pipeline.publisher.wait_until_up() => {}
        ended = &mut publishing => return Err(broker_ended(ended)),
        () = signals.next() => return Ok(()),
    }
    // Before the first claim: what it finds is judged by the clock that is watched.
    if let Err(error) = pipeline.store.look_at_clock().await {
        tracing::debug!(%error, "the database's clock not read");
    }
    let services = pipeline.start_services();
    let (consumer, mut consuming) = Consumer::start(config.broker(), pipeline.may_consume());
    let stopper = consumer.stopper();
    let probe = postgres::Probe::new(&config.database())?;
    let health = health::start(health_listener, &pipeline, consumer.is_up(), consumer.unsettled(), probe)?;
    let mut taking = tokio::spawn(pipeline.clone().take_jobs(consumer));
    tracing::info!("the worker runs");

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
    tracing::info!("stopping: nothing new is taken, what is under way is finished");
    let grace = Duration::from_secs(config.worker.grace_period_seconds);
    let is_left_behind = tokio::select! {
        stopped = timeout(grace, finish(&pipeline, &stopper, taking, services)) => {
            if stopped.is_err() {
                tracing::warn!(jobs = pipeline.jobs_in_flight(), "the grace period is over; leases mend what is left");
                pipeline.abandon_all().await;
            }
            stopped.is_err()
        }
        () = signals.next() => {
            tracing::warn!("a second signal: leaving at once; leases mend what is left");
            pipeline.abandon_all().await;
            true
        }
    };
    drop(health);
    match failed {
        Some(error) => Err(error),
        // What is under way has its connections, which would be waited for in vain.
        None if is_left_behind => Ok(()),
        None => {
            let _ = timeout(Duration::from_secs(5), consuming).await;
            let _ = timeout(Duration::from_secs(5), pipeline.store.close()).await;
            tracing::info!("stopped");
            Ok(())
        }
    }
}

/// Until nothing is under way, then close: what is unacknowledged goes back to the queue.
async fn finish(
    pipeline: &Arc<Pipeline>,
    stopper: &Stopper,
    taking: JoinHandle<()>,
    services: Vec<JoinHandle<()>>,
) {
    // These begin tasks: only after their end is there no more to wait for than what is under way.
    if !taking.is_finished() {
        let _ = taking.await;
    }
    join_all(services).await;
    pipeline.drained().await;
    stopper.close();
}

/// A store over a database that is there, with its schema. A database that is starting is waited for; a wrong
/// password is not.
async fn open_store(config: &Config) -> anyhow::Result<Store> {
    let keys = config.key_ring().context("keys")?;
    let mut told = false;
    let pool = loop {
        match open_pool(config).await {
            Ok(pool) => break pool,
            Err(StoreError::Unavailable(reason)) => {
                if !told {
                    tracing::warn!(reason, "the database is away, trying again until it is back");
                    told = true;
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

/// Says what has changed since the last start that is not seen in any record.
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
                    "jobs.default_connector has changed: jobs that name no connector and were not accepted before go to the new one"
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
