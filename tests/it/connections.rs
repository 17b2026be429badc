//! Tests that the store returns a connection between batches, so that other users get it.

use crate::support::{TestEnv, accept, pool_of_one, store, until_a_statement_waits};

#[tokio::test]
async fn the_only_connection_is_given_back_when_there_is_nothing_to_do() {
    // Given a pool of one connection, and a batch that ran on it,
    let env = TestEnv::new().await;
    let pool = pool_of_one(&env).await;
    let store = store(pool.clone());
    accept(&store, "po_1").await;
    // when no other batch follows, then another user gets it.
    pool.acquire().await.unwrap();
}

#[tokio::test]
async fn a_connection_that_a_slow_statement_had_is_given_back() {
    // Given a statement, on the only connection of a pool, for which other statements of its kind do not wait any
    // more,
    let env = TestEnv::new().await;
    let pool = pool_of_one(&env).await;
    let store = store(pool.clone());
    let mut lock = env.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE payout_links IN EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let slow = async {
        until_a_statement_waits(&env.pool, 0.3).await;
        lock.commit().await.unwrap();
    };
    tokio::join!(accept(&store, "po_1"), slow);
    // when no other batch follows, then another user gets it.
    pool.acquire().await.unwrap();
}
