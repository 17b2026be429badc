//! Tests input from outside: providers that repeat secrets or send garbage, and merchants whose answers break off.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use tokio_rustls::TlsAcceptor;

use crate::support::{Authority, Setup, TestEnv, eventually, job};

#[tokio::test(flavor = "multi_thread")]
async fn a_conclusion_that_the_database_rejects_ends_as_unknown_and_is_reported() {
    // Given a database that rejects the link of one payout, for a reason that no check of the answer knows,
    let env = TestEnv::new().await;
    env.start_worker().await.stop().await;
    let rejects = "ALTER TABLE payout_links ADD CONSTRAINT of_the_test
        CHECK (merchant_payout_id <> 'po_1' OR connector_payout_id IS NULL)";
    sqlx::query(rejects).execute(&env.pool).await.unwrap();
    // when it is created beside another one,
    for id in ["po_1", "po_2"] {
        env.publish(job(id).connector("mute").with("webhook_url", env.webhook_url())).await;
    }
    let worker = env.start_worker().await;
    // then its merchant gets the truth once, and the other payout is created.
    let pending = env.result_of("po_1").await;
    assert_eq!(pending.kind(), "payout_link.pending");
    assert_eq!(pending.error_code().as_deref(), Some("OUTCOME_UNKNOWN"));
    assert_eq!(env.result_of("po_2").await.kind(), "payout_link.created");
    env.webhooks(2).await;
    assert!(worker.stop().await.success());
    assert_eq!((env.results_of("po_1").len(), env.provider.ledger().links.len()), (1, 2));
    assert_eq!(env.shown("po_1").unwrap()["state"], "unknown");
}

/// Starts a server that answers each request with these bytes, then closes the connection or stays silent.
async fn answering(answer: Vec<u8>, then_closes: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut stream = stream;
                let _ = request(&mut stream).await;
                let _ = stream.write_all(&answer).await;
                if !then_closes {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    address
}

/// Reads one request with its body.
async fn request(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    stream.read_exact(&mut vec![0; length.unwrap_or(0)]).await?;
    Ok(())
}

fn json_answer(status: u16, headers: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    format!("{head}{headers}connection: close\r\n\r\n{body}").into_bytes()
}

/// Builds a test environment whose connector `odd` answers with these bytes.
async fn env_that_answers(answer: Vec<u8>, settings: &str) -> TestEnv {
    let address = answering(answer, true).await;
    let section = format!(
        "\n[connectors.odd]\nkind = \"sandbox\"\nurl = \"http://{address}\"\ntoken = \"sk_live_canary_0042\"\n{settings}\ncalls = {{ timeout_seconds = 5 }}\n"
    );
    Setup::default().connector(&section).set("retry.max_age_seconds", 2).build().await
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_a_provider_repeats_are_redacted_everywhere() {
    // Given a provider that repeats the credential, and the card number in groups and across the limit of its text,
    let message = format!(
        "not allowed: Bearer sk_live_canary_0042, sk_live%5Fcanary%5F0042, 4929 4205 7359 5709 {}4929420573595709",
        "x".repeat(410)
    );
    let error = json!({ "error": { "code": "denied_sk_live_canary_0042", "message": message, "reason": "sk_live_canary_0042" } });
    let env = env_that_answers(json_answer(400, "", &error), "").await;
    let worker = env.start_worker().await;
    let card = json!({ "card": { "card_number": "4929420573595709", "card_exp_month": "01", "card_exp_year": "2030" } });
    // when it declines a job,
    let refused =
        job("po_1").connector("odd").with("payout_method_data", card).with("webhook_url", env.webhook_url());
    env.publish(refused).await;
    let result = env.result_of("po_1").await;
    let webhook = env.webhooks(1).await.remove(0);
    let shown = env.wait_until_delivered("po_1").await;
    let check = env.run(&["check"]);
    // then no part of it is in the result, the webhook, the log, the database, or on a terminal.
    assert_eq!(result.kind(), "payout_link.failed");
    let texts = [
        ("result", String::from_utf8_lossy(&result.body).into_owned()),
        ("webhook", webhook.body.clone()),
        ("log", worker.log()),
        ("database", env.dump().await),
        ("show", shown.to_string()),
        ("check", String::from_utf8_lossy(&check.stdout).into_owned()),
    ];
    for (place, text) in texts {
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        for run in ["canary_0042", "_canary", "canary%5F"] {
            assert!(!text.contains(run), "{run} in the {place}: {text}");
        }
        // `check` is about no job, so it does not know the card number.
        assert!(place == "check" || !digits.contains("4929420"), "the card in the {place}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identifier_that_cannot_be_passed_on_makes_the_outcome_unknown() {
    for id in ["plink_\u{0}", "plink_\u{1b}[2J\u{7}", &"p".repeat(256)] {
        // Given a provider that creates a link with such an identifier, and has no look-up,
        let link = json!({ "id": id, "status": "issued", "url": "https://pay.example.com/1" });
        let env = env_that_answers(json_answer(201, "", &link), "replay = \"never\"").await;
        let _worker = env.start_worker().await;
        env.publish(job("po_1").connector("odd")).await;
        // then the outcome is unknown, and no result has the identifier.
        let result = env.result_of("po_1").await;
        assert_eq!(result.kind(), "payout_link.pending", "{id:?}");
        assert!(!String::from_utf8_lossy(&result.body).contains("plink_"));
        let shown = env.run(&["show", "po_1"]).stdout;
        assert!(!shown.contains(&0x1b) && !shown.contains(&0), "{}", String::from_utf8_lossy(&shown));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_whose_end_cannot_be_read_is_a_link_without_one_and_is_counted() {
    let unreadable =
        [json!("2026-12-01T00:00:00"), json!(1_796_083_200), json!("9999-12-31T23:59:59-01:00"), json!({})];
    for expires_at in unreadable {
        // Given a provider that sends such an end,
        let link = json!({ "id": "plink_1", "status": "issued", "url": "https://pay.example.com/1", "expires_at": expires_at });
        let env = env_that_answers(json_answer(201, "", &link), "replay = \"never\"").await;
        let worker = env.start_worker().await;
        env.publish(job("po_1").connector("odd")).await;
        // then the link is published without an end,
        let result = env.result_of("po_1").await;
        assert_eq!(result.kind(), "payout_link.created", "{expires_at}");
        assert_eq!(result.json()["payout_link"], json!({ "url": "https://pay.example.com/1" }));
        // and counted.
        let metrics = worker.metrics().await;
        let counted = "payout_links_connector_unread_fields_total{connector=\"odd\"} 1";
        assert!(metrics.contains(counted), "{metrics}");
    }
}

/// Requests a URL over a new connection.
async fn reqwest_text(url: &str) -> String {
    let url: url::Url = url.parse().unwrap();
    let mut stream = TcpStream::connect((url.host_str().unwrap(), url.port().unwrap())).await.unwrap();
    let request = format!("GET {} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", url.path());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_delivered_when_its_status_line_is_read() {
    let many: String = (0..300).map(|number| format!("x-h{number}: 1\r\n")).collect();
    let whole = "content-length: 2\r\n\r\nok";
    let cases = [
        // The cases of broken bodies: whether the connection is closed, and whether the log mentions the body.
        ("a", "content-length: 5\r\n\r\nhe".to_owned(), false, true),
        ("b", "transfer-encoding: chunked\r\n\r\n2\r\n: \r\n".to_owned(), false, true),
        ("c", "content-length: 100\r\n\r\nok".to_owned(), true, true),
        ("d", "transfer-encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n".to_owned(), true, true),
        ("e", "transfer-encoding: chunked\r\n\r\n2\r\nok\r\n".to_owned(), true, true),
        // These are heads that other clients accept.
        ("folded", format!("x-long: a\r\n b\r\n{whole}"), false, false),
        ("many", format!("{many}{whole}"), false, false),
        ("space", format!("Expires : x\r\n{whole}"), false, false),
        ("control", format!("Set-Cookie: a=b\x01c; path=/\r\n{whole}"), false, false),
    ];
    let env = Setup::default().set("webhooks.timeout_seconds", 2).build().await;
    let _worker = env.start_worker().await;
    for (id, answer, then_closes, _) in &cases {
        let answer = format!("HTTP/1.1 200 OK\r\n{answer}").into_bytes();
        let url = format!("http://{}/webhooks", answering(answer, *then_closes).await);
        env.publish(job(id).with("webhook_url", json!(url))).await;
    }
    for (id, _, _, is_broken) in &cases {
        let shown = env.wait_until_delivered(id).await;
        assert_eq!(shown["event"]["webhook_state"], "delivered", "{id}: {shown}");
        assert_eq!(shown["event"]["webhook_attempts"], 1, "{id}: {shown}");
        let timeline = shown["timeline"].as_array().unwrap();
        let post = timeline.iter().find(|attempt| attempt["outcome"] == "delivered").unwrap();
        assert_eq!(post["status_code"], 200, "{id}: {shown}");
        let is_reported =
            post["detail"].as_str().is_some_and(|detail| detail.contains("the body was not read"));
        assert_eq!(is_reported, *is_broken, "{id}: {shown}");
    }
}

/// Starts a server that answers over HTTP/2 with a status and the beginning of a body, then resets the stream.
async fn resetting(acceptor: TlsAcceptor) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut connection =
                    h2::server::handshake(acceptor.accept(stream).await.unwrap()).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let head = hyper::Response::builder().status(200).body(()).unwrap();
                    let mut body = respond.send_response(head, false).unwrap();
                    body.send_data("a".into(), false).unwrap();
                    // A reset drops bytes that are not sent yet.
                    let _ = tokio::time::timeout(Duration::from_millis(200), connection.accept()).await;
                    body.send_reset(h2::Reason::INTERNAL_ERROR);
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_delivered_when_its_status_is_read_over_http2_too() {
    // Given a merchant that resets the stream after the status,
    let authority = Authority::new("a test's authority");
    let mut env = TestEnv::new().await;
    let roots = env.folder.join("merchants.pem");
    std::fs::write(&roots, authority.pem()).unwrap();
    env.set("webhooks.ca_file", roots.display());
    let merchant = resetting(authority.server(&["127.0.0.1"]).http2()).await;
    let _worker = env.start_worker().await;
    env.publish(job("f").with("webhook_url", json!(format!("https://{merchant}/webhooks")))).await;
    // then the webhook is delivered at once, and the attempt mentions the reset of the body.
    let shown = env.wait_until_delivered("f").await;
    assert_eq!(shown["event"]["webhook_state"], "delivered", "{shown}");
    assert_eq!(shown["event"]["webhook_attempts"], 1, "{shown}");
    let post = shown["timeline"].as_array().unwrap().iter().find(|attempt| attempt["outcome"] == "delivered");
    let post = post.unwrap();
    assert_eq!(post["status_code"], 200, "{shown}");
    assert!(
        post["detail"].as_str().is_some_and(|detail| detail.contains("the body was not read")),
        "{shown}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_nobody_can_reach_is_rejected_with_its_field() {
    let env = Setup::default().set("webhooks.allowed_hosts", "[\"hook.test\"]").build().await;
    let _worker = env.start_worker().await;
    let long = format!("{}.com", "a".repeat(64));
    let hosts =
        ["localhost", "LOCALHOST.", "printer.local", "a.internal", "a.invalid", "a.onion", &long, "a..com"];
    for host in hosts {
        env.publish(job(host).with("webhook_url", json!(format!("http://{host}/webhooks")))).await;
    }
    for host in hosts {
        let result = env.result_of(host).await;
        assert_eq!(result.kind(), "payout_link.rejected", "{host}");
        assert_eq!(result.field().as_deref(), Some("webhook_url"), "{host}");
    }
    env.publish(job("allowed").with("webhook_url", json!("http://hook.test:1/webhooks"))).await;
    assert_eq!(env.result_of("allowed").await.kind(), "payout_link.created");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_port_has_limits_and_a_database_connection_of_its_own() {
    // Given a worker whose pool has no free connection because of a lock,
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    let url: url::Url = worker.health_url().await.parse().unwrap();
    let address = (url.host_str().unwrap().to_owned(), url.port().unwrap());
    let mut locked = env.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE payout_links").execute(&mut *locked).await.unwrap();
    for number in 0..64 {
        env.publish(job(&format!("po_{number}"))).await;
    }
    eventually("statements wait for the lock", async || {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        (sqlx::query_scalar::<_, i64>(waiting).fetch_one(&env.pool).await.unwrap() > 0).then_some(())
    })
    .await;
    // and incomplete requests without end,
    let mut half = Vec::new();
    for _ in 0..300 {
        let mut stream = TcpStream::connect(address.clone()).await.unwrap();
        stream.write_all(b"GET /health/ready HTTP/1.1\r\nho").await.unwrap();
        half.push(stream);
    }
    // then readiness is answered, over a connection that no job uses,
    let ready = reqwest_text(&format!("{url}health/ready")).await;
    assert!(ready.contains("\"database\":true"), "{ready}");
    let probes = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '%probe'";
    assert_eq!(sqlx::query_scalar::<_, i64>(probes).fetch_one(&env.pool).await.unwrap(), 1);
    // and no incomplete request stays open.
    for mut stream in half {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
    }
}
