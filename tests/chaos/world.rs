//! Everything around the workers: Postgres, the cluster, connectors, merchants, and the ways between.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use payout_link_worker::{
    audit::{Leak, Secrets, Webhook},
    sandbox::{Received, Receiver},
};
use time::OffsetDateTime;

use crate::{
    cluster::Cluster,
    connectors::{CONNECTORS, LINKS, Provider, STEADY},
    jobs::{self, CANARY},
    plan::MERCHANTS,
    proxy::Proxy,
    services::Postgres,
    upstream::Upstream,
    workers::{Fleet, WORKERS, Ways},
};

const WEBHOOK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SEALING: &str = "c2VhbGluZyBrZXkgb2YgYSB0ZXN0LCAzMiBieXRlcy4=";
const FINGERPRINT: &str = "ZmluZ2VycHJpbnQga2V5IG9mIGEgdGVzdCwgMzIgYi4=";
/// Waits between posts, in seconds.
pub const SCHEDULE: [u64; 6] = [1, 2, 4, 8, 15, 30];

pub struct World {
    pub seed: u64,
    pub folder: PathBuf,
    pub postgres: Postgres,
    pub cluster: Cluster,
    pub upstream: Arc<Upstream>,
    /// In the order of [`CONNECTORS`], then the steady one.
    pub providers: Vec<Provider>,
    pub merchants: Vec<Merchant>,
    pub fleet: Fleet,
    probes: AtomicU64,
}

pub struct Merchant {
    pub receiver: Receiver,
    pub way: Proxy,
    /// What was taken over from the receiver, which forgets.
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    webhooks: Vec<Webhook>,
    leaks: Vec<Leak>,
    /// The number of the last that was taken over.
    last: u64,
}

impl World {
    pub async fn start(seed: u64, folder: &Path, worker: PathBuf) -> Result<Arc<Self>, String> {
        let mut taken = Vec::new();
        let postgres = Postgres::start(folder).await?;
        let cluster = Cluster::start(folder, &mut taken).await?;
        let secrets = Self::secrets_of_results();
        let upstream = Upstream::start(cluster.addresses(), secrets).await?;
        let mut providers = Vec::new();
        for connector in CONNECTORS.iter().chain([&STEADY]) {
            providers.push(Provider::start(connector).await?);
        }
        let mut merchants = Vec::new();
        for _ in 0..MERCHANTS {
            let receiver = Receiver::start(&[WEBHOOK_SECRET.to_owned()]).await;
            let receiver = receiver.map_err(|error| error.to_string())?;
            let way = Proxy::start(vec![address(receiver.url())]).await;
            merchants.push(Merchant { receiver, way, seen: Mutex::default() });
        }
        let mut ways = Vec::new();
        for _ in 0..WORKERS {
            let mut connectors = Vec::new();
            for provider in &providers[..CONNECTORS.len()] {
                connectors.push(Proxy::start(vec![address(provider.url())]).await);
            }
            let postgres = Proxy::start(vec![postgres.address]).await;
            let rabbitmq = Proxy::start(cluster.addresses()).await;
            ways.push(Ways { postgres, rabbitmq, connectors });
        }
        std::fs::write(folder.join("worker.toml"), configuration(providers[CONNECTORS.len()].url()))
            .map_err(|error| error.to_string())?;
        let fleet = Fleet::new(folder, worker, &postgres.url, ways, &mut taken).await;
        Ok(Arc::new(Self {
            seed,
            folder: folder.to_owned(),
            postgres,
            cluster,
            upstream,
            providers,
            merchants,
            fleet,
            probes: AtomicU64::default(),
        }))
    }

    /// May be nowhere at all.
    fn secrets_of_results() -> Secrets {
        Secrets::new([CANARY, WEBHOOK_SECRET, SEALING, FINGERPRINT].map(str::to_owned)).unwrap()
    }

    /// May be neither in the database nor in a log.
    pub fn secrets_inside() -> Secrets {
        let credentials = CONNECTORS.iter().filter_map(|connector| Some(connector.account?.secret));
        let all = [CANARY, WEBHOOK_SECRET, SEALING, FINGERPRINT, LINKS].into_iter().chain(credentials);
        Secrets::new(all.map(str::to_owned)).unwrap()
    }

    pub fn webhook_urls(&self) -> Vec<String> {
        self.merchants.iter().map(|merchant| format!("http://{}/webhooks", merchant.way.address())).collect()
    }

    /// Publishes a plain job and gives its key.
    pub fn probe(&self, connector: Option<usize>) -> String {
        let number = self.probes.fetch_add(1, Ordering::Relaxed);
        let connector = connector.map_or(&STEADY, |connector| &CONNECTORS[connector]);
        let message = jobs::probe(self.seed, number, connector);
        let key = message.known.key.clone();
        let upstream = self.upstream.clone();
        tokio::spawn(async move { upstream.publish(message).await });
        key
    }

    pub fn configuration(&self) -> Result<payout_link_worker::config::Config, String> {
        let path = self.folder.join("worker.toml");
        let nobody = "http://127.0.0.1:1";
        let connectors = CONNECTORS.iter().map(|connector| (connector.variable(), nobody.to_owned()));
        let variables = [
            ("PAYOUT_LINK__DATABASE__URL", self.postgres.url.clone()),
            ("PAYOUT_LINK__BROKER__URL", "amqp://guest:guest@127.0.0.1:1/%2f".to_owned()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value)).into_iter().chain(connectors);
        payout_link_worker::config::load(Some(&path), variables).map_err(|error| error.to_string())
    }

    /// All proxies open, no fault ordered.
    pub fn heal(&self) {
        for worker in &self.fleet.workers {
            worker.ways.postgres.heal();
            worker.ways.rabbitmq.heal();
            worker.ways.connectors.iter().for_each(Proxy::heal);
        }
        self.providers.iter().for_each(Provider::clear_faults);
        for merchant in &self.merchants {
            merchant.receiver.clear_faults();
            merchant.way.heal();
        }
    }
}

impl Merchant {
    /// Takes over what is answered, or will not be any more.
    pub fn take_over(&self) {
        let mut seen = self.seen.lock().unwrap();
        let given_up = OffsetDateTime::now_utc() - Duration::from_secs(20);
        let last = seen.last;
        let is_settled = |post: &Received| post.status.is_some() || post.at < given_up;
        let new = self.receiver.received().into_iter().filter(|post| post.number > last);
        for post in new.take_while(is_settled) {
            let of = post.id.clone().unwrap_or_default();
            let leaks = World::secrets_of_results().find(post.body.as_bytes(), || format!("webhook {of}"));
            seen.leaks.extend(leaks);
            seen.last = post.number;
            seen.webhooks.push(Webhook {
                key: self.key_of(&post),
                id: post.id,
                status: post.status,
                is_verified: post.verified,
                body: format!(
                    "{:?}",
                    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, post.body.as_bytes())
                ),
            });
        }
    }

    fn key_of(&self, post: &Received) -> String {
        post.reference.clone().unwrap_or_default()
    }

    pub fn webhooks(&self) -> (Vec<Webhook>, Vec<Leak>) {
        let seen = self.seen.lock().unwrap();
        (seen.webhooks.clone(), seen.leaks.clone())
    }
}

fn address(url: &str) -> SocketAddr {
    let url: url::Url = url.parse().unwrap();
    SocketAddr::from(([127, 0, 0, 1], url.port().unwrap()))
}

/// Short waits, so that much happens in little time; what is not said here is the default.
fn configuration(steady_url: &str) -> String {
    let connectors: String =
        CONNECTORS.iter().map(|connector| connector.section("http://127.0.0.1:1")).collect();
    let connectors = connectors + &STEADY.section(steady_url);
    format!(
        r#"
[worker]
jobs_in_flight = 256
lease_seconds = 8
sweep_interval_ms = 500
grace_period_seconds = 10
[database]
max_connections = 6
timeout_seconds = 3
[broker]
heartbeat_seconds = 3
connect_timeout_seconds = 3
publish_patience_seconds = 4
publish_pause_seconds = 1
[keys]
sealing = ["k1:{SEALING}"]
fingerprint = "{FINGERPRINT}"
[jobs]
allow_http_webhooks = true
[retry]
initial_ms = 200
max_interval_seconds = 5
wait_in_place_ms = 1000
[webhooks]
secrets = ["{WEBHOOK_SECRET}"]
schedule_seconds = {SCHEDULE:?}
timeout_seconds = 4
connect_timeout_seconds = 2
host_concurrency = 256
allowed_networks = ["127.0.0.0/8"]
[log]
format = "json"
filter = "info,payout_link_worker::broker=debug"
{connectors}"#
    )
}
