//! Two operators act on one record at once: one of them acts, and the other learns who it was.

use sqlx::Connection;

use super::{acts, begin, gate, said, unknown, until_waiting};
use crate::support::{TestEnv, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn of_two_operators_at_once_one_acts() {
    // Given an unknown payout, and two operators who resolve it in the same moment, in different ways,
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    let link = unknown(&env, "po_1").await;
    env.wait_until_delivered("po_1").await;
    assert!(worker.stop().await.success());
    let gate = gate(&env).await;
    let first = begin(&env, &["resolve", "po_1", "--created", &link, "--reason", "seen", "--actor", "ada"]);
    until_waiting(&env, 1).await;
    let second = begin(
        &env,
        &["resolve", "po_1", "--not-created", "--force", "--reason", "not seen", "--actor", "grace"],
    );
    until_waiting(&env, 2).await;
    // when both acts go on,
    gate.close().await.unwrap();
    let (first, second) = (first.wait_with_output().unwrap(), second.wait_with_output().unwrap());
    // then one is done, and the other is refused with a name.
    assert!(first.status.success(), "{}", said(&first));
    assert_eq!(second.status.code(), Some(5), "{}", said(&second));
    assert!(said(&second).contains("`resolve` by ada"), "{}", said(&second));
    assert_eq!(
        (acts(&env, "po_1").await.len(), env.shown("po_1").unwrap()["state"].clone()),
        (1, "created".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_another_operator_made_impossible_names_that_operator() {
    // Given an unknown payout, and an operator whose cancel waits for it,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    unknown(&env, "po_1").await;
    env.wait_until_delivered("po_1").await;
    let cancel =
        begin(&env, &["cancel", "po_1", "--timeout-seconds", "60", "--reason", "wrong", "--actor", "ada"]);
    eventually("the request", async || (acts(&env, "po_1").await.len() == 1).then_some(())).await;
    // when another one resolves it as not created,
    let resolve =
        ["resolve", "po_1", "--not-created", "--force", "--reason", "not in the list", "--actor", "grace"];
    let resolved = env.run(&resolve);
    assert!(resolved.status.success(), "{}", said(&resolved));
    // then the first one learns of it.
    let cancel = cancel.wait_with_output().unwrap();
    assert_eq!(cancel.status.code(), Some(5), "{}", said(&cancel));
    assert!(said(&cancel).contains("`resolve` by grace"), "{}", said(&cancel));
}
