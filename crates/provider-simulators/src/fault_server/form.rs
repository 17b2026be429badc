//! Describes the form of an API's answers, so that injected errors and links look like the API's own.

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::answer::Reply;

pub(crate) struct Form {
    /// The status of a successful create.
    pub(crate) created: StatusCode,
    /// The header with the time to wait.
    pub(crate) wait: HeaderName,
    /// The body of an injected error.
    pub(crate) error: fn(StatusCode) -> Value,
    /// A valid link that was never created.
    pub(crate) link: fn() -> Value,
    /// The JSON pointer to the object with the link's URL, and the field's name.
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

/// The form of the sandbox.
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
