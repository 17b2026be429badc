//! Commands that act on many records.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use provider_simulators::sandbox::Fault;
use serde_json::Value;

use super::said;
use crate::support::{TestEnv, job};

#[tokio::test(flavor = "multi_thread")]
async fn many_records_are_acted_on_after_a_preview_and_a_confirmation() {
    // Given three declined payouts of a merchant, and one of another,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    for (id, merchant) in [("po_1", "m1"), ("po_2", "m1"), ("po_3", "m1"), ("po_4", "m2")] {
        env.provider.inject_fault(Fault::status(422));
        env.publish(job(id).merchant(merchant)).await;
        env.wait_until_delivered(id).await;
    }
    let retry = |arguments: &[&str]| {
        env.run(&[&["retry", "--where", "merchant=m1", "--reason", "limit raised"], arguments].concat())
    };
    // when there is no terminal and no --yes, then there is a preview, and nothing is done;
    let preview = retry(&[]);
    assert_eq!(preview.status.code(), Some(5), "{}", said(&preview));
    assert!(
        said(&preview).contains("retry acts on 3 of 3 records") && said(&preview).contains("po_2"),
        "{}",
        said(&preview)
    );
    for wrong in [&["po_1", "--yes"][..], &["--where", "state=created", "--yes"]] {
        assert_eq!(retry(wrong).status.code(), Some(2), "{wrong:?}");
    }
    assert_eq!(env.provider.ledger().links.len(), 0);
    // when the first two are wanted, then each is reported, the oldest first;
    let two = retry(&["--yes", "--limit", "2", "--output", "json"]);
    assert!(two.status.success(), "{}", said(&two));
    let reports: Value = serde_json::from_slice(&two.stdout).unwrap();
    let ids: Vec<_> = reports
        .as_array()
        .unwrap()
        .iter()
        .map(|report| report["merchant_payout_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["po_1", "po_2"]);
    for id in ids {
        assert_eq!(env.wait_for_results(id, 2).await[1].kind(), "payout_link.created");
    }
    // a repeated command goes on with the rest, and finds nothing after that.
    assert!(retry(&["--yes"]).status.success());
    assert_eq!(env.wait_for_results("po_3", 2).await[1].kind(), "payout_link.created");
    assert_eq!(retry(&["--yes"]).status.code(), Some(4));
    assert_eq!((env.provider.ledger().links.len(), env.results_of("po_4").len()), (3, 1));
    // Their links are taken back together.
    let cancelled = env.run(&["cancel", "--where", "merchant=m1", "--yes", "--reason", "sent twice"]);
    assert!(cancelled.status.success(), "{}", said(&cancelled));
    for id in ["po_1", "po_2", "po_3"] {
        assert_eq!(env.wait_for_results(id, 3).await[2].kind(), "payout_link.cancelled");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_records_are_erased_and_a_repeated_command_goes_on() {
    // Given three delivered payouts of a merchant, one of another, and a dead letter of one of the three,
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    for (id, merchant) in [("po_1", "m1"), ("po_2", "m1"), ("po_3", "m1"), ("po_4", "m2")] {
        env.publish(job(id).merchant(merchant)).await;
        env.wait_until_delivered(id).await;
    }
    env.publish(job("po_2").merchant("m1").amount(99)).await;
    env.wait_for_results("po_2", 2).await;
    assert!(worker.stop().await.success());
    let erase = |arguments: &[&str]| {
        env.run(&[&["erase", "--where", "merchant=m1", "--reason", "contract ended"], arguments].concat())
    };
    let erased = async || {
        let keys = "SELECT merchant_payout_id FROM payout_links
            WHERE erased_at IS NOT NULL AND request IS NULL ORDER BY 1";
        sqlx::query_scalar::<_, String>(keys).fetch_all(&env.pool).await.unwrap()
    };
    // when nobody confirms it, or the conditions name open records, then nothing is erased;
    assert_eq!(erase(&[]).status.code(), Some(5));
    let open = env.run(&["erase", "--where", "state=open", "--yes", "--reason", "contract ended"]);
    assert_eq!(open.status.code(), Some(2), "{}", said(&open));
    assert!(erased().await.is_empty());
    // when the first two are wanted, then they are erased, with the dead letter;
    let two = erase(&["--yes", "--limit", "2", "--rate", "100"]);
    assert!(two.status.success(), "{}", said(&two));
    assert_eq!(erased().await, ["po_1", "po_2"]);
    assert_eq!(env.ready(&env.names.dead_queue).await, 0);
    // a repeated command goes on with the rest, and finds nothing after that.
    assert!(erase(&["--yes"]).status.success());
    assert_eq!(erased().await, ["po_1", "po_2", "po_3"]);
    assert_eq!(erase(&["--yes"]).status.code(), Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_command_says_what_is_left_and_goes_on_when_it_is_repeated() {
    // Given three declined payouts, and a command that has a second for each,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    for id in ["po_1", "po_2", "po_3"] {
        env.provider.inject_fault(Fault::status(422));
        env.publish(job(id)).await;
        env.wait_until_delivered(id).await;
    }
    let retry =
        ["retry", "--where", "state=failed", "--yes", "--reason", "limit raised", "--output", "jsonl"];
    let mut command = env.command(&[&retry[..], &["--rate", "1"]].concat());
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    // when it is interrupted after the first,
    let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(first["merchant_payout_id"], "po_1");
    let sent = Command::new("kill").args(["-s", "INT", &process.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let output = process.wait_with_output().unwrap();
    // then it ends between two records, and says how many are left.
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let others = lines.count();
    assert!(said(&output).contains(&format!("interrupted: {} done", 1 + others)), "{}", said(&output));
    assert!(said(&output).contains(&format!("and {} not touched", 2 - others)), "{}", said(&output));
    // The same command goes on.
    assert!(env.run(&retry).status.success());
    for id in ["po_1", "po_2", "po_3"] {
        assert_eq!(env.wait_for_results(id, 2).await[1].kind(), "payout_link.created");
    }
}
