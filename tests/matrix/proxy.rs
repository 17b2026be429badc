//! Everything that a worker says to the test environment and hears from it, chunk by chunk in one sequence; and what is done to
//! it at a chosen one.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    process::ExitStatus,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Mutex as Gate, Notify, watch},
    task::JoinSet,
};

use crate::{
    support::{DEADLINE, Worker},
    words::{CONSUMING, Words},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    Postgres,
    RabbitMq,
    Connector,
    Merchant,
    /// The same servers, on the way from an operator's command.
    OperatorPostgres,
    OperatorRabbitMq,
}

impl Service {
    pub const ALL: [Self; 6] = [
        Self::Postgres,
        Self::RabbitMq,
        Self::Connector,
        Self::Merchant,
        Self::OperatorPostgres,
        Self::OperatorRabbitMq,
    ];

    /// Whether a command speaks to it, and not a worker.
    pub fn is_operators(self) -> bool {
        matches!(self, Self::OperatorPostgres | Self::OperatorRabbitMq)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the worker or the command.
    Out,
    /// To the worker or the command.
    In,
}

/// The fault when a chunk passes: to the worker or the command, or to the connection that it passes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// SIGKILL; the chunk is lost.
    KillBefore,
    /// SIGKILL once the chunk is handed on.
    KillAfter,
    /// The connection is reset at both ends; the chunk is lost.
    Reset,
    /// This chunk and all after it are swallowed, both ways; the connection stays open.
    Silence,
    /// SIGTERM to a worker, SIGINT to a command; the chunk passes.
    Stop,
}

impl Blow {
    fn in_words(self) -> &'static str {
        match self {
            Self::KillBefore => "killed before",
            Self::KillAfter => "killed after",
            Self::Reset => "connection reset at",
            Self::Silence => "connection silent from",
            Self::Stop => "asked to stop at",
        }
    }
}

/// At the `chunk`-th, counted from 1 since counting began, or since the blow before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Whose chunks are counted; everybody's, where it is none's.
    pub of: Option<Service>,
    pub chunk: usize,
    pub blow: Blow,
}

/// A chunk, in words.
#[derive(Debug, Clone)]
pub struct Hit {
    pub service: Service,
    pub words: String,
}

/// A blow that fell, and where.
#[derive(Debug, Clone)]
pub struct Struck {
    pub cut: Cut,
    pub hit: Hit,
}

impl Struck {
    pub fn in_words(&self) -> String {
        let Cut { of, chunk, blow } = self.cut;
        let of = of.map(|service| format!(" of {service:?}")).unwrap_or_default();
        format!("{} chunk {chunk}{of} {}", blow.in_words(), self.hit.words)
    }
}

#[derive(Default)]
struct Counter {
    counts: bool,
    /// Counts again when the next worker consumes.
    waits_for_another: bool,
    /// Chunks since counting began, or since the last blow, by service.
    since: [usize; Service::ALL.len()],
    cuts: VecDeque<Cut>,
    passed: Vec<Hit>,
    struck: Vec<Struck>,
}

struct Shared {
    /// One chunk passes at a time, over all connections.
    gate: Gate<Counter>,
    last_chunk: Mutex<Instant>,
    worker: Victim,
    command: Victim,
    /// How many blows have fallen.
    blows: watch::Sender<usize>,
}

/// A process that is to be struck.
struct Victim {
    process: Mutex<Option<Worker>>,
    /// How many have died: the connections of the dead are cut.
    deaths: watch::Sender<usize>,
}

impl Victim {
    fn new() -> Self {
        Self { process: Mutex::default(), deaths: watch::Sender::new(0) }
    }
}

/// A listener for each service.
pub struct Proxies {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    _listeners: JoinSet<()>,
}

impl Proxies {
    /// The services' real addresses, in the order of [`Service::ALL`].
    pub async fn start(targets: [SocketAddr; Service::ALL.len()]) -> Self {
        let shared = Arc::new(Shared {
            gate: Gate::default(),
            last_chunk: Mutex::new(Instant::now()),
            worker: Victim::new(),
            command: Victim::new(),
            blows: watch::Sender::new(0),
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

    /// The worker that is to be struck.
    pub fn watch_over(&self, worker: Worker) {
        *self.shared.worker.process.lock().unwrap() = Some(worker);
    }

    /// The worker, where it lives.
    pub fn survivor(&self) -> Option<Worker> {
        self.shared.worker.process.lock().unwrap().take()
    }

    /// The operator's command that is to be struck.
    pub fn watch_over_command(&self, command: Worker) {
        *self.shared.command.process.lock().unwrap() = Some(command);
    }

    /// Until the command ends. Returns how; `None` if it was killed.
    pub async fn command_ended(&self) -> Option<ExitStatus> {
        loop {
            let ended = match &mut *self.shared.command.process.lock().unwrap() {
                None => return None,
                Some(command) => command.exit_status(),
            };
            match ended {
                Some(status) => return Some(status),
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// Until the worker is no more, by itself or killed.
    pub async fn victim_ended(&self) {
        let has_ended = || {
            let mut worker = self.shared.worker.process.lock().unwrap();
            worker.as_mut().is_none_or(|worker| worker.exit_status().is_some())
        };
        while !has_ended() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Until the one that came after a killed one consumes, or has had long enough to.
    pub async fn another_consumes(&self) {
        let consumes = async {
            while self.shared.gate.lock().await.waits_for_another {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = tokio::time::timeout(DEADLINE, consumes).await;
    }

    /// How long nothing has passed.
    pub fn idle_for(&self) -> Duration {
        self.shared.last_chunk.lock().unwrap().elapsed()
    }

    /// Counts from here.
    pub async fn arm(&self, cuts: impl IntoIterator<Item = Cut>) {
        let mut counter = self.shared.gate.lock().await;
        (counter.counts, counter.cuts) = (true, cuts.into_iter().collect());
    }

    /// Until so many blows have fallen.
    pub async fn blows(&self, count: usize) {
        let _ = self.shared.blows.subscribe().wait_for(|blows| *blows >= count).await;
    }

    /// The blows that fell, and all chunks that were counted.
    pub async fn outcome(&self) -> (Vec<Struck>, Vec<Hit>) {
        let counter = self.shared.gate.lock().await;
        (counter.struck.clone(), counter.passed.clone())
    }
}

/// One connection of one worker or command.
struct Line {
    service: Service,
    words: Mutex<Words>,
    /// How many had died when it was made.
    deaths: usize,
    is_silent: AtomicBool,
    reset: Notify,
}

async fn listen(listener: TcpListener, service: Service, target: SocketAddr, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((from, _)) = listener.accept().await {
        let Ok(to) = TcpStream::connect(target).await else { continue };
        connections.spawn(connection(service, from, to, shared.clone()));
    }
}

async fn connection(service: Service, worker: TcpStream, server: TcpStream, shared: Arc<Shared>) {
    let mut deaths = shared.victim(service).deaths.subscribe();
    let line = Line {
        service,
        words: Mutex::new(Words::new(service)),
        deaths: *deaths.borrow(),
        is_silent: AtomicBool::new(false),
        reset: Notify::new(),
    };
    let _ = (worker.set_nodelay(true), server.set_nodelay(true));
    let ((worker_reads, worker_writes), (server_reads, server_writes)) =
        (worker.into_split(), server.into_split());
    let both = async {
        tokio::join!(
            pump(&line, Direction::Out, worker_reads, server_writes, &shared),
            pump(&line, Direction::In, server_reads, worker_writes, &shared),
        )
    };
    tokio::select! {
        _ = both => {}
        _ = deaths.wait_for(|deaths| *deaths > line.deaths) => {}
        () = line.reset.notified() => {}
    }
}

async fn pump(
    line: &Line,
    direction: Direction,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
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
        if *shared.victim(line.service).deaths.borrow() > line.deaths {
            return;
        }
        if line.is_silent.load(Ordering::Relaxed) {
            continue;
        }
        let blow = counter.count(line, direction, chunk);
        match blow {
            None | Some(Blow::KillAfter) => {}
            Some(Blow::KillBefore) => return shared.kill(line.service),
            Some(Blow::Stop) => shared.stop(line.service),
            Some(Blow::Silence) => {
                line.is_silent.store(true, Ordering::Relaxed);
                shared.struck();
                continue;
            }
            Some(Blow::Reset) => {
                let _ = (from.as_ref().set_zero_linger(), to.as_ref().set_zero_linger());
                line.reset.notify_one();
                return shared.struck();
            }
        }
        let is_handed_on = to.write_all(chunk).await.is_ok();
        if blow == Some(Blow::KillAfter) {
            return shared.kill(line.service);
        }
        if !is_handed_on {
            break;
        }
    }
    let _ = to.shutdown().await;
}

impl Shared {
    /// Whose connections to a service pass.
    fn victim(&self, service: Service) -> &Victim {
        if service.is_operators() { &self.command } else { &self.worker }
    }

    fn kill(&self, service: Service) {
        let victim = self.victim(service);
        if let Some(mut process) = victim.process.lock().unwrap().take() {
            process.kill();
        }
        victim.deaths.send_modify(|deaths| *deaths += 1);
        self.struck();
    }

    fn stop(&self, service: Service) {
        if let Some(process) = &*self.victim(service).process.lock().unwrap() {
            process.signal(if service.is_operators() { "INT" } else { "TERM" });
        }
        self.struck();
    }

    fn struck(&self) {
        self.blows.send_modify(|blows| *blows += 1);
    }
}

impl Counter {
    /// Counts a chunk, and says what falls on it.
    fn count(&mut self, line: &Line, direction: Direction, chunk: &[u8]) -> Option<Blow> {
        // Heartbeats come by the clock, not by what is done.
        let words = line.words.lock().unwrap().of(direction, chunk)?;
        if self.waits_for_another && words.contains(CONSUMING) {
            (self.counts, self.waits_for_another) = (true, false);
        }
        if !self.counts {
            return None;
        }
        let hit = Hit { service: line.service, words };
        self.passed.push(hit.clone());
        let since = &mut self.since;
        since[line.service as usize] += 1;
        let cut = self.cuts.pop_front_if(|cut| match cut.of {
            Some(service) => service == line.service && cut.chunk == since[service as usize],
            None => since.iter().sum::<usize>() == cut.chunk,
        })?;
        self.struck.push(Struck { cut, hit });
        self.since = Default::default();
        if matches!(cut.blow, Blow::KillBefore | Blow::KillAfter) {
            (self.counts, self.waits_for_another) = (false, !self.cuts.is_empty());
        }
        Some(cut.blow)
    }
}
