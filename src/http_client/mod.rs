//! The HTTP client of all connectors and webhooks.
//!
//! Every call has limits, and every failure says whether the request may have been sent. The client never follows a redirect,
//! never uses a proxy from the environment and never retries a call that may have been sent.

mod answer;
mod clock;
mod connect;
mod connection;
mod encoding;
mod pool;
#[cfg(test)]
mod tests;

use std::{
    error::Error,
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use reqwest::{
    Body, IntoUrl, RequestBuilder,
    header::{ACCEPT, HeaderValue, USER_AGENT},
};
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;
use url::{Position, Url};

pub use self::{
    answer::{Answer, BodyEnd, StatusAnswer, decimal_seconds},
    clock::PeerClock,
    connect::{BoxError, Resolve, SystemResolver},
};
use self::{
    connect::{Allowance, Connector},
    connection::{Connection, Head, ReadBody, Request, Unanswered, most},
    pool::Pool,
};

/// Limits of every call of one client.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Limit of the connection alone, TLS included.
    pub connect_timeout: Duration,
    /// From the name resolution to the last byte of the answer.
    pub timeout: Duration,
    /// The maximum size of an answer in bytes. The rest is not read.
    pub max_response_bytes: usize,
    /// The maximum number of idle connections to all hosts together.
    pub max_idle: usize,
    /// The peers' clocks, measured by the `Date` of their answers.
    pub clock: Arc<PeerClock>,
    /// Root certificates that replace the system's.
    pub roots: Option<Vec<CertificateDer<'static>>>,
}

/// The reason why there is no whole answer. No variant carries a URL, which may hold a secret.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// Name resolution, connecting or the TLS handshake failed. Nothing was sent.
    #[error("{0}")]
    NotSent(String),
    /// The request may have been carried out.
    #[error("{0}")]
    Unknown(String),
}

/// The client cannot be created.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum NoClient {
    #[error("HTTP: {0}")]
    Http(#[from] reqwest::Error),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// An HTTP client without redirects, environment proxies or retries.
///
/// It builds requests with reqwest and sends them with hyper, so that reads have a limit and a call costs one task.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    /// It only builds requests.
    requests: reqwest::Client,
    connector: Connector,
    pool: Arc<Pool>,
    settings: HttpSettings,
}

/// Returns how long the kernel retransmits the bytes of an abandoned call (`TCP_USER_TIMEOUT`). Until then they may still arrive.
pub fn unacknowledged(timeout: Duration) -> Duration {
    timeout.min(Duration::from_secs(30))
}

impl Client {
    /// Creates a client that resolves names as the system does.
    ///
    /// # Errors
    ///
    /// Returns an error if TLS cannot be set up.
    pub fn new(settings: HttpSettings) -> Result<Self, NoClient> {
        Self::with_resolver(SystemResolver, settings)
    }

    /// Creates a client with its own resolver.
    ///
    /// # Errors
    ///
    /// Returns an error if TLS cannot be set up.
    pub fn with_resolver(resolver: impl Resolve, settings: HttpSettings) -> Result<Self, NoClient> {
        Ok(Self(Arc::new(Inner {
            requests: reqwest::Client::builder().no_proxy().build()?,
            connector: Connector::new(
                resolver,
                settings.roots.as_deref(),
                settings.connect_timeout,
                unacknowledged(settings.timeout),
            )?,
            pool: Pool::new(settings.max_idle),
            settings,
        })))
    }

    /// Returns the maximum duration of one call.
    pub fn timeout(&self) -> Duration {
        self.0.settings.timeout
    }

    /// Starts a GET request.
    pub fn get(&self, url: impl IntoUrl) -> RequestBuilder {
        self.0.requests.get(url)
    }

    /// Starts a POST request.
    pub fn post(&self, url: impl IntoUrl) -> RequestBuilder {
        self.0.requests.post(url)
    }

    /// Sends a request and reads its whole answer, within the request's own timeout or the client's.
    ///
    /// It is not an `async fn`, which would hold the request builder of thousands of calls until the answer.
    ///
    /// # Errors
    ///
    /// Returns an error if the whole answer did not arrive in time.
    pub fn call(&self, request: RequestBuilder) -> impl Future<Output = Result<Answer, CallError>> + Send {
        let outgoing = outgoing(request);
        async move {
            let settings = &self.0.settings;
            #[cfg(fuzzing)]
            return fuzzing::answer(&*outgoing?, settings);
            #[cfg(not(fuzzing))]
            {
                let (mut progress, outgoing) = (Progress::default(), outgoing?);
                let host = outgoing.host();
                let (body, cut) = self.0.send(outgoing, &mut progress).await?;
                let Some(Head { status, mut headers }) = progress.head else { return Err(no_head()) };
                settings.clock.observe(host, &headers);
                let (body, cut) = encoding::decoded(&mut headers, body, cut, settings.max_response_bytes);
                Ok(Answer { status, headers, body, cut })
            }
        }
    }

    /// Sends a request and reads the status line of its answer.
    ///
    /// It also reads the body, so that the connection can be used again. A broken body is not an error.
    ///
    /// # Errors
    ///
    /// Returns an error if no status line arrived in time.
    pub fn call_for_status(
        &self,
        request: RequestBuilder,
    ) -> impl Future<Output = Result<StatusAnswer, CallError>> + Send {
        let outgoing = outgoing(request);
        async move {
            let (mut progress, outgoing) = (Progress::default(), outgoing?);
            let host = outgoing.host();
            let body = self.0.send(outgoing, &mut progress).await;
            let Some(Head { status, headers }) = progress.head else {
                return Err(body.err().unwrap_or_else(no_head));
            };
            self.0.settings.clock.observe(host, &headers);
            let body = match body {
                Ok((_, false)) => BodyEnd::Whole,
                Ok((_, true)) => BodyEnd::Cut,
                Err(CallError::NotSent(reason) | CallError::Unknown(reason)) => BodyEnd::Broken(reason),
            };
            Ok(StatusAnswer { status, headers, body })
        }
    }
}

fn outgoing(request: RequestBuilder) -> Result<Box<PreparedRequest>, CallError> {
    match request.build() {
        Ok(request) => Ok(Box::new(PreparedRequest::new(request))),
        Err(error) => Err(CallError::NotSent(reasons("the request cannot be made", &error.without_url()))),
    }
}

fn no_head() -> CallError {
    CallError::Unknown("the answer has no head".to_owned())
}

/// The progress of a call, for the case that it times out.
#[derive(Default)]
struct Progress {
    /// `true` if any part of the request may have been sent.
    has_left: bool,
    /// The connection that the call shares with other calls.
    shared: Option<Allowance>,
    head: Option<Head>,
}

/// A request, and the parts of it that are needed after it is sent.
struct PreparedRequest {
    url: Url,
    /// The request's own timeout, which replaces the client's.
    timeout: Option<Duration>,
    request: Box<Request>,
}

impl PreparedRequest {
    /// Returns a hash of the host, so that its name need not be stored until the answer.
    fn host(&self) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        self.url.host_str().hash(&mut hasher);
        hasher.finish()
    }

    fn new(mut from: reqwest::Request) -> Self {
        let body = from.body_mut().take().unwrap_or_else(|| Body::from(Bytes::new()));
        let mut request = Box::new(Request::new(body));
        *request.method_mut() = from.method().clone();
        *request.headers_mut() = std::mem::take(from.headers_mut());
        let headers = request.headers_mut();
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(NAME));
        Self { timeout: from.timeout().copied(), url: from.url().clone(), request }
    }
}

impl Inner {
    async fn send(
        &self,
        outgoing: Box<PreparedRequest>,
        progress: &mut Progress,
    ) -> Result<ReadBody, CallError> {
        let PreparedRequest { url, timeout: own, request } = *outgoing;
        let deadline = own.unwrap_or(self.settings.timeout);
        if let Ok(answered) = timeout(deadline, self.exchange(&url, request, progress)).await {
            return answered;
        }
        if let Some(shared) = &progress.shared {
            self.pool.discard(origin(&url), shared);
        }
        match progress.has_left {
            true => Err(CallError::Unknown("timed out".to_owned())),
            false => Err(CallError::NotSent("timed out: could not connect".to_owned())),
        }
    }

    async fn exchange(
        &self,
        url: &Url,
        mut request: Box<Request>,
        progress: &mut Progress,
    ) -> Result<ReadBody, CallError> {
        let origin = origin(url);
        loop {
            let uri = url.as_str().parse();
            *request.uri_mut() = uri.map_err(|_| CallError::NotSent("the URL cannot be sent".to_owned()))?;
            let (mut connection, is_new) = match self.pool.take(origin) {
                Some(connection) => (connection, false),
                // Boxed, because few calls need it and its size would count for every call.
                None => (Box::pin(self.connect(url)).await?, true),
            };
            progress.has_left = true;
            progress.shared = connection.shared();
            match connection.call(request, &self.settings, &mut progress.head).await {
                Ok(body) => {
                    self.pool.keep(origin, connection);
                    return Ok(body);
                }
                Err(Unanswered::Unsent(back, _)) if !is_new => (progress.has_left, request) = (false, back),
                Err(Unanswered::Unsent(_, error)) => {
                    return Err(CallError::NotSent(reasons("the connection broke", &error)));
                }
                Err(Unanswered::Rejected(error)) => {
                    return Err(CallError::NotSent(reasons("rejected unprocessed", &error)));
                }
                Err(Unanswered::Unknown(error)) => {
                    return Err(CallError::Unknown(reasons("the connection broke", &error)));
                }
            }
        }
    }

    async fn connect(&self, url: &Url) -> Result<Connection, CallError> {
        let connecting = async {
            Connection::begin(self.connector.connect(url, most(&self.settings)).await?, &self.settings).await
        };
        connecting.await.map_err(|error: BoxError| CallError::NotSent(reasons("could not connect", &*error)))
    }
}

const NAME: &str = concat!("payout-link-worker/", env!("CARGO_PKG_VERSION"));

/// Returns scheme, host and port.
fn origin(url: &Url) -> &str {
    &url[..Position::BeforePath]
}

/// Formats what happened, and the chain of its causes.
fn reasons(what: &str, error: &(dyn Error + 'static)) -> String {
    let late = error.is::<tokio::time::error::Elapsed>();
    let mut text = if late { format!("timed out: {what}") } else { what.to_owned() };
    let mut cause = Some(error).filter(|_| !late);
    while let Some(reason) = cause {
        text.push_str(": ");
        text.push_str(&reason.to_string());
        cause = reason.source();
    }
    // Some of it comes from the peer, such as the names in its certificate.
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_REASON_CHARS).collect()
}

const MAX_REASON_CHARS: usize = 300;

/// Support for fuzz/: with `fuzzing`, every call returns the answer that was set here. Debug builds have the module so that CI
/// can check the fuzz targets, and never use it.
#[cfg(any(fuzzing, debug_assertions))]
pub mod fuzzing {
    use std::cell::RefCell;

    use super::Answer;
    #[cfg(fuzzing)]
    use super::{CallError, HttpSettings, PreparedRequest};

    thread_local! {
        static ANSWER: RefCell<Option<Answer>> = const { RefCell::new(None) };
    }

    /// Sets the answer of the next calls of this thread.
    pub fn answer_with(answer: Answer) {
        ANSWER.set(Some(answer));
    }

    #[cfg(fuzzing)]
    pub(super) fn answer(outgoing: &PreparedRequest, settings: &HttpSettings) -> Result<Answer, CallError> {
        let answer = ANSWER.with_borrow(Clone::clone);
        let answer = answer
            .ok_or_else(|| CallError::NotSent(format!("{} is not asked", outgoing.request.method())))?;
        assert!(answer.body.len() <= settings.max_response_bytes || answer.cut);
        Ok(answer)
    }
}
