//! Tests errors of the database: temporary ones, errors of one row, and errors of all statements.

use std::time::Duration;

use payout_link_worker::postgres::{DatabaseSettings, DatabaseTls, StoreError, migrate};
use provider_simulators::sandbox::Fault;
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};

use crate::support::{Setup, TestEnv, eventually, job};

#[tokio::test(flavor = "multi_thread")]
async fn each_class_of_refusal_has_its_consequence() {
    let env = TestEnv::new().await;
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
        // A timeout of a statement or a lock; a restart, the crash of another session, a start-up.
        ("57014", again),
        ("55P03", again),
        ("57P01", again),
        ("57P02", again),
        ("57P03", again),
        // A file could not be read; a server that is no longer the primary.
        ("58030", again),
        ("25006", again),
        // Invalid data: out of range, or against a constraint.
        ("22003", row),
        ("23505", row),
        ("23514", row),
        // A missing table, column or function; a missing right; a locked role; a missing database or schema.
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
        let error = sqlx::query(AssertSqlSafe(raise)).execute(&env.pool).await.unwrap_err();
        let consequence = match StoreError::from(error) {
            StoreError::Unavailable(_) => again,
            StoreError::Rejected(_) => row,
            StoreError::Unusable(_) => stop,
            other => panic!("{code}: {other}"),
        };
        assert_eq!(consequence, wanted, "{code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_tried_again_where_the_database_asks_for_that() {
    // Given a database that fails the first two statements of every kind, as a busy one does,
    let env = TestEnv::new().await;
    env.start_worker().await.stop().await;
    for (table, verb, code) in [
        ("payout_links", "INSERT", "40001"),
        ("payout_links", "UPDATE", "40P01"),
        ("events", "INSERT", "40001"),
        ("events", "UPDATE", "53300"),
    ] {
        let name = format!("busy_{table}_{verb}");
        // A sequence is not rolled back.
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
            sqlx::query(AssertSqlSafe(statement)).execute(&env.pool).await.unwrap();
        }
    }
    // when a job comes,
    let worker = env.start_worker().await;
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    // then it has one link and one result.
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
    env.webhooks(1).await;
    env.wait_until_delivered("po_1").await;
    assert_eq!(env.provider.ledger().links.len(), 1);
    assert_eq!(env.results_of("po_1").len(), 1);
    assert!(worker.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_has_become_read_only_is_waited_for() {
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    // Given a failover after which the worker is connected to a standby,
    let name: String = sqlx::query_scalar("SELECT current_database()").fetch_one(&env.pool).await.unwrap();
    let read_only = async |is: &str| {
        let set = format!("ALTER DATABASE {name} SET default_transaction_read_only = {is}");
        sqlx::query(AssertSqlSafe(set)).execute(&env.pool).await.unwrap();
        end_sessions(&env).await;
    };
    sqlx::raw_sql("SET default_transaction_read_only = off").execute(&env.pool).await.unwrap();
    read_only("on").await;
    env.publish(job("po_1")).await;
    eventually("the job is rejected for it", async || {
        let log = worker.log();
        let refused =
            |line: &str| line.contains("database unavailable, will retry") && line.contains("25006");
        log.lines().any(refused).then_some(())
    })
    .await;
    // when it is a primary again,
    let mut writer = env.pool.acquire().await.unwrap();
    sqlx::raw_sql("SET default_transaction_read_only = off").execute(&mut *writer).await.unwrap();
    let set = format!("ALTER DATABASE {name} SET default_transaction_read_only = off");
    sqlx::query(AssertSqlSafe(set)).execute(&mut *writer).await.unwrap();
    end_sessions(&env).await;
    // then the waiting job is done.
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
    assert_eq!(env.provider.ledger().links.len(), 1);
    assert!(worker.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_are_ended_under_load_lose_nothing() {
    const JOBS: usize = 60;
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    for number in 0..JOBS {
        env.publish(job(&format!("po_{number}")).with("webhook_url", env.webhook_url())).await;
        if number % 4 == 0 {
            end_sessions(&env).await;
        }
    }
    env.webhooks(JOBS).await;
    for number in 0..JOBS {
        assert_eq!(env.result_of(&format!("po_{number}")).await.kind(), "payout_link.created");
        env.wait_until_delivered(&format!("po_{number}")).await;
    }
    assert_eq!(env.provider.ledger().links.len(), JOBS);
    assert!(worker.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_missing_stops_the_worker_and_costs_no_job() {
    let env =
        Setup::default().set("worker.migrate", false).set("worker.max_unfinished_begins", 1).build().await;
    migrate(&env.pool).await.unwrap();
    let mut worker = env.start_worker().await;
    // Given a table that disappears while the worker runs,
    rename(&env, "payout_links", "gone").await;
    env.publish(job("po_1")).await;
    // then the worker stops with an error that says so,
    assert_eq!(worker.exited().await.code(), Some(1));
    assert!(
        worker.log().contains("relation \\\"payout_links\\\" does not exist (42P01)"),
        "{}",
        worker.log()
    );
    // does not start when it is started again, however often,
    for _ in 0..3 {
        let mut again = env.launch_worker(&[]);
        assert_eq!(again.exited().await.code(), Some(1));
        let reason = "tables, columns or privileges are missing: payout_links: SELECT";
        assert!(again.log().contains(reason), "{}", again.log());
    }
    // and the job is processed normally when the table is back.
    rename(&env, "gone", "payout_links").await;
    let _worker = env.start_worker().await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_older_than_the_worker_stops_the_start() {
    // Given a database that was not migrated since the worker was updated,
    let env = Setup::default().set("worker.migrate", false).build().await;
    migrate(&env.pool).await.unwrap();
    sqlx::query("ALTER TABLE payout_links DROP COLUMN took_ms").execute(&env.pool).await.unwrap();
    // then no job is taken, and no call is made whose answer could not be stored.
    let mut worker = env.launch_worker(&[]);
    assert_eq!(worker.exited().await.code(), Some(1));
    assert!(worker.log().contains("are missing: payout_links.took_ms"), "{}", worker.log());
}

async fn rename(env: &TestEnv, from: &str, to: &str) {
    let rename = format!("ALTER TABLE {from} RENAME TO {to}");
    sqlx::query(AssertSqlSafe(rename)).execute(&env.pool).await.unwrap();
}

/// Ends all sessions of the worker, as a restart or a failover does.
async fn end_sessions(env: &TestEnv) {
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'payout-link-worker'";
    sqlx::query(end).execute(&env.pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_recorded_too_late_is_not_made_and_leaves_no_unknown_outcome() {
    // Given a payout at a connector without keys and look-ups, whose call has to be repeated,
    let env = TestEnv::new().await;
    migrate(&env.pool).await.unwrap();
    // when the database takes longer to record the second call than the lease has beside the call,
    sqlx::raw_sql(
        "CREATE SEQUENCE written;
         CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF nextval('written') = 1 THEN PERFORM pg_sleep(4); END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER slow BEFORE UPDATE ON payout_links FOR EACH ROW
             WHEN (OLD.attempts = 1 AND NEW.attempts = 2) EXECUTE FUNCTION slow();",
    )
    .execute(&env.pool)
    .await
    .unwrap();
    let worker = env.start_worker().await;
    env.provider.inject_fault(Fault::status(429));
    env.publish(job("po_1").connector("mute")).await;
    // then the record is postponed, the next holder calls under a lease of its own, and no outcome is unknown.
    let reply = env.wait_until_delivered("po_1").await;
    assert_eq!(reply["state"], "created", "{reply}");
    assert_eq!(reply["in_doubt_since"], Value::Null);
    assert_eq!(reply["attempts"], 2);
    let ledger = env.provider.ledger();
    assert_eq!((ledger.links.len(), ledger.calls.len()), (1, 2));
    let written: i64 =
        sqlx::query_scalar("SELECT last_value FROM written").fetch_one(&env.pool).await.unwrap();
    assert_eq!(written, 2, "recorded, postponed, and recorded again");
    assert!(worker.stop().await.success());
}

/// Connects a pool as a worker does.
async fn pool_of(max_connections: u32) -> PgPool {
    let settings = DatabaseSettings {
        url: std::env::var("DATABASE_URL").unwrap().into(),
        tls: DatabaseTls::default(),
        max_connections,
        timeout: Duration::from_secs(10),
    };
    payout_link_worker::postgres::connect(&settings).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_accepted_writes_a_moment_ago_is_replaced_once_it_does_not() {
    // Given a session that was asked a moment ago,
    let pool = pool_of(1).await;
    let session = "SELECT pg_backend_pid()";
    let before: i32 = sqlx::query_scalar(session).fetch_one(&pool).await.unwrap();
    // when its server is demoted, then another replaces it.
    sqlx::query("SET default_transaction_read_only = on").execute(&pool).await.unwrap();
    eventually("the session is replaced", async || {
        let now: i32 = sqlx::query_scalar(session).fetch_one(&pool).await.unwrap();
        (now != before).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_session_at_a_demoted_server_is_replaced_although_a_new_one_accepts_writes() {
    // Given two sessions at a primary that is demoted, one of them in use,
    let pool = pool_of(2).await;
    let (mut first, mut used) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    let session = "SELECT pg_backend_pid()";
    let before: i32 = sqlx::query_scalar(session).fetch_one(&mut *used).await.unwrap();
    for connection in [&mut first, &mut used] {
        sqlx::query("SET default_transaction_read_only = on").execute(&mut **connection).await.unwrap();
    }
    // when the other one is replaced, and its successor accepts writes,
    drop(first);
    let successor = pool.acquire().await.unwrap();
    drop(successor);
    eventually("the successor is returned", async || (pool.num_idle() == 1).then_some(())).await;
    // then the one in use is replaced too as soon as it is returned.
    drop(used);
    let all = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
    for mut connection in all {
        let now: i32 = sqlx::query_scalar(session).fetch_one(&mut *connection).await.unwrap();
        assert_ne!(now, before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_takes_no_writes_any_more_is_replaced() {
    // Given a pool of one connection, to a primary that is demoted without ending the connection,
    let pool = pool_of(1).await;
    let mut connection = pool.acquire().await.unwrap();
    let session = "SELECT pg_backend_pid()";
    let before: i32 = sqlx::query_scalar(session).fetch_one(&mut *connection).await.unwrap();
    sqlx::query("SET default_transaction_read_only = on").execute(&mut *connection).await.unwrap();
    // when it is returned, then the next user gets another one.
    drop(connection);
    let after: i32 = sqlx::query_scalar(session).fetch_one(&pool).await.unwrap();
    assert_ne!(before, after);
    let again: i32 = sqlx::query_scalar(session).fetch_one(&pool).await.unwrap();
    assert_eq!(after, again);
}
