//! Sends the answer to a call: a whole or a corrupted reply, or none.

use std::{io, iter};

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use serde_json::{Value, json};

use super::access_log::Logged;
use super::server::{Connection, Cut, Stop};

const HUGE_CHUNK_BYTES: usize = 64 * 1024;
const HUGE_CHUNKS: usize = 512;

/// The answer to a call.
#[derive(Debug)]
pub(crate) enum Answer {
    Reply(Reply),
    /// The connection ends without one byte of an answer.
    Nothing(Cut),
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Payload,
}

#[derive(Debug)]
pub(crate) enum Payload {
    Whole(Bytes),
    /// Sends the first half of these bytes under the length of all of them; then the connection closes.
    Truncated(Bytes),
    /// Sends the first half; then the connection stays open and silent.
    Stalled(Bytes),
    /// Sends the JSON text and 32 MiB of spaces, so only the size is wrong.
    Huge(Bytes),
}

impl Answer {
    /// Returns the HTTP status that the client reads, if it reads one.
    pub(crate) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Reply(reply) => Some(reply.status),
            Self::Nothing(_) => None,
        }
    }

    /// Builds the response to a call that is logged already.
    pub(crate) fn into_response(self, connection: &Connection, stop: &Stop) -> Response {
        let mut response = match self {
            Self::Reply(reply) => reply.into_response(connection, stop),
            Self::Nothing(cut) => {
                connection.cut(cut);
                // hyper needs a response to write. Its first attempt to write ends the connection.
                StatusCode::NO_CONTENT.into_response()
            }
        };
        response.extensions_mut().insert(Logged);
        response
    }
}

/// An error reply: its status, and a body in the form of the API.
#[derive(Debug)]
pub(crate) struct ErrorReply(pub(crate) StatusCode, pub(crate) Value);

impl From<ErrorReply> for Reply {
    fn from(ErrorReply(status, body): ErrorReply) -> Self {
        Self::json(status, &body)
    }
}

impl IntoResponse for ErrorReply {
    fn into_response(self) -> Response {
        IntoResponse::into_response(Reply::from(self))
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

impl Reply {
    pub(crate) fn new(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let headers = iter::once((CONTENT_TYPE, HeaderValue::from_static(content_type))).collect();
        Self { status, headers, body: Payload::Whole(body.into()) }
    }

    pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(bytes) => Self::new(status, "application/json", bytes),
            Err(error) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error.to_string()),
        }
    }

    pub(crate) fn error(status: StatusCode, code: &str, message: &str) -> Self {
        Self::json(status, &json!({ "error": { "code": code, "message": message } }))
    }

    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Returns the body's bytes before any corruption.
    pub(crate) fn bytes(&self) -> &Bytes {
        let (Payload::Whole(bytes)
        | Payload::Truncated(bytes)
        | Payload::Stalled(bytes)
        | Payload::Huge(bytes)) = &self.body;
        bytes
    }

    fn into_response(self, connection: &Connection, stop: &Stop) -> Response {
        let Self { status, headers, body } = self;
        let mut response = (status, headers).into_response();
        if let Payload::Truncated(bytes) | Payload::Stalled(bytes) = &body {
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        }
        *response.body_mut() = match body {
            Payload::Whole(bytes) => Body::from(bytes),
            Payload::Truncated(bytes) => first_half(bytes, connection.clone(), None),
            Payload::Stalled(bytes) => first_half(bytes, connection.clone(), Some(stop.clone())),
            Payload::Huge(bytes) => padded(bytes),
        };
        response
    }
}

impl IntoResponse for Reply {
    /// Builds a whole response, for endpoints without faults.
    fn into_response(self) -> Response {
        let bytes = self.bytes().clone();
        (self.status, self.headers, bytes).into_response()
    }
}

/// Sends half of the bytes, and then ends the connection at once or at the server's stop.
fn first_half(bytes: Bytes, connection: Connection, linger: Option<Stop>) -> Body {
    let half = bytes.slice(..bytes.len() / 2);
    Body::from_stream(stream::unfold(Some(half), move |half| {
        let (connection, linger) = (connection.clone(), linger.clone());
        async move {
            if let Some(half) = half {
                return Some((Ok(half), None));
            }
            // A body that is not ready makes hyper flush. The first half must leave before the cut.
            tokio::task::yield_now().await;
            if let Some(stop) = linger {
                stop.requested().await;
            }
            connection.cut(Cut::Close);
            Some((Err(io::Error::from(io::ErrorKind::ConnectionAborted)), None))
        }
    }))
}

fn padded(bytes: Bytes) -> Body {
    let spaces = Bytes::from(vec![b' '; HUGE_CHUNK_BYTES]);
    let chunks = iter::once(bytes).chain(iter::repeat_n(spaces, HUGE_CHUNKS));
    Body::from_stream(stream::iter(chunks.map(Ok::<_, io::Error>)))
}
