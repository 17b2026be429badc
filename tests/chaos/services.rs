//! Provides the run's own ports, PostgreSQL and processes.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use crate::random::Random;

/// Picks a free port below the range of outgoing connections, so that a service finds its port free after a restart.
pub fn port(taken: &mut Vec<u16>) -> u16 {
    let mut random = Random::new(u64::from(std::process::id()), taken.len() as u64);
    loop {
        let port = random.between(20_000, 32_000) as u16;
        if !taken.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            taken.push(port);
            return port;
        }
    }
}

/// Runs a command that must succeed, outside the runtime's threads.
pub async fn run(mut command: Command) -> Result<String, String> {
    let said = tokio::task::spawn_blocking(move || {
        let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(said);
        }
        Err(format!("{command:?}: {said}{}", String::from_utf8_lossy(&output.stderr)))
    });
    said.await.unwrap()
}

/// Sends a signal to one process, by its id.
pub async fn signal(pid: u32, name: &str) {
    let mut kill = Command::new("kill");
    kill.arg(format!("-{name}")).arg(pid.to_string());
    // An error is ignored, because the process may have ended by itself.
    let _ = run(kill).await;
}

/// Waits for a condition, with a deadline.
pub async fn until(
    what: &str,
    deadline: Duration,
    mut is_so: impl AsyncFnMut() -> bool,
) -> Result<(), String> {
    let started = Instant::now();
    while !is_so().await {
        if started.elapsed() > deadline {
            return Err(format!("{what}: not within {deadline:?}"));
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

pub async fn answers(address: SocketAddr) -> bool {
    tokio::net::TcpStream::connect(address).await.is_ok()
}

/// The run's own PostgreSQL, started by `scripts/services`.
pub struct Postgres {
    folder: PathBuf,
    pub address: SocketAddr,
    pub url: String,
}

impl Postgres {
    pub async fn start(folder: &Path) -> Result<Self, String> {
        let folder = folder.join("services");
        services(&folder, "up").await?;
        let environment = services(&folder, "env").await?;
        let url =
            environment.split_once("DATABASE_URL=").map(|(_, url)| url.trim().trim_matches(['\'', '"']));
        let url = url.ok_or("scripts/services env names no DATABASE_URL")?.to_owned();
        let parsed: url::Url = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let address = SocketAddr::from(([127, 0, 0, 1], parsed.port().unwrap_or(5432)));
        Ok(Self { folder, address, url })
    }

    /// Sends SIGKILL to all its processes at once, as in a crash.
    pub async fn kill(&self) -> Result<(), String> {
        services(&self.folder, "kill").await.map(drop)
    }

    /// Sends SIGSTOP or SIGCONT to all its processes. Connections stay open but silent.
    pub async fn signal(&self, name: &str) -> Result<(), String> {
        let home = std::fs::read_to_string(self.folder.join("postgres-home"));
        let home = home.map_err(|error| format!("postgres-home: {error}"))?;
        let file = Path::new(home.trim()).join("data/postmaster.pid");
        let postmaster =
            std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let postmaster: u32 =
            postmaster.lines().next().and_then(|line| line.trim().parse().ok()).ok_or("no pid")?;
        // The parent comes first, because a stopped parent starts no more children.
        signal(postmaster, name).await;
        for child in children(postmaster) {
            signal(child, name).await;
        }
        Ok(())
    }

    /// Starts it again on the same port. It recovers by itself.
    pub async fn restart(&self) -> Result<(), String> {
        services(&self.folder, "up").await.map(drop)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = command(&self.folder, "down").output();
    }
}

fn children(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.split_whitespace().nth(1)?.parse().ok()
}

fn command(folder: &Path, verb: &str) -> Command {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/services"));
    command.args([verb, "postgres"]).env("SERVICES_DIR", folder);
    command.env_remove("DATABASE_URL").env_remove("AMQP_URL");
    command
}

async fn services(folder: &Path, verb: &str) -> Result<String, String> {
    run(command(folder, verb)).await
}
