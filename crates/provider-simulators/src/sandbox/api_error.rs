//! Defines the API's own errors, which are not injected.

use std::borrow::Cow;

use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header::WWW_AUTHENTICATE;
use axum::response::{IntoResponse, Response};

use crate::fault_server::{Answer, Reply};

/// An error, written as `{"error": {"code", "message"}}`.
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: Cow<'static, str>,
}

impl ApiError {
    pub(super) const UNAUTHORISED: Self =
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "the bearer token is missing or wrong");
    pub(super) const NO_KEY: Self = Self::new(
        StatusCode::BAD_REQUEST,
        "idempotency_key_missing",
        "a create needs an Idempotency-Key header",
    );
    pub(super) const BAD_KEY: Self = Self::new(
        StatusCode::BAD_REQUEST,
        "idempotency_key_invalid",
        "an Idempotency-Key has 1 to 255 visible ASCII characters",
    );
    pub(super) const KEY_IN_USE: Self = Self::new(
        StatusCode::CONFLICT,
        "idempotency_key_in_use",
        "a request with this Idempotency-Key is being carried out",
    );
    pub(super) const KEY_OF_ANOTHER_REQUEST: Self = Self::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "idempotency_key_reused",
        "this Idempotency-Key belongs to a request with another body",
    );
    pub(super) const NOT_JSON: Self = Self::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        "the body is application/json",
    );
    pub(super) const NO_SUCH_LINK: Self =
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is no such payout link");
    pub(super) const CLAIMED: Self =
        Self::new(StatusCode::CONFLICT, "already_claimed", "the payout has been claimed already");
    pub(super) const NO_SUCH_PAGE: Self =
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this address");

    const fn new(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        Self { status, code, message: Cow::Borrowed(message) }
    }

    pub(super) fn invalid(message: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "invalid_request", message: message.into() }
    }

    /// Creates the error of a change that is not possible.
    pub(super) fn not_possible(message: String) -> Self {
        Self { status: StatusCode::CONFLICT, code: "not_possible", message: message.into() }
    }
}

impl From<ApiError> for Reply {
    fn from(error: ApiError) -> Self {
        let reply = Self::error(error.status, error.code, &error.message);
        if error.status == StatusCode::UNAUTHORIZED {
            return reply.with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        reply
    }
}

impl From<ApiError> for Answer {
    fn from(error: ApiError) -> Self {
        Self::Reply(error.into())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        Reply::from(self).into_response()
    }
}
