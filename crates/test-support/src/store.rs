//! Provides the store without a worker.

use std::{collections::HashMap, time::Duration};

use payout_link_worker::{
    contract,
    domain::{
        AccountId, Attempt, AttemptKind, AttemptOutcome, DueMerchants, EventType, OpenLink, PayoutLinkState,
        PayoutStatus, TraceContext, Turn, Turns,
    },
    postgres::{
        Accepted, BatchLimits, DueEvent, DuePlaces, EventPlaces, EventProgress, Hold, KeyRing, NewLink,
        Store, StoreError, StoreSettings, WebhookState, migrate,
    },
};
use secrecy::SecretString;
use sqlx::{PgPool, postgres::PgPoolOptions};

use super::{TestEnv, job};

/// Creates a store with one encryption key.
pub fn store(pool: PgPool) -> Store {
    store_with(pool, &["k1"])
}

/// Creates a store with encryption keys of these names, newest first.
pub fn store_with(pool: PgPool, names: &[&str]) -> Store {
    made(pool, names, BatchLimits { rows: 10, bytes: 100_000, depth: 2 })
}

/// Creates a store with these batch limits.
pub fn store_within(pool: PgPool, limits: BatchLimits) -> Store {
    made(pool, &["k1"], limits)
}

fn made(pool: PgPool, names: &[&str], limits: BatchLimits) -> Store {
    let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let keys: Vec<SecretString> = names.iter().map(|name| format!("{name}:{key}").into()).collect();
    let keys = KeyRing::new(&keys, &key.into()).unwrap();
    let lease = Duration::from_mins(10);
    let settings = StoreSettings { lease, event_lease: lease, batches: limits };
    Store::new(pool, keys, settings)
}

/// Connects to a migrated database with only one connection, so its user excludes all others.
pub async fn pool_of_one(env: &TestEnv) -> PgPool {
    migrate(&env.pool).await.unwrap();
    let options = env.pool.connect_options().as_ref().clone();
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(5));
    pool.connect_with(options).await.unwrap()
}

/// Claims records as a sweep does, with `limit` permits: expired leases first, then the merchants in turn.
pub async fn claim(store: &Store, limit: usize) -> Vec<Result<Box<OpenLink>, StoreError>> {
    let found = store.due_records(&["sandbox".into()], &mut DuePlaces::default()).await.unwrap();
    let mut claimed = Vec::new();
    if found.iter().any(|due| due.merchant_id.is_none()) {
        claimed.extend(store.claim("sandbox", limit, &Turn::ExpiredLeases).await.unwrap());
    }
    let mut due = DueMerchants::default();
    for records in found {
        records.merchant_id.into_iter().for_each(|merchant_id| due.add(records.rank, merchant_id));
    }
    while let Some(turn) = due.next_turn(limit - claimed.len(), |_| 0, &mut Turns::default())
        && claimed.len() < limit
    {
        let links = store.claim("sandbox", limit - claimed.len(), &turn).await.unwrap();
        let mut of_merchants: HashMap<String, usize> = HashMap::new();
        for link in links.iter().flatten() {
            *of_merchants.entry(link.merchant_id.clone()).or_default() += 1;
        }
        due.remove_exhausted(&turn, &of_merchants);
        claimed.extend(links);
    }
    claimed
}

/// Claims due events as the sweeper does: expired leases, and then in turns of the merchants.
pub async fn claim_events(store: &Store, limit: usize) -> Vec<Result<Box<DueEvent>, StoreError>> {
    let mut claimed = store.claim_events(limit, true, &Turn::ExpiredLeases).await.unwrap();
    let mut due = store.merchants_with_due_events(&mut EventPlaces::default()).await.unwrap();
    while claimed.len() < limit
        && let Some(turn) = due.next_turn(limit - claimed.len(), |_| 0, &mut Turns::default())
    {
        let events = store.claim_events(limit - claimed.len(), true, &turn).await.unwrap();
        let mut of_merchants: HashMap<String, usize> = HashMap::new();
        for event in events.iter().flatten() {
            *of_merchants.entry(event.merchant_id.clone()).or_default() += 1;
        }
        due.remove_exhausted(&turn, &of_merchants);
        claimed.extend(events);
    }
    claimed
}

/// Accepts the usual job with this identifier, and returns its claimed record.
pub async fn accept(store: &Store, id: &str) -> Box<OpenLink> {
    accept_of(store, "", id).await
}

/// Accepts a new job of this merchant.
pub async fn accept_of(store: &Store, merchant_id: &str, id: &str) -> Box<OpenLink> {
    match submit_with(store, merchant_id, id, Hold::BeginCall).await {
        Accepted::New(link) => link,
        _ => panic!("not new"),
    }
}

/// Accepts the usual job with this identifier.
pub async fn submit(store: &Store, id: &str) -> Accepted {
    submit_with(store, "", id, Hold::BeginCall).await
}

/// Accepts the usual job without a call.
pub async fn submit_parked(store: &Store, id: &str) {
    submit_parked_of(store, "", id).await;
}

/// Accepts the usual job of a merchant without a call.
pub async fn submit_parked_of(store: &Store, merchant_id: &str, id: &str) {
    let parked = submit_with(store, merchant_id, id, Hold::Park(Duration::ZERO)).await;
    assert!(matches!(parked, Accepted::Parked));
}

async fn submit_with(store: &Store, merchant_id: &str, id: &str, hold: Hold) -> Accepted {
    let policy = contract::DecodePolicy::default();
    let new = NewLink {
        merchant_id: merchant_id.into(),
        connector: "sandbox".into(),
        connector_is_named: true,
        job: Box::new(contract::create_link(&job(id).body, None, &policy).unwrap()),
        reply_to: None,
        correlation_id: None,
        trace: TraceContext::default(),
        hold,
        account: AccountId::of("sandbox", "https://pay.example", "acme"),
        lost_call_from: None,
    };
    store.accept(new, || true).await.unwrap()
}

/// Builds the conclusion of a record whose first call created a link.
pub fn created(link: &mut OpenLink, connector_payout_id: &str) -> contract::EventContent {
    link.begin_written_call();
    link.calls.push(Attempt {
        kind: AttemptKind::Create,
        number: link.progress.attempts,
        started_at: link.lease.granted_at,
        took: Duration::from_millis(5),
        status_code: 201,
        outcome: AttemptOutcome::Created,
        detail: Some(connector_payout_id.into()),
    });
    contract::EventContent {
        state: PayoutLinkState::Created,
        event_type: EventType::Created,
        payout_status: PayoutStatus::RequiresFulfillment,
        connector_payout_id: Some(connector_payout_id.into()),
        status_code: 201,
        error_code: None,
        result: "{}".into(),
        link: None,
    }
}

/// Builds the progress of an event without a webhook whose result is published: nothing is left to deliver.
pub fn all_delivered() -> EventProgress {
    EventProgress {
        published: true,
        reply_due: false,
        publish_attempts: 0,
        keeps_lease: false,
        webhook: WebhookState::None,
        webhook_attempts: 0,
        webhook_calls: Vec::new(),
        publish_after: None,
        webhook_after: None,
        webhook_waits: false,
        result_waits: false,
    }
}
