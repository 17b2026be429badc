//! Connecting: name resolution, TCP and TLS. No part of a request is sent before it succeeds.

use std::{
    error::Error,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::future::BoxFuture;
use hyper_util::{
    client::legacy::connect::{HttpConnector, dns},
    rt::TokioIo,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName},
};
use rustls_platform_verifier::Verifier;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tower_service::Service;
use url::{Host, Url};

use crate::lock::lock;

/// A boxed error.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A resolver of host names. It is never called for literal addresses.
pub trait Resolve: Send + Sync + 'static {
    /// Resolves a name to its addresses.
    ///
    /// # Errors
    ///
    /// Returns an error if the name has no usable address.
    fn resolve(&self, host: String) -> BoxFuture<'static, Result<Vec<SocketAddr>, BoxError>>;
}

/// The system's resolver.
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host: String) -> BoxFuture<'static, Result<Vec<SocketAddr>, BoxError>> {
        Box::pin(async move { Ok(lookup_host((host, 0)).await?.collect()) })
    }
}

pub(super) struct Connector {
    tcp: HttpConnector<Names>,
    tls: TlsConnector,
    /// The maximum duration of all steps together.
    patience: Duration,
}

/// The number of bytes that may still be read.
pub(super) type Allowance = Arc<AtomicUsize>;

/// A connection before the HTTP handshake.
pub(super) struct Connected {
    pub(super) io: Io,
    pub(super) allowance: Allowance,
    pub(super) is_http2: bool,
}

pub(super) type Io = TokioIo<Box<dyn Stream>>;

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The TCP keep-alive interval. A peer that answers none of the probes is gone, and the connection ends.
const KEEPALIVE: Duration = Duration::from_secs(15);

impl Connector {
    /// Creates a connector. `roots` replaces the system's root certificates.
    pub(super) fn new(
        resolver: impl Resolve,
        roots: Option<&[CertificateDer<'static>]>,
        patience: Duration,
        unacknowledged: Duration,
    ) -> Result<Self, rustls::Error> {
        let mut tcp = HttpConnector::new_with_resolver(Names(Arc::new(resolver)));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE));
        tcp.set_keepalive_retries(Some(3));
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(unacknowledged));
        // Several addresses share this time.
        tcp.set_connect_timeout(Some(patience));
        Ok(Self { tcp, tls: TlsConnector::from(Arc::new(tls(roots)?)), patience })
    }

    /// Connects; `most` limits the bytes that are read before a request is sent, such as certificates.
    pub(super) async fn connect(&self, url: &Url, most: usize) -> Result<Connected, BoxError> {
        let connecting = self.in_its_time(url, most);
        timeout(self.patience, connecting).await.unwrap_or_else(|late| Err(late.into()))
    }

    async fn in_its_time(&self, url: &Url, most: usize) -> Result<Connected, BoxError> {
        let tcp = self.tcp.clone().call(url.as_str().parse()?).await?.into_inner();
        let allowance = Arc::new(AtomicUsize::new(most));
        let metered = Metered { stream: tcp, allowance: allowance.clone() };
        if url.scheme() != "https" {
            let io = TokioIo::new(Box::new(metered) as Box<dyn Stream>);
            return Ok(Connected { io, allowance, is_http2: false });
        }
        let name = match url.host() {
            // Certificates do not contain the trailing dot of the root.
            Some(Host::Domain(name)) => {
                ServerName::try_from(name.strip_suffix('.').unwrap_or(name).to_owned())?
            }
            Some(Host::Ipv4(address)) => ServerName::IpAddress(std::net::IpAddr::from(address).into()),
            Some(Host::Ipv6(address)) => ServerName::IpAddress(std::net::IpAddr::from(address).into()),
            None => return Err("the URL has no host".into()),
        };
        let encrypted = self.tls.connect(name, metered).await?;
        let is_http2 = encrypted.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Connected { io: TokioIo::new(Box::new(encrypted) as Box<dyn Stream>), allowance, is_http2 })
    }
}

fn tls(roots: Option<&[CertificateDer<'static>]>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match roots {
        None => builder.dangerous().with_custom_certificate_verifier(system(provider)?),
        Some(roots) => {
            let mut store = RootCertStore::empty();
            roots.iter().try_for_each(|root| store.add(root.clone()))?;
            builder.with_root_certificates(store)
        }
    };
    let mut tls = builder.with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

/// Returns the verifier for the system's certificates. These are a few hundred files, read once for all clients.
fn system(provider: Arc<CryptoProvider>) -> Result<Arc<Verifier>, rustls::Error> {
    static SYSTEM: Mutex<Option<Arc<Verifier>>> = Mutex::new(None);
    let mut system = lock(&SYSTEM);
    let verifier = match &*system {
        Some(verifier) => verifier.clone(),
        None => Arc::new(Verifier::new(provider)?),
    };
    Ok(system.insert(verifier).clone())
}

#[derive(Clone)]
struct Names(Arc<dyn Resolve>);

impl Service<dns::Name> for Names {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: dns::Name) -> Self::Future {
        let resolving = self.0.resolve(name.as_str().to_owned());
        Box::pin(async move { Ok(resolving.await?.into_iter()) })
    }
}

/// A stream that reads no more than its allowance.
///
/// hyper reads interim answers (1xx) in one poll for as long as they come. Without the limit a server could occupy a thread.
struct Metered {
    stream: TcpStream,
    allowance: Allowance,
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.allowance.load(Relaxed) == 0 {
            return Poll::Ready(Err(io::Error::other("the peer sent more than an answer may have")));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let taken = buffer.filled().len() - before;
        // Over HTTP/2 another call may increase it concurrently.
        let _ = self.allowance.fetch_update(Relaxed, Relaxed, |left| Some(left.saturating_sub(taken)));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
