//! Serves the provider's API: create, get, list, cancel.
//!
//! A call that arrived is carried out even if the client disconnects, as at a real provider.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;

use super::api_error::ApiError;
use super::ledger::{Call, Opening};
use super::link::{Failure, Link, LinkStatus};
use super::request::{self, Amount, CreateRequest};
use super::shared::Shared;
use crate::fault_server::{ActiveFault, Answer, Connection, Operation, Reply};
use crate::link_change::LinkChange;

const MAX_BODY_BYTES: usize = 64 * 1024;
const MAX_KEY_BYTES: usize = 255;
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/payout-links", post(create).get(list))
        .route("/v1/payout-links/{id}", get(get_one))
        .route("/v1/payout-links/{id}/cancel", post(cancel))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(shared)
}

async fn create(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let visit = Visit::begin(shared, Operation::Create, &headers);
    visit.attend(connection, visit.clone().create(headers, body)).await
}

async fn get_one(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    let visit = Visit::begin(shared, Operation::Get, &headers);
    visit.attend(connection, visit.clone().get(headers, id)).await
}

async fn list(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    headers: HeaderMap,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Response {
    let visit = Visit::begin(shared, Operation::List, &headers);
    visit.attend(connection, visit.clone().list(headers, query)).await
}

async fn cancel(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    let visit = Visit::begin(shared, Operation::Cancel, &headers);
    visit.attend(connection, visit.clone().cancel(headers, id)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    reference: String,
}

/// A call that is being carried out.
#[derive(Clone)]
struct Visit {
    shared: Arc<Shared>,
    operation: Operation,
    number: u64,
}

impl Visit {
    /// Records the call in the ledger, so that it is counted even if it fails later.
    fn begin(shared: Arc<Shared>, operation: Operation, headers: &HeaderMap) -> Self {
        let key =
            headers.get(IDEMPOTENCY_KEY).map(|key| String::from_utf8_lossy(key.as_bytes()).into_owned());
        let number = shared.change(|state| state.arrive(operation, key));
        Self { shared, operation, number }
    }

    /// Carries the call out in a task of its own, which continues if the client disconnects.
    async fn attend(
        &self,
        connection: Connection,
        work: impl Future<Output = Result<Answer, ApiError>> + Send + 'static,
    ) -> Response {
        let visit = self.clone();
        let answered = tokio::spawn(async move {
            let answer = work.await.unwrap_or_else(Answer::from);
            visit.conclude(&answer);
            answer.into_response(&connection, &visit.shared.injector.stop)
        });
        answered.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
    }

    fn conclude(&self, answer: &Answer) {
        self.note(|call| {
            call.status = answer.status().map(|status| status.as_u16());
            tracing::info!(
                call.operation = ?call.operation,
                call.status,
                call.fault,
                call.replayed,
                payout_link.reference = call.reference,
                payout_link.id = call.link_id,
                "call answered"
            );
        });
    }

    fn note(&self, write: impl FnOnce(&mut Call)) {
        self.shared.change(|state| state.call(self.number).map(write));
    }

    async fn create(
        self,
        headers: HeaderMap,
        body: Result<Bytes, BytesRejection>,
    ) -> Result<Answer, ApiError> {
        self.authorise(&headers)?;
        let key = idempotency_key(&headers)?;
        let request = create_request(&headers, body)?;
        self.note(|call| call.reference = Some(request.reference.clone()));
        match self.shared.change(|state| state.open(&key, &request)) {
            Opening::InUse => Err(ApiError::KEY_IN_USE),
            Opening::OtherRequest => Err(ApiError::KEY_OF_ANOTHER_REQUEST),
            Opening::Replay(link) => {
                let active_fault = self.fault_of_create(&request);
                Ok(self.around(active_fault, || self.replay(&link)).await)
            }
            Opening::Fresh => {
                let _reserved = ReservedKey { shared: &self.shared, key: &key };
                let active_fault = self.fault_of_create(&request);
                Ok(self.around(active_fault, || self.issue(&key, request)).await)
            }
        }
    }

    async fn get(self, headers: HeaderMap, id: String) -> Result<Answer, ApiError> {
        self.authorise(&headers)?;
        let active_fault = self.fault_of_link(&id);
        Ok(self.around(active_fault, || self.show(&id)).await)
    }

    async fn list(
        self,
        headers: HeaderMap,
        query: Result<Query<ListQuery>, QueryRejection>,
    ) -> Result<Answer, ApiError> {
        self.authorise(&headers)?;
        let Query(ListQuery { reference }) = query.map_err(|error| ApiError::invalid(error.body_text()))?;
        let active_fault = self.fault_of_list(&reference);
        Ok(self.around(active_fault, || self.show_all(&reference)).await)
    }

    async fn cancel(self, headers: HeaderMap, id: String) -> Result<Answer, ApiError> {
        self.authorise(&headers)?;
        let active_fault = self.fault_of_link(&id);
        Ok(self.around(active_fault, || self.withdraw(&id)).await)
    }

    fn authorise(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let bearer =
            headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        if bearer.is_some_and(|token| self.shared.knows(token)) {
            Ok(())
        } else {
            Err(ApiError::UNAUTHORISED)
        }
    }

    fn fault_of_create(&self, request: &CreateRequest) -> Option<ActiveFault> {
        let by_rule = self.shared.injector.take_fault(self.operation, Some(&request.reference));
        self.noted(by_rule.or_else(|| self.shared.change(|state| state.fault_by_amount(request))))
    }

    fn fault_of_link(&self, id: &str) -> Option<ActiveFault> {
        let reference = self.shared.read(|state| Some(state.link(id)?.request.reference.clone()));
        self.note(|call| {
            call.link_id = reference.is_some().then(|| id.to_owned());
            call.reference.clone_from(&reference);
        });
        self.noted(self.shared.injector.take_fault(self.operation, reference.as_deref()))
    }

    fn fault_of_list(&self, reference: &str) -> Option<ActiveFault> {
        self.note(|call| call.reference = Some(reference.to_owned()));
        self.noted(self.shared.injector.take_fault(self.operation, Some(reference)))
    }

    fn noted(&self, active_fault: Option<ActiveFault>) -> Option<ActiveFault> {
        self.note(|call| call.fault = active_fault.as_ref().map(|active_fault| active_fault.fault.name()));
        active_fault
    }

    async fn around(&self, active_fault: Option<ActiveFault>, work: impl FnOnce() -> Answer) -> Answer {
        self.shared.injector.around(active_fault, work).await
    }

    fn issue(&self, key: &str, request: CreateRequest) -> Answer {
        let new = self.shared.new_link();
        let link = self.shared.change(|state| state.issue(key, request, new));
        self.note(|call| call.link_id = Some(link.id.clone()));
        Reply::json(StatusCode::CREATED, &IssuedLink::new(&link, false)).into()
    }

    fn replay(&self, link: &Link) -> Answer {
        self.note(|call| {
            call.link_id = Some(link.id.clone());
            call.replayed = true;
        });
        Reply::json(StatusCode::CREATED, &IssuedLink::new(link, true))
            .with(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"))
            .into()
    }

    fn show(&self, id: &str) -> Answer {
        self.shared.read(|state| match state.link(id) {
            Some(link) => Reply::json(StatusCode::OK, &LinkView::new(link)).into(),
            None => ApiError::NO_SUCH_LINK.into(),
        })
    }

    fn show_all(&self, reference: &str) -> Answer {
        self.shared.read(|state| {
            let links: Vec<LinkView<'_>> = state.links_of(reference).into_iter().map(LinkView::new).collect();
            Reply::json(StatusCode::OK, &json!({ "data": links })).into()
        })
    }

    fn withdraw(&self, id: &str) -> Answer {
        match self.shared.change(|state| state.end(id, LinkChange::Cancel)) {
            None => ApiError::NO_SUCH_LINK.into(),
            Some(LinkStatus::Issued | LinkStatus::Cancelled | LinkStatus::Expired) => self.show(id),
            Some(
                LinkStatus::Claimed
                | LinkStatus::Processing
                | LinkStatus::Paid
                | LinkStatus::Failed
                | LinkStatus::Reversed,
            ) => ApiError::CLAIMED.into(),
        }
    }
}

/// Releases the key when it is dropped, unless a link was issued under it.
struct ReservedKey<'a> {
    shared: &'a Shared,
    key: &'a str,
}

impl Drop for ReservedKey<'_> {
    fn drop(&mut self) {
        self.shared.change(|state| state.abandon(self.key));
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<String, ApiError> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else { return Err(ApiError::NO_KEY) };
    match key.to_str() {
        Ok(key) if (1..=MAX_KEY_BYTES).contains(&key.len()) => Ok(key.to_owned()),
        _ => Err(ApiError::BAD_KEY),
    }
}

fn create_request(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<CreateRequest, ApiError> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if content_type.split(';').next().map(str::trim) != Some("application/json") {
        return Err(ApiError::NOT_JSON);
    }
    let body = body.map_err(|error| ApiError {
        status: error.status(),
        code: "invalid_request",
        message: error.body_text().into(),
    })?;
    request::decode(&body).map_err(ApiError::invalid)
}

/// The answer to a create. A replay returns the link as it was issued, not its present status.
#[derive(Serialize)]
struct IssuedLink<'a> {
    id: &'a str,
    status: LinkStatus,
    url: &'a str,
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed: Option<bool>,
}

impl<'a> IssuedLink<'a> {
    fn new(link: &'a Link, replayed: bool) -> Self {
        Self {
            id: &link.id,
            status: LinkStatus::Issued,
            url: &link.url,
            expires_at: link.expires_at,
            replayed: replayed.then_some(true),
        }
    }
}

/// A link as it is now.
#[derive(Serialize)]
struct LinkView<'a> {
    id: &'a str,
    status: LinkStatus,
    payout_status: &'static str,
    reference: &'a str,
    amount: &'a Amount,
    destination_currency: &'a str,
    url: &'a str,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Failure>,
}

impl<'a> LinkView<'a> {
    fn new(link: &'a Link) -> Self {
        Self {
            id: &link.id,
            status: link.status(),
            payout_status: link.status().payout_status(),
            reference: &link.request.reference,
            amount: &link.request.amount,
            destination_currency: &link.request.destination_currency,
            url: &link.url,
            created_at: link.created_at,
            updated_at: link.updated_at(),
            expires_at: link.expires_at,
            failure: link.failure(),
        }
    }
}
