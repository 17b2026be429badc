//! Starts everything around the workers: PostgreSQL, the cluster, providers, merchants, and the proxies between them.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use history_checker::{Leak, Secrets, Webhook};
use provider_simulators::sandbox::{Received, Receiver};
use time::OffsetDateTime;

use crate::{
    announcements::Announcements,
    calls::Calls,
    cluster::Cluster,
    configuration,
    connectors::{CONNECTORS, LINKS, Provider, RENAMED, ROAMING, STEADY},
    jobs::{self, CANARY},
    letters::{self, Letters},
    operators::Operators,
    plan::MERCHANTS,
    proxy::{Kind, Proxy},
    recipients::Recipients,
    samples::Samples,
    saturation::{self, Variant},
    services::Postgres,
    upstream::Upstream,
    workers::{Fleet, Proxies, WORKERS},
};

pub const WEBHOOK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub const SEALING: &str = "c2VhbGluZyBrZXkgb2YgYSB0ZXN0LCAzMiBieXRlcy4=";
pub const FINGERPRINT: &str = "ZmluZ2VycHJpbnQga2V5IG9mIGEgdGVzdCwgMzIgYi4=";
/// The waits between two deliveries of a webhook, in seconds.
pub const SCHEDULE: [u64; 6] = [1, 2, 4, 8, 15, 30];

pub struct TestEnv {
    pub seed: u64,
    pub folder: PathBuf,
    pub postgres: Postgres,
    pub cluster: Cluster,
    pub upstream: Arc<Upstream>,
    /// The providers in the order of [`CONNECTORS`], then those of [`STEADY`] and [`ROAMING`].
    pub providers: Vec<Provider>,
    pub merchants: Vec<Merchant>,
    pub fleet: Fleet,
    /// Proxies to one more merchant, each at its own address. There are none in the ordinary mode.
    pub crowd: Vec<Proxy>,
    /// The settings of the saturated mode; `None` in the ordinary mode.
    pub variant: Option<Variant>,
    pub samples: Arc<Samples>,
    pub recipients: Recipients,
    pub announcements: Announcements,
    pub operators: Operators,
    pub letters: Letters,
    /// The create calls that passed the proxies to the providers.
    pub calls: Calls,
    probes: AtomicU64,
}

pub struct Merchant {
    pub receiver: Receiver,
    pub proxy: Proxy,
    /// The webhooks collected from the receiver, which drops old ones.
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    webhooks: Vec<Webhook>,
    leaks: Vec<Leak>,
    /// The number of the last collected webhook.
    last: u64,
}

impl TestEnv {
    pub async fn start(
        seed: u64,
        folder: &Path,
        worker: PathBuf,
        variant: Option<Variant>,
    ) -> Result<Arc<Self>, String> {
        let mut taken = Vec::new();
        let is_saturated = variant.is_some();
        let postgres = Postgres::start(folder).await?;
        let cluster = Cluster::start(folder, &mut taken).await?;
        let secrets = Self::secrets_of_results();
        let upstream = Upstream::start(cluster.addresses(), secrets, is_saturated).await?;
        let mut providers = Vec::new();
        for connector in CONNECTORS.iter().chain([&STEADY, &ROAMING]) {
            providers.push(Provider::start(connector).await?);
        }
        let mut merchants = Vec::new();
        for _ in 0..MERCHANTS + usize::from(is_saturated) {
            let receiver = Receiver::start(&[WEBHOOK_SECRET.to_owned()]).await;
            let receiver = receiver.map_err(|error| error.to_string())?;
            let proxy = Proxy::start(Kind::to(vec![address(receiver.url())])).await;
            merchants.push(Merchant { receiver, proxy, seen: Mutex::default() });
        }
        let crowd =
            if is_saturated { crowd(address(merchants[MERCHANTS].receiver.url())).await } else { Vec::new() };
        let (mut proxies, calls) = (Vec::new(), Calls::default());
        let delay = variant.map_or(Duration::ZERO, Variant::delay);
        for worker in 0..WORKERS {
            let mut connectors = Vec::new();
            for provider in &providers[..CONNECTORS.len()] {
                let kind = Kind::provider(address(provider.url()), delay, calls.of_worker(worker));
                connectors.push(Proxy::start(kind).await);
            }
            let postgres = Proxy::start(Kind::to(vec![postgres.address])).await;
            let rabbitmq = Proxy::start(Kind::to(cluster.addresses())).await;
            proxies.push(Proxies { postgres, rabbitmq, connectors });
        }
        let connectors = variant.map_or(&CONNECTORS[..], Variant::connectors);
        let deletes_letters = (!is_saturated).then_some(letters::WORKER);
        let proxies = (proxies, connectors);
        let fleet = Fleet::new(folder, worker, &postgres.url, proxies, &mut taken, deletes_letters).await;
        let samples = Arc::new(Samples::new(&postgres.url)?);
        let env = Self {
            seed,
            folder: folder.to_owned(),
            postgres,
            cluster,
            upstream,
            providers,
            merchants,
            fleet,
            crowd,
            variant,
            samples,
            recipients: Recipients::default(),
            announcements: Announcements::default(),
            operators: Operators::default(),
            letters: Letters::default(),
            calls,
            probes: AtomicU64::default(),
        };
        env.write_configuration(false)?;
        Ok(Arc::new(env))
    }

    /// Writes the configuration of workers that start from now on.
    pub fn write_configuration(&self, renamed: bool) -> Result<(), String> {
        let [.., steady, roaming] = self.providers.as_slice() else { return Err("no providers".into()) };
        let name = if renamed { RENAMED } else { ROAMING.name };
        let text = match self.variant {
            Some(variant) => configuration::saturated(variant, steady.url(), roaming.url(), name),
            None => configuration::ordinary(steady.url()),
        };
        std::fs::write(self.folder.join("worker.toml"), text).map_err(|error| error.to_string())
    }

    /// Returns the secrets that must not appear anywhere.
    fn secrets_of_results() -> Secrets {
        Secrets::new([CANARY, WEBHOOK_SECRET, SEALING, FINGERPRINT].map(str::to_owned)).unwrap()
    }

    /// Returns the secrets that must appear neither in the database nor in a log.
    pub fn secrets_inside() -> Secrets {
        let credentials = CONNECTORS.iter().filter_map(|connector| Some(connector.account?.secret));
        let all = [CANARY, WEBHOOK_SECRET, SEALING, FINGERPRINT, LINKS].into_iter().chain(credentials);
        Secrets::new(all.map(str::to_owned)).unwrap()
    }

    pub fn webhook_urls(&self) -> Vec<String> {
        let url = |proxy: &Proxy| format!("http://{}/webhooks", proxy.address());
        let merchants = self.merchants[..MERCHANTS].iter().map(|merchant| url(&merchant.proxy));
        // Each known merchant gets as many webhooks as a third of the crowd.
        let times = (self.crowd.len() / MERCHANTS).max(1);
        merchants.cycle().take(MERCHANTS * times).chain(self.crowd.iter().map(url)).collect()
    }

    /// Publishes a plain job and returns its key.
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
        let unreachable = "http://127.0.0.1:1";
        let connectors = self.fleet.connectors.iter();
        let connectors = connectors.map(|connector| (connector.variable(), unreachable.to_owned()));
        let variables = [
            ("PAYOUT_LINK__DATABASE__URL", self.postgres.url.clone()),
            ("PAYOUT_LINK__BROKER__URL", "amqp://guest:guest@127.0.0.1:1/%2f".to_owned()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value)).into_iter().chain(connectors);
        payout_link_worker::config::load(Some(&path), variables).map_err(|error| error.to_string())
    }

    /// Opens all proxies and clears all faults.
    pub fn heal(&self) {
        for worker in &self.fleet.workers {
            worker.proxies.postgres.heal();
            worker.proxies.rabbitmq.heal();
            worker.proxies.connectors.iter().for_each(Proxy::heal);
        }
        self.crowd.iter().for_each(Proxy::heal);
        self.providers.iter().for_each(Provider::clear_faults);
        for merchant in &self.merchants {
            merchant.receiver.clear_faults();
            merchant.proxy.heal();
        }
    }
}

impl Merchant {
    /// Collects webhooks that are answered, or that will not be answered any more.
    pub fn collect_webhooks(&self) {
        let mut seen = self.seen.lock().unwrap();
        let given_up = OffsetDateTime::now_utc() - Duration::from_secs(20);
        let last = seen.last;
        let is_settled = |post: &Received| post.status.is_some() || post.at < given_up;
        let new = self.receiver.received().into_iter().filter(|post| post.number > last);
        for post in new.take_while(is_settled) {
            let of = post.id.clone().unwrap_or_default();
            let leaks = TestEnv::secrets_of_results().find(post.body.as_bytes(), || format!("webhook {of}"));
            seen.leaks.extend(leaks);
            seen.last = post.number;
            let sequence = post.json()["data"]["sequence"].as_u64();
            seen.webhooks.push(Webhook {
                key: post.reference.clone().unwrap_or_default(),
                kind: post.event_type.clone().unwrap_or_default(),
                sequence: sequence.and_then(|sequence| sequence.try_into().ok()),
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

    pub fn webhooks(&self) -> (Vec<Webhook>, Vec<Leak>) {
        let seen = self.seen.lock().unwrap();
        (seen.webhooks.clone(), seen.leaks.clone())
    }
}

fn address(url: &str) -> SocketAddr {
    let url: url::Url = url.parse().unwrap();
    SocketAddr::from(([127, 0, 0, 1], url.port().unwrap()))
}

/// Starts the proxies of the crowd. Loopback has sixteen million addresses, and each counts as a host of its own.
async fn crowd(target: SocketAddr) -> Vec<Proxy> {
    let mut proxies = Vec::new();
    for number in 0..saturation::CROWD {
        let address = Ipv4Addr::new(127, 1, (number / 200) as u8, (number % 200 + 1) as u8);
        proxies.push(Proxy::start_at(address.into(), Kind::to(vec![target])).await);
    }
    proxies
}
