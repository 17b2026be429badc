//! Tests that `status` reports what needs an operator.

use serde_json::Value;

use super::{RECORDS, make_records, said};
use crate::support::{TestEnv, eventually, job};

#[tokio::test(flavor = "multi_thread")]
async fn status_says_what_needs_a_person_and_its_exit_status_too() {
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    env.publish(job("po_1")).await;
    env.wait_until_delivered("po_1").await;
    let status = || {
        let output = env.run(&["status", "--output", "json"]);
        let status: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
        (output.status.code().unwrap(), status)
    };
    let names = |status: &Value| -> Vec<String> {
        let findings = status["findings"].as_array().unwrap();
        findings.iter().map(|finding| finding["name"].as_str().unwrap().to_owned()).collect()
    };
    // Given a working deployment, with its worker and its version,
    let (code, read) = eventually("a worker", async || {
        let (code, read) = status();
        (read["database"]["workers"].as_array().is_some_and(|seen| !seen.is_empty())).then_some((code, read))
    })
    .await;
    assert_eq!((code, &read["healthy"]), (0, &Value::Bool(true)), "{read}");
    assert_eq!(read["database"]["workers"][0]["version"], env!("CARGO_PKG_VERSION"), "{read}");
    assert_eq!(read["database"]["sealing_keys"][0], "k1", "{read}");
    assert!(names(&read).is_empty(), "{read}");
    // when payouts are unknown, records are overdue, and a job is rejected,
    make_records(&env, RECORDS).await;
    env.publish(job("po_bad").amount(-1)).await;
    eventually("the dead letter", async || {
        let (_, read) = status();
        names(&read).contains(&"dead_letters".to_owned()).then_some(())
    })
    .await;
    // then each is reported, the worst first,
    let (code, read) = status();
    assert_eq!(code, 1);
    let all = names(&read);
    assert_eq!(all[0], "unknown_payouts", "{all:?}");
    assert_eq!(read["findings"][0]["count"], RECORDS / 1000, "{read}");
    for name in ["unresolved_calls", "overdue_records", "missing_account", "dead_letters"] {
        assert!(all.iter().any(|found| found == name), "{name}: {all:?}");
    }
    // and the text is readable.
    let text = said(&env.run(&["status"]));
    assert!(text.contains("list --state unknown --oldest-first"), "{text}");
    assert!(text.contains("not known: circuit breakers"), "{text}");
    // Without a worker it says so.
    assert!(worker.stop().await.success());
    eventually("no worker", async || names(&status().1).contains(&"no_workers".to_owned()).then_some(()))
        .await;
}
