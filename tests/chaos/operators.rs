//! Acts as an operator: cancels links, redelivers webhooks and looks up statuses by the command line, at random.

use std::{
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, time::sleep};

use crate::{random::Random, services, test_env::TestEnv, workers::WORKERS};

/// The pause between two commands.
const PAUSE: Duration = Duration::from_secs(2);
/// The random stream of this part.
const STREAM: u64 = 0x0009_E247;

#[derive(Default)]
pub struct Operators {
    /// Commands that succeeded, and commands that failed because the database was away or the link was claimed.
    counts: std::sync::Mutex<(u64, u64)>,
    stop: watch::Sender<bool>,
}

impl Operators {
    /// Runs commands about concluded records until it is stopped.
    pub async fn act(env: Arc<TestEnv>) {
        let (mut random, mut stop) = (Random::new(env.seed, STREAM), env.operators.stop.subscribe());
        while !*stop.borrow() {
            let keys: Vec<String> = env.upstream.inbox.lock().unwrap().concluded.keys().cloned().collect();
            if !keys.is_empty() {
                let key = keys[random.index(keys.len())].clone();
                let arguments: &[&str] = match random.between(0, 4) {
                    0 | 1 => &["cancel", "--timeout-seconds", "3", "--reason", "chaos"],
                    2 => &["webhooks", "redeliver", "--yes", "--reason", "chaos"],
                    _ => &["look-up", "--reason", "chaos"],
                };
                let acted = services::run(env.command(&key, arguments, random.index(WORKERS))).await;
                let mut counts = env.operators.counts.lock().unwrap();
                if acted.is_ok() { counts.0 += 1 } else { counts.1 += 1 }
            }
            tokio::select! {
                () = sleep(PAUSE) => {}
                _ = stop.changed() => {}
            }
        }
    }

    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let (succeeded, failed) = *self.counts.lock().unwrap();
        vec![("operator commands that succeeded", succeeded), ("… that failed", failed)]
    }
}

impl TestEnv {
    /// Builds a command about a record, which uses a worker's connection to PostgreSQL.
    fn command(&self, key: &str, arguments: &[&str], worker: usize) -> Command {
        let (merchant_id, id) = key.rsplit_once('/').unwrap_or(("", key));
        let mut command = self.fleet.command(worker);
        command.args(arguments).args([id, "--merchant", merchant_id]).stdin(Stdio::null());
        command
    }
}
