//! The endpoints for people and tests: the ledger, the faults, the mode. They ask for no token.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, middleware};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::access_log;
use super::answer::Reply;
use super::desk::{Desk, Order};
use super::ledger::Idempotency;
use super::office::Office;
use super::refusal::Refusal;

/// Faults to order, to see, and to clear.
pub(super) fn faults(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/control/faults", post(order_fault).get(waiting_faults).delete(clear_faults))
        .with_state(desk)
}

/// The ledger and the replay mode.
pub(super) fn provider(office: Arc<Office>) -> Router {
    Router::new()
        .route("/ledger", get(ledger))
        .route("/control/mode", get(mode).put(set_mode))
        .with_state(office)
}

/// The routes with what every server of this module has: a health check, errors in JSON, a log.
pub(super) fn complete(routes: Router) -> Router {
    routes
        .route("/healthz", get(async || "ok"))
        .fallback(async || Refusal::NO_SUCH_PAGE)
        .method_not_allowed_fallback(async || Refusal::WRONG_METHOD)
        .layer(middleware::from_fn(access_log::log))
}

async fn order_fault(State(desk): State<Arc<Desk>>, body: Bytes) -> Result<Reply, Refusal> {
    let order: Order = decoded(&body)?;
    desk.order(order).map_err(|full| Refusal::invalid(full.to_string()))?;
    Ok(Reply::json(StatusCode::CREATED, &json!({ "data": desk.waiting() })))
}

async fn waiting_faults(State(desk): State<Arc<Desk>>) -> Reply {
    Reply::json(StatusCode::OK, &json!({ "data": desk.waiting() }))
}

async fn clear_faults(State(desk): State<Arc<Desk>>) -> StatusCode {
    desk.clear();
    StatusCode::NO_CONTENT
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

async fn set_mode(State(office): State<Arc<Office>>, body: Bytes) -> Result<Reply, Refusal> {
    let mode: Mode = decoded(&body)?;
    office.set_idempotency(mode.idempotency);
    Ok(Reply::json(StatusCode::OK, &mode))
}

/// Whatever the content type says: these endpoints are made to be called by hand.
fn decoded<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::invalid(error.to_string()))
}
