//! Runs a cluster of three RabbitMQ nodes on loopback, with its own names, ports, data and epmd.

use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use crate::services::{answers, port, run, signal, until};

pub const NODES: usize = 3;
const START: Duration = Duration::from_mins(3);

pub struct Cluster {
    home: PathBuf,
    programs: PathBuf,
    name: String,
    epmd_port: u16,
    ctl_port: u16,
    nodes: [Node; NODES],
}

#[derive(Clone, Copy)]
struct Node {
    port: u16,
    distribution_port: u16,
}

impl Cluster {
    pub async fn start(folder: &Path, taken: &mut Vec<u16>) -> Result<Self, String> {
        let home = folder.join("rabbitmq");
        let mut node = || Node { port: port(taken), distribution_port: port(taken) };
        let nodes = [node(), node(), node()];
        let name = format!("chaos{}", std::process::id());
        let (epmd_port, ctl_port) = (port(taken), port(taken));
        let cluster = Self { home, programs: programs()?, name, epmd_port, ctl_port, nodes };
        for place in 0..NODES {
            std::fs::create_dir_all(cluster.folder(place)).map_err(|error| error.to_string())?;
        }
        std::fs::write(cluster.home.join("rabbitmq.conf"), cluster.configuration())
            .map_err(|error| error.to_string())?;
        // Nodes that start at the same time would each write a cookie of their own.
        let cookie = cluster.home.join(".erlang.cookie");
        std::fs::write(&cookie, &cluster.name).map_err(|error| error.to_string())?;
        std::fs::set_permissions(&cookie, std::fs::Permissions::from_mode(0o400))
            .map_err(|error| error.to_string())?;
        // All nodes start before any is waited for, because nodes of RabbitMQ 4.0 wait for each other while they
        // boot.
        for place in 0..NODES {
            cluster.spawn(place).await?;
        }
        for place in 0..NODES {
            cluster.wait(place).await?;
        }
        let status = cluster.ctl(0, &["cluster_status", "--formatter", "json"]).await?;
        let status: serde_json::Value = serde_json::from_str(&status).map_err(|error| error.to_string())?;
        let running = status["running_nodes"].as_array().map_or(0, Vec::len);
        if running == NODES {
            Ok(cluster)
        } else {
            Err(format!("{running} of {NODES} nodes are in the cluster"))
        }
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| SocketAddr::from(([127, 0, 0, 1], node.port))).collect()
    }

    /// Sends SIGKILL to the node.
    pub async fn kill(&self, place: usize) {
        self.signal(place, "KILL").await;
        let _ = self.ended(place, Duration::from_secs(30)).await;
    }

    /// Shuts the node down cleanly.
    pub async fn stop(&self, place: usize) {
        self.signal(place, "TERM").await;
        if self.ended(place, Duration::from_mins(1)).await.is_err() {
            self.kill(place).await;
        }
    }

    async fn signal(&self, place: usize, name: &str) {
        for pid in self.processes(place) {
            signal(pid, name).await;
        }
    }

    async fn ended(&self, place: usize, patience: Duration) -> Result<(), String> {
        until("a node's end", patience, async || !self.runs(place)).await
    }

    /// Starts a node and does not wait until it serves.
    pub async fn spawn(&self, place: usize) -> Result<(), String> {
        let mut server = self.command("rabbitmq-server", Some(place));
        let log = std::fs::File::create(self.folder(place).join("start.log")).map_err(|e| e.to_string())?;
        let errors = log.try_clone().map_err(|error| error.to_string())?;
        server.arg("-detached").stdin(Stdio::null()).stdout(log).stderr(errors);
        run(server).await?;
        Ok(())
    }

    /// Waits until the node serves.
    pub async fn wait(&self, place: usize) -> Result<(), String> {
        let address = self.addresses()[place];
        until(&format!("node {place} of RabbitMQ"), START, async || answers(address).await).await
    }

    /// Returns the node that leads the queue.
    pub async fn leader(&self, queue: &str) -> Option<usize> {
        let arguments = ["list_queues", "--quiet", "--no-table-headers", "name", "leader"];
        for asked in 0..NODES {
            if !self.runs(asked) {
                continue;
            }
            let Ok(said) = self.ctl(asked, &arguments).await else { continue };
            let line = said.lines().find_map(|line| line.trim().strip_prefix(queue)?.trim().into());
            if let Some(leader) = line {
                return (0..NODES).find(|&place| self.node_name(place) == leader.trim());
            }
        }
        None
    }

    /// Sets or clears a memory alarm, which blocks every connection that publishes, on all nodes.
    pub async fn alarm(&self, place: usize, on: bool) -> Result<(), String> {
        let limit: &[&str] = if on { &["absolute", "1"] } else { &["0.4"] };
        self.ctl(place, &[&["set_vm_memory_high_watermark"], limit].concat()).await.map(drop)
    }

    /// Sets the consumer timeout of channels that are opened from now on, on every node that runs.
    pub async fn consumer_timeout(&self, timeout: Duration) -> Result<(), String> {
        let tick = timeout.min(Duration::from_mins(1)) / 5;
        let expression = format!(
            "application:set_env(rabbit, consumer_timeout, {}), application:set_env(rabbit, channel_tick_interval, {}).",
            timeout.as_millis(),
            tick.as_millis(),
        );
        for place in (0..NODES).filter(|&place| self.runs(place)) {
            self.ctl(place, &["eval", &expression]).await?;
        }
        Ok(())
    }

    /// Makes the broker close every client's connection, the run's own publisher included.
    pub async fn close_all_connections(&self) -> Result<(), String> {
        let Some(place) = (0..NODES).find(|&place| self.runs(place)) else { return Ok(()) };
        self.ctl(place, &["close_all_connections", "chaos"]).await.map(drop)
    }

    async fn ctl(&self, place: usize, arguments: &[&str]) -> Result<String, String> {
        let mut ctl = self.command("rabbitmqctl", None);
        ctl.args(["-n", &self.node_name(place)]).args(arguments);
        run(ctl).await
    }

    fn node_name(&self, place: usize) -> String {
        format!("{}n{place}@localhost", self.name)
    }

    fn folder(&self, place: usize) -> PathBuf {
        self.home.join(format!("node{place}"))
    }

    fn runs(&self, place: usize) -> bool {
        !self.processes(place).is_empty()
    }

    /// Returns the processes of a node. A node that still boots has no pid file yet, so its environment identifies it.
    fn processes(&self, place: usize) -> Vec<u32> {
        let name = format!("RABBITMQ_NODENAME={}", self.node_name(place));
        let is_of_node = |pid: &u32| {
            // A process may have ended meanwhile.
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == name.as_bytes()) && is_alive(*pid)
        };
        let all = std::fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
        all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_of_node).collect()
    }

    fn configuration(&self) -> String {
        let mut lines = vec![
            "cluster_formation.peer_discovery_backend = classic_config".to_owned(),
            "log.file.level = warning".to_owned(),
            "collect_statistics_interval = 60000".to_owned(),
        ];
        for place in 0..NODES {
            let name = self.node_name(place);
            lines.push(format!("cluster_formation.classic_config.nodes.{} = {name}", place + 1));
        }
        lines.join("\n") + "\n"
    }

    /// Builds a command whose files, ports and settings are all in the run's folder.
    fn command(&self, program: &str, place: Option<usize>) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command
            .env("HOME", &self.home)
            .env("LC_ALL", "C.UTF-8")
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_CTL_DIST_PORT_MIN", self.ctl_port.to_string())
            .env("RABBITMQ_CTL_DIST_PORT_MAX", (self.ctl_port + 50).to_string());
        let Some(place) = place else { return command };
        let (node, folder) = (self.nodes[place], self.folder(place));
        command
            // Erlang writes its crash dumps to the working directory.
            .current_dir(&folder)
            .env("RABBITMQ_NODENAME", self.node_name(place))
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", node.port.to_string())
            .env("RABBITMQ_DIST_PORT", node.distribution_port.to_string())
            .env("RABBITMQ_MNESIA_BASE", folder.join("data"))
            .env("RABBITMQ_LOG_BASE", folder.join("log"))
            .env("RABBITMQ_LOGS", folder.join("rabbitmq.log"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("enabled_plugins"))
            .env("RABBITMQ_CONFIG_FILE", self.home.join("rabbitmq.conf"))
            .env("RABBITMQ_GENERATED_CONFIG_DIR", folder.join("generated"))
            .env("RABBITMQ_SCHEMA_DIR", folder.join("schema"))
            // Schedulers sleep while they wait, because three nodes share the machine with the workers.
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
            );
        command
    }
}

/// Ends the nodes and their epmd when the run ends, also after a panic.
impl Drop for Cluster {
    fn drop(&mut self) {
        for pid in (0..NODES).flat_map(|place| self.processes(place)) {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        }
        // epmd refuses to end while it knows a node, and it forgets a node only some time after the node has ended.
        for _ in 0..50 {
            let mut epmd = Command::new("epmd");
            epmd.arg("-kill").env("ERL_EPMD_PORT", self.epmd_port.to_string());
            if epmd.stderr(Stdio::null()).stdout(Stdio::null()).status().is_ok_and(|left| left.success()) {
                return;
            }
            #[expect(clippy::disallowed_methods, reason = "a destructor cannot await")]
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().is_some_and(|state| state.starts_with('Z')))
}

/// Finds the package's inner scripts as `scripts/services` does.
fn programs() -> Result<PathBuf, String> {
    let candidates = ["/usr/lib/rabbitmq/bin", "/usr/local/sbin", "/opt/homebrew/sbin"].map(PathBuf::from);
    let found = candidates.into_iter().find(|folder| folder.join("rabbitmq-server").exists());
    found.ok_or_else(|| "RabbitMQ is not installed here: scripts/services up installs it where it may".into())
}
