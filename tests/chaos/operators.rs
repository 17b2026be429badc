//! An operator: cancels links, delivers webhooks again and asks for statuses, by the command line and at random.

use std::{
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, time::sleep};

use crate::{random::Random, services, test_env::TestEnv, workers::WORKERS};

/// Between two commands.
const PAUSE: Duration = Duration::from_secs(2);
/// A stream of chance of its own.
const STREAM: u64 = 0x0009_E247;

#[derive(Default)]
pub struct Operators {
    /// Commands that had an effect, and those that did not: the database is away, or the link is claimed.
    counts: std::sync::Mutex<(u64, u64)>,
    stop: watch::Sender<bool>,
}

impl Operators {
    /// Gives commands about concluded records until it is stopped.
    pub async fn act(env: Arc<TestEnv>) {
        let (mut random, mut stop) = (Random::new(env.seed, STREAM), env.operators.stop.subscribe());
        while !*stop.borrow() {
            let keys: Vec<String> = env.upstream.ear.lock().unwrap().concluded.keys().cloned().collect();
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
        let (done, refused) = *self.counts.lock().unwrap();
        vec![("commands of operators that were carried out", done), ("… that were not", refused)]
    }
}

impl TestEnv {
    /// A command about a record, through a worker's way to PostgreSQL.
    fn command(&self, key: &str, arguments: &[&str], worker: usize) -> Command {
        let (merchant_id, id) = key.rsplit_once('/').unwrap_or(("", key));
        let mut command = self.fleet.command(worker);
        command.args(arguments).args([id, "--merchant", merchant_id]).stdin(Stdio::null());
        command
    }
}
