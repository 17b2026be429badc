//! `resolve --not-created` where nothing can check it, and its correction.

use provider_simulators::sandbox::LinkChange;
use serde_json::json;
use sqlx::Connection;

use super::{acts, begin, gate, said, unknown, until_waiting};
use crate::support::{Setup, TestEnv};

#[tokio::test(flavor = "multi_thread")]
async fn that_nothing_was_created_needs_force_where_the_provider_cannot_be_asked() {
    // Given unknown payouts at a connector that cannot be asked by our reference,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    unknown(&env, "po_1").await;
    unknown(&env, "po_2").await;
    // when an operator says that nothing was created, of one or of many, then it is refused, and nothing is announced.
    let one = ["resolve", "po_1", "--not-created", "--reason", "guess"];
    let many = ["resolve", "--not-created", "--where", "connector=mute", "--yes", "--reason", "guess"];
    for arguments in [&one[..], &many[..]] {
        let refused = env.run(arguments);
        assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
        for part in ["mute cannot be asked", "idempotency key that `show` prints", "--created", "--force"] {
            assert!(said(&refused).contains(part), "{}", said(&refused));
        }
    }
    assert!(acts(&env, "po_1").await.is_empty() && acts(&env, "po_2").await.is_empty());
    assert_eq!(env.shown("po_1").unwrap()["state"], "unknown");
    // With --force it is done, and the act says that nobody was asked.
    let forced = env.run(&["resolve", "po_1", "--not-created", "--force", "--reason", "not in the list"]);
    assert!(forced.status.success(), "{}", said(&forced));
    let details = &acts(&env, "po_1").await[0].2;
    assert_eq!((&details["provider"], &details["forced"]), (&json!("not_asked"), &json!(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payout_that_was_resolved_as_not_created_is_resolved_as_created() {
    // Given a payout whose link exists, and that an operator has ended as not created by mistake,
    let env = Setup::default().set("connectors.mute.follow.min_interval_seconds", 1).build().await;
    let _worker = env.start_worker().await;
    let link = unknown(&env, "po_1").await;
    let wrong =
        env.run(&["resolve", "po_1", "--not-created", "--force", "--reason", "guess", "--actor", "ada"]);
    assert!(wrong.status.success(), "{}", said(&wrong));
    let failed = env.webhooks(2).await.remove(1);
    // when it is resolved with a link that does not exist, or as not created again, then it is refused;
    for finding in [&["--created", "plink_other"][..], &["--not-created", "--force"][..]] {
        let refused = env.run(&[&["resolve", "po_1", "--reason", "seen"], finding].concat());
        assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    }
    // when it is resolved with its link,
    let corrected = env.run(&["resolve", "po_1", "--created", &link, "--reason", "seen", "--actor", "grace"]);
    assert!(corrected.status.success(), "{}", said(&corrected));
    assert!(said(&corrected).contains("The merchant got payout_link.failed before"), "{}", said(&corrected));
    // then the third event corrects the second, which keeps its content,
    let results = env.wait_for_results("po_1", 3).await;
    let kinds: Vec<_> =
        results.iter().map(|result| (result.kind(), result.json()["sequence"].clone())).collect();
    let expected = ["payout_link.pending", "payout_link.failed", "payout_link.created"];
    let expected: Vec<_> =
        expected.into_iter().zip(1..).map(|(kind, at)| (kind.to_owned(), json!(at))).collect();
    assert_eq!(kinds, expected);
    let webhooks = env.webhooks(3).await;
    assert_eq!(
        (&webhooks[1].body, webhooks[2].event_type.as_deref()),
        (&failed.body, Some("payout_link.created"))
    );
    // the link is followed, and no call was made a second time.
    env.provider.change(&link, LinkChange::Claim).unwrap();
    assert_eq!(env.wait_for_results("po_1", 4).await[3].kind(), "payout_link.claimed");
    assert_eq!(env.provider.ledger().links.len(), 1);
    let commands: Vec<_> = acts(&env, "po_1").await.into_iter().map(|(_, actor, _)| actor).collect();
    assert_eq!(commands, ["ada", "grace"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_of_a_payout_that_was_resolved_as_not_created_excludes_its_correction() {
    // Given a payout that was ended as not created, and tried again while no worker runs,
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    let link = unknown(&env, "po_1").await;
    let resolved = env.run(&["resolve", "po_1", "--not-created", "--force", "--reason", "guess"]);
    assert!(resolved.status.success(), "{}", said(&resolved));
    env.wait_for_results("po_1", 2).await;
    env.wait_until_delivered("po_1").await;
    assert!(worker.stop().await.success());
    // when a correction and the retry come at once, and the retry is first, then the correction is refused.
    let gate = gate(&env).await;
    let retry = begin(&env, &["retry", "po_1", "--reason", "again", "--actor", "ada"]);
    until_waiting(&env, 1).await;
    let correction = begin(&env, &["resolve", "po_1", "--created", &link, "--reason", "seen"]);
    until_waiting(&env, 2).await;
    gate.close().await.unwrap();
    let (retry, correction) = (retry.wait_with_output().unwrap(), correction.wait_with_output().unwrap());
    assert!(retry.status.success(), "{}", said(&retry));
    assert_eq!(correction.status.code(), Some(5), "{}", said(&correction));
    assert!(said(&correction).contains("`retry` by ada"), "{}", said(&correction));
    assert_eq!(env.shown("po_1").unwrap()["state"], "open");
}
