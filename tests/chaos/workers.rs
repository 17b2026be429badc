//! Runs the workers as real processes, each behind its own proxies, and starts them again when they end.

use std::{
    fs::{File, OpenOptions},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use time::OffsetDateTime;

use crate::{
    connectors::Connector,
    letters,
    proxy::Proxy,
    services::{port, signal, until},
};

pub const WORKERS: usize = 3;

/// The proxies of one worker.
pub struct Proxies {
    pub postgres: Proxy,
    pub rabbitmq: Proxy,
    /// The proxies in the order of `CONNECTORS`.
    pub connectors: Vec<Proxy>,
}

pub struct Worker {
    pub proxies: Proxies,
    pub health: SocketAddr,
    /// The address of its listener for providers' webhooks.
    pub provider_webhooks: SocketAddr,
    child: Mutex<Option<Child>>,
    /// It was asked to stop and has not ended yet. The fault that stops it also starts it again.
    is_stopping: AtomicBool,
    /// The peak memory of any of its processes, in kilobytes.
    peak: Mutex<u64>,
    log: PathBuf,
}

pub struct Fleet {
    program: PathBuf,
    config: PathBuf,
    database_url: url::Url,
    /// The worker that deletes old dead letters.
    deletes_letters: Option<usize>,
    pub workers: Vec<Worker>,
    /// The connectors whose URL differs between workers.
    pub connectors: &'static [Connector],
    /// Ends that were not requested.
    pub unexpected_ends: Mutex<Vec<String>>,
    /// The times when workers ended or began to stop.
    pub ends: Mutex<Vec<(usize, OffsetDateTime)>>,
    client: reqwest::Client,
}

impl Fleet {
    #[expect(clippy::unused_async, reason = "it needs a runtime")]
    pub async fn new(
        folder: &Path,
        program: PathBuf,
        database_url: &str,
        (proxies, connectors): (Vec<Proxies>, &'static [Connector]),
        taken: &mut Vec<u16>,
        deletes_letters: Option<usize>,
    ) -> Self {
        let workers = proxies.into_iter().enumerate().map(|(number, proxies)| Worker {
            proxies,
            health: SocketAddr::from(([127, 0, 0, 1], port(taken))),
            provider_webhooks: SocketAddr::from(([127, 0, 0, 1], port(taken))),
            child: Mutex::default(),
            is_stopping: AtomicBool::default(),
            peak: Mutex::default(),
            log: folder.join(format!("worker-{number}.log")),
        });
        Self {
            program,
            config: folder.join("worker.toml"),
            database_url: database_url.parse().unwrap(),
            deletes_letters,
            workers: workers.collect(),
            connectors,
            unexpected_ends: Mutex::default(),
            ends: Mutex::default(),
            client: reqwest::Client::builder().timeout(Duration::from_secs(2)).build().unwrap(),
        }
    }

    /// Starts a worker unless it runs or is stopping. Two faults that overlap can both end by starting it.
    pub fn start(&self, place: usize) {
        let worker = &self.workers[place];
        let mut child = worker.child.lock().unwrap();
        if worker.is_stopping.load(Ordering::SeqCst)
            || child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_none()))
        {
            return;
        }
        let log = || -> File { OpenOptions::new().create(true).append(true).open(&worker.log).unwrap() };
        let mut command = self.command(place);
        command.arg("run").stdin(Stdio::null()).stdout(log()).stderr(log());
        *child = Some(command.spawn().unwrap());
    }

    /// Builds a command with the configuration and the proxies of a worker.
    pub fn command(&self, place: usize) -> Command {
        let worker = &self.workers[place];
        let mut database_url = self.database_url.clone();
        database_url.set_port(Some(worker.proxies.postgres.port())).unwrap();
        let rabbitmq = format!("amqp://guest:guest@{}/%2f", worker.proxies.rabbitmq.address());
        let mut command = Command::new(&self.program);
        command
            .env_remove("DATABASE_URL")
            .env_remove("AMQP_URL")
            .args(["--config".as_ref(), self.config.as_os_str()])
            .env("PAYOUT_LINK__DATABASE__URL", database_url.as_str())
            .env("PAYOUT_LINK__BROKER__URL", rabbitmq)
            .env("PAYOUT_LINK__WORKER__HEALTH_LISTEN", worker.health.to_string())
            .env("PAYOUT_LINK__WORKER__PROVIDER_WEBHOOKS_LISTEN", worker.provider_webhooks.to_string());
        if self.deletes_letters == Some(place) {
            command.env("PAYOUT_LINK__RETENTION__DEAD_LETTERS_DAYS", letters::DAYS.to_string());
        }
        for (connector, proxy) in self.connectors.iter().zip(&worker.proxies.connectors) {
            command.env(connector.variable(), format!("http://{}", proxy.address()));
        }
        command
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&self, place: usize) {
        self.measure(place);
        self.ended(place);
        if let Some(mut child) = self.workers[place].child.lock().unwrap().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn pid(&self, place: usize) -> Option<u32> {
        self.workers[place].child.lock().unwrap().as_ref().map(Child::id)
    }

    /// Sends SIGTERM and waits for the end. An error, or an end after the longest grace period, is recorded as
    /// unexpected.
    pub async fn stop(&self, place: usize) {
        self.measure(place);
        self.ended(place);
        let worker = &self.workers[place];
        let mut child = {
            let mut child = worker.child.lock().unwrap();
            let Some(child) = child.take() else { return };
            worker.is_stopping.store(true, Ordering::SeqCst);
            child
        };
        signal(child.id(), "TERM").await;
        let ended = until("a worker's end", Duration::from_secs(40), async || {
            child.try_wait().is_ok_and(|status| status.is_some())
        });
        let ended = ended.await;
        match (ended, child.try_wait()) {
            (Ok(()), Ok(Some(status))) if status.success() => {}
            (_, status) => {
                self.record_unexpected_end(format!("worker {place}, asked to stop: {status:?}"));
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        worker.is_stopping.store(false, Ordering::SeqCst);
    }

    /// Starts workers again that ended by themselves.
    pub fn supervise(&self) {
        for place in 0..self.workers.len() {
            self.measure(place);
            let ended = self.workers[place].child.lock().unwrap().as_mut().and_then(|child| {
                let status = child.try_wait().ok()??;
                Some(format!("worker {place} ended by itself: {status}"))
            });
            if let Some(ended) = ended {
                self.ended(place);
                self.record_unexpected_end(ended);
                self.start(place);
            }
        }
    }

    fn ended(&self, place: usize) {
        self.ends.lock().unwrap().push((place, OffsetDateTime::now_utc()));
    }

    fn record_unexpected_end(&self, what: String) {
        println!("  !! {what}");
        self.unexpected_ends.lock().unwrap().push(what);
    }

    fn measure(&self, place: usize) {
        let worker = &self.workers[place];
        let Some(pid) = worker.child.lock().unwrap().as_ref().map(Child::id) else { return };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or(0);
        let mut known = worker.peak.lock().unwrap();
        *known = (*known).max(peak);
    }

    pub fn peak_kilobytes(&self) -> u64 {
        self.workers.iter().map(|worker| *worker.peak.lock().unwrap()).max().unwrap_or(0)
    }

    /// Says whether the worker reports that it is ready.
    pub async fn is_ready(&self, place: usize) -> bool {
        let url = format!("http://{}/health/ready", self.workers[place].health);
        self.client.get(url).send().await.is_ok_and(|answer| answer.status().is_success())
    }

    pub fn logs(&self) -> impl Iterator<Item = &Path> {
        self.workers.iter().map(|worker| worker.log.as_path())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for place in 0..self.workers.len() {
            self.kill(place);
        }
    }
}
