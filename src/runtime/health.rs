//! Serves `/health/live`, `/health/ready` and `/metrics`.
//!
//! A worker is ready if the broker delivers jobs, the jobs are taken, results can be published, the database answers,
//! due work is claimed, and every task runs.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

use crate::{
    metrics,
    pipeline::Pipeline,
    postgres::Probe,
    rabbitmq::Unsettled,
    runtime::listener::{self, ListenerLimits, Server, serve},
    tasks,
};

/// Limits for probes and scrapes, which are few, small and fast.
const LIMITS: ListenerLimits = ListenerLimits {
    max_connections: 64,
    head_timeout: Duration::from_secs(5),
    connection_timeout: Duration::from_mins(1),
    max_head_bytes: 16 * 1024,
    max_body_bytes: 1024,
};

#[derive(Clone)]
struct Watched {
    pipeline: Arc<Pipeline>,
    consuming: watch::Receiver<bool>,
    unsettled: Unsettled,
    database: Arc<Probe>,
}

/// The worker is unready if deliveries or due work wait for longer than this.
const NEGLECTED: Duration = Duration::from_secs(30);

/// Binds the health port, before anything else starts, so that a port in use is reported before a job is taken.
///
/// # Errors
///
/// If the address cannot be bound.
pub async fn bind(listen: Option<SocketAddr>) -> anyhow::Result<Option<TcpListener>> {
    listener::bind("worker.health_listen", listen).await
}

/// Starts the server.
///
/// # Errors
///
/// If the listener has no address.
pub fn start(
    listener: Option<TcpListener>,
    pipeline: &Arc<Pipeline>,
    consuming: watch::Receiver<bool>,
    unsettled: Unsettled,
    database: Probe,
) -> anyhow::Result<Server> {
    let Some(listener) = listener else { return Ok(Server::default()) };
    tracing::info!(address = %listener.local_addr()?, "health endpoint listening");
    let router = Router::new()
        .route("/health/live", get(async || "live"))
        .route("/health/ready", get(ready))
        .route("/metrics", get(measured))
        .with_state(Watched {
            pipeline: pipeline.clone(),
            consuming,
            unsettled,
            database: Arc::new(database),
        });
    Ok(Server::of(tokio::spawn(serve(listener, router, LIMITS))))
}

async fn ready(State(watched): State<Watched>) -> (StatusCode, Json<Value>) {
    let consuming = *watched.consuming.borrow();
    let publishing = watched.pipeline.publisher.is_up();
    let database = watched.database.answers().await;
    let reading = watched.unsettled.waiting().1 < NEGLECTED;
    // While the database is away, only `database` is false.
    let sweeping = !database || watched.pipeline.neglected() < NEGLECTED;
    let tasks = tasks::all_run();
    // An operator's pause is no failure.
    let consumes = consuming || watched.pipeline.is_consumption_paused();
    let is_ready = consumes && publishing && database && reading && sweeping && tasks;
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // An open circuit breaker does not affect readiness, because other connectors still work.
    let connectors: BTreeMap<&str, &str> =
        watched.pipeline.connectors.iter().map(|account| (&*account.name, account.breaker.shown())).collect();
    // Neither do clocks, nor open records that this configuration cannot conclude.
    let placement = watched.pipeline.placement();
    let state = json!({
        "consuming": consuming,
        "publishing": publishing,
        "database": database,
        "reading": reading,
        "sweeping": sweeping,
        "tasks": tasks,
        "connectors": connectors,
        "paused": watched.pipeline.paused(),
        "open_records": {
            "other_account": placement.other_account,
            "no_connector": placement.no_connector,
        },
    });
    (status, Json(state))
}

/// Returns the metrics, without using the database.
async fn measured(State(watched): State<Watched>) -> impl IntoResponse {
    let consuming = *watched.consuming.borrow();
    (
        [(CONTENT_TYPE, metrics::CONTENT_TYPE)],
        watched.pipeline.measured(consuming, watched.unsettled.waiting().0),
    )
}
