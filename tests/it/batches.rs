//! Tests the store without a worker: rows that are written in one batch equal rows that are written one by one.

use std::time::Duration;

use futures_util::future::join_all;
use payout_link_worker::{
    contract,
    domain::{
        AccountId, Attempt, AttemptKind, AttemptOutcome, ConclusionCode, OpenLink, PayoutLinkState,
        PayoutStatus, TraceContext,
    },
    postgres::{Accepted, Hold, NewLink, Store, migrate},
};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{TestEnv, accept as new, job, store, submit};

const JOBS: usize = 8;

/// Builds a link that differs from every other one in each column that may differ.
fn new_link(series: &str, number: usize) -> NewLink {
    let odd = number % 2 == 1;
    let text = |name: &str| format!("{name} {number}");
    let currencies = ["EUR", "USD", "GBP", "CHF", "SEK", "NOK", "DKK", "PLN"];
    let mut job = job(&format!("{series}_{number}"))
        .with("amount", json!({ "minor_amount": 100 + number, "currency": currencies[number] }))
        .with("destination_currency", json!(currencies[JOBS - 1 - number]));
    if odd {
        job = job.with("webhook_url", json!(format!("https://merchant-{number}.example/hook")));
    }
    NewLink {
        merchant_id: text("merchant"),
        connector: text("connector"),
        connector_is_named: true,
        job: Box::new(contract::create_link(&job.body, None, &contract::DecodePolicy::default()).unwrap()),
        reply_to: odd.then(|| text("reply")),
        correlation_id: (!odd).then(|| text("correlation")),
        trace: TraceContext {
            traceparent: odd.then(|| text("parent")),
            tracestate: number.is_multiple_of(3).then(|| text("state")),
        },
        hold: if number == 2 { Hold::Park(Duration::from_secs(7)) } else { Hold::BeginCall },
        account: AccountId::of("sandbox", "https://pay.example", &text("account")),
        lost_call_from: None,
    }
}

async fn accept(store: &Store, new: NewLink) -> Option<Box<OpenLink>> {
    match store.accept(new, || true).await.unwrap() {
        Accepted::New(link) => Some(link),
        Accepted::Parked => None,
        _ => panic!("not new"),
    }
}

/// Builds the conclusion of the `number`th record: created, failed or unknown.
fn concluded(link: &mut OpenLink, number: usize) -> contract::EventContent {
    link.begin_written_call();
    let (state, payout_status, error_code, outcome) = match number % 3 {
        0 => (PayoutLinkState::Created, PayoutStatus::RequiresFulfillment, None, AttemptOutcome::Created),
        1 => (
            PayoutLinkState::Failed,
            PayoutStatus::Failed,
            Some(ConclusionCode::ConnectorRejected),
            AttemptOutcome::Declined,
        ),
        _ => (
            PayoutLinkState::Unknown,
            PayoutStatus::Pending,
            Some(ConclusionCode::OutcomeUnknown),
            AttemptOutcome::Unknown,
        ),
    };
    if number % 3 == 2 {
        link.progress.in_doubt_since = Some(link.progress.created_at);
    }
    let status_code = 200 + u16::try_from(number).unwrap();
    link.calls.push(Attempt {
        kind: AttemptKind::Create,
        number: link.progress.attempts,
        started_at: link.progress.created_at,
        took: Duration::from_millis(5 + number as u64),
        status_code,
        outcome,
        detail: Some(format!("detail {number}")),
    });
    contract::EventContent {
        state,
        event_type: state.event_type().unwrap(),
        payout_status,
        connector_payout_id: number.is_multiple_of(3).then(|| format!("plink {number}")),
        status_code,
        error_code,
        result: json!({ "number": number }).to_string().into(),
        link: None,
    }
}

/// Returns everything that is stored of the `number`th record, except values that are unique to each row: keys, times
/// and encrypted values. Times are relative to the row's first time.
async fn written(pool: &PgPool, series: &str, number: usize) -> Value {
    let everything = "
        SELECT jsonb_build_object(
            'link', to_jsonb(p) - ARRAY[
                'id', 'holder', 'event_id', 'merchant_payout_id', 'request', 'request_fingerprint', 'result',
                'created_at', 'first_called_at', 'last_called_at', 'due_at', 'in_doubt_since', 'concluded_at', 'concluded_by'
            ],
            'sealed', jsonb_build_array(length(request_fingerprint), request IS NOT NULL, result IS NOT NULL),
            'called', jsonb_build_array(first_called_at - created_at, last_called_at - created_at),
            'due', p.due_at - p.created_at, 'doubt', p.in_doubt_since - p.created_at,
            'concluded', concluded_at > created_at, 'held', p.holder IS NOT NULL,
            'event', (
                SELECT to_jsonb(e) - ARRAY['id', 'payout_link_id', 'holder', 'due_at', 'webhook_due_at']
                    || jsonb_build_object(
                        'its own', e.id = p.event_id, 'held', e.holder = e.id, 'due', e.due_at - p.concluded_at,
                        'post', e.webhook_due_at - p.concluded_at
                    )
                FROM events e WHERE e.payout_link_id = p.id
            ),
            'timeline', (
                SELECT jsonb_agg(to_jsonb(a) - ARRAY['payout_link_id', 'started_at', 'caller'])
                FROM attempts a WHERE a.payout_link_id = p.id
            )
        )
        FROM payout_links p WHERE merchant_payout_id = $1";
    sqlx::query_scalar(everything).bind(format!("{series}_{number}")).fetch_one(pool).await.unwrap()
}

/// Returns the transactions that last wrote the rows of a series.
async fn transactions(pool: &PgPool, series: &str) -> i64 {
    let transactions =
        "SELECT count(DISTINCT xmin::text) FROM payout_links WHERE merchant_payout_id LIKE $1 || '%'";
    sqlx::query_scalar(transactions).bind(series).fetch_one(pool).await.unwrap()
}

async fn compare(pool: &PgPool) {
    for number in 0..JOBS {
        let (alone, together) =
            (written(pool, "alone", number).await, written(pool, "together", number).await);
        assert_eq!(alone, together, "{number}");
    }
}

/// On one thread, all requests are in the queue before the first is read.
#[tokio::test]
async fn rows_of_a_batch_equal_rows_written_one_by_one() {
    let env = TestEnv::new().await;
    let pool = &env.pool;
    migrate(pool).await.unwrap();
    let store = store(pool.clone());
    // Given jobs that all differ, accepted one by one, and equal jobs accepted all at once,
    let mut alone = Vec::new();
    for number in 0..JOBS {
        alone.push(accept(&store, new_link("alone", number)).await);
    }
    let together = join_all((0..JOBS).map(|number| accept(&store, new_link("together", number)))).await;
    // (each in a transaction of its own, and all in one)
    assert_eq!(
        (transactions(pool, "alone").await, transactions(pool, "together").await),
        (JOBS.try_into().unwrap(), 1)
    );
    // then the records are the same.
    compare(pool).await;
    // When they are concluded as created, failed or unknown, one by one and all at once,
    let with_ends = |links: Vec<Option<Box<OpenLink>>>| {
        links.into_iter().enumerate().filter_map(|(number, link)| {
            let mut link = link?;
            let content = concluded(&mut link, number);
            Some((link, content))
        })
    };
    let mut events_alone = Vec::new();
    for (link, content) in with_ends(alone) {
        events_alone.push(store.conclude(link, content).await.unwrap());
    }
    let events_together =
        join_all(with_ends(together).map(|(link, content)| store.conclude(link, content))).await;
    let parked = 1;
    assert_eq!(
        (transactions(pool, "alone").await, transactions(pool, "together").await),
        (JOBS.try_into().unwrap(), 1 + parked)
    );
    // then the conclusions, the events and the timelines are equal too,
    compare(pool).await;
    // and each reply is due.
    for (alone, together) in events_alone.iter().zip(events_together) {
        let together = together.unwrap();
        assert_eq!(alone.event_type, together.event_type);
        assert_eq!(alone.reply_to, together.reply_to);
        assert_eq!(alone.correlation_id, together.correlation_id);
        assert_eq!(alone.webhook_url, together.webhook_url);
    }
}

/// On one thread, concurrent requests are written in one batch.
#[tokio::test]
async fn a_new_job_is_claimed_even_in_a_batch_with_duplicates() {
    // Given a record that a worker has claimed,
    let env = TestEnv::new().await;
    migrate(&env.pool).await.unwrap();
    let store = store(env.pool.clone());
    let first = new(&store, "po_1").await;
    // when its job comes again, together with a new job and a duplicate of the new job,
    let accepted = join_all(["po_1", "po_2", "po_2"].map(|id| submit(&store, id))).await;
    // then the worker claims only the new one.
    let [Accepted::InProgress, Accepted::New(second), Accepted::InProgress] = &accepted[..] else {
        panic!("a duplicate was claimed, or a new job was not")
    };
    assert_eq!(second.job.merchant_payout_id.as_str(), "po_2");
    assert!(second.lease.granted_at >= first.lease.granted_at);
}
