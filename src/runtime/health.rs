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

/// The parts that decide about readiness.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is a part of the answer")]
struct Parts {
    consuming: bool,
    is_paused: bool,
    publishing: bool,
    database: bool,
    /// For how long the oldest delivery has waited to be taken.
    unread_for: Duration,
    /// For how long due work has been neglected.
    neglected_for: Duration,
    tasks: bool,
}

impl Parts {
    fn reading(&self) -> bool {
        self.unread_for < NEGLECTED
    }

    /// While the database is away, only `database` is false.
    fn sweeping(&self) -> bool {
        !self.database || self.neglected_for < NEGLECTED
    }

    /// An operator's pause is no failure.
    fn is_ready(&self) -> bool {
        let consumes = self.consuming || self.is_paused;
        consumes && self.publishing && self.database && self.reading() && self.sweeping() && self.tasks
    }
}

async fn ready(State(watched): State<Watched>) -> (StatusCode, Json<Value>) {
    let consuming = *watched.consuming.borrow();
    let parts = Parts {
        consuming,
        is_paused: watched.pipeline.is_consumption_paused(),
        publishing: watched.pipeline.publisher.is_up(),
        database: watched.database.answers().await,
        unread_for: watched.unsettled.waiting().1,
        neglected_for: watched.pipeline.neglected(),
        tasks: tasks::all_run(),
    };
    let status = if parts.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // An open circuit breaker does not affect readiness, because other connectors still work.
    let connectors: BTreeMap<&str, &str> =
        watched.pipeline.connectors.iter().map(|account| (&*account.name, account.breaker.shown())).collect();
    // Neither do clocks, nor open records that this configuration cannot conclude.
    let placement = watched.pipeline.placement();
    let state = json!({
        "consuming": parts.consuming,
        "publishing": parts.publishing,
        "database": parts.database,
        "reading": parts.reading(),
        "sweeping": parts.sweeping(),
        "tasks": parts.tasks,
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

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Parts = Parts {
        consuming: true,
        is_paused: false,
        publishing: true,
        database: true,
        unread_for: Duration::ZERO,
        neglected_for: Duration::ZERO,
        tasks: true,
    };

    #[test]
    fn each_part_that_fails_ends_readiness() {
        assert!(WELL.is_ready());
        for parts in [
            Parts { consuming: false, ..WELL },
            Parts { publishing: false, ..WELL },
            Parts { database: false, ..WELL },
            Parts { unread_for: NEGLECTED, ..WELL },
            Parts { neglected_for: NEGLECTED, ..WELL },
            Parts { tasks: false, ..WELL },
        ] {
            assert!(!parts.is_ready(), "{parts:?}");
        }
        assert!(!Parts { unread_for: NEGLECTED, ..WELL }.reading());
        assert!(!Parts { neglected_for: NEGLECTED, ..WELL }.sweeping());
    }

    #[test]
    fn a_pause_and_an_outage_of_the_database_name_no_other_part() {
        assert!(Parts { consuming: false, is_paused: true, ..WELL }.is_ready());
        let outage = Parts { database: false, neglected_for: NEGLECTED, ..WELL };
        assert!(outage.sweeping() && !outage.is_ready());
    }
}
