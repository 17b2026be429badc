//! Tests that `reconcile` compares a provider's statement with the records of an account.

use std::{fmt::Write as _, io::Write as _, process::Stdio};

use serde_json::Value;

use crate::support::{TestEnv, job};

/// Creates a record, and returns its line of the statement and its id at the provider.
async fn created(env: &TestEnv, id: &str) -> String {
    env.publish(job(id)).await;
    env.result_of(id).await.json()["connector_payout_id"].as_str().unwrap().to_owned()
}

fn reconcile(env: &TestEnv, statement: &str, options: &[&str]) -> (Option<i32>, String, String) {
    let base = ["reconcile", "--account", "sandbox", "--from", "-"];
    let mut command = env.command(&[&base[..], options].concat());
    let mut process =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    process.stdin.take().unwrap().write_all(statement.as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_difference_of_a_statement_has_a_finding() {
    // Given created records of an account, and one of another account,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    let mut ids = Vec::new();
    for number in 0..4 {
        ids.push(created(&env, &format!("po_{number}")).await);
    }
    env.publish(job("other").connector("mute")).await;
    env.result_of("other").await;
    let amount = env.shown("po_0").unwrap()["amount_minor"].as_i64().unwrap();
    // when a statement has one unchanged, one with another amount, one with another status, one twice, and an unknown
    // one,
    let statement = format!(
        "Payout,status,amount,currency\n{},open,{amount},EUR\n{},open,7,EUR\n{},expired,{amount},EUR\n\
         {},open,{amount},EUR\nnobody,open,1,EUR\n",
        ids[0], ids[1], ids[2], ids[0]
    );
    let options = [
        "--id-column",
        "payout",
        "--status",
        "open=unclaimed",
        "--since",
        "1d",
        "--until",
        "2099-01-01",
        "--settled-after-minutes",
        "0",
        "--output",
        "json",
    ];
    let (status, printed, said) = reconcile(&env, &statement, &options);
    // then each has its finding, also the record that the statement does not have.
    assert_eq!(status, Some(3), "{said}");
    let document: Value = serde_json::from_str(&printed).unwrap();
    let found = document["findings"].as_array().unwrap().iter();
    let mut found: Vec<(&str, &str)> =
        found.map(|row| (row["finding"].as_str().unwrap(), row["id"].as_str().unwrap())).collect();
    found.sort_unstable();
    let mut expected = [
        ("amount_differs", &*ids[1]),
        ("missing_here", "nobody"),
        ("missing_there", &*ids[3]),
        ("repeated", &*ids[0]),
        ("status_differs", &*ids[2]),
    ];
    expected.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!((&document["counts"]["matched"], &document["counts"]["repeated"]), (&2.into(), &1.into()));
    assert_eq!(document["complete"], true);
    // A new line or record may be on one side only.
    let statement = ids[..3].iter().fold("payout,created_at\n".to_owned(), |mut lines, id| {
        writeln!(lines, "{id},2099-01-01T00:00:00Z").unwrap();
        lines
    });
    let recent = ["--id-column", "payout", "--since", "1d", "--settled-after-minutes", "60", "--until"];
    let until = time::OffsetDateTime::now_utc() + time::Duration::MINUTE;
    let until = until.format(&time::format_description::well_known::Rfc3339).unwrap();
    let (status, printed, said) = reconcile(&env, &statement, &[&recent[..], &[&until]].concat());
    assert_eq!(status, Some(0), "{printed}{said}");
    assert!(printed.contains("not_yet_visible") && printed.contains("po_3"), "{printed}");
    // A statement that cannot be compared is a usage error.
    let (status, _, said) = reconcile(&env, "payout,status\nx,strange\n", &[]);
    assert_eq!(status, Some(2));
    assert!(said.contains("--id-column"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_statement_needs_little_memory() {
    const LINES: usize = 50_000;
    // Given a statement of many unknown lines,
    let env = TestEnv::new().await;
    assert!(env.run(&["migrate"]).status.success());
    let mut statement = String::from("id,status,amount,currency,created_at\n");
    for line in 0..LINES {
        writeln!(statement, "plink_{line:040},unclaimed,1250,EUR,2026-01-01T10:00:00Z").unwrap();
    }
    // when it is compared,
    let (status, printed, said) = reconcile(&env, &statement, &["--output", "json", "--limit", "10"]);
    // then all lines are counted, and a few are listed.
    assert_eq!(status, Some(3), "{said}");
    let document: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(document["counts"]["missing_here"], LINES);
    assert_eq!((document["findings"].as_array().unwrap().len(), &document["complete"]), (10, &false.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_line_is_printed_with_the_first_one() {
    // Given a created record, and a statement that has its id twice,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    let id = created(&env, "po_1").await;
    let statement = format!("id,status\n{id},unclaimed\n{id},unclaimed\n");
    let options = ["--since", "1d", "--until", "2099-01-01", "--settled-after-minutes", "0"];
    // when it is compared, then the second line is a finding that names the first, the record and both lines;
    let (status, printed, said) = reconcile(&env, &statement, &options);
    assert_eq!(status, Some(3), "{said}");
    let expected = format!("repeated         {id}  po_1  line 3  line 2 has the same id\n");
    assert_eq!(
        (printed.as_str(), said.trim_end()),
        (&*expected, "payout-link-worker: 2 matched, 1 repeated")
    );
    // also for a program.
    let (_, printed, _) = reconcile(&env, &statement, &[&options[..], &["--output", "jsonl"]].concat());
    let row: Value = serde_json::from_str(printed.lines().next().unwrap()).unwrap();
    let lines = (&row["finding"], &row["line"], &row["first_line"]);
    assert_eq!(lines, (&"repeated".into(), &3.into(), &2.into()));
    assert_eq!(row["record"]["merchant_payout_id"], "po_1");
}
