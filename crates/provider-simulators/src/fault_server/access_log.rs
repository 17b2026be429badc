//! Logs one line for each request, unless its handler has logged it in more detail.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;

/// Marks a response whose handler has logged it.
#[derive(Clone)]
pub(crate) struct Logged;

pub(crate) async fn log(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let path = loggable(request.uri().path()).to_owned();
    let response = next.run(request).await;
    if response.extensions().get::<Logged>().is_none() {
        let status = response.status().as_u16();
        tracing::info!(http.method = %method, http.path = path, http.status = status, "request answered");
    }
    response
}

/// Returns the path without the token of a link, which is a secret.
fn loggable(path: &str) -> &str {
    if path.starts_with("/l/") { "/l/…" } else { path }
}
