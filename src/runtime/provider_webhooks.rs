//! Serves `POST /connectors/ACCOUNT/webhooks`, for the webhooks of providers.
//!
//! The port is reachable for anyone. A request without proof learns nothing, is not stored, and costs one comparison.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{FromRequest, Path, Request, State, rejection::PathRejection},
    http::{HeaderValue, StatusCode, header::CONNECTION},
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::post,
};
use tokio::net::TcpListener;

use crate::{
    pipeline::{Pipeline, WebhookIntake, WebhookOutcome},
    postgres::ProviderWebhooks,
    runtime::listener::{self, ListenerLimits, Server, serve},
};

/// Limits for webhooks. A connection has one request, so its limit is that of a request. All bodies together take 32 MiB
/// at most.
const LIMITS: ListenerLimits = ListenerLimits {
    max_connections: 128,
    head_timeout: Duration::from_secs(5),
    connection_timeout: Duration::from_secs(10),
    max_head_bytes: 16 * 1024,
    max_body_bytes: 256 * 1024,
};

/// Binds the port, before anything else starts, so that a port in use is reported before a job is taken.
///
/// # Errors
///
/// If the address cannot be bound.
pub async fn bind(listen: Option<SocketAddr>) -> anyhow::Result<Option<TcpListener>> {
    listener::bind("worker.provider_webhooks_listen", listen).await
}

/// Starts the server, if there is a listener.
///
/// # Errors
///
/// If the listener has no address.
pub fn start(
    listener: Option<TcpListener>,
    pipeline: &Arc<Pipeline>,
    store: ProviderWebhooks,
) -> anyhow::Result<Server> {
    let Some(listener) = listener else { return Ok(Server::default()) };
    tracing::info!(address = %listener.local_addr()?, "provider webhooks endpoint listening");
    let router = Router::new()
        .route("/connectors/{account}/webhooks", post(receive))
        .layer(map_response(one_request))
        .with_state(Arc::new(WebhookIntake::new(pipeline.clone(), store)));
    Ok(Server::of(tokio::spawn(serve(listener, router, LIMITS))))
}

async fn receive(
    State(intake): State<Arc<WebhookIntake>>,
    account: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let Some(Path(account)) = account.ok().filter(|account| intake.has_account(account)) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let headers = request.headers().clone();
    let body = match Bytes::from_request(request, &()).await {
        Ok(body) => body,
        Err(rejection) => return rejection.status().into_response(),
    };
    let status = match intake.take(&account, &headers, &body).await {
        None => StatusCode::NOT_FOUND,
        // Also what the worker cannot use: a provider disables a webhook that is not accepted.
        Some(
            WebhookOutcome::Accepted
            | WebhookOutcome::Duplicate
            | WebhookOutcome::UnknownLink
            | WebhookOutcome::Unreadable,
        ) => StatusCode::OK,
        Some(WebhookOutcome::NotAuthentic) => StatusCode::UNAUTHORIZED,
        Some(WebhookOutcome::Unavailable) => StatusCode::SERVICE_UNAVAILABLE,
    };
    status.into_response()
}

/// Ends the connection with its first answer.
async fn one_request(mut response: Response) -> Response {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
