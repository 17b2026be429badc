//! What every one of these servers has: faults to order, a health check, errors in JSON, a log.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Router, middleware};
use serde::Deserialize;
use serde_json::json;

use super::access_log;
use super::answer::{Refused, Reply};
use super::desk::{Desk, Order};

/// Faults to order, to see, and to clear.
pub(crate) fn faults(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/control/faults", post(order_fault).get(waiting_faults).delete(clear_faults))
        .with_state(desk)
}

/// The routes with a health check, errors in JSON for what they do not know, and a log.
pub(crate) fn complete(routes: Router) -> Router {
    routes
        .route("/healthz", get(async || "ok"))
        .method_not_allowed_fallback(async || {
            let message = "this address takes another method";
            Reply::error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
        })
        .layer(middleware::from_fn(access_log::log))
}

/// Whatever the content type says: these endpoints are made to be called by hand.
pub(crate) fn decoded<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|error| invalid(&error.to_string()))
}

fn invalid(message: &str) -> Refused {
    let error = json!({ "error": { "code": "invalid_request", "message": message } });
    Refused(StatusCode::BAD_REQUEST, error)
}

async fn order_fault(State(desk): State<Arc<Desk>>, body: Bytes) -> Result<Reply, Refused> {
    let order: Order = decoded(&body)?;
    desk.order(order).map_err(|full| invalid(&full.to_string()))?;
    Ok(Reply::json(StatusCode::CREATED, &json!({ "data": desk.waiting() })))
}

async fn waiting_faults(State(desk): State<Arc<Desk>>) -> Reply {
    Reply::json(StatusCode::OK, &json!({ "data": desk.waiting() }))
}

async fn clear_faults(State(desk): State<Arc<Desk>>) -> StatusCode {
    desk.clear();
    StatusCode::NO_CONTENT
}
