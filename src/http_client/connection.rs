//! One connection, and a call over it.
//!
//! Over HTTP/1 the caller also drives the connection, so a call is one task and not two that wake each other. Over HTTP/2 calls
//! share the connection, which has its own task.

use std::{
    error::Error,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{
    body::{Body as _, Incoming},
    client::conn::{TrySendError, http1, http2},
    header::{HOST, HeaderValue},
    http::{Uri, uri},
};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use reqwest::{Body, StatusCode, header::HeaderMap};

use super::{
    HttpSettings,
    connect::{Allowance, BoxError, Connected, Io},
};

pub(super) type Request = hyper::Request<Body>;

pub(super) enum Connection {
    Http1(Http1),
    Http2(Http2),
}

pub(super) struct Http1 {
    sender: http1::SendRequest<Body>,
    driver: Driver,
    allowance: Allowance,
}

#[derive(Clone)]
pub(super) struct Http2 {
    sender: http2::SendRequest<Body>,
    allowance: Allowance,
}

/// The reason why a call has no answer.
pub(super) enum Unanswered {
    /// The connection had ended before anything was written. The request is returned.
    Unsent(Box<Request>, hyper::Error),
    /// The server says that it did not process the request and will not.
    Rejected(hyper::Error),
    /// The server may have processed the request.
    Unknown(hyper::Error),
}

/// The head of an answer.
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
}

/// The body of an answer, and whether it was cut.
pub(super) type ReadBody = (Bytes, bool);

/// The maximum size of a head with all interim ones before it, and the tolerance of the body limit, in bytes.
const HEAD: usize = 64 * 1024;
/// The maximum number of header lines. Other clients accept some hundreds, within a limit of bytes. hyper prepares all of them
/// for every answer, so a larger number costs time.
const MAX_HEADERS: usize = 320;
/// The maximum interval of HTTP/2 PINGs on a connection with calls. A kernel or load balancer acknowledges bytes even if the
/// server process hangs.
const MAX_PING_INTERVAL: Duration = Duration::from_secs(10);

/// Returns the number of bytes that may be read for one answer.
pub(super) fn most(settings: &HttpSettings) -> usize {
    settings.max_response_bytes + 2 * HEAD
}

impl Connection {
    pub(super) async fn begin(connected: Connected, settings: &HttpSettings) -> Result<Self, BoxError> {
        let Connected { io, allowance, is_http2 } = connected;
        if is_http2 {
            // Two unanswered PINGs within the timeout of a call end the call. The next call gets a new connection.
            let ping = (settings.timeout / 4).clamp(Duration::from_millis(1), MAX_PING_INTERVAL);
            let handshake = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(ping)
                .keep_alive_timeout(ping)
                .max_header_list_size(u32::try_from(HEAD).unwrap_or(u32::MAX))
                .handshake(io);
            let (sender, driver) = handshake.await?;
            tokio::spawn(async move {
                // The calls under way get the error.
                let _ = driver.await;
            });
            return Ok(Self::Http2(Http2 { sender, allowance }));
        }
        // As lenient as other clients. An invalid line is ignored; without a valid length the body ends with the connection.
        let handshake = http1::Builder::new()
            .max_buf_size(HEAD)
            .max_headers(MAX_HEADERS)
            .allow_obsolete_multiline_headers_in_responses(true)
            .allow_spaces_after_header_name_in_responses(true)
            .ignore_invalid_headers_in_responses(true)
            .handshake(io);
        let (sender, connection) = handshake.await?;
        let driver = Driver(Some(Box::pin(connection)));
        Ok(Self::Http1(Http1 { sender, driver, allowance }))
    }

    /// Returns whether another call can use it.
    pub(super) fn is_ready(&mut self) -> bool {
        match self {
            Self::Http1(connection) => connection.is_ready(),
            Self::Http2(connection) => connection.is_ready(),
        }
    }

    /// Returns the identity of a shared connection.
    pub(super) fn shared(&self) -> Option<Allowance> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(connection) => Some(connection.allowance.clone()),
        }
    }

    /// Sends a request. `head` is set as soon as it was read, even if the body fails later.
    pub(super) async fn call(
        &mut self,
        request: Box<Request>,
        settings: &HttpSettings,
        head: &mut Option<Head>,
    ) -> Result<ReadBody, Unanswered> {
        match self {
            Self::Http1(connection) => connection.call(request, settings, head).await,
            Self::Http2(connection) => Box::pin(connection.call(request, settings, head)).await,
        }
    }
}

impl Http1 {
    async fn call(
        &mut self,
        request: Box<Request>,
        settings: &HttpSettings,
        head: &mut Option<Head>,
    ) -> Result<ReadBody, Unanswered> {
        self.allowance.store(most(settings), Relaxed);
        let mut incoming = {
            let mut answered = pin!(self.sender.try_send_request(in_origin_form(request)));
            let answered = self.driver.along_with(answered.as_mut()).await.map_err(unanswered)?;
            let (parts, incoming) = answered.into_parts();
            *head = Some(Head { status: parts.status, headers: parts.headers });
            incoming
        };
        read(&mut incoming, settings, Some(&mut self.driver)).await
    }

    /// Returns whether the previous call is complete and the server is still connected.
    pub(super) fn is_ready(&mut self) -> bool {
        self.driver.poll(&mut Context::from_waker(Waker::noop()));
        self.driver.0.is_some() && self.sender.is_ready()
    }
}

impl Http2 {
    async fn call(
        &mut self,
        mut request: Box<Request>,
        settings: &HttpSettings,
        head: &mut Option<Head>,
    ) -> Result<ReadBody, Unanswered> {
        self.allowance.fetch_add(most(settings), Relaxed);
        // HTTP/2 has `:authority` instead.
        request.headers_mut().remove(HOST);
        let answered = self.sender.try_send_request(*request).await.map_err(unanswered)?;
        let (parts, mut incoming) = answered.into_parts();
        *head = Some(Head { status: parts.status, headers: parts.headers });
        read(&mut incoming, settings, None).await
    }

    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    pub(super) fn is(&self, shared: &Allowance) -> bool {
        Arc::ptr_eq(&self.allowance, shared)
    }
}

/// The driver of an HTTP/1 connection, which its calls poll. It is dropped at its end, so that an unsent request returns to its
/// call.
struct Driver(Option<Pin<Box<http1::Connection<Io, Body>>>>);

impl Driver {
    /// Polls `awaited` together with the driver.
    ///
    /// `awaited` is pinned by the caller, because each future that it moves into would grow by its size. Both are first polled
    /// without a waker, because one would wake the task that is polling the other.
    async fn along_with<T>(&mut self, mut awaited: Pin<&mut impl Future<Output = T>>) -> T {
        poll_fn(|cx| {
            for cx in [&mut Context::from_waker(Waker::noop()), cx] {
                if let Poll::Ready(done) = awaited.as_mut().poll(cx) {
                    return Poll::Ready(done);
                }
                self.poll(cx);
            }
            awaited.as_mut().poll(cx)
        })
        .await
    }

    /// Polls the connection. The waiting call gets its errors.
    fn poll(&mut self, cx: &mut Context<'_>) {
        if self.0.as_mut().is_some_and(|connection| connection.as_mut().poll(cx).is_ready()) {
            self.0 = None;
        }
    }
}

/// Reads the body up to the limit, and returns whether it was cut. `driver` is set for a connection without its own task.
async fn read(
    incoming: &mut Incoming,
    settings: &HttpSettings,
    mut driver: Option<&mut Driver>,
) -> Result<ReadBody, Unanswered> {
    let mut body = BytesMut::new();
    while !incoming.is_end_stream() {
        let frame = match &mut driver {
            Some(driver) => driver.along_with(Pin::new(&mut incoming.frame())).await,
            None => incoming.frame().await,
        };
        let Some(frame) = frame else { break };
        let Ok(chunk) = frame.map_err(Unanswered::Unknown)?.into_data() else { continue };
        let remaining = settings.max_response_bytes - body.len();
        if chunk.len() > remaining {
            body.extend_from_slice(&chunk[..remaining]);
            return Ok((body.freeze(), true));
        }
        if body.is_empty() && incoming.is_end_stream() {
            return Ok((chunk, false));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((body.freeze(), false))
}

/// Moves the host from the URI to its header (RFC 9112, 3.2.1).
fn in_origin_form(mut request: Box<Request>) -> Request {
    let uri = std::mem::take(request.uri_mut()).into_parts();
    let host = uri.authority.and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(host) = host {
        request.headers_mut().insert(HOST, host);
    }
    let mut path = uri::Parts::default();
    path.path_and_query = uri.path_and_query;
    *request.uri_mut() = Uri::from_parts(path).unwrap_or_default();
    *request
}

fn unanswered(mut error: TrySendError<Request>) -> Unanswered {
    match error.take_message() {
        Some(request) => Unanswered::Unsent(Box::new(request), error.into_error()),
        None => match error.into_error() {
            error if is_rejected(&error) => Unanswered::Rejected(error),
            error => Unanswered::Unknown(error),
        },
    }
}

/// Returns whether the server says that it did not process the request (RFC 9113, 8.7 and 6.8).
///
/// It says so with `REFUSED_STREAM`, or with GOAWAY for later streams. h2 ends no other stream with the server's GOAWAY.
fn is_rejected(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| {
        let rejected = cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM);
        cause.is_remote() && (rejected || cause.is_go_away())
    })
}
