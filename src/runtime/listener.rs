//! Serves HTTP within limits of time, size and connections, because the port may be reachable for anyone.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use anyhow::Context;
use axum::{Router, extract::DefaultBodyLimit};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinHandle, JoinSet},
    time::{sleep, timeout},
};

/// Limits of a listener.
#[derive(Debug, Clone, Copy)]
pub struct ListenerLimits {
    /// Maximum number of connections. One more closes the oldest, so that a flood cannot lock probes out.
    pub max_connections: usize,
    /// Limit for receiving a request's head, also of the next request over the same connection.
    pub head_timeout: Duration,
    /// Limit of a connection with all of its requests.
    pub connection_timeout: Duration,
    /// Maximum size of a request's line and headers, in bytes.
    pub max_head_bytes: usize,
    /// Maximum size of a request's body, in bytes.
    pub max_body_bytes: usize,
}

/// A server of a listener, if there is one. It serves until this is dropped.
#[derive(Default)]
pub struct Server(Option<AbortHandle>);

impl Server {
    /// Makes the server of a task that serves.
    pub fn of(task: JoinHandle<()>) -> Self {
        Self(Some(task.abort_handle()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(server) = &self.0 {
            server.abort();
        }
    }
}

/// Binds the address of a setting, if it has one.
///
/// # Errors
///
/// If the address cannot be bound.
pub async fn bind(setting: &str, listen: Option<SocketAddr>) -> anyhow::Result<Option<TcpListener>> {
    let Some(listen) = listen else { return Ok(None) };
    let listener = TcpListener::bind(listen).await;
    listener.map(Some).with_context(|| format!("{setting}: cannot listen on {listen}"))
}

/// Pause after an error of `accept`, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves without end. Dropping the future ends all connections.
pub async fn serve(listener: TcpListener, router: Router, limits: ListenerLimits) {
    let router = router.layer(DefaultBodyLimit::max(limits.max_body_bytes));
    let mut connections = JoinSet::new();
    let mut oldest_first: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                sleep(PAUSE).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        oldest_first.retain(|connection| !connection.is_finished());
        while oldest_first.len() >= limits.max_connections.max(1) {
            if let Some(oldest) = oldest_first.pop_front() {
                oldest.abort();
            }
        }
        oldest_first.push_back(connections.spawn(serve_connection(stream, router.clone(), limits)));
    }
}

async fn serve_connection(stream: TcpStream, router: Router, limits: ListenerLimits) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(limits.max_head_bytes)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // An error of a connection concerns its client only.
    let _ = timeout(limits.connection_timeout, connection).await;
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LIMITS: ListenerLimits = ListenerLimits {
        max_connections: 4,
        head_timeout: Duration::from_millis(200),
        connection_timeout: Duration::from_millis(500),
        max_head_bytes: 8192,
        max_body_bytes: 1024,
    };

    async fn start(limits: ListenerLimits) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let slow = get(async || std::future::pending::<()>().await);
        let router = Router::new().route("/live", get(async || "live")).route("/slow", slow);
        tokio::spawn(serve(listener, router, limits));
        address
    }

    /// Reads the answer until the other side closes.
    async fn sent(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // It may be closed before all of it was written.
        let _ = stream.write_all(request).await;
        read(stream).await
    }

    async fn read(mut stream: TcpStream) -> String {
        let mut answer = Vec::new();
        let ended = timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
        let _ = ended.expect("the connection ends");
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn half_a_request_ends_with_its_time() {
        let address = start(LIMITS).await;
        let live = sent(address, b"GET /live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert!(live.ends_with("live"), "{live}");
        assert!(!sent(address, b"GET /live HTTP/1.1\r\nhos").await.contains("200"));
        assert_eq!(sent(address, b"").await, "");
        assert_eq!(sent(address, b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await, "");
        let long = format!("GET /live HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(9000));
        assert!(sent(address, long.as_bytes()).await.starts_with("HTTP/1.1 431"));
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_close_the_oldest_and_keep_no_probe_out() {
        let patient = Duration::from_mins(1);
        let address =
            start(ListenerLimits { head_timeout: patient, connection_timeout: patient, ..LIMITS }).await;
        let mut half = Vec::new();
        for _ in 0..20 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /live").await.unwrap();
            half.push(stream);
        }
        let live = sent(address, b"GET /live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert!(live.ends_with("live"), "{live}");
        for stream in half.into_iter().take(16) {
            assert_eq!(read(stream).await, "");
        }
    }
}
