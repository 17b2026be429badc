//! One crash point: a worker behind the proxies dies at it, another comes after, and the checker looks.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use payout_link_worker::{domain::idempotency_key, sandbox::Idempotency};
use serde_json::Value;
use sqlx::Row;

use crate::{
    history::{self, DeadLetter, Event, Heard, History, Link, Published, Record, Rule, Violation, Webhook},
    kinds::{Kind, Story},
    proxy::{Cut, Hit, Proxies, Service},
    support::{self, Setup, World},
};

pub struct Outcome {
    pub kind: Kind,
    pub cut: Option<Cut>,
    /// Where it died; nowhere, if the jobs ran through before.
    pub hit: Option<Hit>,
    /// Chunks that passed.
    pub passed: Vec<Hit>,
    pub violations: Vec<Violation>,
    pub took: Duration,
}

/// The shortest settings that the configuration allows.
pub async fn world() -> World {
    Setup::default()
        .set("worker.lease_seconds", 3)
        .set("connectors.sandbox.calls.timeout_seconds", 1)
        .set("connectors.asked.calls.timeout_seconds", 1)
        .set("connectors.mute.calls.timeout_seconds", 1)
        .set("connectors.asked.settle_seconds", 2)
        .set("broker.publish_patience_seconds", 1)
        .set("webhooks.timeout_seconds", 1)
        .set("retry.wait_in_place_ms", 2000)
        .build()
        .await
}

static SERIAL: AtomicU64 = AtomicU64::new(1);
/// Between two looks at a condition.
const GLANCE: Duration = Duration::from_millis(40);
const PATIENCE: Duration = Duration::from_secs(25);

struct Run<'a> {
    world: &'a World,
    kind: Kind,
    stories: Vec<Story>,
    replies: Arc<Mutex<Vec<support::Heard>>>,
    before: Vec<Record>,
    dead: Vec<DeadLetter>,
    waiting: u32,
}

pub async fn run(world: &World, kind: Kind, cut: Option<Cut>) -> Outcome {
    let started = Instant::now();
    let id = format!("po-{}", SERIAL.fetch_add(1, Ordering::Relaxed));
    // Where keys are good for nothing, every blind repeat makes a second link.
    let idempotency = if kind.rule() == Rule::SameKey { Idempotency::On } else { Idempotency::Off };
    world.provider.set_idempotency(idempotency);
    if let Some(order) = kind.at_connector() {
        world.provider.order_fault(order.for_reference(idempotency_key("", &id)));
    }
    if let Some(order) = kind.at_merchant() {
        world.merchant.order_fault(order.for_reference(&id));
    }
    let proxies = Proxies::start(targets(world)).await;
    proxies.watch_over(launch(world, kind, &proxies).await);

    let mut run = Run {
        world,
        kind,
        stories: Vec::new(),
        replies: Arc::default(),
        before: Vec::new(),
        dead: Vec::new(),
        waiting: 0,
    };
    let webhook = Value::from(format!("http://{}/webhooks", proxies.address(Service::Merchant)));
    if let Some(first) = kind.first(&id, &webhook) {
        world.publish(&first.job).await;
        run.stories.push(first);
        run.told(0).await;
        run.before = run.records().await;
    }
    // What a start brings with it is over.
    while proxies.idle_for() < Duration::from_millis(150) {
        tokio::time::sleep(GLANCE).await;
    }
    let mut stories = kind.stories(&id, &webhook);
    if kind.wants_reply() {
        let (queue, replies) = world.reply_queue().await;
        run.replies = replies;
        stories.iter_mut().for_each(|story| story.job = story.job.clone().reply_to(&queue));
    }
    proxies.arm(cut).await;
    for story in &stories {
        world.publish(&story.job).await;
    }
    run.stories.extend(stories);

    tokio::select! {
        () = proxies.died() => {}
        () = run.told(kind.refusals()) => {}
    }
    let (hit, passed) = proxies.told().await;
    let mut worker = match proxies.survivor() {
        Some(survivor) => survivor,
        None => {
            run.lapse().await;
            world.start_worker().await
        }
    };
    // Only a stopped worker holds nothing unacknowledged. What it gave back is answered once more by the next.
    run.told(kind.refusals()).await;
    for _ in 0..3 {
        worker.stop().await;
        run.waiting = world.ready(&world.names.jobs_queue).await;
        if run.waiting == 0 {
            break;
        }
        let heard = run.heard().len();
        worker = world.start_worker().await;
        run.hears(heard + run.waiting as usize).await;
    }
    let history = run.history().await;
    Outcome { kind, cut, hit, passed, violations: history::check(&history), took: started.elapsed() }
}

fn targets(world: &World) -> [SocketAddr; 4] {
    let address = |url: &str| -> SocketAddr {
        let url: url::Url = url.parse().unwrap();
        let default = if url.scheme() == "postgres" { 5432 } else { 5672 };
        let addresses = url.socket_addrs(|| Some(default)).unwrap();
        addresses[0]
    };
    let variable = |name: &str| std::env::var(name).unwrap();
    [
        address(&variable("DATABASE_URL")),
        address(&variable("AMQP_URL")),
        address(world.provider.url()),
        address(world.merchant.url()),
    ]
}

fn database_url(world: &World) -> String {
    let options = world.pool.connect_options();
    let mut url: url::Url = std::env::var("DATABASE_URL").unwrap().parse().unwrap();
    url.set_path(options.get_database().unwrap());
    url.to_string()
}

/// The one that is to die: it knows the services by their proxies alone.
async fn launch(world: &World, kind: Kind, proxies: &Proxies) -> support::Worker {
    let through = |url: &str, service| {
        let mut url: url::Url = url.parse().unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(proxies.address(service).port())).unwrap();
        url.to_string()
    };
    let connector = through(world.provider.url(), Service::Connector);
    // Looking for what is due is noise in the sequence, except where a repeat hangs on it.
    let sweep = if kind == Kind::WebhookFails { "700" } else { "30000" };
    let worker = world.launch_worker(&[
        ("PAYOUT_LINK__DATABASE__URL", through(&database_url(world), Service::Postgres)),
        ("PAYOUT_LINK__BROKER__URL", through(&std::env::var("AMQP_URL").unwrap(), Service::RabbitMq)),
        ("PAYOUT_LINK__CONNECTORS__SANDBOX__URL", connector.clone()),
        ("PAYOUT_LINK__CONNECTORS__ASKED__URL", connector.clone()),
        ("PAYOUT_LINK__CONNECTORS__MUTE__URL", connector),
        ("PAYOUT_LINK__WORKER__SWEEP_INTERVAL_MS", sweep.into()),
    ]);
    worker.says("connected to RabbitMQ, consuming").await;
    worker
}

impl Run<'_> {
    /// An event's lease has a floor of seven seconds: that its holder is dead is told, not waited for. A record's
    /// runs out by itself.
    async fn lapse(&self) {
        sqlx::query("UPDATE events SET due_at = now() WHERE holder IS NOT NULL AND due_at IS NOT NULL")
            .execute(&self.world.pool)
            .await
            .unwrap();
    }

    /// Until all is quiet and everybody has heard. What does not come in time is for the checker to say.
    async fn told(&self, refusals: usize) {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_told(refusals).await && Instant::now() < deadline {
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Until so many messages were heard.
    async fn hears(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.heard().len() < count && Instant::now() < deadline {
            tokio::time::sleep(GLANCE).await;
        }
    }

    async fn is_told(&self, refusals: usize) -> bool {
        let records = self.records().await;
        let valid = self.stories.iter().filter(|story| story.is_valid);
        let is_done = |record: &Record| {
            record.state != "open"
                && record.event.as_ref().is_some_and(|event| {
                    !event.due && !event.leased && event.published && event.webhook_state != "pending"
                })
        };
        if valid.clone().any(|story| !records.iter().any(|record| record.key == story.key))
            || !records.iter().all(is_done)
        {
            return false;
        }
        let heard = self.heard();
        let is_heard = |record: &Record| {
            let id = record.event.as_ref().map(|event| &event.id);
            heard.iter().any(|heard| heard.id.as_ref() == id)
                && (!self.kind.wants_reply() || heard.iter().any(|heard| heard.is_reply))
        };
        let is_answered = |story: &Story| {
            heard.iter().any(|heard| heard.correlation_id.as_deref() == Some(&story.message_id))
        };
        let rejected = self.stories.iter().filter(|story| {
            heard.iter().any(|heard| {
                heard.kind == "payout_link.rejected"
                    && heard.correlation_id.as_deref() == Some(&story.message_id)
            })
        });
        records.iter().all(is_heard)
            && self.stories.iter().filter(|story| story.came_late).all(is_answered)
            && rejected.count() >= refusals
            && self.world.ready(&self.world.names.dead_queue).await as usize >= refusals
            && self.world.ready(&self.world.names.jobs_queue).await == 0
    }

    async fn history(mut self) -> History {
        while let Some(dead) = self.world.take(&self.world.names.dead_queue).await {
            self.dead.push(DeadLetter {
                has_reason: dead.header("x-rejected-code").is_some()
                    && dead.header("x-rejected-reason").is_some(),
                message_id: dead.properties.message_id().as_ref().map(ToString::to_string),
            });
        }
        let is_ours = |key: &str| self.keys().contains(key);
        let published = self.stories.iter().map(|story| Published {
            message_id: story.message_id.clone(),
            key: story.key.clone(),
            fingerprint: story.fingerprint.clone(),
            amount: story.fingerprint.clone(),
            is_valid: story.is_valid,
            rule: self.kind.rule(),
            wants_webhook: self.kind.wants_webhook(),
            wants_reply: self.kind.wants_reply(),
            came_late: story.came_late,
        });
        let links = self.world.provider.ledger().links;
        let links = self.keys().into_iter().flat_map(|key| {
            let reference = idempotency_key("", key);
            links.iter().filter(move |link| link.request.reference == reference).map(move |link| Link {
                id: link.id.clone(),
                key: key.to_owned(),
                amount: format!("{} {}", link.request.amount.minor_amount, link.request.amount.currency),
                url: Some(link.url.clone()),
            })
        });
        let posts = self.world.merchant.received();
        let posts =
            posts.iter().filter(|post| post.reference.as_deref().is_some_and(is_ours)).map(|post| Webhook {
                id: post.id.clone(),
                key: post.reference.clone().unwrap_or_default(),
                status: post.status,
                is_verified: post.verified,
                body: post.body.clone(),
            });
        History {
            published: published.collect(),
            links: links.collect(),
            before: self.before.clone(),
            records: self.records().await,
            heard: self.heard(),
            dead: self.dead.clone(),
            webhooks: posts.collect(),
            waiting: self.waiting,
            ..History::default()
        }
    }

    fn heard(&self) -> Vec<Heard> {
        let replies = self.replies.lock().unwrap().clone();
        let all = replies.into_iter().map(|heard| (true, heard));
        let all = all.chain(self.world.results().into_iter().map(|heard| (false, heard)));
        let ours = all.filter(|(_, heard)| {
            let (correlation, body) = (heard.correlation_id(), String::from_utf8_lossy(&heard.body));
            self.stories.iter().any(|story| {
                correlation.as_ref() == Some(&story.message_id)
                    || body.contains(&format!("\"{}\"", story.key))
            })
        });
        ours.map(|(is_reply, heard)| {
            let json = heard.json();
            Heard {
                is_reply,
                id: heard.properties.message_id().as_ref().map(ToString::to_string),
                kind: heard.kind(),
                key: json["merchant_payout_id"].as_str().unwrap_or_default().to_owned(),
                correlation_id: heard.correlation_id(),
                link_url: json["payout_link"]["url"].as_str().map(str::to_owned),
                body: heard.body,
            }
        })
        .collect()
    }

    fn keys(&self) -> BTreeSet<&str> {
        self.stories.iter().map(|story| story.key.as_str()).collect()
    }

    /// Of this run's keys, with their events.
    async fn records(&self) -> Vec<Record> {
        let keys: Vec<&str> = self.keys().into_iter().collect();
        let rows = sqlx::query(
            "SELECT p.merchant_payout_id, p.amount_minor || ' ' || p.currency, p.state, p.connector_payout_id,
                p.in_doubt_since IS NOT NULL, p.holder IS NOT NULL, p.due_at IS NOT NULL,
                ARRAY(SELECT outcome FROM attempts a WHERE a.payout_link_id = p.id AND kind = 'create'
                    ORDER BY started_at),
                e.id::text, e.type, e.published_at IS NOT NULL, e.due_at IS NOT NULL, e.holder IS NOT NULL,
                e.webhook_state, e.webhook_attempts
             FROM payout_links p LEFT JOIN events e ON e.payout_link_id = p.id
             WHERE p.merchant_payout_id = ANY($1) ORDER BY 1",
        )
        .bind(&keys)
        .fetch_all(&self.world.pool)
        .await
        .unwrap();
        rows.iter()
            .map(|row| Record {
                key: row.get(0),
                amount: row.get(1),
                state: row.get(2),
                link_id: row.get(3),
                in_doubt: row.get(4),
                leased: row.get(5),
                due: row.get(6),
                calls: row.get(7),
                event: row.get::<Option<String>, _>(8).map(|id| Event {
                    id,
                    kind: row.get(9),
                    published: row.get(10),
                    due: row.get(11),
                    leased: row.get(12),
                    webhook_state: row.get(13),
                    webhook_attempts: row.get::<i32, _>(14).unsigned_abs(),
                }),
            })
            .collect()
    }
}
