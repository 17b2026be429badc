//! Tests malicious merchants' servers: each costs limited time and memory, and delays no other merchant.

use std::{net::SocketAddr, time::Duration};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::sleep,
};

use crate::support::{Setup, job};

/// The behaviour of a merchant's server.
#[derive(Debug, Clone, Copy)]
enum Manner {
    SlowHead,
    SlowBody,
    EndlessHead,
    EndlessLine,
    EndlessInterim,
    EndlessBody,
    EndlessChunkSize,
    CompressionBomb,
    AnswersBeforeTheBody,
    NotHttp,
    TwoLengths,
    SilentTls,
    GarbageTls,
    ClosesInTls,
}

use Manner::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

async fn treat(manner: Manner, mut stream: TcpStream) -> std::io::Result<()> {
    if !matches!(manner, AnswersBeforeTheBody) {
        let mut head = [0; 1024];
        let _ = stream.read(&mut head).await?;
    }
    match manner {
        SlowHead => slowly(&mut stream, b"HTTP/1.1 200 OK\r\nx: ", b"x").await,
        SlowBody => slowly(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n", b"x").await,
        EndlessHead => endlessly(&mut stream, b"HTTP/1.1 200 OK\r\n", b"x-more: and more\r\n").await,
        EndlessLine => endlessly(&mut stream, b"HTTP/1.1 200 OK\r\nx: ", b"and more").await,
        EndlessInterim => endlessly(&mut stream, b"", b"HTTP/1.1 100 Continue\r\n\r\n").await,
        EndlessBody => endlessly(&mut stream, b"HTTP/1.1 200 OK\r\n\r\n", b"and more").await,
        EndlessChunkSize => {
            endlessly(&mut stream, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;", b"extension")
                .await
        }
        // A megabyte that decompresses to a gigabyte.
        CompressionBomb => {
            let head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1048576\r\n\r\n\x1f\x8b\x08\0\0\0\0\0\0\xff";
            stream.write_all(head).await?;
            stream.write_all(&vec![0; 1024 * 1024]).await
        }
        AnswersBeforeTheBody => {
            stream.write_all(OK).await?;
            stream.shutdown().await
        }
        NotHttp => stream.write_all(b"220 mail.example ESMTP\r\n").await,
        TwoLengths => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 9\r\n\r\nok").await
        }
        SilentTls => std::future::pending().await,
        GarbageTls => endlessly(&mut stream, b"", b"\x16\x03\x03\x40\x00garbage").await,
        ClosesInTls => stream.shutdown().await,
    }
}

async fn slowly(stream: &mut TcpStream, first: &[u8], again: &[u8]) -> std::io::Result<()> {
    stream.write_all(first).await?;
    loop {
        stream.write_all(again).await?;
        sleep(Duration::from_millis(100)).await;
    }
}

async fn endlessly(stream: &mut TcpStream, first: &[u8], again: &[u8]) -> std::io::Result<()> {
    stream.write_all(first).await?;
    let again = again.repeat(1024);
    loop {
        stream.write_all(&again).await?;
    }
}

async fn merchant(manner: Manner, host: u8) -> SocketAddr {
    // It has an address of its own, so it counts as a host of its own.
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 1, host], 0))).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(treat(manner, stream));
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn any_answer_of_a_merchant_costs_little_and_delays_no_other() {
    // Given merchants of every behaviour, with several webhooks for each,
    let env = Setup::default()
        .set("webhooks.schedule_seconds", "[]")
        .set("webhooks.timeout_seconds", 5)
        .build()
        .await;
    let worker = env.start_worker().await;
    env.publish(job("first").with("webhook_url", env.webhook_url())).await;
    env.webhooks(1).await;
    let before = worker.peak_memory();
    let manners = [
        (SlowHead, "abandoned", "timed out"),
        (SlowBody, "delivered", "timed out"),
        (EndlessHead, "abandoned", ""),
        (EndlessLine, "abandoned", ""),
        // The worker reads the body up to its limit. Only the status counts.
        (EndlessBody, "delivered", ""),
        (EndlessChunkSize, "delivered", "the body was not read"),
        (CompressionBomb, "delivered", ""),
        (AnswersBeforeTheBody, "", ""),
        (NotHttp, "abandoned", "the connection broke"),
        (TwoLengths, "abandoned", "the connection broke"),
        (SilentTls, "abandoned", "timed out"),
        (GarbageTls, "abandoned", "could not connect"),
        (ClosesInTls, "abandoned", "could not connect"),
    ];
    let id = |manner: Manner, number: usize| format!("{manner:?}_{number}");
    for (host, (manner, ..)) in (1..).zip(manners) {
        let scheme = if matches!(manner, SilentTls | GarbageTls | ClosesInTls) { "https" } else { "http" };
        let url = format!("{scheme}://{}/webhooks", merchant(manner, host).await);
        for number in 0..10 {
            env.publish(job(&id(manner, number)).with("webhook_url", json!(url))).await;
        }
    }
    // then a well-behaved merchant's webhook arrives,
    env.publish(job("last").with("webhook_url", env.webhook_url())).await;
    env.webhooks(2).await;
    // each of their webhooks ends in time, with a reported reason,
    for (manner, state, reason) in manners {
        for number in 0..10 {
            let shown = env.wait_until_delivered(&id(manner, number)).await;
            assert_eq!(shown["state"], "created");
            let (said, timeline) = (&shown["event"]["webhook_state"], shown["timeline"].to_string());
            assert!(state.is_empty() || said == state, "{manner:?}: {shown}");
            assert!(timeline.contains(reason) && timeline.len() < 2000, "{manner:?}: {shown}");
        }
    }
    // and their data is not held in memory.
    let more = worker.peak_memory() - before;
    assert!(more < 64 * 1024 * 1024, "{more} bytes");
}

/// Checks interim answers without end: hyper skips them inside one poll, so the worker limits the bytes below it.
#[tokio::test(flavor = "multi_thread")]
async fn interim_answers_without_end_do_not_hold_up_jobs() {
    // Given webhooks under way to a merchant of that kind, more than there are threads,
    let env = Setup::default().set("webhooks.schedule_seconds", "[]").build().await;
    let worker = env.start_worker().await;
    let url = format!("http://{}/webhooks", merchant(EndlessInterim, 99).await);
    for number in 0..20 {
        env.publish(job(&format!("flood_{number}")).with("webhook_url", json!(url))).await;
    }
    for number in 0..20 {
        env.result_of(&format!("flood_{number}")).await;
    }
    // then jobs are accepted, created and published as usual, and no lease or connection is lost,
    for number in 0..20 {
        let id = format!("po_{number}");
        env.publish(job(&id)).await;
        env.wait_until_delivered(&id).await;
    }
    assert!(
        !worker.log().contains("lease lost") && !worker.log().contains("unavailable"),
        "{}",
        worker.log()
    );
    // and those webhooks end, for that reason.
    for number in 0..20 {
        let shown = env.wait_until_delivered(&format!("flood_{number}")).await;
        assert_eq!(shown["event"]["webhook_state"], "abandoned");
        assert!(
            shown["timeline"].to_string().contains("the peer sent more than an answer may have"),
            "{shown}"
        );
    }
    assert!(worker.stop().await.success());
}
