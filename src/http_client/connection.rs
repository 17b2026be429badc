//! One connection, and a call over it. Over HTTP/1 whoever calls drives the connection as well: a call is one task, not
//! two that wake each other. Over HTTP/2 calls share it, and it has a task of its own.

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

/// Why a call has no answer.
pub(super) enum Unanswered {
    /// The connection had ended before: nothing was written. The request, back.
    Unsent(Box<Request>, hyper::Error),
    /// The server says that it has not processed any of it, and will not.
    Refused(hyper::Error),
    Unknown(hyper::Error),
}

/// The head of an answer, as soon as it is there.
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
}

/// The body of an answer, and whether there was more of it than is read.
pub(super) type ReadBody = (Bytes, bool);

/// The head of an answer, with all interim ones before it, and what a body may be late by in being cut.
const HEAD: usize = 64 * 1024;
/// Lines of a head: other clients take some hundreds, within a limit of bytes.
const MAX_HEADERS: usize = 512;
/// A connection with calls under way is asked so often whether its other end is there: a kernel, or a load balancer, acknowledges bytes
/// also for a process that hangs.
const MAX_PING_INTERVAL: Duration = Duration::from_secs(10);

/// Bytes that are taken in for one answer.
pub(super) fn most(settings: &HttpSettings) -> usize {
    settings.max_response_bytes + 2 * HEAD
}

impl Connection {
    pub(super) async fn begin(connected: Connected, settings: &HttpSettings) -> Result<Self, BoxError> {
        let Connected { io, allowance, is_http2 } = connected;
        if is_http2 {
            // Asked and not answered twice within a call's time: the call ends, and a new connection is there for the next one.
            let ping = (settings.timeout / 4).clamp(Duration::from_millis(1), MAX_PING_INTERVAL);
            let handshake = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(ping)
                .keep_alive_timeout(ping)
                .max_header_list_size(u32::try_from(HEAD).unwrap_or(u32::MAX))
                .handshake(io);
            let (sender, driver) = handshake.await?;
            tokio::spawn(async move {
                // What ends it is told to the calls that are under way.
                let _ = driver.await;
            });
            return Ok(Self::Http2(Http2 { sender, allowance }));
        }
        // Heads as other clients take them. A line that is invalid is left out: a length that is, ends with the connection.
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

    /// Can another call be made over it?
    pub(super) fn is_ready(&mut self) -> bool {
        match self {
            Self::Http1(connection) => connection.is_ready(),
            Self::Http2(connection) => connection.is_ready(),
        }
    }

    /// What tells a shared connection from others.
    pub(super) fn shared(&self) -> Option<Allowance> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(connection) => Some(connection.allowance.clone()),
        }
    }

    /// Sends a request. `head` is there as soon as it was read, whatever becomes of the body.
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

    /// Is there nothing left of the call before, and is the other side still there?
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
        // It would stand beside `:authority`.
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

/// The end of a connection that the calls over it poll, until it has ended: then it is dropped, so that what it had not taken
/// up yet goes back to its call.
struct Driver(Option<Pin<Box<http1::Connection<Io, Body>>>>);

impl Driver {
    /// `awaited` stays where it is: each future that it is moved into would have room for it once more.
    ///
    /// First both are polled without a waker: what one does for the other would wake the very task that is polling them, for
    /// nothing, and a second thread with it.
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

    /// Errors reach whoever waits for an answer.
    fn poll(&mut self, cx: &mut Context<'_>) {
        if self.0.as_mut().is_some_and(|connection| connection.as_mut().poll(cx).is_ready()) {
            self.0 = None;
        }
    }
}

/// The whole body, or as much of it as is read, and whether that is less. `driver`: of a connection that has no task of
/// its own.
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
        let room = settings.max_response_bytes - body.len();
        if chunk.len() > room {
            body.extend_from_slice(&chunk[..room]);
            return Ok((body.freeze(), true));
        }
        if body.is_empty() && incoming.is_end_stream() {
            return Ok((chunk, false));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((body.freeze(), false))
}

/// The path in the request line, the host in its header (RFC 9112, 3.2.1).
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
            error if is_refusal(&error) => Unanswered::Refused(error),
            error => Unanswered::Unknown(error),
        },
    }
}

/// Whether the server says that it processed nothing of it: REFUSED_STREAM, or GOAWAY for streams above the last that it will process
/// (RFC 9113, 8.7 and 6.8). h2 ends no other stream with the server's GOAWAY.
fn is_refusal(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| {
        let refused = cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM);
        cause.is_remote() && (refused || cause.is_go_away())
    })
}
