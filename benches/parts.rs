//! Measures the CPU of a job's parts: decoding, encryption, signing, counting, and a batch in PostgreSQL. Run it with
//! `scripts/bench --parts`.

#![expect(clippy::unwrap_used, reason = "a benchmark stops at the first failure")]

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use divan::{Bencher, black_box, counter::ItemsCount};
use futures_util::future::join_all;
use payout_link_worker::{
    config,
    contract::{self, DecodePolicy, FingerprintKey},
    domain::{AccountId, Attempt, AttemptKind, AttemptOutcome, CreateLink, PayoutLinkState, TraceContext},
    metrics::Metrics,
    postgres::{
        Accepted, BatchLimits, Column, Hold, KeyRing, MIGRATIONS, NewLink, Store, StoreSettings, WebhookState,
    },
    rabbitmq::Route,
    webhooks::{SigningKey, signature},
};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};
use uuid::Uuid;

fn main() {
    divan::main();
}

/// The example of the contract, of about a kilobyte.
const JOB: &[u8] = include_bytes!("job.json");
const POLICY: DecodePolicy =
    DecodePolicy { allow_http_webhooks: false, unknown_fields: contract::UnknownFields::Reject };

fn job() -> CreateLink {
    contract::create_link(JOB, None, &POLICY).unwrap()
}

fn keys() -> KeyRing {
    let keys = ["k1:c2VhbGluZyBrZXkgb2YgYSB0ZXN0LCAzMiBieXRlcy4=".into()];
    KeyRing::new(&keys, &"ZmluZ2VycHJpbnQga2V5IG9mIGEgdGVzdCwgMzIgYi4=".into()).unwrap()
}

#[divan::bench]
fn decode() -> CreateLink {
    contract::create_link(black_box(JOB), None, &POLICY).unwrap()
}

#[divan::bench]
fn encode_for_the_record(bencher: Bencher) {
    let job = job();
    bencher.bench(|| contract::canonical_request(black_box(&job)));
}

#[divan::bench]
fn fingerprint(bencher: Bencher) {
    let (request, key) = (contract::canonical_request(&job()), FingerprintKey::new(&[7; 32]));
    bencher.bench(|| contract::fingerprint(black_box(&request), "sandbox", &key));
}

#[divan::bench]
fn seal(bencher: Bencher) {
    let (keys, clear) = (keys(), contract::canonical_request(&job()).as_bytes().to_vec());
    bencher
        .with_inputs(|| clear.clone())
        .bench_values(|clear| keys.seal(Column::Request, Uuid::nil(), &clear));
}

#[divan::bench]
fn open(bencher: Bencher) {
    let keys = keys();
    let sealed = keys.seal(Column::Request, Uuid::nil(), contract::canonical_request(&job()).as_bytes());
    bencher.bench(|| keys.open(Column::Request, Uuid::nil(), black_box(&sealed)).unwrap());
}

#[divan::bench(args = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="])]
fn sign(bencher: Bencher, secret: &str) {
    let keys = [SigningKey::new(&secret.into()).unwrap()];
    let body = [b'x'; 700];
    bencher
        .bench(|| signature(&keys, "0192b7a1-0000-7000-8000-000000000000", 1_790_000_000, black_box(&body)));
}

/// Counts everything that one job adds to the metrics, from acceptance to the delivered webhook.
#[divan::bench]
fn count(bencher: Bencher) {
    let config = config::load(Some(Path::new("config.example.toml")), std::iter::empty()).unwrap();
    let connectors = config.connectors().unwrap();
    let account = connectors.choose(Some("sandbox")).unwrap();
    let metrics = Metrics::new(connectors.iter());
    let call = Attempt {
        kind: AttemptKind::Create,
        number: 1,
        started_at: time::OffsetDateTime::UNIX_EPOCH,
        took: Duration::from_millis(70),
        status_code: 201,
        outcome: AttemptOutcome::Created,
        detail: None,
    };
    bencher.bench(|| {
        metrics.accepted(black_box(&Accepted::Parked));
        metrics.called(account, black_box(&call));
        metrics.concluded(account, PayoutLinkState::Created, None);
        metrics.published(black_box(&Ok(Route::Queued)));
        metrics.posted(black_box(WebhookState::Delivered));
    });
}

/// Accepts jobs together in a database of the run's own, and measures from the first job's wait to the last job's
/// answer.
#[divan::bench(args = [1, 16, 256], sample_count = 50)]
fn accept_batch(bencher: Bencher, jobs: u64) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let admin_url = std::env::var("DATABASE_URL").expect("DATABASE_URL: see scripts/bench");
    let name = format!("bench_{}", Uuid::new_v4().simple());
    let store = runtime.block_on(async {
        let mut admin = PgConnection::connect(&admin_url).await.unwrap();
        admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        let mut url: url::Url = admin_url.parse().unwrap();
        url.set_path(&name);
        let pool = PgPool::connect(url.as_str()).await.unwrap();
        MIGRATIONS.run(&pool).await.unwrap();
        let settings = StoreSettings {
            lease: Duration::from_secs(45),
            event_lease: Duration::from_secs(45),
            batches: BatchLimits { rows: 256, bytes: 1 << 20, depth: 4 },
        };
        Store::new(pool, keys(), settings)
    });
    let new_link = || {
        let id = NUMBER.fetch_add(1, Ordering::Relaxed);
        let body = String::from_utf8(JOB.to_vec()).unwrap().replace("PAYOUT-ID", &format!("po-{id}"));
        NewLink {
            merchant_id: String::new(),
            connector: "sandbox".into(),
            connector_is_named: true,
            job: Box::new(contract::create_link(body.as_bytes(), None, &POLICY).unwrap()),
            reply_to: None,
            correlation_id: None,
            trace: TraceContext::default(),
            hold: Hold::Lease,
            account: AccountId::of("sandbox", "https://pay.example", "acme"),
            lost_call_from: None,
        }
    };
    bencher
        .counter(ItemsCount::new(jobs))
        .with_inputs(|| (0..jobs).map(|_| new_link()).collect::<Vec<_>>())
        .bench_values(|links| {
            runtime.block_on(async {
                for accepted in join_all(links.into_iter().map(|link| store.accept(link, || true))).await {
                    assert!(matches!(accepted.unwrap(), Accepted::New(_)));
                }
            });
        });
    runtime.block_on(async {
        store.close().await;
        let mut admin = PgConnection::connect(&admin_url).await.unwrap();
        admin.execute(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).await.unwrap();
    });
}
