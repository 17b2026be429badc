//! What the database refuses: for a moment, to one row, or to all.

use std::time::Duration;

use futures_util::future::join_all;
use payout_link_worker::{
    sandbox::Fault,
    store::{Accepted, DatabaseSettings, DatabaseTls, StoreError, Telling, WebhookState, connect, migrate},
};
use serde_json::Value;
use sqlx::{AssertSqlSafe, ConnectOptions};

use crate::support::{
    Setup, World, accept, created, eventually, job, store, submit, until_a_statement_waits,
};

#[tokio::test(flavor = "multi_thread")]
async fn each_class_of_refusal_has_its_consequence() {
    let world = World::new().await;
    let (again, row, stop) = ("try again", "this row", "stop");
    for (code, wanted) in [
        // Connection exceptions.
        ("08000", again),
        ("08006", again),
        // Serialization, deadlock.
        ("40001", again),
        ("40P01", again),
        // Disk full, too many connections.
        ("53100", again),
        ("53300", again),
        // A statement's or a lock's time is up; a restart, a crash of a neighbour, a start-up.
        ("57014", again),
        ("55P03", again),
        ("57P01", again),
        ("57P02", again),
        ("57P03", again),
        // A file could not be read; a primary that is none any more.
        ("58030", again),
        ("25006", again),
        // Data that does not fit: out of range, a constraint.
        ("22003", row),
        ("23505", row),
        ("23514", row),
        // No such table, column or function; no right; a role that is locked out; no such database or schema.
        ("42P01", stop),
        ("42703", stop),
        ("42883", stop),
        ("42501", stop),
        ("28000", stop),
        ("28P01", stop),
        ("3D000", stop),
        ("3F000", stop),
    ] {
        let raise = format!("DO $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '{code}'; END $$");
        let error = sqlx::query(AssertSqlSafe(raise)).execute(&world.pool).await.unwrap_err();
        let consequence = match StoreError::from(error) {
            StoreError::Unavailable(_) => again,
            StoreError::Refused(_) => row,
            StoreError::Unusable(_) => stop,
            other => panic!("{code}: {other}"),
        };
        assert_eq!(consequence, wanted, "{code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_tried_again_where_the_database_asks_for_that() {
    // Given a database that refuses the first two of every kind of statement, as one that is busy does,
    let world = World::new().await;
    world.start_worker().await.stop().await;
    for (table, verb, code) in [
        ("payout_links", "INSERT", "40001"),
        ("payout_links", "UPDATE", "40P01"),
        ("events", "INSERT", "40001"),
        ("events", "UPDATE", "53300"),
    ] {
        let name = format!("busy_{table}_{verb}");
        // A sequence counts on when its transaction is rolled back.
        for statement in [
            format!("CREATE SEQUENCE {name}"),
            format!(
                "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     IF nextval('{name}') <= 2 THEN RAISE EXCEPTION 'busy' USING ERRCODE = '{code}'; END IF;
                     RETURN NEW;
                 END $$"
            ),
            format!("CREATE TRIGGER {name} BEFORE {verb} ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()"),
        ] {
            sqlx::query(AssertSqlSafe(statement)).execute(&world.pool).await.unwrap();
        }
    }
    // when a job comes,
    let worker = world.start_worker().await;
    world.publish(job("po_1").with("webhook_url", world.webhook_url())).await;
    // then it ends in one link, told once.
    assert_eq!(world.result_of("po_1").await.kind(), "payout_link.created");
    world.webhooks(1).await;
    world.wait_until_told("po_1").await;
    assert_eq!(world.provider.ledger().links.len(), 1);
    assert_eq!(world.results_of("po_1").len(), 1);
    assert!(worker.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_has_become_read_only_is_waited_for() {
    let world = World::new().await;
    let worker = world.start_worker().await;
    // Given a failover that left the worker with what is a standby now,
    let name: String = sqlx::query_scalar("SELECT current_database()").fetch_one(&world.pool).await.unwrap();
    let read_only = async |is: &str| {
        let set = format!("ALTER DATABASE {name} SET default_transaction_read_only = {is}");
        sqlx::query(AssertSqlSafe(set)).execute(&world.pool).await.unwrap();
        end_sessions(&world).await;
    };
    sqlx::raw_sql("SET default_transaction_read_only = off").execute(&world.pool).await.unwrap();
    read_only("on").await;
    world.publish(job("po_1")).await;
    worker.says("25006").await;
    // when it is a primary again,
    let mut writer = world.pool.acquire().await.unwrap();
    sqlx::raw_sql("SET default_transaction_read_only = off").execute(&mut *writer).await.unwrap();
    let set = format!("ALTER DATABASE {name} SET default_transaction_read_only = off");
    sqlx::query(AssertSqlSafe(set)).execute(&mut *writer).await.unwrap();
    end_sessions(&world).await;
    // then the job that waited is done.
    assert_eq!(world.result_of("po_1").await.kind(), "payout_link.created");
    assert_eq!(world.provider.ledger().links.len(), 1);
    assert!(worker.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_are_ended_under_load_lose_nothing() {
    const JOBS: usize = 60;
    let world = World::new().await;
    let worker = world.start_worker().await;
    for number in 0..JOBS {
        world.publish(job(&format!("po_{number}")).with("webhook_url", world.webhook_url())).await;
        if number % 4 == 0 {
            end_sessions(&world).await;
        }
    }
    world.webhooks(JOBS).await;
    for number in 0..JOBS {
        assert_eq!(world.result_of(&format!("po_{number}")).await.kind(), "payout_link.created");
        world.wait_until_told(&format!("po_{number}")).await;
    }
    assert_eq!(world.provider.ledger().links.len(), JOBS);
    assert!(worker.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_missing_stops_the_worker_and_costs_no_job() {
    let world = Setup::default().set("worker.migrate", false).set("worker.max_deliveries", 2).build().await;
    migrate(&world.pool).await.unwrap();
    let mut worker = world.start_worker().await;
    // Given a table that goes away while the worker runs,
    rename(&world, "payout_links", "gone").await;
    world.publish(job("po_1")).await;
    // then it stops, and says why,
    assert_eq!(worker.exited().await.code(), Some(1));
    assert!(
        worker.log().contains("relation \\\"payout_links\\\" does not exist (42P01)"),
        "{}",
        worker.log()
    );
    // it does not even begin when it is started again, as often as that may be,
    for _ in 0..3 {
        let mut again = world.launch_worker(&[]);
        assert_eq!(again.exited().await.code(), Some(1));
        let reason = "tables, columns or rights are missing: payout_links: SELECT";
        assert!(again.log().contains(reason), "{}", again.log());
    }
    // and the job is taken for nothing but a job when the table is back.
    rename(&world, "gone", "payout_links").await;
    let _worker = world.start_worker().await;
    assert_eq!(world.result_of("po_1").await.kind(), "payout_link.created");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_older_than_the_worker_stops_the_start() {
    // Given a database that nobody has migrated since the worker was updated,
    let world = Setup::default().set("worker.migrate", false).build().await;
    migrate(&world.pool).await.unwrap();
    sqlx::query("ALTER TABLE payout_links DROP COLUMN took_ms").execute(&world.pool).await.unwrap();
    // then nothing is taken, and nobody called whose answer could not be written down.
    let mut worker = world.launch_worker(&[]);
    assert_eq!(worker.exited().await.code(), Some(1));
    assert!(worker.log().contains("are missing: payout_links.took_ms"), "{}", worker.log());
}

async fn rename(world: &World, from: &str, to: &str) {
    let rename = format!("ALTER TABLE {from} RENAME TO {to}");
    sqlx::query(AssertSqlSafe(rename)).execute(&world.pool).await.unwrap();
}

/// All of the worker's, as a restart or a failover does it.
async fn end_sessions(world: &World) {
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'payout-link-worker'";
    sqlx::query(end).execute(&world.pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_written_down_too_late_is_not_made_and_leaves_no_doubt() {
    // Given a payout at a connector that can neither repeat nor be asked, to be tried a second time,
    let world = World::new().await;
    let worker = world.start_worker().await;
    world.provider.order_fault(Fault::status(429));
    let call = world.provider.hold_next_answer();
    world.publish(job("po_1").connector("mute")).await;
    call.arrived().await;
    let mut lock = world.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM payout_links FOR UPDATE").execute(&mut *lock).await.unwrap();
    call.release();
    // when the database takes its time to write the second call down, more than the lease has for it,
    until_a_statement_waits(&world.pool, 2.0).await;
    lock.commit().await.unwrap();
    // then it is taken back, the next one calls with a lease of its own, and nothing is in doubt.
    let told = world.wait_until_told("po_1").await;
    assert_eq!(told["state"], "created", "{told}");
    assert_eq!(told["in_doubt_since"], Value::Null);
    assert_eq!(told["attempts"], 2);
    assert_eq!(world.provider.ledger().links.len(), 1);
    assert!(worker.stop().await.success());
}

/// The planner takes what is open for few rows, as it always has been when it looked last; in an outage it is not.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_costs_the_others_nothing() {
    // Given a history that was analyzed when all of it was concluded,
    let world = World::new().await;
    world.start_worker().await.stop().await;
    fill(&world, CONCLUDED, 1..=20_000).await;
    sqlx::query("ANALYZE payout_links").execute(&world.pool).await.unwrap();
    // and 5,000 records since then that wait for a connector that is away,
    fill(&world, OPEN, 20_001..=25_000).await;
    // when jobs of another are worked on, with a retry and a repeat of one that is under way,
    let worker = world.start_worker().await;
    let held = world.provider.hold_next_call();
    world.publish(job("po_held")).await;
    held.arrived().await;
    world.publish(job("po_held").reply_to(&world.reply_queue().await.0)).await;
    world.provider.order_fault(Fault::status_with_retry_after(503, "1"));
    for number in 0..20 {
        world.publish(job(&format!("po_{number}"))).await;
    }
    for number in 0..20 {
        world.wait_until_told(&format!("po_{number}")).await;
    }
    held.release();
    world.wait_until_told("po_held").await;
    assert!(worker.stop().await.success());
    // then nobody has read the others by the index of what is open.
    let read = counted(
        &world,
        "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'payout_links_due'",
    );
    assert!(read.await < 5_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_was_made_for_a_small_table_does_no_harm() {
    for known in SMALL {
        a_plan_that_was_made_for(known).await;
    }
}

/// So many rows, when the planner last heard of them. Of fewer than ten it would rather have all than look each up.
const SMALL: [u32; 2] = [3, 400];

async fn a_plan_that_was_made_for(known: u32) {
    // Given a worker whose statements were planned when there was little yet, and the planner knew that,
    let world = World::new().await;
    world.start_worker().await.stop().await;
    // (told about a table's settings, a connection plans anew)
    leave_unanalyzed(&world).await;
    insert(&world, CONCLUDED, 1..=known).await;
    sqlx::query("ANALYZE payout_links, events").execute(&world.pool).await.unwrap();
    let worker = world.start_worker().await;
    let jobs = async |numbers: std::ops::Range<u32>| {
        for number in numbers {
            let id = format!("po_{number}");
            world.publish(job(&id).with("webhook_url", world.webhook_url())).await;
            world.wait_until_told(&id).await;
        }
    };
    jobs(0..8).await;
    // when there is much, and nothing has told it,
    insert(&world, CONCLUDED, known + 1..=20_000).await;
    jobs(8..16).await;
    assert!(worker.stop().await.success());
    // then no statement reads all of it, neither row by row nor along an index.
    assert!(counted(&world, READ).await < 1_000, "{known}");
}

const HOUR: Duration = Duration::from_secs(3600);

const READ: &str = "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_user_tables
    WHERE relname IN ('payout_links', 'events')";

/// The statements for many rows are others than those for one. On one thread, what comes together goes in one.
#[tokio::test]
async fn a_plan_for_many_rows_that_was_made_for_a_small_table_does_no_harm() {
    for known in SMALL {
        a_plan_for_many_rows_that_was_made_for(known).await;
    }
}

async fn a_plan_for_many_rows_that_was_made_for(known: u32) {
    let world = World::new().await;
    migrate(&world.pool).await.unwrap();
    leave_unanalyzed(&world).await;
    insert(&world, CONCLUDED, 1..=known).await;
    sqlx::query("ANALYZE payout_links, events").execute(&world.pool).await.unwrap();
    let settings = DatabaseSettings {
        url: world.pool.connect_options().to_url_lossy().to_string().into(),
        tls: DatabaseTls::default(),
        max_connections: 6,
        timeout: Duration::from_secs(10),
    };
    let pool = connect(&settings).await.unwrap();
    let store = store(pool.clone());
    let jobs = async |times: std::ops::Range<u32>| {
        for time in times {
            let ids = |kind: &'static str| (0..4).map(move |number| format!("{kind}_{time}_{number}"));
            let later = join_all(ids("later").map(async |id| accept(&store, &id).await)).await;
            join_all(later.into_iter().map(async |link| store.postpone(link, HOUR).await.unwrap())).await;
            let links = join_all(ids("po").map(async |id| accept(&store, &id).await)).await;
            for again in join_all(ids("po").map(async |id| submit(&store, &id).await)).await {
                assert!(matches!(again, Accepted::InProgress));
            }
            let concluded = links.into_iter().map(async |mut link| {
                let told = created(&mut link, "plink");
                store.conclude(link, told).await.unwrap()
            });
            let told = join_all(concluded).await.into_iter().map(async |event| {
                let telling = Telling {
                    published: true,
                    webhook: WebhookState::None,
                    webhook_attempts: 0,
                    posts: Vec::new(),
                    publish_after: None,
                    post_after: None,
                };
                store.delivered(&event, telling).await.unwrap();
            });
            join_all(told).await;
        }
    };
    jobs(0..4).await;
    insert(&world, CONCLUDED, known + 1..=20_000).await;
    jobs(4..8).await;
    pool.close().await;
    assert!(counted(&world, READ).await < 1_000, "{known}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_among_many_is_shown_without_looking_at_the_others() {
    // Given many records of many merchants,
    let world = World::new().await;
    world.start_worker().await.stop().await;
    fill(&world, CONCLUDED, 1..=20_000).await;
    sqlx::query("SELECT pg_stat_force_next_flush()").execute(&world.pool).await.unwrap();
    let pages =
        "SELECT heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit FROM pg_statio_user_tables
        WHERE relname = 'payout_links'";
    let before = counted(&world, pages).await;
    // when an operator asks for one by the number that merchants give, which names no merchant,
    assert_eq!(world.shown("past-12345").unwrap()["merchant_payout_id"], "past-12345");
    // then a few pages are looked at, and not hundreds.
    assert!(counted(&world, pages).await - before < 50);
}

const CONCLUDED: &str = "'created', 'plink', '\\x00'::bytea, gen_random_uuid(), now(), NULL::timestamptz";
const OPEN: &str = "'open', NULL, NULL::bytea, NULL::uuid, NULL::timestamptz, now() + interval '1 hour'";

/// Records of another connector, with an event each, an hour old, that nobody analyzes unasked.
async fn fill(world: &World, state: &str, numbers: std::ops::RangeInclusive<u32>) {
    leave_unanalyzed(world).await;
    insert(world, state, numbers).await;
}

async fn leave_unanalyzed(world: &World) {
    for statement in [
        "ALTER TABLE payout_links SET (autovacuum_enabled = off)",
        "ALTER TABLE events SET (autovacuum_enabled = off)",
    ] {
        sqlx::query(statement).execute(&world.pool).await.unwrap();
    }
}

async fn insert(world: &World, state: &str, numbers: std::ops::RangeInclusive<u32>) {
    let (first, last) = numbers.into_inner();
    // In the order of time, as all ids: what is new comes after them.
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
        sqlx::query(AssertSqlSafe(statement)).execute(&world.pool).await.unwrap();
    }
}

/// What the server has counted, once the workers' connections have ended and told it.
async fn counted(world: &World, what: &'static str) -> i64 {
    eventually("the counts of connections that have ended", async || {
        let ended = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'payout-link-worker')";
        let ended: bool = sqlx::query_scalar(ended).fetch_one(&world.pool).await.unwrap();
        let counted: i64 = sqlx::query_scalar(what).fetch_one(&world.pool).await.unwrap();
        ended.then_some(counted)
    })
    .await
}
