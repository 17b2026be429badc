//! Serves the endpoints for people and tests: the ledger, the mode, and changes of links. They need no token.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use serde::{Deserialize, Serialize};

use super::api_error::ApiError;
use super::ledger::Idempotency;
use super::shared::Shared;
use crate::announce::Announce;
use crate::fault_server::{ErrorReply, Reply, decoded};
use crate::link_change::LinkChange;

/// Returns the routes of the ledger, the replay mode, payouts and links.
pub(super) fn provider(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/ledger", get(ledger))
        .route("/control/mode", get(mode).put(set_mode))
        .route("/control/payouts", get(payouts).put(set_payouts))
        .route("/control/announce", put(announce).delete(announce_no_more))
        .route("/control/links/{id}/change", post(change_link))
        .with_state(shared)
}

async fn ledger(State(shared): State<Arc<Shared>>) -> Response {
    // The ledger becomes JSON outside the lock, so a long one does not delay calls.
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

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payouts {
    /// The time from a claim to the payout; `null` leaves a claimed link to `/control/links/{id}/change`.
    pay_after_ms: Option<u64>,
}

async fn payouts(State(shared): State<Arc<Shared>>) -> Reply {
    let pay_after_ms = shared.pay_after().map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
    Reply::json(StatusCode::OK, &Payouts { pay_after_ms })
}

async fn set_payouts(State(shared): State<Arc<Shared>>, body: Bytes) -> Result<Reply, ErrorReply> {
    let payouts: Payouts = decoded(&body)?;
    shared.set_pay_after(payouts.pay_after_ms.map(Duration::from_millis));
    Ok(Reply::json(StatusCode::OK, &payouts))
}

async fn announce(State(shared): State<Arc<Shared>>, body: Bytes) -> Result<StatusCode, ErrorReply> {
    let target: Announce = decoded(&body)?;
    shared.set_target(Some(target));
    Ok(StatusCode::NO_CONTENT)
}

async fn announce_no_more(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.set_target(None);
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeRequest {
    to: LinkChange,
    /// The delay of an expiry, which also moves the link's `expires_at`.
    #[serde(default)]
    after_ms: Option<u64>,
}

/// Changes a link, which is named by its id or its reference.
async fn change_link(
    State(shared): State<Arc<Shared>>,
    Path(link): Path<String>,
    body: Bytes,
) -> Result<StatusCode, Reply> {
    let change: ChangeRequest = decoded(&body).map_err(Reply::from)?;
    if shared.read(|state| state.find_link(&link).is_none()) {
        return Err(ApiError::NO_SUCH_LINK.into());
    }
    let changed = match (change.to, change.after_ms) {
        (change, None) => shared.change_link(&link, change),
        (LinkChange::Expire, Some(after)) => shared.expire_after(&link, Duration::from_millis(after)),
        (_, Some(_)) => return Err(ApiError::invalid("after_ms is for expire only".into()).into()),
    };
    changed.map_err(ApiError::not_possible)?;
    Ok(StatusCode::NO_CONTENT)
}
