//! Serves the endpoints for people and tests, which need no credential.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use serde::Deserialize;
use serde_json::json;

use super::handler::CallHandler;
use super::state::UnknownLink;
use crate::announce::Announce;
use crate::fault_server::{ErrorReply, Reply, decoded};
use crate::link_change::LinkChange;

pub(super) fn router(handler: Arc<CallHandler>) -> Router {
    Router::new()
        .route("/ledger", get(ledger))
        .route("/control/stages", put(set_stages))
        .route("/control/links/{id}", put(set_status))
        .route("/control/links/{id}/change", post(change_link))
        .route("/control/links/{id}/late-submit", post(late_submit))
        .route("/control/announce", put(announce).delete(announce_no_more))
        .route("/control/tokens", delete(forget_tokens))
        .with_state(handler)
}

async fn ledger(State(handler): State<Arc<CallHandler>>) -> Response {
    // The ledger becomes JSON outside the lock, so a long one does not delay calls.
    let ledger = handler.read(|state| state.ledger.clone());
    Reply::json(StatusCode::OK, &ledger).into_response()
}

async fn set_stages(State(handler): State<Arc<CallHandler>>, body: Bytes) -> Result<StatusCode, ErrorReply> {
    handler.set_stages(decoded(&body)?)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn announce(State(handler): State<Arc<CallHandler>>, body: Bytes) -> Result<StatusCode, ErrorReply> {
    let target: Announce = decoded(&body)?;
    handler.set_target(Some(target));
    Ok(StatusCode::NO_CONTENT)
}

async fn announce_no_more(State(handler): State<Arc<CallHandler>>) -> StatusCode {
    handler.set_target(None);
    StatusCode::NO_CONTENT
}

async fn forget_tokens(State(handler): State<Arc<CallHandler>>) -> StatusCode {
    handler.forget_tokens();
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Became {
    status: String,
}

async fn set_status(
    State(handler): State<Arc<CallHandler>>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<StatusCode, ErrorReply> {
    let Became { status } = decoded(&body)?;
    handler.set_status(&id, &status)?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    to: LinkChange,
}

/// Changes a link, which is named by its id or its reference.
async fn change_link(
    State(handler): State<Arc<CallHandler>>,
    Path(link): Path<String>,
    body: Bytes,
) -> Result<StatusCode, ErrorReply> {
    let Order { to } = decoded(&body)?;
    handler.change_link(&link, to).map(|()| StatusCode::NO_CONTENT).map_err(|why| not_possible(&why))
}

async fn late_submit(
    State(handler): State<Arc<CallHandler>>,
    Path(link): Path<String>,
) -> Result<StatusCode, ErrorReply> {
    handler.late_submit(&link).map(|()| StatusCode::NO_CONTENT).map_err(|why| not_possible(&why))
}

fn not_possible(why: &str) -> ErrorReply {
    let error = json!({ "error": { "code": "not_possible", "message": why } });
    ErrorReply(StatusCode::CONFLICT, error)
}

impl From<UnknownLink> for ErrorReply {
    fn from(unknown: UnknownLink) -> Self {
        let error = json!({ "error": { "code": "invalid_request", "message": unknown.to_string() } });
        Self(StatusCode::BAD_REQUEST, error)
    }
}
