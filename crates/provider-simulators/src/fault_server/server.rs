//! An HTTP server whose connections can be cut without an answer, and which always stops on request.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long connections may take to finish once the server stops; then they are left to the runtime.
const GRACE_PERIOD: Duration = Duration::from_secs(5);

/// A listening socket that already knows its address, so that a router can be built around it.
pub(crate) struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

impl Bound {
    pub(crate) async fn to(listen: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        Ok(Self { address: listener.local_addr()?, listener })
    }

    /// Where a client on this machine reaches the server.
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

    /// Serves the router until the stopper is dropped.
    pub(crate) fn serve(self, router: Router, stopper: Stopper) -> Server {
        let stop = stopper.stop();
        let service = router.into_make_service_with_connect_info::<Connection>();
        let serving = axum::serve(CuttableListener(self.listener), service)
            .with_graceful_shutdown(async move { stop.requested().await });
        Server { stopper, serving: tokio::spawn(async move { serving.await }) }
    }
}

/// A running server; dropping it stops it as well, without waiting for the end.
pub(crate) struct Server {
    stopper: Stopper,
    serving: JoinHandle<io::Result<()>>,
}

impl Server {
    /// Takes no new connection, ends the calls that wait for something, and lets the others finish.
    pub(crate) async fn stop(mut self) {
        drop(self.stopper);
        if tokio::time::timeout(GRACE_PERIOD, &mut self.serving).await.is_err() {
            self.serving.abort();
        }
    }
}

/// Dropping the stopper is the signal to stop: it cannot be forgotten, not even by a test that panics.
pub(crate) struct Stopper(watch::Sender<()>);

/// What everything that waits inside the server waits for as well.
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
        // Nothing is ever sent: the only change is that the sender has gone.
        while self.0.clone().changed().await.is_ok() {}
    }

    /// The future's output, or nothing where the server stops first.
    pub(crate) async fn or<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            output = future => Some(output),
            () = self.requested() => None,
        }
    }
}

/// How a connection ends without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// TCP RST: the client reads "connection reset by peer".
    Reset,
    /// TCP FIN: the client reads the end of the stream where an answer should be.
    Close,
}

/// The handler's hold on the connection that its request came by.
#[derive(Clone)]
pub(crate) struct Connection(Arc<OnceLock<Cut>>);

impl Connection {
    /// From now on not one byte passes; hyper drops the socket at its next read or write.
    pub(crate) fn cut(&self, cut: Cut) {
        // A connection that was cut already stays cut the way it was.
        let _ = self.0.set(cut);
    }
}

impl Connected<IncomingStream<'_, CuttableListener>> for Connection {
    fn connect_info(stream: IncomingStream<'_, CuttableListener>) -> Self {
        Self(stream.io().cut.clone())
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(&self.0.get()).finish()
    }
}

/// Accepts connections and gives each the means to be cut.
pub(crate) struct CuttableListener(TcpListener);

impl Listener for CuttableListener {
    type Io = Socket;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Socket, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        (Socket { stream, cut: Arc::default() }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// A TCP stream that fails every operation once it is cut.
pub(crate) struct Socket {
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
