use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
    task::yield_now,
};
use tokio_rustls::TlsAcceptor;

use super::*;

mod answers;
mod http2;

const NO_CONTENT: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

fn settings() -> HttpSettings {
    HttpSettings {
        connect_timeout: Duration::from_secs(10),
        timeout: Duration::from_secs(20),
        max_response_bytes: 1000,
        max_idle: 3,
        roots: None,
        clock: Arc::default(),
    }
}

/// A server that handles each connection as scripted, and counts them.
struct Server {
    url: String,
    connections: Arc<AtomicUsize>,
}

impl Server {
    async fn new<F: Future<Output = ()> + Send>(
        treat: impl Fn(TcpStream) -> F + Clone + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/links?a=1", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, SeqCst);
                let treat = treat.clone();
                tokio::spawn(async move { treat(stream).await });
            }
        });
        Self { url, connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

/// Returns the head of a request, or `None` if the client is gone. Requests of these tests have bodies of two bytes or none.
async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    if head.starts_with("POST") {
        stream.read_exact(&mut [0; 2]).await.ok()?;
    }
    Some(head)
}

#[tokio::test]
async fn calls_one_after_another_share_a_connection_and_are_in_origin_form() {
    // Given a server that leaves connections open,
    #[expect(clippy::disallowed_methods, reason = "a test sends a few requests")]
    let (received, mut requests) = mpsc::unbounded_channel();
    let server = Server::new(move |mut stream| {
        let received = received.clone();
        async move {
            while let Some(head) = request(&mut stream).await {
                received.send(head).unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await.unwrap();
            }
        }
    })
    .await;
    let client = Client::new(settings()).unwrap();
    // when it is called three times,
    for _ in 0..3 {
        let answer = client.call(client.post(&server.url).header("x-a", "b").body("{}")).await.unwrap();
        assert_eq!((answer.status.as_u16(), &answer.body[..], answer.cut), (200, &b"hello"[..], false));
    }
    // then over one connection, each with what a request has to have (RFC 9112, 3.2).
    assert_eq!(server.connections(), 1);
    let head = requests.recv().await.unwrap();
    let host = server.url.trim_start_matches("http://").trim_end_matches("/links?a=1");
    assert!(head.starts_with("POST /links?a=1 HTTP/1.1\r\n"), "{head}");
    for line in [format!("host: {host}"), "x-a: b".into(), "content-length: 2".into(), "accept: */*".into()] {
        assert!(head.contains(&format!("{line}\r\n")), "{line} in {head}");
    }
    assert!(head.contains("user-agent: payout-link-worker/"), "{head}");
}

/// Such a call would be unknown: the server might have read the request before the end.
#[tokio::test]
async fn of_many_hosts_those_called_last_have_their_connections_left_open() {
    // Given more hosts than idle connections are allowed,
    let open = Arc::new(AtomicUsize::new(0));
    let mut servers = Vec::new();
    for _ in 0..6 {
        let open = open.clone();
        let keeps = Server::new(move |mut stream| {
            let open = open.clone();
            async move {
                open.fetch_add(1, SeqCst);
                while request(&mut stream).await.is_some() {
                    stream.write_all(NO_CONTENT).await.unwrap();
                }
                open.fetch_sub(1, SeqCst);
            }
        });
        servers.push(keeps.await);
    }
    // when each is called, and the last once more,
    let client = Client::new(settings()).unwrap();
    for server in servers.iter().chain(servers.last()) {
        client.call(client.get(&server.url)).await.unwrap();
    }
    // then that one was called over the connection that it has, and others are closed.
    assert_eq!(servers.last().unwrap().connections(), 1);
    let closed = async {
        while open.load(SeqCst) > settings().max_idle {
            yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), closed).await.expect("connections beyond the limit are closed");
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_not_called_over() {
    // Given a server that closes each connection on request,
    let (close, closed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (close_now, closed_now) = (close.clone(), closed.clone());
    let server = Server::new(move |mut stream| {
        let (close_now, closed_now) = (close_now.clone(), closed_now.clone());
        async move {
            request(&mut stream).await.unwrap();
            stream.write_all(NO_CONTENT).await.unwrap();
            close_now.notified().await;
            drop(stream);
            closed_now.notify_one();
        }
    })
    .await;
    let client = Client::new(settings()).unwrap();
    for number in 1..=5 {
        // when it closes an idle one,
        client.call(client.post(&server.url).body("{}")).await.unwrap();
        assert_eq!(server.connections(), number);
        close.notify_one();
        closed.notified().await;
        // then the next call is answered, over a new one.
    }
}

#[tokio::test]
async fn a_connection_that_ends_at_once_ends_its_call() {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    // Given a server that takes connections, and closes them sooner or later without a word,
    let server = Server::new(async |mut stream: TcpStream| {
        if TURN.fetch_add(1, SeqCst).is_multiple_of(2) {
            let _ = stream.read_u8().await;
        }
    })
    .await;
    let client = Client::new(settings()).unwrap();
    // then no call waits for its deadline.
    for _ in 0..50 {
        let call = client.call(client.post(&server.url).body("{}"));
        let ended = timeout(Duration::from_secs(10), call).await.expect("an end");
        assert!(ended.is_err());
    }
}

#[tokio::test]
async fn what_is_left_of_an_answer_is_no_start_of_the_next() {
    // Given a server that sends more than is read,
    let server = Server::new(async |mut stream: TcpStream| {
        while request(&mut stream).await.is_some() {
            let answer =
                format!("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n{}", "a".repeat(1_000_000));
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    let client = Client::new(settings()).unwrap();
    for number in 1..=2 {
        let answer = client.call(client.get(&server.url)).await.unwrap();
        // then the answer is cut, and the connection is closed.
        assert_eq!((answer.body.len(), answer.cut), (1000, true));
        assert_eq!(server.connections(), number);
    }
}

/// The connection is gone by the time that some of these are read.
#[tokio::test]
async fn an_answer_is_whole_or_it_is_unknown_however_it_ends() {
    let by_length = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 10\r\n\r\n";
    let in_chunks = "HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let to_the_end = "HTTP/1.1 200 OK\r\n\r\n";
    for (head, body, whole) in [
        (by_length, "helloworld", true),
        (by_length, "hello", false),
        (in_chunks, "5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n", true),
        (in_chunks, "5\r\nhello\r\n5\r\nwo", false),
        (in_chunks, "5\r\nhello\r\n", false),
        (to_the_end, "helloworld", true),
        ("HTTP/1.1 200 OK\r\nconnection:", "", false),
    ] {
        // Given a server that answers so, all at once or a piece after another, and closes,
        for piece in [1, 1000] {
            let answer = format!("{head}{body}");
            let server = Server::new(move |mut stream| {
                let answer = answer.clone();
                async move {
                    request(&mut stream).await.unwrap();
                    for piece in answer.as_bytes().chunks(piece) {
                        stream.write_all(piece).await.unwrap();
                    }
                }
            })
            .await;
            let client = Client::new(settings()).unwrap();
            // then what was sent whole is there, and of what was not nothing is taken for it.
            match client.call(client.post(&server.url).body("{}")).await {
                Ok(answer) => {
                    assert_eq!((&answer.body[..], whole), (&b"helloworld"[..], true), "{head}{body}");
                }
                Err(CallError::Unknown(_)) => assert!(!whole, "{head}{body}"),
                Err(CallError::NotSent(reason)) => panic!("{head}{body}: {reason}"),
            }
        }
    }
}

#[tokio::test]
async fn no_more_is_taken_in_than_an_answer_may_have() {
    // Given a server that sends interim answers without end,
    let server = Server::new(async |mut stream: TcpStream| {
        request(&mut stream).await.unwrap();
        while stream.write_all(&b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000)).await.is_ok() {}
    })
    .await;
    let client = Client::new(settings()).unwrap();
    // then the call ends long before its time, and it is not known what became of it.
    let Err(CallError::Unknown(reason)) = client.call(client.post(&server.url).body("{}")).await else {
        panic!("an answer, or none for certain")
    };
    assert!(reason.contains("the peer sent more than an answer may have"), "{reason}");
}

#[tokio::test]
async fn what_ends_before_the_request_has_left_was_not_sent() {
    let silent = Server::new(async |_stream| std::future::pending().await).await;
    let soon = HttpSettings {
        connect_timeout: Duration::from_millis(50),
        timeout: Duration::from_millis(300),
        ..settings()
    };
    let client = Client::new(soon.clone()).unwrap();
    // A handshake that is not answered,
    let encrypted = silent.url.replace("http:", "https:");
    for client in [
        client.clone(),
        Client::new(HttpSettings { connect_timeout: Duration::from_mins(1), ..soon }).unwrap(),
    ] {
        let Err(CallError::NotSent(reason)) = client.call(client.get(&encrypted)).await else { panic!() };
        assert!(reason.starts_with("timed out: could not connect"), "{reason}");
    }
    // nobody who listens,
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let Err(CallError::NotSent(reason)) = client.call(client.get(format!("http://{nobody}/"))).await else {
        panic!()
    };
    assert!(reason.starts_with("could not connect: "), "{reason}");
    // but after the request was sent, silence means unknown.
    let Err(CallError::Unknown(reason)) = client.call(client.get(&silent.url)).await else { panic!() };
    assert_eq!(reason, "timed out");
}

/// The URL may hold a secret.
#[tokio::test]
async fn no_failure_names_its_url() {
    let client = Client::new(settings()).unwrap();
    for url in ["http://127.0.0.1:1/canary", "canary://a/", "http://[::1/canary", "https://canary.invalid/"] {
        if let Err(CallError::NotSent(reason) | CallError::Unknown(reason)) =
            client.call(client.get(url)).await
        {
            assert!(!reason.contains("canary"), "{url}: {reason}");
        }
    }
}
