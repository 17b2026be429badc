//! Makes the sandboxes send their webhooks to the workers: correctly, late, repeatedly, out of order, stale,
//! unsigned, to workers that are down, or not at all. A webhook only triggers a question to the provider. So each change must be
//! published and delivered once, even if its webhook is lost.

use std::{sync::Arc, time::Duration};

use provider_simulators::{Announce, Behaviour, sandbox::Sandbox};
use tokio::{sync::watch, time::sleep};

use crate::{connectors::Provider, random::Random, test_env::TestEnv, workers::WORKERS};

/// The secret that authenticates the sandboxes' webhooks.
pub const SECRET: &str = "canary-of-inbound-webhooks";
/// The pause between two changes of the sandboxes' settings.
const PAUSE: Duration = Duration::from_secs(2);
/// The random stream of this part.
const STREAM: u64 = 0x00A4_4041;

#[derive(Default)]
pub struct Announcements {
    stop: watch::Sender<bool>,
}

impl Announcements {
    /// Changes every few seconds how each sandbox announces, and to which worker, until it is stopped.
    pub async fn act(env: Arc<TestEnv>) {
        let mut random = Random::new(env.seed, STREAM);
        let mut stop = env.announcements.stop.subscribe();
        while !*stop.borrow() {
            for (connector, sandbox) in env.sandboxes() {
                let worker = &env.fleet.workers[random.index(WORKERS)];
                let url = format!("http://{}/connectors/{connector}/webhooks", worker.provider_webhooks);
                sandbox.announce(Some(Announce::to(url, SECRET).with(behaviour(&mut random))));
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

    /// Counts the webhooks by the workers' answers.
    pub fn counts(env: &TestEnv) -> Vec<(&'static str, u64)> {
        let mut counts =
            [("webhooks of providers, accepted", 0), ("… rejected", 0), ("… not answered or lost", 0)];
        for (_, sandbox) in env.sandboxes() {
            for announced in sandbox.ledger().announcements {
                let place = match announced.status {
                    Some(200..=299) => 0,
                    Some(_) => 1,
                    None => 2,
                };
                counts[place].1 += 1;
            }
        }
        counts.to_vec()
    }
}

fn behaviour(random: &mut Random) -> Behaviour {
    let usual = Behaviour { retries: 1, ..Behaviour::default() };
    match random.between(0, 12) {
        0 => Behaviour { lose: true, ..usual },
        1 => Behaviour { repeat: 2, ..usual },
        2 => Behaviour { reorder: true, ..usual },
        3 => Behaviour { old_timestamp: true, ..usual },
        4 => Behaviour { old_status: true, reorder: true, ..usual },
        5 => Behaviour { unsigned: true, ..usual },
        6 => Behaviour { wrong_secret: true, repeat: 1, ..usual },
        7 => Behaviour { old_status: true, repeat: 1, ..usual },
        _ => usual,
    }
}

impl TestEnv {
    /// Lists the sandboxes, each with the name of its connector.
    pub fn sandboxes(&self) -> impl Iterator<Item = (&'static str, &Sandbox)> {
        let names = crate::connectors::CONNECTORS.iter().chain([&crate::connectors::STEADY]);
        names.zip(&self.providers).filter_map(|(connector, provider)| match provider {
            Provider::Sandbox(sandbox) => Some((connector.name, sandbox)),
            Provider::ProviderSimulator(..) => None,
        })
    }
}
