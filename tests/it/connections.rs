//! The store's connections between its batches: kept for the next one, and not from anybody else.

use std::time::Duration;

use payout_link_worker::store::migrate;
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::{
    leases::{accept, created, store},
    support::{World, eventually},
};

async fn pool(world: &World, connections: u32) -> PgPool {
    migrate(&world.pool).await.unwrap();
    let options = world.pool.connect_options().as_ref().clone();
    let pool = PgPoolOptions::new().max_connections(connections).acquire_timeout(Duration::from_secs(5));
    pool.connect_with(options).await.unwrap()
}

#[tokio::test]
async fn the_only_connection_is_given_back_when_there_is_nothing_to_do() {
    // Given a pool of one, and a batch that ran on it,
    let world = World::new().await;
    let pool = pool(&world, 1).await;
    let store = store(pool.clone());
    accept(&store, "po_1").await;
    // when nothing follows, then somebody else gets it.
    pool.acquire().await.unwrap();
}

#[tokio::test]
async fn a_connection_that_is_not_needed_is_given_back_while_others_are() {
    // Given batches of two kinds at once, again and again, on both connections of a pool,
    let world = World::new().await;
    let pool = pool(&world, 2).await;
    let store = store(pool.clone());
    let mut numbers = 1..;
    let mut open = accept(&store, "po_0").await;
    for number in numbers.by_ref() {
        let told = created(&mut open, "plink");
        let id = format!("po_{number}");
        let (next, concluded) = tokio::join!(accept(&store, &id), store.conclude(open, told));
        concluded.unwrap();
        open = next;
        if number >= 20 && pool.size() == 2 {
            break;
        }
    }
    // when both kinds go on, one after the other,
    let going_on = async {
        for number in numbers {
            let mut link = accept(&store, &format!("po_{number}")).await;
            let told = created(&mut link, "plink");
            store.conclude(link, told).await.unwrap();
        }
    };
    // then somebody else gets the connection that they do not need.
    tokio::select! {
        _ = going_on => unreachable!(),
        acquired = pool.acquire() => acquired.unwrap(),
    };
}

#[tokio::test]
async fn a_connection_that_a_slow_statement_had_is_given_back() {
    // Given a statement that others of its kind do not wait for any more, on the only connection of a pool,
    let world = World::new().await;
    let pool = pool(&world, 1).await;
    let store = store(pool.clone());
    let mut lock = world.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE payout_links IN EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let slow = async {
        let late = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
            AND wait_event_type = 'Lock' AND clock_timestamp() - query_start > interval '300 milliseconds'";
        eventually("a statement that waits", async || {
            let waiting: i64 = sqlx::query_scalar(late).fetch_one(&world.pool).await.unwrap();
            (waiting > 0).then_some(())
        })
        .await;
        lock.commit().await.unwrap();
    };
    tokio::join!(accept(&store, "po_1"), slow);
    // when nothing follows, then somebody else gets it.
    pool.acquire().await.unwrap();
}
