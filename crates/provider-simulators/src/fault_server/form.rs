//! What the answers of an API look like, so that an error that was ordered, or a link that was never made, still
//! looks like the API's own.

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::answer::Reply;

pub(crate) struct Form {
    /// The status of a create that worked.
    pub(crate) created: StatusCode,
    /// Where a caller is told how long to wait.
    pub(crate) wait: HeaderName,
    /// The body of an error that has no cause but its order.
    pub(crate) error: fn(StatusCode) -> Value,
    /// A link that looks good and was never made.
    pub(crate) link: fn() -> Value,
    /// Where the link's URL stands: the way there, and its name.
    pub(crate) url: (&'static str, &'static str),
}

impl Form {
    pub(crate) fn error(&self, status: StatusCode) -> Reply {
        Reply::json(status, &(self.error)(status))
    }

    pub(crate) fn wait(&self, reply: Reply, how_long: HeaderValue) -> Reply {
        reply.with(self.wait.clone(), how_long)
    }
}

/// The sandbox's own.
pub(crate) static PLAIN: Form = Form {
    created: StatusCode::CREATED,
    wait: RETRY_AFTER,
    error: |_| json!({ "error": { "code": "ordered_fault", "message": "this error was ordered" } }),
    link: || {
        json!({
            "id": "plink_that_is_not",
            "status": "issued",
            "url": "https://links.example/l/that-is-not",
            "expires_at": "2999-12-31T00:00:00Z",
        })
    },
    url: ("", "url"),
};
