//! One way to call somebody over HTTP: every call with its limits, every failure with an answer to "was it sent?".

use std::{error::Error, time::Duration};

use bytes::{Bytes, BytesMut};
use reqwest::{
    Certificate, StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

/// Limits of every call of one client.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    pub connect_timeout: Duration,
    /// From the first look at the name to the last byte of the answer.
    pub timeout: Duration,
    /// Bytes of an answer that are read; the rest is not.
    pub max_response_bytes: usize,
    /// Certificates that a server's is looked up in, in place of the system's.
    pub roots: Option<Vec<Certificate>>,
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The body went on past the limit.
    pub cut: bool,
}

/// Why there is no whole answer. Neither carries a URL, which may hold a secret.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// Name resolution, connecting or the TLS handshake failed: nothing has left.
    #[error("{0}")]
    NotSent(String),
    /// The request may have been carried out.
    #[error("{0}")]
    InDoubt(String),
}

/// A client without redirects, without proxies from the environment, and without repeats of its own.
pub fn client(settings: &HttpSettings) -> reqwest::ClientBuilder {
    let builder = match &settings.roots {
        Some(roots) => reqwest::Client::builder().tls_certs_only(roots.iter().cloned()),
        None => reqwest::Client::builder(),
    };
    builder
        .connect_timeout(settings.connect_timeout)
        .timeout(settings.timeout)
        .redirect(reqwest::redirect::Policy::none())
        // None at most: so no copy of the request is kept for one.
        .retry(reqwest::retry::never().max_retries_per_request(0))
        .no_proxy()
        .referer(false)
        .tcp_nodelay(true)
        // Shorter than the idle time of common servers: a request on a connection that the server is closing is
        // in doubt, and that costs more than a handshake.
        .pool_idle_timeout(Duration::from_secs(20))
        .user_agent(concat!("payout-link-worker/", env!("CARGO_PKG_VERSION")))
}

/// Sends a request and reads its answer within the client's timeout.
pub async fn call(request: reqwest::RequestBuilder, settings: &HttpSettings) -> Result<Answer, CallError> {
    #[cfg(fuzzing)]
    return fuzzing::answer(request, settings);
    #[cfg(not(fuzzing))]
    send(request, settings).await
}

#[cfg_attr(fuzzing, expect(dead_code, reason = "nothing is sent while fuzzing"))]
async fn send(request: reqwest::RequestBuilder, settings: &HttpSettings) -> Result<Answer, CallError> {
    let mut response = request.send().await.map_err(classify)?;
    let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(classify)? {
        let room = settings.max_response_bytes - body.len();
        if chunk.len() > room {
            body.extend_from_slice(&chunk[..room]);
            return Ok(Answer { status, headers, body: body.freeze(), cut: true });
        }
        if body.is_empty() && response.content_length() == Some(chunk.len() as u64) {
            return Ok(Answer { status, headers, body: chunk, cut: false });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, headers, body: body.freeze(), cut: false })
}

impl Answer {
    /// Retry-After in either of its forms (RFC 9110, 10.2.3), counted from `now`.
    pub fn retry_after(&self, now: OffsetDateTime) -> Option<Duration> {
        let value = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        if let Ok(seconds) = value.parse() {
            return Some(Duration::from_secs(seconds));
        }
        // An HTTP date is an RFC 2822 date with its zone written as GMT.
        let at = OffsetDateTime::parse(&value.replace("GMT", "+0000"), &Rfc2822).ok()?;
        Some((at - now).try_into().unwrap_or(Duration::ZERO))
    }
}

/// Only a failure to connect is certain. A connection that was closed before its answer was read is in doubt,
/// also where hyper calls the message incomplete: the request may have been read before.
fn classify(error: reqwest::Error) -> CallError {
    let text = reasons(&error);
    if error.is_connect() || error.is_builder() { CallError::NotSent(text) } else { CallError::InDoubt(text) }
}

/// The chain of causes without reqwest's own first link, which names the URL.
fn reasons(error: &reqwest::Error) -> String {
    let mut text = String::from(if error.is_timeout() {
        "timed out"
    } else if error.is_connect() {
        "could not connect"
    } else {
        "the connection broke"
    });
    let mut cause = error.source();
    while let Some(reason) = cause {
        text.push_str(": ");
        text.push_str(&reason.to_string());
        cause = reason.source();
    }
    // Some of it is the other side's words, such as the names in its certificate.
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST_OF_A_REASON).collect()
}

const MOST_OF_A_REASON: usize = 300;

/// For fuzz/: every call is answered with what was put here.
#[cfg(fuzzing)]
pub mod fuzzing {
    use std::cell::RefCell;

    use super::*;

    thread_local! {
        static ANSWER: RefCell<Option<Answer>> = const { RefCell::new(None) };
    }

    pub fn answer_with(answer: Answer) {
        ANSWER.set(Some(answer));
    }

    pub(super) fn answer(
        request: reqwest::RequestBuilder,
        settings: &HttpSettings,
    ) -> Result<Answer, CallError> {
        let request = request.build().map_err(classify)?;
        let answer = ANSWER.with_borrow(Clone::clone);
        let answer =
            answer.ok_or_else(|| CallError::NotSent(format!("{} is not asked", request.method())))?;
        assert!(answer.body.len() <= settings.max_response_bytes || answer.cut);
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let after = |value: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
            let answer = Answer { status: StatusCode::OK, headers, body: Bytes::new(), cut: false };
            answer.retry_after(OffsetDateTime::from_unix_timestamp(784_111_770).unwrap())
        };
        assert_eq!(after("120"), Some(Duration::from_secs(120)));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(7)));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:00 GMT"), Some(Duration::ZERO));
        assert_eq!(after("soon"), None);
        assert_eq!(after("-1"), None);
    }
}
