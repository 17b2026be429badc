//! Acts as an operator by the command line, at random: cancels links, redelivers webhooks, looks up statuses, retries
//! failed records, and resolves unknown ones as the provider's ledger says.

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::sleep};

use crate::{
    connectors::{Provider, references},
    random::Random,
    services,
    test_env::TestEnv,
    workers::WORKERS,
};

/// The pause between two commands.
const PAUSE: Duration = Duration::from_secs(2);
/// An operator resolves a record that has been unknown for so long: a call that was on its way has arrived by then.
const SETTLED: Duration = Duration::from_secs(45);
/// The random stream of this part.
const STREAM: u64 = 0x0009_E247;

#[derive(Default)]
pub struct Operators {
    /// How many runs of each command succeeded, and how many failed: the database was away, or the record's state
    /// refused the command.
    counts: std::sync::Mutex<BTreeMap<String, (u64, u64)>>,
    stop: watch::Sender<bool>,
}

impl Operators {
    /// Runs commands about concluded records until it is stopped.
    pub async fn act(env: Arc<TestEnv>) {
        let (mut random, mut stop) = (Random::new(env.seed, STREAM), env.operators.stop.subscribe());
        while !*stop.borrow() {
            if let Some((key, arguments)) = order(&env, &mut random) {
                let acted = act_once(&env, &key, &arguments, random.index(WORKERS)).await;
                let mut counts = env.operators.counts.lock().unwrap();
                let (succeeded, failed) = counts.entry(arguments[0].clone()).or_default();
                if acted.is_ok() { *succeeded += 1 } else { *failed += 1 }
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

    pub fn counts(&self) -> (u64, u64, String) {
        let counts = self.counts.lock().unwrap();
        let (succeeded, failed) = counts.values().fold((0, 0), |all, of| (all.0 + of.0, all.1 + of.1));
        let each =
            counts.iter().map(|(command, (succeeded, failed))| format!("{command} {succeeded} + {failed}"));
        (succeeded, failed, each.collect::<Vec<_>>().join(", "))
    }
}

/// Runs a command. A provider that cannot be asked checks no `--not-created`: the operator, who has seen its ledger, adds
/// `--force` then.
async fn act_once(env: &TestEnv, key: &str, arguments: &[String], worker: usize) -> Result<String, String> {
    match services::run(env.command(key, arguments, worker)).await {
        Err(said) if said.contains("cannot be asked by our reference, so nothing checks") => {
            let forced = [arguments, &["--force".to_owned()]].concat();
            services::run(env.command(key, &forced, worker)).await
        }
        acted => acted,
    }
}

/// Chooses a command and a record for it. Returns `None` if no record fits.
fn order(env: &TestEnv, random: &mut Random) -> Option<(String, Vec<String>)> {
    let command = random.between(0, 6);
    let is_fit = |newest: &str, since: &Instant| match command {
        0 => newest == "payout_link.failed",
        1 => newest == "payout_link.pending" && since.elapsed() > SETTLED,
        _ => true,
    };
    let mut keys: Vec<String> = {
        let inbox = env.upstream.inbox.lock().unwrap();
        let concluded = inbox.concluded.iter();
        concluded
            .filter(|(key, since)| is_fit(&inbox.newest[*key].1, since))
            .map(|(key, _)| key.clone())
            .collect()
    };
    if keys.is_empty() {
        return None;
    }
    let key = keys.swap_remove(random.index(keys.len()));
    let arguments = match command {
        0 => line(&["retry", "--yes"]),
        1 => finding(env, &key),
        2 | 3 => line(&["cancel", "--timeout-seconds", "3"]),
        4 => line(&["webhooks", "redeliver", "--yes"]),
        _ => line(&["look-up"]),
    };
    Some((key, arguments))
}

fn line(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Resolves a record as its provider's ledger says.
fn finding(env: &TestEnv, key: &str) -> Vec<String> {
    let (merchant_id, id) = parts(key);
    let theirs: Vec<String> = references(merchant_id, id).collect();
    let mut links = env.providers.iter().flat_map(|provider: &Provider| provider.links(|_| None));
    match links.find(|link| theirs.contains(&link.key)) {
        Some(link) => {
            let mut words = vec!["resolve".to_owned(), "--force".to_owned(), "--created".to_owned(), link.id];
            words.extend(link.url.into_iter().flat_map(|url| ["--url".to_owned(), url]));
            words
        }
        None => line(&["resolve", "--not-created"]),
    }
}

fn parts(key: &str) -> (&str, &str) {
    key.rsplit_once('/').unwrap_or(("", key))
}

impl TestEnv {
    /// Builds a command about a record, which uses a worker's connection to PostgreSQL.
    fn command(&self, key: &str, arguments: &[String], worker: usize) -> Command {
        let (merchant_id, id) = parts(key);
        let mut command = self.fleet.command(worker);
        command
            .args(arguments)
            .args(["--reason", "chaos", id, "--merchant", merchant_id])
            .stdin(Stdio::null());
        command
    }
}
