//! Serves the endpoints of every server: fault rules, a health check, JSON errors and an access log.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Router, middleware};
use serde::Deserialize;
use serde_json::json;

use super::access_log;
use super::answer::{ErrorReply, Reply};
use super::injector::{FaultInjector, FaultRule};

/// Returns the routes that add, list and delete fault rules.
pub(crate) fn faults(injector: Arc<FaultInjector>) -> Router {
    Router::new()
        .route("/control/faults", post(inject_fault).get(waiting_faults).delete(clear_faults))
        .with_state(injector)
}

/// Adds a health check, JSON errors for unknown paths, and an access log.
pub(crate) fn complete(routes: Router) -> Router {
    routes
        .route("/healthz", get(async || "ok"))
        .method_not_allowed_fallback(async || {
            let message = "this address takes another method";
            Reply::error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
        })
        .layer(middleware::from_fn(access_log::log))
}

/// Decodes a JSON body and ignores its content type, because people call these endpoints by hand.
pub(crate) fn decoded<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, ErrorReply> {
    serde_json::from_slice(body).map_err(|error| invalid(&error.to_string()))
}

fn invalid(message: &str) -> ErrorReply {
    let error = json!({ "error": { "code": "invalid_request", "message": message } });
    ErrorReply(StatusCode::BAD_REQUEST, error)
}

async fn inject_fault(State(injector): State<Arc<FaultInjector>>, body: Bytes) -> Result<Reply, ErrorReply> {
    let rule: FaultRule = decoded(&body)?;
    injector.add(rule).map_err(|full| invalid(&full.to_string()))?;
    Ok(Reply::json(StatusCode::CREATED, &json!({ "data": injector.waiting() })))
}

async fn waiting_faults(State(injector): State<Arc<FaultInjector>>) -> Reply {
    Reply::json(StatusCode::OK, &json!({ "data": injector.waiting() }))
}

async fn clear_faults(State(injector): State<Arc<FaultInjector>>) -> StatusCode {
    injector.clear();
    StatusCode::NO_CONTENT
}
