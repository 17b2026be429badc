//! Tests the parts of HTTP/2 alone: a connection that calls share, PING, GOAWAY, resets.

use futures_util::future::BoxFuture;
use tokio_rustls::server::TlsStream;

use super::*;

/// Returns a server's certificate for `localhost`, and a client that trusts it.
fn tls(settings: HttpSettings) -> (TlsAcceptor, Client) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let mut tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let settings = HttpSettings { roots: Some(vec![cert.der().clone()]), ..settings };
    (TlsAcceptor::from(Arc::new(tls)), Client::with_resolver(Loopback, settings).unwrap())
}

/// Each name is this machine.
struct Loopback;

impl Resolve for Loopback {
    fn resolve(&self, _host: String) -> BoxFuture<'static, Result<Vec<std::net::SocketAddr>, BoxError>> {
        Box::pin(async { Ok(vec![([127, 0, 0, 1], 0).into()]) })
    }
}

fn named(server: &Server, host: &str) -> String {
    server.url.replace("http://127.0.0.1", &format!("https://{host}"))
}

fn answered(respond: &mut h2::server::SendResponse<Bytes>) {
    let answer = hyper::Response::builder().status(201).body(()).unwrap();
    respond.send_response(answer, false).unwrap().send_data("hello".into(), true).unwrap();
}

/// Starts a server of HTTP/2 over TLS that answers every request until it is asked to close.
async fn http2(stream: TcpStream, acceptor: TlsAcceptor, close: Arc<Notify>) {
    let mut connection = h2::server::handshake(acceptor.accept(stream).await.unwrap()).await.unwrap();
    loop {
        tokio::select! {
            accepted = connection.accept() => {
                let Some(Ok((request, mut respond))) = accepted else { return };
                assert_eq!(request.uri().path(), "/links");
                assert!(request.headers().get("host").is_none());
                answered(&mut respond);
            }
            () = close.notified() => connection.graceful_shutdown(),
        }
    }
}

#[tokio::test]
async fn over_http2_calls_share_a_connection_until_it_is_closed() {
    // Given a server that speaks HTTP/2 where it is asked to,
    let ((acceptor, client), close) = (tls(settings()), Arc::new(Notify::new()));
    let closing = close.clone();
    let server = Server::new(move |stream| http2(stream, acceptor.clone(), closing.clone())).await;
    // A root behind the name is nothing that its certificate has.
    let url = named(&server, "localhost.");
    let call = async || {
        let answer = client.call(client.post(&url).header("host", "other").body("{}")).await.unwrap();
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (201, &b"hello"[..]));
    };
    // then calls one after another, and at once, go over one connection;
    call().await;
    futures_util::future::join_all((0..20).map(|_| call())).await;
    assert_eq!(server.connections(), 1);
    // after it was closed they go over another.
    close.notify_one();
    while server.connections() == 1 {
        call().await;
    }
    call().await;
    assert_eq!(server.connections(), 2);
}

/// Answers one request over the first connection, then keeps it open without reading on; all requests over others.
async fn dumb(stream: TcpStream, acceptor: TlsAcceptor, made: Arc<AtomicUsize>) {
    let is_dumb = made.fetch_add(1, SeqCst) == 0;
    let mut connection = h2::server::handshake(acceptor.accept(stream).await.unwrap()).await.unwrap();
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        answered(&mut respond);
        if is_dumb {
            // The answer has to leave first.
            let _ = timeout(Duration::from_millis(50), connection.accept()).await;
            std::future::pending::<()>().await;
        }
    }
}

#[tokio::test]
async fn a_connection_that_a_call_timed_out_over_is_not_called_over_again() {
    // Given a server whose first connection falls silent, and a call over it that comes to its end by its own time, before any PING,
    let (acceptor, client) = tls(settings());
    let made = Arc::default();
    let server = Server::new(move |stream| dumb(stream, acceptor.clone(), Arc::clone(&made))).await;
    let url = named(&server, "localhost");
    client.call(client.get(&url)).await.unwrap();
    let late = client.call(client.get(&url).timeout(Duration::from_millis(300))).await;
    assert!(matches!(late, Err(CallError::Unknown(ref reason)) if reason == "timed out"), "{late:?}");
    // then the next one is answered, over another.
    client.call(client.get(&url)).await.unwrap();
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_connection_that_stops_answering_is_found_by_ping() {
    // Given a server whose first connection falls silent, when a call waits over it,
    let (acceptor, client) = tls(HttpSettings { timeout: Duration::from_secs(8), ..settings() });
    let made = Arc::default();
    let server = Server::new(move |stream| dumb(stream, acceptor.clone(), Arc::clone(&made))).await;
    let url = named(&server, "localhost");
    client.call(client.get(&url)).await.unwrap();
    // then it ends before its time, unknown, and the next one is answered.
    let Err(CallError::Unknown(reason)) = client.call(client.get(&url)).await else { panic!("an answer") };
    assert!(reason.contains("keep-alive timed out"), "{reason}");
    client.call(client.get(&url)).await.unwrap();
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_stream_that_the_server_rejects_was_not_sent_and_any_other_reset_is_unknown() {
    for (reason, is_sent) in [
        (h2::Reason::REFUSED_STREAM, false),
        (h2::Reason::INTERNAL_ERROR, true),
        (h2::Reason::CANCEL, true),
        (h2::Reason::NO_ERROR, true),
    ] {
        let (acceptor, client) = tls(settings());
        let server = Server::new(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let mut connection =
                    h2::server::handshake(acceptor.accept(stream).await.unwrap()).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    respond.send_reset(reason);
                }
            }
        })
        .await;
        match client.call(client.post(named(&server, "localhost")).body("{}")).await {
            Err(CallError::NotSent(said)) => {
                assert!(!is_sent && said.contains("refused"), "{reason}: {said}");
            }
            Err(CallError::Unknown(_)) => assert!(is_sent, "{reason}"),
            Ok(answer) => panic!("{reason}: {answer:?}"),
        }
    }
}

const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const HEADERS: u8 = 1;

/// Returns a frame of the connection itself.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, 0, 0, 0, 0, 0], payload].concat()
}

/// Waits until the head of a request is there.
async fn received_request(stream: &mut TlsStream<TcpStream>) {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        stream.read_exact(&mut vec![0; length as usize]).await.unwrap();
        if head[3] == HEADERS {
            return;
        }
    }
}

#[tokio::test]
async fn a_stream_above_the_last_of_goaway_was_not_sent_and_one_below_is_unknown() {
    for (last, error, is_sent) in [(0_u32, 0_u32, false), (0, 2, false), (1, 0, true), (1, 2, true)] {
        let (acceptor, client) = tls(settings());
        let server = Server::new(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let mut stream = acceptor.accept(stream).await.unwrap();
                stream.write_all(&frame(SETTINGS, &[])).await.unwrap();
                received_request(&mut stream).await;
                let goaway = [last.to_be_bytes(), error.to_be_bytes()].concat();
                stream.write_all(&frame(GOAWAY, &goaway)).await.unwrap();
                let _ = stream.shutdown().await;
            }
        })
        .await;
        match client.call(client.post(named(&server, "localhost")).body("{}")).await {
            Err(CallError::NotSent(said)) => assert!(!is_sent, "{last} {error}: {said}"),
            Err(CallError::Unknown(said)) => assert!(is_sent, "{last} {error}: {said}"),
            Ok(answer) => panic!("{answer:?}"),
        }
    }
}
