//! Tests that `list` finds and counts records.

use std::collections::HashSet;

use serde_json::Value;

use super::{CONDITIONS, count_where, lines, make_records, said, with_records};
use crate::support::TestEnv;

#[tokio::test(flavor = "multi_thread")]
async fn list_finds_and_counts_records_by_every_condition() {
    // Given ten thousand records beside a worker,
    let (env, worker) = with_records().await;
    for (number, (condition, sql)) in CONDITIONS.iter().enumerate() {
        let expected = count_where(&env, sql).await;
        assert!(expected > 0, "{condition}: no record matches");
        // then they are counted,
        let counted =
            env.run(&["list", "--where", condition, "--count", "--scan", "20000", "--output", "json"]);
        let counted: Value = serde_json::from_slice(&counted.stdout).unwrap();
        let count = counted["count"].as_u64().unwrap();
        // Two clocks measure the ages at slightly different times.
        assert!(
            count.abs_diff(expected) <= u64::from(condition.contains('h')),
            "{condition}: {count}, not {expected}"
        );
        assert_eq!(counted["complete"], true, "{condition}");
        // and each is on exactly one page, in order, from either end.
        let direction = if number % 2 == 0 { &[][..] } else { &["--oldest-first"] };
        let mut seen: Vec<String> = Vec::new();
        let mut after = None::<String>;
        loop {
            let mut arguments =
                vec!["list", "--where", condition, "--limit", "4000", "--scan", "20000", "--output", "json"];
            arguments.extend(direction);
            arguments.extend(after.iter().flat_map(|after| ["--after", after]));
            let output = env.run(&arguments);
            assert!(output.status.success(), "{arguments:?}: {}", said(&output));
            let page: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(page["complete"], true, "{condition}");
            let records = page["records"].as_array().unwrap();
            seen.extend(records.iter().map(|record| record["id"].as_str().unwrap().to_owned()));
            after = page["next"].as_str().map(str::to_owned);
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen.iter().collect::<HashSet<_>>().len(), seen.len(), "{condition}");
        assert!(seen.len().abs_diff(usize::try_from(expected).unwrap()) <= 2, "{condition}: {}", seen.len());
        assert!(if number % 2 == 0 { seen.is_sorted_by(|one, next| one > next) } else { seen.is_sorted() });
    }
    assert!(worker.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn list_says_how_far_it_looked_and_goes_on_from_there() {
    let (env, _worker) = with_records().await;
    // Given a limit of rows that ends before the rare records,
    let page = ["list", "--connector", "rare", "--scan", "2000", "--output", "json"];
    let (mut after, mut found, mut pages) = (None::<String>, 0, 0);
    loop {
        let mut arguments = page.to_vec();
        arguments.extend(after.iter().flat_map(|after| ["--after", after]));
        let output = env.run(&arguments);
        let read: Value = serde_json::from_slice(&output.stdout).unwrap();
        found += read["records"].as_array().unwrap().len();
        pages += 1;
        let Some(next) = read["next"].as_str() else { break };
        // then the page says so, and names the beginning of the next one,
        assert_eq!(read["complete"], false);
        assert!(said(&output).contains("2000 rows were looked at, back to "), "{}", said(&output));
        after = Some(next.to_owned());
    }
    // and the pages together find all of them.
    assert_eq!((found, pages), (1, 6));
    let counted = env.run(&["list", "--state", "created", "--count", "--scan", "2000"]);
    assert!(said(&counted).starts_with("at least 1"), "{}", said(&counted));
    // A backlog that is longer than the limit is not read in order, and the list says that too.
    let open = env.run(&["list", "--state", "open", "--scan", "50"]);
    assert!(said(&open).contains("more than 50 records are open"), "{}", said(&open));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_found_and_wrong_use_have_exit_statuses_of_their_own() {
    let env = TestEnv::new().await;
    env.start_worker().await.stop().await;
    for (arguments, status) in [
        (&["list"][..], 4),
        (&["list", "--count"], 4),
        (&["list", "--where", "state=fialed"], 2),
        (&["list", "--min-amount", "100"], 2),
        (&["list", "--after", "po_1"], 2),
        (&["list", "--limit", "0"], 2),
        (&["show", "po_1"], 4),
        (&["cancel", "po_1", "--reason", "test"], 4),
    ] {
        let output = env.run(arguments);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {}", said(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_has_a_line_for_each_record_and_no_control_character() {
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    make_records(&env, 20).await;
    let rename = "UPDATE payout_links SET merchant_id = E'm\\x1b[2J' WHERE merchant_payout_id = 'po_5'";
    sqlx::query(rename).execute(&env.pool).await.unwrap();
    let output = env.run(&["list", "--merchant", "m\u{1b}[2J"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("m\\u{1b}[2J") && !text.contains('\u{1b}'), "{text}");
    let records = lines(&env.run(&["list", "--output", "jsonl"]));
    assert_eq!(records.len(), 20);
    assert_eq!(records[0]["merchant_payout_id"], "po_20");
}
