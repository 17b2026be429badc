//! Malformed and unusual answers.

use super::*;

/// Starts a server that sends these bytes, then closes the connection or keeps silent.
async fn sends(answer: Vec<u8>, then_closes: bool) -> Server {
    Server::new(move |mut stream| {
        let answer = answer.clone();
        async move {
            request(&mut stream).await.unwrap();
            let _ = stream.write_all(&answer).await;
            if !then_closes {
                std::future::pending::<()>().await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_status_is_read_whatever_becomes_of_the_body() {
    for (answer, then_closes) in [
        ("content-length: 5\r\n\r\nhe", false),
        ("transfer-encoding: chunked\r\n\r\n2\r\n: \r\n", false),
        ("content-length: 100\r\n\r\nok", true),
        ("transfer-encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n", true),
        ("transfer-encoding: chunked\r\n\r\n2\r\nok\r\n", true),
    ] {
        let server = sends(format!("HTTP/1.1 200 OK\r\n{answer}").into(), then_closes).await;
        let soon = HttpSettings { timeout: Duration::from_millis(500), ..settings() };
        let client = Client::new(soon).unwrap();
        // A caller that needs the status gets it,
        let status = client.call_for_status(client.post(&server.url).body("{}")).await.unwrap();
        assert_eq!(status.status.as_u16(), 200);
        assert!(matches!(status.body, BodyEnd::Broken(_)), "{answer:?}: {:?}", status.body);
        // and for a caller that needs the body the outcome is unknown.
        let answered = client.call(client.post(&server.url).body("{}")).await;
        assert!(matches!(answered, Err(CallError::Unknown(_))), "{answer:?}: {answered:?}");
    }
    let server = sends(NO_CONTENT.to_vec(), true).await;
    let client = Client::new(settings()).unwrap();
    let status = client.call_for_status(client.get(&server.url)).await.unwrap();
    assert_eq!((status.status.as_u16(), status.body), (204, BodyEnd::Whole));
    // Without a status there is nothing.
    let server = sends(b"HTTP/1.1 2".to_vec(), true).await;
    let status = client.call_for_status(client.get(&server.url)).await;
    assert!(matches!(status, Err(CallError::Unknown(_))), "{status:?}");
}

#[tokio::test]
async fn heads_are_taken_as_other_clients_take_them() {
    let many: String = (0..300).map(|number| format!("x-h{number}: 1\r\n")).collect();
    for head in ["x-long: a\r\n b\r\n", &many, "Expires : x\r\n", "Set-Cookie: a=b\x01c; path=/\r\n"] {
        let answer = format!("HTTP/1.1 200 OK\r\n{head}content-length: 2\r\n\r\nok");
        let server = sends(answer.into(), false).await;
        let client = Client::new(settings()).unwrap();
        let answer = client.call(client.get(&server.url)).await.unwrap();
        assert_eq!(&answer.body[..], b"ok", "{head}");
    }
    // A folded line is read whole: what is left out otherwise is the rest of the value.
    let server =
        sends(b"HTTP/1.1 200 OK\r\nx-long: a\r\n b\r\ncontent-length: 0\r\n\r\n".to_vec(), false).await;
    let client = Client::new(settings()).unwrap();
    let answer = client.call(client.get(&server.url)).await.unwrap();
    let words: Vec<&str> = answer.headers["x-long"].to_str().unwrap().split_whitespace().collect();
    assert_eq!(words, ["a", "b"]);
    // There still is an end to it.
    let endless = format!("HTTP/1.1 200 OK\r\n{}", format!("x: {}\r\n", "a".repeat(1000)).repeat(100));
    let server = sends(endless.into(), false).await;
    let client = Client::new(settings()).unwrap();
    let answered = client.call(client.get(&server.url)).await;
    assert!(matches!(answered, Err(CallError::Unknown(_))), "{answered:?}");
}

#[tokio::test]
async fn a_body_that_comes_compressed_is_read() {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(b"hello").unwrap();
    let body = encoder.finish().unwrap();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", body.len());
    let server = sends([head.as_bytes(), &body].concat(), false).await;
    let client = Client::new(settings()).unwrap();
    let answer = client.call(client.get(&server.url)).await.unwrap();
    assert_eq!((&answer.body[..], answer.unread_encoding()), (&b"hello"[..], None));
}
