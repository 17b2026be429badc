//! `/health/live`, `/health/ready` and `/metrics` for whoever runs the worker. Ready: the broker delivers, results can
//! leave, the database answers.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::AbortHandle};

use crate::{
    listener::{ListenerLimits, serve},
    metrics,
    pipeline::Pipeline,
    store::Probe,
};

/// Probes and scrapes are few, small and quick.
const LIMITS: ListenerLimits = ListenerLimits {
    max_connections: 64,
    head_timeout: Duration::from_secs(5),
    connection_timeout: Duration::from_secs(60),
    max_head_bytes: 16 * 1024,
    max_body_bytes: 1024,
};

/// Serves until it is dropped.
pub struct Health(Option<AbortHandle>);

impl Drop for Health {
    fn drop(&mut self) {
        if let Some(server) = &self.0 {
            server.abort();
        }
    }
}

#[derive(Clone)]
struct Watched {
    pipeline: Arc<Pipeline>,
    consuming: watch::Receiver<bool>,
    database: Arc<Probe>,
}

pub async fn start(
    listen: Option<SocketAddr>,
    pipeline: &Arc<Pipeline>,
    consuming: watch::Receiver<bool>,
    database: Probe,
) -> anyhow::Result<Health> {
    let Some(listen) = listen else { return Ok(Health(None)) };
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("worker.health_listen: cannot listen on {listen}"))?;
    tracing::info!(address = %listener.local_addr()?, "health is served");
    let router = Router::new()
        .route("/health/live", get(async || "live"))
        .route("/health/ready", get(ready))
        .route("/metrics", get(measured))
        .with_state(Watched { pipeline: pipeline.clone(), consuming, database: Arc::new(database) });
    let server = tokio::spawn(serve(listener, router, LIMITS));
    Ok(Health(Some(server.abort_handle())))
}

async fn ready(State(watched): State<Watched>) -> (StatusCode, Json<Value>) {
    let consuming = *watched.consuming.borrow();
    let publishing = watched.pipeline.publisher.is_up();
    let database = watched.database.answers().await;
    let status =
        if consuming && publishing && database { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // A connector that is out of order makes nobody unready: the jobs of the others go on.
    let connectors: BTreeMap<&str, &str> =
        watched.pipeline.connectors.iter().map(|account| (&*account.name, account.breaker.shown())).collect();
    let told = json!({
        "consuming": consuming,
        "publishing": publishing,
        "database": database,
        "connectors": connectors,
    });
    (status, Json(told))
}

/// Without a word to the database: it is there when nothing else is.
async fn measured(State(watched): State<Watched>) -> impl IntoResponse {
    let consuming = *watched.consuming.borrow();
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], watched.pipeline.measured(consuming))
}
