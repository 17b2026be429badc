//! Tests a database whose clock steps.

use provider_simulators::sandbox::Idempotency;
use sqlx::Executor;

use crate::support::{Setup, TestEnv, eventually, job};

/// Gives the database its own clock before the first worker uses it: `now()` is found in `public` first.
pub async fn with_a_clock(env: &TestEnv) {
    let name: String = sqlx::query_scalar("SELECT current_database()").fetch_one(&env.pool).await.unwrap();
    let clock = "
        CREATE TABLE public.clock (ahead interval NOT NULL);
        INSERT INTO public.clock VALUES ('0');
        CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE sql STABLE
            AS 'SELECT pg_catalog.now() + (SELECT ahead FROM public.clock)';
        CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
            AS 'SELECT pg_catalog.clock_timestamp() + (SELECT ahead FROM public.clock)';";
    (&env.pool).execute(clock).await.unwrap();
    let path = format!("ALTER DATABASE {name} SET search_path = public, pg_catalog");
    sqlx::query(sqlx::AssertSqlSafe(path)).execute(&env.pool).await.unwrap();
}

pub async fn step(env: &TestEnv, ahead: &str) {
    let step = "UPDATE public.clock SET ahead = $1::text::interval";
    sqlx::query(step).bind(ahead).execute(&env.pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_steps_forward_makes_no_second_link() {
    // Given a call that has reached a slow provider,
    let setup = Setup::default().short_leases();
    let env = setup.build().await;
    with_a_clock(&env).await;
    env.provider.set_idempotency(Idempotency::Off);
    let worker = env.start_worker().await;
    let call = env.provider.hold_next_call();
    env.publish(job("po_1").connector("asked")).await;
    call.arrived().await;
    // when the database's clock steps, so that the lease and the settle time seem to be over,
    step(&env, "1 hour").await;
    worker.says("\"outcome\":\"not_there\"").await;
    // then "not found" does not count, and a later look-up finds the link of the call.
    call.release();
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
    let ledger = env.provider.ledger();
    assert_eq!((ledger.links.len(), ledger.keys_seen().len()), (1, 1));
    eventually("the step is counted", async || {
        let metrics = worker.metrics().await;
        let is_counted = metrics.contains("payout_links_database_clock_steps_total 1")
            && metrics.contains("payout_links_clock_offset_seconds{clock=\"database\"} 3");
        is_counted.then_some(())
    })
    .await;
}
