//! Proxies between a worker and its services. They pass chunks of bytes on one after the other, count them, and inject a
//! fault at a chosen one.

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
    /// The same servers, for an operator's command.
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

    /// Returns whether a command uses it, and not a worker.
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

/// The fault at a chunk: of the worker or the command, or of the chunk's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL; the chunk is lost.
    KillBefore,
    /// SIGKILL after the chunk is passed on.
    KillAfter,
    /// The connection is reset at both ends; the chunk is lost.
    Reset,
    /// This chunk and all later ones are lost in both directions, and the connection stays open.
    Silence,
    /// SIGTERM to a worker, SIGINT to a command; the chunk passes.
    Stop,
}

impl Fault {
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

/// When a fault is injected: at a chunk, counted from 1 since the count began or since the previous fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trigger {
    /// The service whose chunks are counted; `None` counts all.
    pub of: Option<Service>,
    pub number: usize,
    pub fault: Fault,
}

/// A chunk that passed, described in words.
#[derive(Debug, Clone)]
pub struct Chunk {
    pub service: Service,
    pub words: String,
}

/// A fault that was injected, and the chunk.
#[derive(Debug, Clone)]
pub struct Injected {
    pub trigger: Trigger,
    pub chunk: Chunk,
}

impl Injected {
    pub fn in_words(&self) -> String {
        let Trigger { of, number, fault } = self.trigger;
        let of = of.map(|service| format!(" of {service:?}")).unwrap_or_default();
        format!("{} chunk {number}{of} {}", fault.in_words(), self.chunk.words)
    }
}

#[derive(Default)]
struct Counter {
    counts: bool,
    /// The count begins again when the next worker consumes.
    waits_for_another: bool,
    /// The number of chunks of each service since the count began or since the last fault.
    since: [usize; Service::ALL.len()],
    triggers: VecDeque<Trigger>,
    passed: Vec<Chunk>,
    injected: Vec<Injected>,
}

struct Shared {
    /// Lets one chunk pass at a time, over all connections.
    gate: Gate<Counter>,
    last_chunk: Mutex<Instant>,
    worker: Victim,
    command: Victim,
    /// The number of injected faults.
    faults: watch::Sender<usize>,
}

/// A process that gets faults.
struct Victim {
    process: Mutex<Option<Worker>>,
    /// The number of processes that were killed. Connections of killed processes are closed.
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
    /// Starts a proxy before each service; `targets` are their real addresses, in the order of [`Service::ALL`].
    pub async fn start(targets: [SocketAddr; Service::ALL.len()]) -> Self {
        let shared = Arc::new(Shared {
            gate: Gate::default(),
            last_chunk: Mutex::new(Instant::now()),
            worker: Victim::new(),
            command: Victim::new(),
            faults: watch::Sender::new(0),
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

    /// Sets the worker that gets faults.
    pub fn watch_over(&self, worker: Worker) {
        *self.shared.worker.process.lock().unwrap() = Some(worker);
    }

    /// Takes the worker, if it still runs.
    pub fn survivor(&self) -> Option<Worker> {
        self.shared.worker.process.lock().unwrap().take()
    }

    /// Sets the operator's command that gets faults.
    pub fn watch_over_command(&self, command: Worker) {
        *self.shared.command.process.lock().unwrap() = Some(command);
    }

    /// Waits until the command ends. Returns its exit status, or `None` if it was killed.
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

    /// Waits until the worker has ended, by itself or killed.
    pub async fn victim_ended(&self) {
        let has_ended = || {
            let mut worker = self.shared.worker.process.lock().unwrap();
            worker.as_mut().is_none_or(|worker| worker.exit_status().is_some())
        };
        while !has_ended() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the worker after a killed one consumes, at most until the deadline.
    pub async fn another_consumes(&self) {
        let consumes = async {
            while self.shared.gate.lock().await.waits_for_another {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = tokio::time::timeout(DEADLINE, consumes).await;
    }

    /// Returns the time since the last chunk.
    pub fn idle_for(&self) -> Duration {
        self.shared.last_chunk.lock().unwrap().elapsed()
    }

    /// Begins to count, and sets the faults.
    pub async fn arm(&self, triggers: impl IntoIterator<Item = Trigger>) {
        let mut counter = self.shared.gate.lock().await;
        (counter.counts, counter.triggers) = (true, triggers.into_iter().collect());
    }

    /// Waits until this number of faults was injected.
    pub async fn faults(&self, count: usize) {
        let _ = self.shared.faults.subscribe().wait_for(|faults| *faults >= count).await;
    }

    /// Returns the injected faults, and all counted chunks.
    pub async fn outcome(&self) -> (Vec<Injected>, Vec<Chunk>) {
        let counter = self.shared.gate.lock().await;
        (counter.injected.clone(), counter.passed.clone())
    }
}

/// One connection of one worker or command.
struct Line {
    service: Service,
    words: Mutex<Words>,
    /// The number of killed processes when the connection was made.
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
        let fault = counter.count(line, direction, chunk);
        match fault {
            None | Some(Fault::KillAfter) => {}
            Some(Fault::KillBefore) => return shared.kill(line.service),
            Some(Fault::Stop) => shared.stop(line.service),
            Some(Fault::Silence) => {
                line.is_silent.store(true, Ordering::Relaxed);
                shared.count_fault();
                continue;
            }
            Some(Fault::Reset) => {
                let _ = (from.as_ref().set_zero_linger(), to.as_ref().set_zero_linger());
                line.reset.notify_one();
                return shared.count_fault();
            }
        }
        let is_handed_on = to.write_all(chunk).await.is_ok();
        if fault == Some(Fault::KillAfter) {
            return shared.kill(line.service);
        }
        if !is_handed_on {
            break;
        }
    }
    let _ = to.shutdown().await;
}

impl Shared {
    /// Returns the process that uses a service.
    fn victim(&self, service: Service) -> &Victim {
        if service.is_operators() { &self.command } else { &self.worker }
    }

    fn kill(&self, service: Service) {
        let victim = self.victim(service);
        if let Some(mut process) = victim.process.lock().unwrap().take() {
            process.kill();
        }
        victim.deaths.send_modify(|deaths| *deaths += 1);
        self.count_fault();
    }

    fn stop(&self, service: Service) {
        // A command may have ended by itself after its last chunk.
        if let Some(process) = &mut *self.victim(service).process.lock().unwrap()
            && process.exit_status().is_none()
        {
            process.signal(if service.is_operators() { "INT" } else { "TERM" });
        }
        self.count_fault();
    }

    fn count_fault(&self) {
        self.faults.send_modify(|faults| *faults += 1);
    }
}

impl Counter {
    /// Counts a chunk. Returns the fault that is injected at it.
    fn count(&mut self, line: &Line, direction: Direction, chunk: &[u8]) -> Option<Fault> {
        // Heartbeats depend on the time, not on the work.
        let words = line.words.lock().unwrap().of(direction, chunk)?;
        if self.waits_for_another && words.contains(CONSUMING) {
            (self.counts, self.waits_for_another) = (true, false);
        }
        if !self.counts {
            return None;
        }
        let chunk = Chunk { service: line.service, words };
        self.passed.push(chunk.clone());
        let since = &mut self.since;
        since[line.service as usize] += 1;
        let trigger = self.triggers.pop_front_if(|trigger| match trigger.of {
            Some(service) => service == line.service && trigger.number == since[service as usize],
            None => since.iter().sum::<usize>() == trigger.number,
        })?;
        self.injected.push(Injected { trigger, chunk });
        self.since = Default::default();
        if matches!(trigger.fault, Fault::KillBefore | Fault::KillAfter) {
            (self.counts, self.waits_for_another) = (false, !self.triggers.is_empty());
        }
        Some(trigger.fault)
    }
}
