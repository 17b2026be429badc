//! Tests that an encrypted request is bound to its record, and that the use of each key is counted.

use payout_link_worker::postgres::MANY_SEALS;
use sqlx::{AssertSqlSafe, Executor};

use crate::support::{TestEnv, eventually, job};

/// Opens a finished record again with a change, as somebody with access to the database could.
async fn reopen(env: &TestEnv, id: &str, change: &str) {
    let reopen = format!(
        "UPDATE payout_links SET state = 'open', due_at = now(), holder = NULL, concluded_at = NULL, result = NULL, event_id = NULL,
            connector_payout_id = NULL, payout_status = NULL, attempts = 0, first_called_at = NULL, last_called_at = NULL,
            follow_due_at = NULL, {change}
         WHERE merchant_payout_id = '{id}'"
    );
    assert_eq!(env.pool.execute(AssertSqlSafe(reopen)).await.unwrap().rows_affected(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_not_called_for_another_merchant_identifier_or_connector() {
    // Given three finished payouts, and one that nobody changes,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    for id in ["po_1", "po_2", "po_3", "po_4"] {
        env.publish(job(id)).await;
        env.wait_until_delivered(id).await;
    }
    let calls = || env.provider.ledger().calls.len();
    let before = calls();
    // when their records are opened again under another key, or for another connector,
    reopen(&env, "po_1", "merchant_id = 'mallory'").await;
    reopen(&env, "po_2", "merchant_payout_id = 'po_mallory'").await;
    reopen(&env, "po_3", "connector = 'asked'").await;
    // then no call is made for them, and they are postponed,
    eventually("the changed records are postponed", async || {
        let aside = "SELECT count(*) FROM payout_links WHERE state = 'open' AND holder IS NULL AND due_at > now() + interval '1 minute'";
        let aside: i64 = sqlx::query_scalar(aside).fetch_one(&env.pool).await.unwrap();
        (aside == 3).then_some(())
    })
    .await;
    assert_eq!(calls(), before);
    // while an unchanged record is called under its own key.
    reopen(&env, "po_4", "merchant_id = ''").await;
    env.wait_for_results("po_4", 2).await;
    assert_eq!(calls(), before + 1);
    assert_eq!(env.provider.ledger().links.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_an_earlier_version_is_read() {
    // Given a parked record with the id of an earlier version, which binds nothing: a copy of what its worker wrote.
    let env = TestEnv::new().await;
    payout_link_worker::postgres::migrate(&env.pool).await.unwrap();
    let key = "c2VhbGluZyBrZXkgb2YgYSB0ZXN0LCAzMiBieXRlcy4=";
    let ring = payout_link_worker::postgres::KeyRing::new(
        &[format!("k1:{key}").into()],
        &"ZmluZ2VycHJpbnQga2V5IG9mIGEgdGVzdCwgMzIgYi4=".into(),
    )
    .unwrap();
    let id = uuid::Uuid::now_v7();
    let policy = payout_link_worker::contract::DecodePolicy::default();
    let job = payout_link_worker::contract::create_link(&job("po_1").body, None, &policy).unwrap();
    let request = payout_link_worker::contract::canonical_request(&job);
    let sealed = ring.seal(payout_link_worker::postgres::Column::Request, id, request.as_bytes());
    sqlx::query(
        "INSERT INTO payout_links (id, merchant_id, merchant_payout_id, request_fingerprint, connector, amount_minor, currency, destination_currency, state, request, due_at)
         VALUES ($1, '', 'po_1', $2, 'sandbox', 1250, 'EUR', 'EUR', 'open', $3, now())",
    )
    .bind(id)
    .bind(&[0u8; 32][..])
    .bind(sealed)
    .execute(&env.pool)
    .await
    .unwrap();
    // Then this version calls for it.
    let _worker = env.start_worker().await;
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_values_of_a_key_are_counted_over_restarts_and_reported_long_before_its_limit() {
    let env = TestEnv::new().await;
    let recorded = async || -> i64 {
        sqlx::query_scalar("SELECT seals FROM sealing_keys WHERE key_id = 'k1'")
            .fetch_one(&env.pool)
            .await
            .unwrap()
    };
    // There are three jobs, each with a request and a result, and two runs of a worker.
    for (ids, sealed) in [(&["po_1", "po_2"][..], 4), (&["po_3"], 6)] {
        let worker = env.start_worker().await;
        for id in ids {
            env.publish(job(id)).await;
            env.wait_until_delivered(id).await;
        }
        worker.stop().await;
        assert_eq!(recorded().await, sealed);
    }
    let output = env.run(&["keys", "status"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("encrypted with k1 so far: 6 of 4294967296"), "{said}");
    // Values that `keys rotate` encrypts count as well.
    let many = i64::try_from(MANY_SEALS).unwrap();
    let raise = format!("UPDATE sealing_keys SET seals = {many}");
    env.pool.execute(AssertSqlSafe(raise)).await.unwrap();
    let worker = env.start_worker().await;
    worker.measures("payout_links_sealing_key_seals", many).await;
}
