//! The endpoints for people and tests. They ask for no credential.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, put};
use serde::Deserialize;
use serde_json::json;

use super::books::UnknownLink;
use super::counter::Counter;
use crate::fault_server::{Refused, Reply, decoded};

pub(super) fn router(counter: Arc<Counter>) -> Router {
    Router::new()
        .route("/ledger", get(ledger))
        .route("/control/stages", put(set_stages))
        .route("/control/links/{id}", put(set_status))
        .route("/control/tokens", delete(forget_tokens))
        .with_state(counter)
}

async fn ledger(State(counter): State<Arc<Counter>>) -> Response {
    // Turned into JSON outside the lock: a long ledger must not hold up the calls.
    let ledger = counter.read(|books| books.ledger.clone());
    Reply::json(StatusCode::OK, &ledger).into_response()
}

async fn set_stages(State(counter): State<Arc<Counter>>, body: Bytes) -> Result<StatusCode, Refused> {
    counter.set_stages(decoded(&body)?)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn forget_tokens(State(counter): State<Arc<Counter>>) -> StatusCode {
    counter.forget_tokens();
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Became {
    status: String,
}

async fn set_status(
    State(counter): State<Arc<Counter>>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<StatusCode, Refused> {
    let Became { status } = decoded(&body)?;
    counter.set_status(&id, &status)?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<UnknownLink> for Refused {
    fn from(unknown: UnknownLink) -> Self {
        let error = json!({ "error": { "code": "invalid_request", "message": unknown.to_string() } });
        Self(StatusCode::BAD_REQUEST, error)
    }
}
