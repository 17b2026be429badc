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
use super::office::Office;
use crate::fault_server::{Refused, Reply, decoded};

/// The ledger and the replay mode.
pub(super) fn provider(office: Arc<Office>) -> Router {
    Router::new()
        .route("/ledger", get(ledger))
        .route("/control/mode", get(mode).put(set_mode))
        .with_state(office)
}

async fn ledger(State(office): State<Arc<Office>>) -> Response {
    // Turned into JSON outside the lock: a long ledger must not hold up the calls.
    let ledger = office.read(|books| books.ledger.clone());
    Reply::json(StatusCode::OK, &ledger).into_response()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mode {
    idempotency: Idempotency,
}

async fn mode(State(office): State<Arc<Office>>) -> Reply {
    Reply::json(StatusCode::OK, &Mode { idempotency: office.read(|books| books.idempotency) })
}

async fn set_mode(State(office): State<Arc<Office>>, body: Bytes) -> Result<Reply, Refused> {
    let mode: Mode = decoded(&body)?;
    office.set_idempotency(mode.idempotency);
    Ok(Reply::json(StatusCode::OK, &mode))
}
