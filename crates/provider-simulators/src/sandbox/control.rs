//! The endpoints for people and tests: the ledger and the mode. They ask for no token.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};

use super::ledger::Idempotency;
use super::shared::Shared;
use crate::fault_server::{ErrorReply, Reply, decoded};

/// The ledger and the replay mode.
pub(super) fn provider(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/ledger", get(ledger))
        .route("/control/mode", get(mode).put(set_mode))
        .with_state(shared)
}

async fn ledger(State(shared): State<Arc<Shared>>) -> Response {
    // Turned into JSON outside the lock: a long ledger must not hold up the calls.
    let ledger = shared.read(|state| state.ledger.clone());
    Reply::json(StatusCode::OK, &ledger).into_response()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mode {
    idempotency: Idempotency,
}

async fn mode(State(shared): State<Arc<Shared>>) -> Reply {
    Reply::json(StatusCode::OK, &Mode { idempotency: shared.read(|state| state.idempotency) })
}

async fn set_mode(State(shared): State<Arc<Shared>>, body: Bytes) -> Result<Reply, ErrorReply> {
    let mode: Mode = decoded(&body)?;
    shared.set_idempotency(mode.idempotency);
    Ok(Reply::json(StatusCode::OK, &mode))
}
