//! Tests that many jobs at once take few transactions, statements and acknowledgements, and that no job waits for the
//! slowest.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use payout_link_worker::postgres::{Accepted, BatchLimits, migrate};
use sqlx::PgPool;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use crate::support::{
    Setup, TestEnv, accept, created, eventually, job, pool_of_one, store, store_within, submit,
    until_a_statement_waits,
};

/// Returns the number of rows of each transaction that wrote records.
async fn rows_of_transactions(pool: &PgPool) -> Vec<i64> {
    let rows = "SELECT count(*) FROM payout_links GROUP BY xmin::text";
    sqlx::query_scalar(rows).fetch_all(pool).await.unwrap()
}

async fn accept_at_once(limits: BatchLimits, jobs: usize) -> Vec<i64> {
    let env = TestEnv::new().await;
    migrate(&env.pool).await.unwrap();
    let store = store_within(env.pool.clone(), limits);
    let ids: Vec<String> = (0..jobs).map(|number| format!("po_{number}")).collect();
    join_all(ids.iter().map(|id| accept(&store, id))).await;
    rows_of_transactions(&env.pool).await
}

/// On one thread, all requests are in the queue before the first is read.
#[tokio::test]
async fn a_batch_has_no_more_rows_and_no_more_bytes_than_it_may() {
    let limits = BatchLimits { rows: 10, bytes: 100_000, depth: 2 };
    assert_eq!(accept_at_once(limits, 20).await, [10, 10]);
    // The last row that is added makes a batch exceed its limit.
    assert_eq!(accept_at_once(BatchLimits { bytes: 1, ..limits }, 5).await, [1; 5]);
}

#[tokio::test]
async fn a_slow_statement_holds_up_no_other_of_its_kind() {
    // Given a job whose key another transaction is just inserting,
    let env = TestEnv::new().await;
    migrate(&env.pool).await.unwrap();
    let store = store(env.pool.clone());
    let mut other = env.pool.begin().await.unwrap();
    sqlx::query(
        "INSERT INTO payout_links (id, merchant_id, merchant_payout_id, request_fingerprint, connector, amount_minor,
             currency, destination_currency, state, due_at)
         VALUES (gen_random_uuid(), '', 'po_slow', '', 'sandbox', 1, 'EUR', 'EUR', 'open', now())",
    )
    .execute(&mut *other)
    .await
    .unwrap();
    let others = async {
        until_a_statement_waits(&env.pool, 0.1).await;
        // when another job comes, then it is accepted while that statement still waits. (After half a minute the
        // statement is given up, and would delay no job any more.)
        let accepted = timeout(Duration::from_secs(20), accept(&store, "po_1")).await;
        accepted.expect("it does not wait for the slow one");
        other.rollback().await.unwrap();
    };
    let (slow, ()) = tokio::join!(submit(&store, "po_slow"), others);
    assert!(matches!(slow, Accepted::New(_)));
}

/// Checks that batches of different sizes share their statements. Otherwise each size would be planned and cached.
#[tokio::test]
async fn batches_of_all_sizes_have_the_same_statements() {
    let env = TestEnv::new().await;
    let pool = pool_of_one(&env).await;
    let store = store(pool.clone());
    let work = async |rows: usize| {
        let ids: Vec<String> = (0..rows).map(|number| format!("po_{rows}_{number}")).collect();
        let links = join_all(ids.iter().map(|id| accept(&store, id))).await;
        join_all(links.into_iter().map(async |mut link| {
            let reply = created(&mut link, "plink");
            store.conclude(link, reply).await.unwrap()
        }))
        .await;
    };
    // Given the statements of one row and of two,
    work(1).await;
    work(2).await;
    let prepared = "SELECT count(*) FROM pg_prepared_statements";
    let known: i64 = sqlx::query_scalar(prepared).fetch_one(&pool).await.unwrap();
    // when there are batches of other sizes, then there are no more statements.
    for rows in 3..=10 {
        work(rows).await;
    }
    let after: i64 = sqlx::query_scalar(prepared).fetch_one(&pool).await.unwrap();
    assert_eq!(after, known);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_stored_in_one_batch_are_acknowledged_together() {
    const JOBS: usize = 300;
    // Given jobs that a worker cannot store yet, and later stores in another order, which leaves gaps,
    let mut env = Setup::default().set("database.batches_at_once", 1).build().await;
    env.start_worker().await.stop().await;
    for number in 0..JOBS {
        env.publish(job(&format!("po_{number}"))).await;
    }
    let (broker, acknowledgements) = counting().await;
    let mut url: url::Url = std::env::var("AMQP_URL").unwrap().parse().unwrap();
    url.set_ip_host(broker.ip()).unwrap();
    url.set_port(Some(broker.port())).unwrap();
    env.set("broker.url", url);
    let mut lock = env.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE payout_links IN SHARE MODE").execute(&mut *lock).await.unwrap();
    let worker = env.start_worker().await;
    eventually("all jobs are taken", async || (env.ready(&env.names.jobs_queue).await == 0).then_some(()))
        .await;
    assert_eq!(acknowledgements.load(Ordering::SeqCst), 0);
    // when it can store them,
    lock.commit().await.unwrap();
    eventually("every result", async || (env.results().len() >= JOBS).then_some(())).await;
    assert!(worker.stop().await.success());
    // then a few frames acknowledge all of them. (Three, if nothing else happens.)
    assert_eq!(env.ready(&env.names.jobs_queue).await, 0);
    let acknowledgements = acknowledgements.load(Ordering::SeqCst);
    assert!((1..JOBS / 2).contains(&acknowledgements), "{acknowledgements} for {JOBS}");
}

/// Starts a proxy for RabbitMQ that counts the frames with acknowledgements.
async fn counting() -> (SocketAddr, Arc<AtomicUsize>) {
    let url: url::Url = std::env::var("AMQP_URL").unwrap().parse().unwrap();
    let target = url.socket_addrs(|| Some(5672)).unwrap()[0];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acknowledgements = Arc::<AtomicUsize>::default();
    let counted = acknowledgements.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (mut from_server, to_server) = TcpStream::connect(target).await.unwrap().into_split();
            let (from_client, mut to_client) = client.into_split();
            tokio::spawn(count_acknowledgements(from_client, to_server, counted.clone()));
            tokio::spawn(async move { copy(&mut from_server, &mut to_client).await });
        }
    });
    (address, acknowledgements)
}

async fn count_acknowledgements(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    counted: Arc<AtomicUsize>,
) -> std::io::Result<()> {
    // The stream has "AMQP" and the version, then frames: type, channel, size, as many bytes, and an end.
    let mut greeting = [0; 8];
    client.read_exact(&mut greeting).await?;
    server.write_all(&greeting).await?;
    loop {
        let mut frame = vec![0; 7];
        client.read_exact(&mut frame).await?;
        let size = u32::from_be_bytes(frame[3..7].try_into().unwrap()) as usize;
        frame.resize(7 + size + 1, 0);
        client.read_exact(&mut frame[7..]).await?;
        const METHOD: u8 = 1;
        const BASIC_ACK: [u8; 4] = [0, 60, 0, 80];
        if frame[0] == METHOD && frame[7..].starts_with(&BASIC_ACK) {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        server.write_all(&frame).await?;
    }
}
