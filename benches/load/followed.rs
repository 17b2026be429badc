//! Measures followed links: many that nobody claims, and some that change each minute, first announced by the
//! provider and then not.
//!
//! SQL inserts the links that do not change. Jobs create the others, because their results are encrypted.

use std::{
    fs::OpenOptions,
    io::Write,
    net::SocketAddr,
    process::Child,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;
use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor};
use time::OffsetDateTime;
use tokio::{net::TcpListener, task::JoinSet, time::sleep_until};

use crate::{
    Arguments,
    figures::Latencies,
    machine,
    queue::Upstream,
    run::{Place, STUCK, stop},
    stubs::{Arrivals, number},
};

pub const NAME: &str = "followed-links";
pub const ABOUT: &str =
    "--links open links, --changes of which change each minute, announced and then not; a long one";

const SECRET: &str = "bench-inbound";
/// The duration of each phase: changes are announced in the first and not in the second.
const PHASE: Duration = Duration::from_mins(1);
/// Is longer than the shortest interval between two questions, with its jitter.
const UNTIL_ASKED: Duration = Duration::from_secs(90);
/// The number of rows that one statement inserts.
const PIECE: i64 = 20_000;

/// The state of the provider and the merchant.
#[derive(Clone)]
struct Peers {
    /// The statuses of the changing links, by their numbers.
    statuses: Arc<Vec<AtomicU8>>,
    questions: Arc<AtomicU64>,
    created: Arc<Arrivals>,
    claimed: Arc<Arrivals>,
}

/// Creates a link. Links are numbered in the order of their creation.
async fn create(State((_, made)): State<(Peers, Arc<AtomicU64>)>) -> Response {
    let link = made.fetch_add(1, Relaxed);
    answer(StatusCode::CREATED, &format!("plink_{link}"), "issued")
}

async fn read(State((peers, _)): State<(Peers, Arc<AtomicU64>)>, Path(id): Path<String>) -> Response {
    peers.questions.fetch_add(1, Relaxed);
    let changing = id.strip_prefix("plink_").and_then(|link| link.parse::<usize>().ok());
    let is_claimed = changing.is_some_and(|link| peers.statuses[link].load(Relaxed) > 0);
    answer(StatusCode::OK, &id, if is_claimed { "claimed" } else { "issued" })
}

fn answer(status: StatusCode, id: &str, link_status: &str) -> Response {
    let body = format!(r#"{{"id":"{id}","status":"{link_status}","url":"https://links.example/{id}"}}"#);
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}

async fn take(State(peers): State<Peers>, body: Bytes) -> StatusCode {
    let job = number(&body).expect("a webhook has merchant_payout_id");
    let claimed = b"payout_link.claimed";
    let arrivals = if body.windows(claimed.len()).any(|window| window == claimed) {
        &peers.claimed
    } else {
        &peers.created
    };
    arrivals.record(job);
    StatusCode::NO_CONTENT
}

async fn serve(servers: &mut JoinSet<()>, routes: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    servers.spawn(async move { axum::serve(listener, routes).await.unwrap() });
    address
}

/// The figures of a phase.
struct Phase {
    name: &'static str,
    took: Duration,
    changes: usize,
    questions: u64,
    commits: i64,
    wal_bytes: i64,
    worker_cpu: Duration,
    delays: Latencies,
}

pub async fn run(arguments: &Arguments) {
    let changes = usize::try_from(arguments.changes).unwrap();
    let jobs = 2 * changes;
    let place = Place::make(&arguments.worker).await;
    let mut config = OpenOptions::new().append(true).open(&place.config).unwrap();
    write!(config, "\n[connectors.sandbox.follow]\nwebhook_secrets = [\"{SECRET}\"]\n").unwrap();
    fill(&place, arguments.links).await;
    let started = Instant::now();
    let peers = Peers {
        statuses: Arc::new((0..jobs).map(|_| AtomicU8::new(0)).collect()),
        questions: Arc::default(),
        created: Arc::new(Arrivals::new(started, jobs)),
        claimed: Arc::new(Arrivals::new(started, jobs)),
    };
    let mut servers = JoinSet::new();
    let links = Router::new()
        .route("/v1/payout-links", post(create))
        .route("/v1/payout-links/{id}", get(read))
        .with_state((peers.clone(), Arc::default()));
    let provider = serve(&mut servers, links).await;
    let merchant =
        serve(&mut servers, Router::new().route("/webhooks", post(take)).with_state(peers.clone())).await;
    let upstream = Upstream::connect(&place.amqp_url, place.names.clone()).await;
    let results = Arc::new(Arrivals::new(started, jobs));
    upstream.listen(results.clone()).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let inbound = listener.local_addr().unwrap();
    drop(listener);
    let worker = place
        .until_consuming(|| {
            let mut command = place.command("run");
            command.env("PAYOUT_LINK__CONNECTORS__SANDBOX__URL", format!("http://{provider}"));
            command.env("PAYOUT_LINK__WORKER__PROVIDER_WEBHOOKS_LISTEN", inbound.to_string());
            command.spawn().unwrap()
        })
        .await;
    upstream.send_all((0..jobs).map(|job| ("", body(job, merchant)))).await;
    until("links are created", || peers.created.count() == jobs).await;
    // Jobs and links are numbered in different orders.
    let ids: Vec<(String, String)> =
        sqlx::query_as("SELECT merchant_payout_id, connector_payout_id FROM payout_links WHERE merchant_payout_id LIKE 'po-%'")
            .fetch_all(&place.pool)
            .await
            .unwrap();
    let mut link_of = vec![0; jobs];
    for (id, link) in ids {
        link_of[id["po-".len()..].parse::<usize>().unwrap()] =
            link["plink_".len()..].parse::<usize>().unwrap();
    }

    let size_before = table_size(&place).await;
    let announced =
        phase("announced", &place, &peers, &worker, 0..changes, &link_of, started, Some(inbound)).await;
    let silent =
        phase("not announced", &place, &peers, &worker, changes..jobs, &link_of, started, None).await;
    let size_after = table_size(&place).await;
    let memory = machine::peak_memory(worker.id());
    print(arguments, &[announced, silent], memory, size_before, size_after);
    stop(worker);
    upstream.clear_away().await;
    place.clear_away().await;
}

/// Changes links at a steady pace, and waits until the merchant has a webhook for each change.
#[expect(clippy::too_many_arguments, reason = "what a phase needs of a run")]
async fn phase(
    name: &'static str,
    place: &Place,
    peers: &Peers,
    worker: &Child,
    jobs: std::ops::Range<usize>,
    link_of: &[usize],
    started: Instant,
    inbound: Option<SocketAddr>,
) -> Phase {
    let client = reqwest::Client::new();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let (database, cpu, questions) =
        (machine::database(&place.pool).await, machine::cpu(worker.id()), peers.questions.load(Relaxed));
    let (first, count) = (Instant::now(), jobs.len());
    let mut changed_at = Vec::with_capacity(count);
    let mut sending = JoinSet::new();
    for (place, job) in jobs.clone().enumerate() {
        let due = PHASE * u32::try_from(place).unwrap() / u32::try_from(count).unwrap();
        sleep_until((first + due).into()).await;
        let link = link_of[job];
        peers.statuses[link].store(1, Relaxed);
        changed_at.push(started.elapsed());
        if let Some(inbound) = inbound {
            sending.spawn(announce(client.clone(), key.clone(), inbound, link));
        }
    }
    while let Some(sent) = sending.join_next().await {
        sent.unwrap();
    }
    let before = jobs.start;
    until("changes are delivered", || peers.claimed.count() == before + count).await;
    let took = first.elapsed();
    // A session adds its work to the statistics with a delay.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = machine::database(&place.pool).await;
    let delays = jobs.zip(changed_at).map(|(job, at)| peers.claimed.at(job).unwrap().saturating_sub(at));
    Phase {
        name,
        took,
        changes: count,
        questions: peers.questions.load(Relaxed) - questions,
        commits: after.commits - database.commits,
        wal_bytes: after.wal_bytes - database.wal_bytes,
        worker_cpu: machine::cpu(worker.id()).saturating_sub(cpu),
        delays: Latencies::of(delays.collect()).unwrap(),
    }
}

async fn announce(client: reqwest::Client, key: hmac::Key, inbound: SocketAddr, link: usize) {
    let body = json!({
        "id": format!("evt_{link}"), "type": "link.claimed", "link": { "id": format!("plink_{link}") },
    })
    .to_string();
    let signed_at = OffsetDateTime::now_utc().unix_timestamp();
    let tag = hmac::sign(&key, format!("{signed_at}.{body}").as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let sent = client
        .post(format!("http://{inbound}/connectors/sandbox/webhooks"))
        .header("sandbox-timestamp", signed_at)
        .header("sandbox-signature", format!("v1={hex}"))
        .body(body)
        .send();
    let status = sent.await.unwrap().status();
    assert!(status.is_success(), "a webhook of the provider was answered {status}");
}

async fn until(condition: &str, is_done: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_done() {
        assert!(since.elapsed() < UNTIL_ASKED.max(STUCK), "not in time: {condition}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn body(job: usize, merchant: SocketAddr) -> Vec<u8> {
    json!({
        "merchant_payout_id": format!("po-{job:08}"),
        "amount": { "minor_amount": 1000, "currency": "EUR" },
        "destination_currency": "EUR",
        "address": {},
        "webhook_url": format!("http://{merchant}/webhooks"),
    })
    .to_string()
    .into_bytes()
}

/// Inserts open links of the last days. The worker asks about each within an hour, evenly spread.
async fn fill(place: &Place, links: u64) {
    let links = i64::try_from(links).unwrap();
    let mut connection = place.pool.acquire().await.unwrap();
    for first in (0..links).step_by(usize::try_from(PIECE).unwrap()) {
        let last = (first + PIECE).min(links) - 1;
        let insert = sqlx::query(include_str!("fill/followed.sql")).bind(first).bind(last);
        insert.execute(&mut *connection).await.unwrap();
    }
    for statement in ["VACUUM (ANALYZE)", "CHECKPOINT"] {
        connection.execute(statement).await.unwrap();
    }
}

/// Returns the size, in bytes, of the tables that grow with followed links, with their indexes.
async fn table_size(place: &Place) -> i64 {
    let tables = ["payout_links", "events", "provider_webhooks"];
    let mut all = 0;
    for table in tables {
        let size = format!("SELECT pg_total_relation_size('{table}')");
        all += sqlx::query_scalar::<_, i64>(AssertSqlSafe(size)).fetch_one(&place.pool).await.unwrap();
    }
    all
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn print(arguments: &Arguments, phases: &[Phase], memory: f64, before: i64, after: i64) {
    let changed: usize = phases.iter().map(|phase| phase.changes).sum();
    println!("{} open links, {} changes a minute", arguments.links, arguments.changes);
    println!(
        "peak memory of the worker: {memory:.1} MiB; tables: {:.0} bytes a link, and {:.0} more for each change\n",
        before as f64 / arguments.links.max(1) as f64,
        (after - before) as f64 / changed as f64
    );
    println!(
        "| changes | questions/min | commits/min | WAL kB/min | WAL bytes per question | worker CPU ms/min | CPU ms per question | p50 ms | p99 ms |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for phase in phases {
        let minutes = phase.took.as_secs_f64() / 60.0;
        let (questions, cpu) = (phase.questions.max(1) as f64, phase.worker_cpu.as_secs_f64() * 1000.0);
        let (p50, p99) = phase.delays.percentiles();
        println!(
            "| {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} | {p50:.0} | {p99:.0} |",
            phase.name,
            phase.questions as f64 / minutes,
            phase.commits as f64 / minutes,
            phase.wal_bytes as f64 / 1024.0 / minutes,
            phase.wal_bytes as f64 / questions,
            cpu / minutes,
            cpu / questions,
        );
    }
}
