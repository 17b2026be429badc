//! Runs an HTTP server whose connections can be cut without an answer, and which always stops on request.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};

use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// Limits how long connections may take to finish once the server stops. The runtime drops them later.
const GRACE_PERIOD: Duration = Duration::from_secs(5);

/// A listening socket whose address is known before its router exists.
pub(crate) struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

impl Bound {
    pub(crate) async fn to(listen: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        Ok(Self { address: listener.local_addr()?, listener })
    }

    /// Returns the URL for a client on this machine.
    pub(crate) fn url(&self) -> String {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() {
                [127, 0, 0, 1].into()
            } else {
                [0, 0, 0, 0, 0, 0, 0, 1].into()
            });
        }
        format!("http://{address}")
    }

    /// Serves the router within [`LIMITS`] until the stopper is dropped.
    pub(crate) fn serve(self, router: Router, stopper: Stopper) -> Server {
        let stop = stopper.stop();
        Server { stopper, serving: tokio::spawn(serve(self.listener, router, stop, LIMITS)) }
    }
}

/// The limits of a listener. Handlers limit the size of bodies.
#[derive(Clone, Copy)]
struct Limits {
    /// The maximum number of connections. One more closes the oldest.
    max_connections: usize,
    /// The timeout for the head of a request, also of the next one on the same connection.
    head_timeout: Duration,
    /// The timeout for a connection with all of its requests.
    connection_timeout: Duration,
    max_head_bytes: usize,
}

/// The head timeout is longer than the worker's limit for an unused connection (20 s), so the worker never sends into
/// a closing one. The connection timeout is long because a test or an operator may hold a call.
const LIMITS: Limits = Limits {
    max_connections: 8192,
    head_timeout: Duration::from_mins(1),
    connection_timeout: Duration::from_mins(30),
    max_head_bytes: 64 * 1024,
};

/// The pause after an error of `accept`, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

async fn serve(listener: TcpListener, router: Router, stop: Stop, limits: Limits) {
    let mut connections = JoinSet::new();
    let mut oldest_first: VecDeque<AbortHandle> = VecDeque::new();
    while let Some(accepted) = stop.or(listener.accept()).await {
        let Ok((stream, _)) = accepted else {
            sleep(PAUSE).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        oldest_first.retain(|connection| !connection.is_finished());
        while oldest_first.len() >= limits.max_connections.max(1) {
            if let Some(oldest) = oldest_first.pop_front() {
                oldest.abort();
            }
        }
        let connection = serve_connection(stream, router.clone(), stop.clone(), limits);
        oldest_first.push_back(connections.spawn(connection));
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve_connection(stream: TcpStream, router: Router, stop: Stop, limits: Limits) {
    let connection = Connection(Arc::default());
    let socket = Socket { stream, cut: connection.0.clone() };
    let router = router.layer(Extension(ConnectInfo(connection)));
    let mut serving = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head_timeout)
            .max_buf_size(limits.max_head_bytes)
            .serve_connection(TokioIo::new(socket), TowerToHyperService::new(router))
    );
    // An error of a connection affects its client only.
    let served = async {
        if stop.or(serving.as_mut()).await.is_none() {
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
    };
    let _ = timeout(limits.connection_timeout, served).await;
}

/// A running server. Dropping it stops it without waiting for the end.
pub(crate) struct Server {
    stopper: Stopper,
    serving: JoinHandle<()>,
}

impl Server {
    /// Accepts no new connection, ends waiting calls, and lets the others finish.
    pub(crate) async fn stop(mut self) {
        drop(self.stopper);
        if timeout(GRACE_PERIOD, &mut self.serving).await.is_err() {
            self.serving.abort();
        }
    }
}

/// The handle that stops the server when it is dropped, even by a test that panics.
pub(crate) struct Stopper(watch::Sender<()>);

/// The signal to stop, for everything that waits inside the server.
#[derive(Clone)]
pub(crate) struct Stop(watch::Receiver<()>);

impl Stopper {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(()))
    }

    pub(crate) fn stop(&self) -> Stop {
        Stop(self.0.subscribe())
    }
}

impl Stop {
    pub(crate) async fn requested(&self) {
        // Nothing is ever sent. The only change is that the sender is dropped.
        while self.0.clone().changed().await.is_ok() {}
    }

    /// Returns the future's output, or `None` if the server stops first.
    pub(crate) async fn or<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            output = future => Some(output),
            () = self.requested() => None,
        }
    }
}

/// The way a connection ends without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// A TCP RST: the client reads "connection reset by peer".
    Reset,
    /// A TCP FIN: the client reads the end of the stream instead of an answer.
    Close,
}

/// A handle to the connection of a request.
#[derive(Clone)]
pub(crate) struct Connection(Arc<OnceLock<Cut>>);

impl Connection {
    /// Stops all bytes from now on. hyper drops the socket at its next read or write.
    pub(crate) fn cut(&self, cut: Cut) {
        // The first cut of a connection decides.
        let _ = self.0.set(cut);
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(&self.0.get()).finish()
    }
}

/// A TCP stream on which every operation fails once it is cut.
struct Socket {
    stream: TcpStream,
    cut: Arc<OnceLock<Cut>>,
}

impl Socket {
    fn check(&self) -> io::Result<()> {
        let Some(cut) = self.cut.get() else { return Ok(()) };
        if *cut == Cut::Reset {
            // Without lingering, closing the socket sends RST instead of FIN.
            self.stream.set_zero_linger()?;
        }
        Err(io::ErrorKind::ConnectionAborted.into())
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SHORT: Limits = Limits {
        max_connections: 4,
        head_timeout: Duration::from_millis(200),
        connection_timeout: Duration::from_millis(500),
        max_head_bytes: 8192,
    };
    const LONG: Duration = Duration::from_mins(1);

    async fn start(limits: Limits) -> (SocketAddr, Stopper) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stopper) = (listener.local_addr().unwrap(), Stopper::new());
        let held = get(async || std::future::pending::<()>().await);
        let router = Router::new().route("/", get(async || "well")).route("/held", held);
        tokio::spawn(serve(listener, router, stopper.stop(), limits));
        (address, stopper)
    }

    async fn sent(address: SocketAddr, request: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The stream may close before the whole request is written.
        let _ = stream.write_all(request).await;
        stream
    }

    /// Reads until the peer closes.
    async fn answer(mut stream: TcpStream) -> String {
        let mut answer = Vec::new();
        let ended = timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
        let _ = ended.expect("the connection ends");
        String::from_utf8_lossy(&answer).into_owned()
    }

    const WELL: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

    #[tokio::test]
    async fn time_and_size_of_requests_are_limited() {
        let (address, _stopper) = start(SHORT).await;
        assert!(answer(sent(address, WELL).await).await.ends_with("well"));
        assert_eq!(answer(sent(address, b"GET / HTTP/1.1\r\nhos").await).await, "");
        assert_eq!(answer(sent(address, b"").await).await, "");
        assert_eq!(answer(sent(address, b"GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await).await, "");
        let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(9000));
        assert!(answer(sent(address, long.as_bytes()).await).await.starts_with("HTTP/1.1 431"));
    }

    #[tokio::test]
    async fn one_connection_too_many_closes_the_oldest() {
        let limits = Limits { head_timeout: LONG, connection_timeout: LONG, ..SHORT };
        let (address, _stopper) = start(limits).await;
        let mut half = Vec::new();
        for _ in 0..20 {
            half.push(sent(address, b"GET /").await);
        }
        assert!(answer(sent(address, WELL).await).await.ends_with("well"));
        for stream in half.into_iter().take(16) {
            assert_eq!(answer(stream).await, "");
        }
    }
}
