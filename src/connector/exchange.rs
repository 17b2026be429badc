//! What every connector does alike around one call: headers on the way out, and what an answer means.

use reqwest::{
    RequestBuilder,
    header::{HeaderName, HeaderValue},
};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use url::Url;

use crate::{
    domain::{ConnectorError, Finding, Outcome, TraceContext},
    http::{Answer, CallError},
};

/// An address below a provider's base URL, each part percent-encoded.
pub(super) fn at(base: &Url, parts: &[&str]) -> Url {
    let mut url = base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(parts);
    }
    url
}

/// A header that is a secret: `prefix` and the secret.
pub(super) fn with_secret(
    request: RequestBuilder,
    name: HeaderName,
    prefix: &str,
    secret: &SecretString,
) -> RequestBuilder {
    // What no header can carry is left out: the provider says then what it says without a credential.
    match HeaderValue::try_from(format!("{prefix}{}", secret.expose_secret())) {
        Ok(mut value) => {
            value.set_sensitive(true);
            request.header(name, value)
        }
        Err(_) => request,
    }
}

/// The sender's trace goes on to the provider.
pub(super) fn with_trace(request: RequestBuilder, trace: &TraceContext) -> RequestBuilder {
    let headers = [("traceparent", &trace.traceparent), ("tracestate", &trace.tracestate)];
    headers.into_iter().fold(request, |request, (name, value)| match value {
        Some(value) => request.header(name, value),
        None => request,
    })
}

/// A call that creates and was not answered.
pub(super) fn lost(error: CallError) -> Outcome {
    match error {
        CallError::NotSent(reason) => Outcome::NotSent(ConnectorError::unanswered(&reason)),
        CallError::InDoubt(reason) => Outcome::InDoubt(ConnectorError::unanswered(&reason)),
    }
}

/// A question that was not answered.
pub(super) fn unasked(error: CallError) -> Finding {
    Finding::Unanswered { error: ConnectorError::unanswered(&error.to_string()), retry_after: None }
}

/// A question whose answer settles nothing.
pub(super) fn unsettled(answer: &Answer, error: ConnectorError) -> Finding {
    Finding::Unanswered { error, retry_after: answer.retry_after(OffsetDateTime::now_utc()) }
}

/// A whole answer of the form that is expected.
pub(super) fn parse<T: DeserializeOwned>(answer: &Answer) -> Option<T> {
    serde_json::from_slice(&answer.body).ok().filter(|_| !answer.cut)
}

/// An answer that cannot be read as what was asked for. Nothing of it is repeated.
pub(super) fn unreadable(answer: &Answer) -> ConnectorError {
    let status_code = answer.status.as_u16();
    let reason = match (answer.cut, answer.status.is_success()) {
        (true, _) => "the answer is too large",
        (false, true) => "the answer is not a payout link",
        (false, false) => "the answer is no error of the provider's",
    };
    ConnectorError::new(status_code, None, reason, None)
}

/// What an error that the provider put in words means, where the connector has nothing of its own to say of it.
///
/// `own_credential`: it was called with the configuration's credential, not with the job's `access_token`. A
/// deployment's mistake must not fail payouts.
pub(super) fn judge(answer: &Answer, error: ConnectorError, own_credential: bool) -> Outcome {
    let retry_after = answer.retry_after(OffsetDateTime::now_utc());
    match answer.status.as_u16() {
        401 | 403 if own_credential => Outcome::TryLater { error, retry_after },
        400 | 401 | 403 | 404 | 422 => Outcome::Refused(error),
        429 => Outcome::TryLater { error, retry_after },
        _ => Outcome::InDoubt(error),
    }
}

/// What an error that cannot be read means: something between us and the provider may have written it.
pub(super) fn judge_unreadable(answer: &Answer, own_credential: bool) -> Outcome {
    let error = unreadable(answer);
    let retry_after = answer.retry_after(OffsetDateTime::now_utc());
    match answer.status.as_u16() {
        401 | 403 if own_credential => Outcome::TryLater { error, retry_after },
        429 => Outcome::TryLater { error, retry_after },
        _ => Outcome::InDoubt(error),
    }
}

/// A link that may be passed on: an absolute `https` URL (`http` where a stand-in is configured), without
/// user-info or control characters, 2,048 bytes at most.
pub(super) fn link_url(text: &str, allow_http: bool) -> Option<SecretString> {
    let url = Url::parse(text).ok()?;
    let scheme = url.scheme() == "https" || (allow_http && url.scheme() == "http");
    let sound = scheme
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && text.len() <= 2048
        && !text.chars().any(|c| c.is_control() || c.is_whitespace());
    sound.then(|| text.into())
}
