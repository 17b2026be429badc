//! The store's connections between its batches: kept for the next one, and not from anybody else.

use std::time::Duration;

use payout_link_worker::store::migrate;
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::{
    leases::{accept, created, store},
    support::World,
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
    // Given two batches of different kinds at once, on both connections of a pool,
    let world = World::new().await;
    let pool = pool(&world, 2).await;
    let store = store(pool.clone());
    let mut link = accept(&store, "po_1").await;
    let told = created(&mut link, "plink_1");
    let (_, concluded) = tokio::join!(accept(&store, "po_2"), store.conclude(link, told));
    concluded.unwrap();
    assert_eq!(pool.size(), 2);
    // when both kinds go on, one after the other,
    let going_on = async {
        for number in 3.. {
            let mut link = accept(&store, &format!("po_{number}")).await;
            let told = created(&mut link, &format!("plink_{number}"));
            store.conclude(link, told).await.unwrap();
        }
    };
    // then somebody else gets the connection that they do not need.
    tokio::select! {
        _ = going_on => unreachable!(),
        acquired = pool.acquire() => acquired.unwrap(),
    };
}
