//! Everything that a worker says to the world and hears from it, chunk by chunk in one sequence; and its death at
//! a chosen one.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Mutex as Gate, watch},
    task::JoinSet,
};

use crate::{support::Worker, words::Words};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    Postgres,
    RabbitMq,
    Connector,
    Merchant,
}

impl Service {
    pub const ALL: [Self; 4] = [Self::Postgres, Self::RabbitMq, Self::Connector, Self::Merchant];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the worker.
    Out,
    /// To the worker.
    In,
}

/// When the worker dies: at the `chunk`-th, counted from 1, before or after it is handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    pub chunk: usize,
    pub handed_on: bool,
}

/// Where it died, in words.
#[derive(Debug, Clone)]
pub struct Hit {
    pub service: Service,
    pub words: String,
}

#[derive(Default)]
struct Counter {
    counts: bool,
    cut: Option<Cut>,
    passed: Vec<Hit>,
    hit: Option<Hit>,
}

struct Shared {
    /// One chunk passes at a time, over all connections.
    gate: Gate<Counter>,
    last_chunk: Mutex<Instant>,
    victim: Mutex<Option<Worker>>,
    died: watch::Sender<bool>,
}

/// A listener for each service; connections of the dead are cut, later ones pass uncounted.
pub struct Proxies {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    _listeners: JoinSet<()>,
}

impl Proxies {
    /// The services' real addresses, in the order of [`Service::ALL`].
    pub async fn start(targets: [SocketAddr; 4]) -> Self {
        let shared = Arc::new(Shared {
            gate: Gate::default(),
            last_chunk: Mutex::new(Instant::now()),
            victim: Mutex::default(),
            died: watch::Sender::new(false),
        });
        let (mut listeners, mut addresses) = (JoinSet::new(), Vec::new());
        for (service, target) in Service::ALL.into_iter().zip(targets) {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(listener.local_addr().unwrap());
            listeners.spawn(listen(listener, service, target, shared.clone()));
        }
        Self { shared, addresses, _listeners: listeners }
    }

    pub fn address(&self, service: Service) -> SocketAddr {
        self.addresses[service as usize]
    }

    /// Who is to die.
    pub fn watch_over(&self, worker: Worker) {
        *self.shared.victim.lock().unwrap() = Some(worker);
    }

    /// The worker, where it lives.
    pub fn survivor(&self) -> Option<Worker> {
        self.shared.victim.lock().unwrap().take()
    }

    /// How long nothing has passed.
    pub fn idle_for(&self) -> Duration {
        self.shared.last_chunk.lock().unwrap().elapsed()
    }

    /// Counts from here.
    pub async fn arm(&self, cut: Option<Cut>) {
        let mut counter = self.shared.gate.lock().await;
        (counter.counts, counter.cut) = (true, cut);
    }

    pub async fn died(&self) {
        let _ = self.shared.died.subscribe().wait_for(|died| *died).await;
    }

    /// Where it died, if it did, and all that had passed before.
    pub async fn told(&self) -> (Option<Hit>, Vec<Hit>) {
        let counter = self.shared.gate.lock().await;
        (counter.hit.clone(), counter.passed.clone())
    }
}

async fn listen(listener: TcpListener, service: Service, target: SocketAddr, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((from, _)) = listener.accept().await {
        let Ok(to) = TcpStream::connect(target).await else { continue };
        connections.spawn(connection(service, from, to, shared.clone()));
    }
}

async fn connection(service: Service, worker: TcpStream, server: TcpStream, shared: Arc<Shared>) {
    let mut died = shared.died.subscribe();
    let is_of_the_dead = !*died.borrow_and_update();
    let _ = (worker.set_nodelay(true), server.set_nodelay(true));
    let ((worker_reads, worker_writes), (server_reads, server_writes)) =
        (worker.into_split(), server.into_split());
    let words = Mutex::new(Words::new(service));
    let both = async {
        tokio::join!(
            pump(service, Direction::Out, worker_reads, server_writes, &words, &shared),
            pump(service, Direction::In, server_reads, worker_writes, &words, &shared),
        )
    };
    tokio::select! {
        _ = both => {}
        _ = died.changed(), if is_of_the_dead => {}
    }
}

async fn pump(
    service: Service,
    direction: Direction,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    words: &Mutex<Words>,
    shared: &Shared,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let chunk = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(length) => &buffer[..length],
        };
        let mut counter = shared.gate.lock().await;
        *shared.last_chunk.lock().unwrap() = Instant::now();
        let said = words.lock().unwrap().of(direction, chunk);
        // Heartbeats come by the clock, not by what is done.
        let (true, Some(said)) = (counter.counts, said) else {
            if to.write_all(chunk).await.is_err() {
                break;
            }
            continue;
        };
        let hit = Hit { service, words: said };
        counter.passed.push(hit.clone());
        let cut = counter.cut.filter(|cut| cut.chunk == counter.passed.len());
        if cut.is_none_or(|cut| cut.handed_on) && to.write_all(chunk).await.is_err() {
            break;
        }
        if cut.is_some() {
            if let Some(mut worker) = shared.victim.lock().unwrap().take() {
                worker.kill();
            }
            (counter.counts, counter.cut, counter.hit) = (false, None, Some(hit));
            shared.died.send_replace(true);
        }
    }
    let _ = to.shutdown().await;
}
