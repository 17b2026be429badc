//! Tests query plans: a statement of the hot path reads almost nothing of a large table.

use std::time::Duration;

use futures_util::future::join_all;
use payout_link_worker::postgres::{
    Accepted, DatabaseSettings, DatabaseTls, DueEvent, EventProgress, StoreError, Unconcluded, connect,
    migrate,
};
use provider_simulators::sandbox::Fault;
use sqlx::{AssertSqlSafe, ConnectOptions};
use uuid::Uuid;

use crate::support::{
    TestEnv, accept, all_delivered, claim, claim_events, created, eventually, job, store, store_with, submit,
};

/// The planner assumes few open records, as in every earlier analysis. In an outage there are many.
#[tokio::test(flavor = "multi_thread")]
async fn open_records_cost_other_jobs_nothing() {
    // Given a history that was analyzed when all of it was concluded,
    let env = TestEnv::new().await;
    env.start_worker().await.stop().await;
    fill(&env, CONCLUDED, 1..=20_000).await;
    sqlx::query("ANALYZE payout_links").execute(&env.pool).await.unwrap();
    // and since then 5,000 records that wait for a connector that is away,
    fill(&env, OPEN, 20_001..=25_000).await;
    // when jobs of another connector are processed, with a retry and a duplicate,
    let worker = env.start_worker().await;
    let held = env.provider.hold_next_call();
    env.publish(job("po_held")).await;
    held.arrived().await;
    env.publish(job("po_held").reply_to(&env.reply_queue().await.0)).await;
    env.provider.inject_fault(Fault::status_with_retry_after(503, "1"));
    for number in 0..20 {
        env.publish(job(&format!("po_{number}"))).await;
    }
    for number in 0..20 {
        env.wait_until_delivered(&format!("po_{number}")).await;
    }
    held.release();
    env.wait_until_delivered("po_held").await;
    assert!(worker.stop().await.success());
    // then no statement of a job has read the others by the index of open records. The worker counts them once a
    // minute.
    let read = counted(
        &env,
        "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'payout_links_service_order'",
    );
    let read = read.await;
    assert!(read < 20_000, "{read} entries read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_was_made_for_a_small_table_does_no_harm() {
    for known in SMALL {
        a_plan_that_was_made_for(known).await;
    }
}

/// The numbers of rows when the planner last analyzed the table. With fewer than ten it prefers to read all rows.
const SMALL: [u32; 4] = [0, 1, 3, 400];

async fn a_plan_that_was_made_for(known: u32) {
    // Given a worker whose statements were planned when the tables were small, as the planner knew,
    let env = TestEnv::new().await;
    env.start_worker().await.stop().await;
    // (after a change of a table's settings, a connection plans again)
    leave_unanalyzed(&env).await;
    insert(&env, CONCLUDED, 1..=known).await;
    sqlx::query("VACUUM (ANALYZE) payout_links, events").execute(&env.pool).await.unwrap();
    let worker = env.start_worker().await;
    // (the statistics also count a session that reads the tables)
    let jobs = async |numbers: std::ops::Range<usize>| {
        for number in numbers {
            let id = format!("po_{number}");
            env.publish(job(&id).with("webhook_url", env.webhook_url())).await;
            env.result_of(&id).await;
            env.webhooks(number + 1).await;
        }
    };
    jobs(0..8).await;
    // when the tables are large, and no statistics show it,
    insert(&env, CONCLUDED, known + 1..=20_000).await;
    jobs(8..16).await;
    assert!(worker.stop().await.success());
    // then no statement reads the whole table or a whole index.
    assert!(counted(&env, READ).await < 1_000, "{known}");
}

const HOUR: Duration = Duration::from_hours(1);

const READ: &str = "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_user_tables
    WHERE relname IN ('payout_links', 'events')";

/// Checks the statements for many rows, which differ from those for one. On one thread, concurrent requests go in one
/// batch.
#[tokio::test]
async fn a_plan_for_many_rows_that_was_made_for_a_small_table_does_no_harm() {
    for known in SMALL {
        a_plan_for_many_rows_that_was_made_for(known).await;
    }
}

async fn a_plan_for_many_rows_that_was_made_for(known: u32) {
    let env = TestEnv::new().await;
    migrate(&env.pool).await.unwrap();
    leave_unanalyzed(&env).await;
    insert(&env, CONCLUDED, 1..=known).await;
    sqlx::query("VACUUM (ANALYZE) payout_links, events").execute(&env.pool).await.unwrap();
    let settings = DatabaseSettings {
        url: env.pool.connect_options().to_url_lossy().to_string().into(),
        tls: DatabaseTls::default(),
        max_connections: 6,
        timeout: Duration::from_secs(10),
    };
    let pool = connect(&settings).await.unwrap();
    let store = store(pool.clone());
    let jobs = async |times: std::ops::Range<u32>| {
        for time in times {
            let ids = |kind: &'static str| (0..4).map(move |number| format!("{kind}_{time}_{number}"));
            let due = join_all(ids("due").map(async |id| accept(&store, &id).await)).await;
            join_all(due.into_iter().map(async |link| store.postpone(link, Duration::ZERO).await.unwrap()))
                .await;
            let due = claim(&store, 10).await;
            assert_eq!(due.len(), 4);
            for link in due {
                store.postpone(link.unwrap(), HOUR).await.unwrap();
            }
            let late = join_all(ids("late").map(async |id| accept(&store, &id).await)).await;
            let late = late.into_iter().map(async |mut link| {
                link.lease.holder = Uuid::nil();
                let reply = created(&mut link, "plink");
                assert!(matches!(
                    store.conclude(link, reply).await,
                    Err(Unconcluded { error: StoreError::LeaseLost, .. })
                ));
            });
            join_all(late).await;
            let links = join_all(ids("po").map(async |id| accept(&store, &id).await)).await;
            for again in join_all(ids("po").map(async |id| submit(&store, &id).await)).await {
                assert!(matches!(again, Accepted::InProgress));
            }
            let concluded = links.into_iter().map(async |mut link| {
                let reply = created(&mut link, "plink");
                store.conclude(link, reply).await.unwrap()
            });
            let tell = async |event: Box<DueEvent>, published: bool| {
                let progress = EventProgress {
                    published,
                    publish_after: (!published).then_some(Duration::ZERO),
                    ..all_delivered()
                };
                store.delivered(&event, progress).await.unwrap();
            };
            let events = join_all(concluded).await.into_iter();
            join_all(events.map(async |event| tell(event, false).await)).await;
            let again = claim_events(&store, 10).await;
            assert_eq!(again.len(), 4);
            join_all(again.into_iter().map(async |event| tell(event.unwrap(), true).await)).await;
        }
    };
    let rotating = store_with(pool.clone(), &["k2", "k1"]);
    // A worker claims first.
    assert!(claim(&store, 10).await.is_empty());
    assert!(claim_events(&store, 10).await.is_empty());
    let first = accept(&store, "first").await.id;
    jobs(0..4).await;
    let rotated = rotating.reseal(first, 1_000).await.unwrap();
    insert(&env, CONCLUDED, known + 1..=20_000).await;
    jobs(4..8).await;
    let rotated_again = rotating.reseal(rotated.last.unwrap(), 1_000).await.unwrap();
    assert_eq!((rotated.records, rotated_again.records), (48, 48));
    pool.close().await;
    let read = counted(&env, READ).await;
    assert!(read < 1_000, "{read} of {known}");
}

/// Checks the autovacuum settings. The usual share, a fifth of ten million rows, would be two million dead rows
/// before a vacuum.
#[tokio::test]
async fn tables_that_only_grow_are_vacuumed_by_a_small_share_of_them() {
    let env = TestEnv::new().await;
    migrate(&env.pool).await.unwrap();
    for table in ["payout_links", "events"] {
        let share = "SELECT option_value::float8 FROM pg_class, pg_options_to_table(reloptions)
            WHERE oid = $1::regclass AND option_name = 'autovacuum_vacuum_scale_factor'";
        let share: f64 = sqlx::query_scalar(share).bind(table).fetch_one(&env.pool).await.unwrap();
        assert!(share <= 0.01, "{table}: {share}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_among_many_is_shown_without_looking_at_the_others() {
    // Given many records of many merchants,
    let env = TestEnv::new().await;
    env.start_worker().await.stop().await;
    fill(&env, CONCLUDED, 1..=20_000).await;
    sqlx::query("SELECT pg_stat_force_next_flush()").execute(&env.pool).await.unwrap();
    let pages =
        "SELECT heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit FROM pg_statio_user_tables
        WHERE relname = 'payout_links'";
    let before = counted(&env, pages).await;
    // when an operator asks for one by the merchant's number, without the merchant,
    assert_eq!(env.shown("past-12345").unwrap()["merchant_payout_id"], "past-12345");
    // then a few pages are read, not hundreds. The planner reads a page of each empty index every time.
    assert!(counted(&env, pages).await - before < 100);
}

const CONCLUDED: &str = "'created', 'plink', '\\x00'::bytea, gen_random_uuid(), now(), NULL::timestamptz";
const OPEN: &str = "'open', NULL, NULL::bytea, NULL::uuid, NULL::timestamptz, now() + interval '1 hour'";

/// Inserts records of another connector, each with an event, an hour old, without an analysis.
async fn fill(env: &TestEnv, state: &str, numbers: std::ops::RangeInclusive<u32>) {
    leave_unanalyzed(env).await;
    insert(env, state, numbers).await;
}

async fn leave_unanalyzed(env: &TestEnv) {
    for statement in [
        "ALTER TABLE payout_links SET (autovacuum_enabled = off)",
        "ALTER TABLE events SET (autovacuum_enabled = off)",
    ] {
        sqlx::query(statement).execute(&env.pool).await.unwrap();
    }
}

async fn insert(env: &TestEnv, state: &str, numbers: std::ops::RangeInclusive<u32>) {
    let (first, last) = numbers.into_inner();
    // Ids are in the order of time, so new records come after these.
    let id = "(lpad(to_hex((extract(epoch FROM now() - interval '1 hour') * 1000)::bigint), 12, '0') || '70008000' ||
        lpad(to_hex(n), 12, '0'))::uuid";
    for statement in [
        format!(
            "INSERT INTO payout_links (id, merchant_id, merchant_payout_id, request_fingerprint, connector, amount_minor,
                currency, destination_currency, state, connector_payout_id, result, event_id, concluded_at, due_at)
             SELECT {id}, '', 'past-' || n, '\\x00', 'mute', 1, 'EUR', 'EUR', {state}
             FROM generate_series({first}, {last}) n"
        ),
        format!(
            "INSERT INTO events (id, payout_link_id, type, published_at, webhook_state)
             SELECT {id}, {id}, 'payout_link.created', now(), 'none'
             FROM generate_series({first}, {last}) n"
        ),
    ] {
        sqlx::query(AssertSqlSafe(statement)).execute(&env.pool).await.unwrap();
    }
}

/// Returns the server's counts, after the workers' connections have ended and reported them.
async fn counted(env: &TestEnv, what: &'static str) -> i64 {
    eventually("the counts of connections that have ended", async || {
        let ended = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'payout-link-worker')";
        let ended: bool = sqlx::query_scalar(ended).fetch_one(&env.pool).await.unwrap();
        let counted: i64 = sqlx::query_scalar(what).fetch_one(&env.pool).await.unwrap();
        ended.then_some(counted)
    })
    .await
}
