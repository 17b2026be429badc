//! Runs a worker: the real binary, with its log in a file.

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    time::Duration,
};

use serde_json::Value;

use super::eventually;

/// A worker process. It ends when this value is dropped.
pub struct Worker {
    child: Child,
    log: PathBuf,
}

/// Returns the path of the worker's binary, which Cargo builds beside the test's: `target/PROFILE/deps/TEST`.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("payout-link-worker")
}

/// Builds a command of the binary with a configuration, without settings of this process's environment.
pub(super) fn command(config: &Path) -> Command {
    let mut command = Command::new(program());
    command.env_remove("DATABASE_URL").env_remove("AMQP_URL").arg("--config").arg(config);
    command
}

impl Worker {
    pub(super) fn start(mut command: Command, log: PathBuf) -> Self {
        let file = File::create(&log).unwrap();
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Self { child, log }
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until its log contains the text.
    pub async fn says(&self, text: &str) {
        eventually(&format!("the worker logs {text:?}"), async || self.log().contains(text).then_some(()))
            .await;
    }

    /// Returns the health URL. `worker.health_listen` has port 0, so the log names the port.
    pub async fn health_url(&self) -> String {
        self.url_of("health endpoint listening").await
    }

    /// Returns the text of `/metrics`.
    pub async fn metrics(&self) -> String {
        let answer = reqwest::get(format!("{}/metrics", self.health_url().await)).await.unwrap();
        answer.text().await.unwrap()
    }

    /// Returns the series of `/metrics` and their values.
    pub async fn series(&self) -> BTreeMap<String, String> {
        let metrics = self.metrics().await;
        let samples = metrics.lines().filter_map(|line| line.rsplit_once(' '));
        samples.map(|(series, value)| (series.to_owned(), value.to_owned())).collect()
    }

    /// Waits until a series of `/metrics` has this value.
    pub async fn measures(&self, series: &str, value: impl Display) {
        let value = value.to_string();
        eventually(&format!("{series} is {value}"), async || {
            (self.series().await.get(series) == Some(&value)).then_some(())
        })
        .await;
    }

    /// Returns the HTTP status of `/health/ready`, and its body.
    pub async fn readiness(&self) -> (u16, Value) {
        let answer = reqwest::get(format!("{}/health/ready", self.health_url().await)).await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
    }

    /// Returns the URL for providers' webhooks. `worker.provider_webhooks_listen` has port 0, so the log names the
    /// port.
    pub async fn provider_webhooks_url(&self) -> String {
        self.url_of("provider webhooks endpoint listening").await
    }

    async fn url_of(&self, listening: &str) -> String {
        let address = eventually(listening, async || {
            let log = self.log();
            let line = log.lines().find(|line| line.contains(listening))?;
            let line: Value = serde_json::from_str(line).ok()?;
            Some(line["address"].as_str().unwrap().to_owned())
        });
        format!("http://{}", address.await)
    }

    /// Returns its peak memory, in bytes.
    pub fn peak_memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    /// Returns the CPU that it has used so far.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The name, in parentheses, may contain anything. utime and stime are the 12th and 13th fields after it.
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
        // USER_HZ is 100 on every Linux.
        Duration::from_millis(ticks * 10)
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal, by its name: `TERM`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").arg(format!("-{name}")).arg(pid).status().unwrap();
        assert!(sent.success());
    }

    /// Sends SIGSTOP and waits until every thread has stopped: a thread may run on while the one with the signal
    /// waits for a CPU.
    pub async fn pause(&self) {
        self.signal("STOP");
        let runs = |task: std::fs::DirEntry| {
            // A thread may have ended meanwhile.
            let stat = std::fs::read_to_string(task.path().join("stat"));
            stat.is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.starts_with(" T"))
        };
        eventually("the worker is stopped", async || {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
            (!tasks.map(Result::unwrap).any(runs)).then_some(())
        })
        .await;
    }

    /// Returns how it ended, or `None` while it runs.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end.
    pub async fn exited(&mut self) -> ExitStatus {
        let ended = async {
            loop {
                if let Some(status) = self.exit_status() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(super::DEADLINE, ended).await.expect("the worker ends")
    }

    /// Sends SIGTERM and waits for the end.
    pub async fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.exited().await
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
