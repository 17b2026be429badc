//! Provides a connector and merchants that do as little work as possible and record the times of arrivals.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use serde::Deserialize;
use tokio::{net::TcpListener, task::JoinSet, time::sleep};

use crate::scenarios::{Merchants, Scenario};

/// The time of the first arrival for each job, in nanoseconds since the run began, or 0.
pub struct Arrivals {
    since: Instant,
    at: Vec<AtomicU64>,
    first: AtomicU64,
    again: AtomicU64,
}

impl Arrivals {
    pub fn new(since: Instant, jobs: usize) -> Self {
        Self {
            since,
            at: (0..jobs).map(|_| AtomicU64::new(0)).collect(),
            first: AtomicU64::new(0),
            again: AtomicU64::new(0),
        }
    }

    pub fn record(&self, job: usize) {
        let now = u64::try_from(self.since.elapsed().as_nanos()).unwrap().max(1);
        match self.at[job].compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => self.first.fetch_add(1, Ordering::Relaxed),
            Err(_) => self.again.fetch_add(1, Ordering::Relaxed),
        };
    }

    pub fn count(&self) -> usize {
        usize::try_from(self.first.load(Ordering::Relaxed)).unwrap()
    }

    pub fn repeats(&self) -> u64 {
        self.again.load(Ordering::Relaxed)
    }

    pub fn at(&self, job: usize) -> Option<Duration> {
        match self.at[job].load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }
}

/// Finds the job's number in a result or a webhook: the digits after `po-` in `merchant_payout_id`.
pub fn number(body: &[u8]) -> Option<usize> {
    let key = b"\"merchant_payout_id\":\"po-";
    let at = body.windows(key.len()).position(|window| window == key)? + key.len();
    let digits = body[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&body[at..at + digits]).ok()?.parse().ok()
}

/// The links of each reference, and the errors that it got.
type Ledger = Mutex<HashMap<String, Reference>>;

#[derive(Default)]
struct Reference {
    links: u32,
    errors: u32,
}

pub struct Stubs {
    pub connector: SocketAddr,
    pub webhooks: Arc<Arrivals>,
    /// The addresses of merchants that answer at once, late and never.
    prompt: SocketAddr,
    slow: SocketAddr,
    hanging: SocketAddr,
    merchants: Merchants,
    ledger: Arc<Ledger>,
    // Dropping the set ends the servers.
    _servers: JoinSet<()>,
}

impl Stubs {
    pub async fn start(scenario: &Scenario, webhooks: Arc<Arrivals>) -> Self {
        let mut servers = JoinSet::new();
        let ledger = Arc::new(Ledger::default());
        let latency = scenario.latency;
        let connector = Connector { ledger: ledger.clone(), latency, errors_in_100: scenario.errors_in_100 };
        let links = Router::new().route("/v1/payout-links", post(create)).with_state(connector);
        let merchant = |delay| {
            let state = Merchant { webhooks: webhooks.clone(), delay };
            Router::new().route("/webhooks", post(take)).with_state(state)
        };
        Self {
            connector: serve(&mut servers, links).await,
            prompt: serve(&mut servers, merchant(Some(Duration::ZERO))).await,
            slow: serve(&mut servers, merchant(Some(Duration::from_secs(1)))).await,
            hanging: serve(&mut servers, merchant(None)).await,
            webhooks,
            merchants: scenario.merchants,
            ledger,
            _servers: servers,
        }
    }

    /// Returns the webhook URL of a job. All of 127.0.0.0/8 is this machine, and each address counts as a host of its
    /// own.
    pub fn webhook_url(&self, job: usize) -> String {
        let (host, port) = match self.merchants {
            Merchants::SomeSlow if job.is_multiple_of(20) => (2 + job / 20 % 20, self.slow.port()),
            Merchants::OneHangs if !self.is_answered(job) => (2, self.hanging.port()),
            _ => (1, self.prompt.port()),
        };
        format!("http://127.0.0.{host}:{port}/webhooks")
    }

    /// Says whether the job's merchant answers.
    pub fn is_answered(&self, job: usize) -> bool {
        !(self.merchants == Merchants::OneHangs && job.is_multiple_of(100))
    }

    /// Counts the references with one link, and those with more.
    pub fn links(&self) -> (usize, usize) {
        let ledger = self.ledger.lock().unwrap();
        let with = |wanted: fn(u32) -> bool| ledger.values().filter(|entry| wanted(entry.links)).count();
        (with(|links| links == 1), with(|links| links > 1))
    }
}

async fn serve(servers: &mut JoinSet<()>, routes: Router) -> SocketAddr {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    servers.spawn(async move { axum::serve(listener, routes).await.unwrap() });
    address
}

#[derive(Clone)]
struct Connector {
    ledger: Arc<Ledger>,
    latency: Duration,
    errors_in_100: usize,
}

#[derive(Deserialize)]
struct Create {
    reference: String,
}

async fn create(State(connector): State<Connector>, body: Bytes) -> Response {
    let Create { reference } = serde_json::from_slice(&body).unwrap();
    if !connector.latency.is_zero() {
        sleep(connector.latency).await;
    }
    // A reference is a digest as text, so a hash of its bytes is evenly distributed.
    let dice =
        reference.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())) % 100;
    let mut ledger = connector.ledger.lock().unwrap();
    let entry = ledger.entry(reference).or_default();
    if dice < connector.errors_in_100 && entry.errors == 0 {
        entry.errors += 1;
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    entry.links += 1;
    let number = ledger.len();
    drop(ledger);
    let link = format!(
        r#"{{"id":"plink_{number}","status":"issued","url":"https://links.example/claim/{number:032}"}}"#
    );
    (StatusCode::CREATED, [("content-type", "application/json")], link).into_response()
}

#[derive(Clone)]
struct Merchant {
    webhooks: Arc<Arrivals>,
    /// `None` never answers.
    delay: Option<Duration>,
}

async fn take(State(merchant): State<Merchant>, body: Bytes) -> StatusCode {
    match merchant.delay {
        Some(delay) if delay.is_zero() => {}
        Some(delay) => sleep(delay).await,
        None => std::future::pending().await,
    }
    merchant.webhooks.record(number(&body).expect("a webhook has merchant_payout_id"));
    StatusCode::NO_CONTENT
}
