//! Runs a RabbitMQ or a PostgreSQL for one test, which the test can kill and start again.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A server that only one test uses.
pub struct Service {
    /// The URL for a client.
    pub url: String,
    /// The folder with its data and logs.
    pub folder: PathBuf,
    name: &'static str,
}

impl Service {
    /// Starts a server: `postgres` or `rabbitmq`.
    pub async fn start(name: &'static str) -> Self {
        Self::start_with(name, |_| ()).await
    }

    /// Starts a server after `prepare` has written into its folder.
    #[expect(clippy::unused_async, reason = "a service takes seconds to start")]
    pub async fn start_with(name: &'static str, prepare: impl FnOnce(&Path)) -> Self {
        let folder = std::env::temp_dir().join(format!("it-{name}-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&folder).unwrap();
        prepare(&folder);
        let mut service = Self { url: String::new(), name, folder };
        service.run("up");
        let variable = if name == "postgres" { "DATABASE_URL=" } else { "AMQP_URL=" };
        let environment = service.run("env");
        let line = environment.lines().find_map(|line| line.split_once(variable)).expect(variable);
        line.1.trim_matches(['\'', '"']).clone_into(&mut service.url);
        service
    }

    /// Sends SIGKILL.
    pub fn kill(&self) {
        self.run("kill");
    }

    /// Stops and starts the server cleanly, so that all declarations are on disk. A quorum queue that was declared
    /// just before a SIGKILL comes back without its data on RabbitMQ 3.10, and does not answer.
    pub fn settle(&self) {
        self.run("down");
        self.run("up");
    }

    /// Starts the server again, on the same port and with its data.
    pub fn restart(&self) {
        self.run("up");
    }

    /// Runs `rabbitmqctl`.
    pub fn ctl(&self, arguments: &[&str]) {
        self.script(&[&["ctl"], arguments].concat());
    }

    fn run(&self, verb: &str) -> String {
        self.script(&[verb, self.name])
    }

    fn script(&self, arguments: &[&str]) -> String {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/services");
        let output = Command::new(script)
            .args(arguments)
            .env("SERVICES_DIR", &self.folder)
            .env_remove("DATABASE_URL")
            .env_remove("AMQP_URL")
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.run("down");
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
