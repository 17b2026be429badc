//! The reading commands of an engineer on call, beside a running worker and ten thousand records.

use std::{collections::HashSet, process::Output, time::Instant};

use payout_link_worker::{
    domain::{idempotency_key_of, idempotency_uuid},
    postgres,
};
use provider_simulators::sandbox::Fault;
use serde_json::Value;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::support::{Setup, TestEnv, Worker, eventually, job};

const RECORDS: i64 = 10_000;
/// Records in one statement.
const STEP: i64 = 250_000;

/// Makes records as workers of several months would have left them.
async fn make_records(env: &TestEnv, count: i64) {
    for first in (1..=count).step_by(usize::try_from(STEP).unwrap()) {
        sqlx::query(include_str!("on_call/many_records.sql"))
            .bind(first)
            .bind((first + STEP - 1).min(count))
            .bind(count)
            .execute(&env.pool)
            .await
            .unwrap();
    }
    sqlx::raw_sql("VACUUM ANALYZE payout_links; ").execute(&env.pool).await.unwrap();
    sqlx::raw_sql("VACUUM ANALYZE events").execute(&env.pool).await.unwrap();
}

async fn with_records() -> (TestEnv, Worker) {
    let env = Setup::default().build().await;
    let worker = env.start_worker().await;
    make_records(&env, RECORDS).await;
    (env, worker)
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

async fn count_where(env: &TestEnv, condition: &str) -> u64 {
    let count = format!("SELECT count(*) FROM payout_links WHERE {condition}");
    let count: i64 = sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&env.pool).await.unwrap();
    count.unsigned_abs()
}

/// Each condition as `--where` has it, and in SQL.
const CONDITIONS: &[(&str, &str)] = &[
    ("", "true"),
    ("state=open", "state = 'open'"),
    ("state=failed", "state = 'failed'"),
    ("state=unknown", "state = 'unknown'"),
    ("state=open,failed", "state IN ('open', 'failed')"),
    ("state=created,failed", "state IN ('created', 'failed')"),
    ("payout-status=PENDING", "payout_status = 'PENDING'"),
    ("link=expired", "link_status = 'expired'"),
    ("link=payout_failed", "link_status = 'payout_failed'"),
    ("merchant=m_big", "merchant_id = 'm_big'"),
    ("merchant=m_7", "merchant_id = 'm_7'"),
    ("merchant=m_big state=failed", "merchant_id = 'm_big' AND state = 'failed'"),
    ("merchant=m_big state=open", "merchant_id = 'm_big' AND state = 'open'"),
    ("connector=gone", "connector = 'gone'"),
    ("error=CONNECTOR_UNAVAILABLE", "error_code = 'CONNECTOR_UNAVAILABLE'"),
    ("since=1h", "created_at >= now() - interval '1 hour'"),
    ("until=2h state=failed", "created_at < now() - interval '2 hours' AND state = 'failed'"),
    (
        "min-amount=9000 max-amount=9500 currency=IDR",
        "amount_minor BETWEEN 9000 AND 9500 AND currency = 'IDR'",
    ),
    ("retrying", "state = 'open' AND attempts > 0 AND in_doubt_since IS NULL"),
    ("overdue", "due_at < now() - interval '1 minute'"),
    ("unknown", "state = 'unknown' OR in_doubt_since IS NOT NULL"),
];

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
        // Ages are measured by two clocks a moment apart.
        assert!(
            count.abs_diff(expected) <= u64::from(condition.contains('h')),
            "{condition}: {count}, not {expected}"
        );
        assert_eq!(counted["complete"], true, "{condition}");
        // and each is in exactly one page, in order, from either end.
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
        // then the page says so, and where the next one begins,
        assert_eq!(read["complete"], false);
        assert!(said(&output).contains("2000 rows were looked at, back to "), "{}", said(&output));
        after = Some(next.to_owned());
    }
    // and the pages together find all of them.
    assert_eq!((found, pages), (1, 6));
    let counted = env.run(&["list", "--state", "created", "--count", "--scan", "2000"]);
    assert!(said(&counted).starts_with("at least 1"), "{}", said(&counted));
    // A backlog that is longer than the limit is not looked at in order, and the list says that too.
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
    // Given a deployment that works, with its worker and its version,
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
    // then each is found, the worst first,
    let (code, read) = status();
    assert_eq!(code, 1);
    let all = names(&read);
    assert_eq!(all[0], "unknown_payouts", "{all:?}");
    assert_eq!(read["findings"][0]["count"], RECORDS / 1000, "{read}");
    for name in ["unresolved_calls", "overdue_records", "missing_account", "dead_letters"] {
        assert!(all.iter().any(|found| found == name), "{name}: {all:?}");
    }
    // and a person can read it.
    let text = said(&env.run(&["status"]));
    assert!(text.contains("list --state unknown --oldest-first"), "{text}");
    assert!(text.contains("not known: circuit breakers"), "{text}");
    // Without a worker it says so.
    assert!(worker.stop().await.success());
    eventually("no worker", async || names(&status().1).contains(&"no_workers".to_owned()).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_commands_need_no_keys_no_connectors_and_no_right_to_write() {
    // Given a role that may only read,
    let env = TestEnv::new().await;
    postgres::migrate(&env.pool).await.unwrap();
    make_records(&env, 100).await;
    let database = env.pool.connect_options().get_database().unwrap().to_owned();
    let role = format!("reader_of_{database}");
    let make = format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'canary-role-password'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
    );
    sqlx::raw_sql(AssertSqlSafe(make)).execute(&env.pool).await.unwrap();
    let mut url: url::Url = std::env::var("DATABASE_URL").unwrap().parse().unwrap();
    url.set_username(&role).unwrap();
    url.set_password(Some("canary-role-password")).unwrap();
    url.set_path(&database);
    // and a configuration with the database alone, beside secrets that this user may not read,
    let file = env.folder.join("reader.toml");
    let text = format!("[database]\nurl = \"{url}\"\n[keys]\nsealing_file = \"/nonexistent/sealing\"\n");
    std::fs::write(&file, text).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_payout-link-worker"));
        command.env_clear().args(arguments).args(["--config", file.to_str().unwrap()]).output().unwrap()
    };
    // then every reading command works,
    for arguments in [
        &["list", "--state", "failed"][..],
        &["list", "--count"],
        &["show", "po_3"],
        &["status", "--output", "json"],
    ] {
        let output = run(arguments);
        let expected = i32::from(arguments[0] == "status");
        assert_eq!(output.status.code(), Some(expected), "{arguments:?}: {}", said(&output));
    }
    let status: Value = serde_json::from_slice(&run(&["status", "--output", "json"]).stdout).unwrap();
    let not_known = status["not_known"].to_string();
    assert!(not_known.contains("no broker.url") && not_known.contains("no keys.sealing"), "{not_known}");
    // and a command that acts still asks for the whole configuration.
    let output = run(&["cancel", "po_1", "--reason", "test"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let drop = format!("DROP OWNED BY {role}; DROP ROLE {role}");
    sqlx::raw_sql(AssertSqlSafe(drop)).execute(&env.pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn show_has_one_timeline_and_finds_a_record_by_its_idempotency_key() {
    // Given a payout whose first call was put off, an act of an operator about it, and a webhook of its provider,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    env.provider.inject_fault(Fault::status_with_retry_after(503, "0"));
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    let record = env.wait_until_delivered("po_1").await;
    let id: Uuid = record["id"].as_str().unwrap().parse().unwrap();
    sqlx::query(
        "INSERT INTO operator_actions (id, actor, reason, command, payout_link_id, details)
         VALUES (gen_random_uuid(), 'ada', E'asked by \x1b[2J merchant', 'retry', $1, '{}')",
    )
    .bind(id)
    .execute(&env.pool)
    .await
    .unwrap();
    sqlx::query("INSERT INTO provider_webhooks (connector, digest, event_type, payout_link_id) VALUES ('sandbox', '\\x01', 'link.claimed', $1)")
        .bind(id)
        .execute(&env.pool)
        .await
        .unwrap();
    // then its timeline has all of it, in order,
    let text = said(&env.run(&["show", "po_1"]));
    let timeline = text.split_once("  timeline\n").unwrap().1;
    let position = |entry: &str| timeline.find(entry).unwrap_or_else(|| panic!("{entry}: {text}"));
    let entries = [
        " accepted",
        " create 1 try_later 503",
        " create 2 created",
        " concluded: created",
        " operator ada: retry, because: asked by \\u{1b}[2J merchant",
        " provider webhook received: link.claimed",
    ];
    assert!(entries.map(position).is_sorted(), "{text}");
    position(" published: payout_link.created ");
    position(" post 1 delivered");
    let times: Vec<&str> = timeline.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(times.len() >= 8, "{text}");
    // and the key that its provider has finds it, in either form.
    let key = idempotency_key_of("", "", "po_1");
    for id in [key.clone(), idempotency_uuid(&key).to_string()] {
        let found = env.run(&["show", "--json", &id]);
        assert_eq!(lines(&found)[0]["merchant_payout_id"], "po_1", "{id}");
    }
    let unknown = idempotency_key_of("", "", "po_2");
    assert_eq!(env.run(&["show", &unknown]).status.code(), Some(4));
    // A search that ends early says so.
    env.publish(job("po_3")).await;
    env.wait_until_delivered("po_3").await;
    let stopped = env.run(&["show", &key, "--scan", "1"]);
    assert_eq!(stopped.status.code(), Some(4));
    assert!(
        said(&stopped).contains("none of the newest 1 has it as its idempotency key"),
        "{}",
        said(&stopped)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_production_context_is_read_without_a_question_and_not_changed_without_its_name() {
    let env = TestEnv::new().await;
    env.start_worker().await.stop().await;
    let file = env.folder.join("contexts.toml");
    std::fs::write(
        &file,
        "[live]\nconfig = \"worker.toml\"\nproduction = true\n[test]\nconfig = \"worker.toml\"\n",
    )
    .unwrap();
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_payout-link-worker"));
        command.env_clear().envs(variables.iter().copied()).stdin(std::process::Stdio::null());
        command.args(["--contexts", file.to_str().unwrap()]).args(arguments).output().unwrap()
    };
    let cancel = ["cancel", "po_1", "--reason", "test"];
    for (context, arguments, status) in [
        ("live", &["list"][..], 4),
        ("test", &["list"], 4),
        ("live", &cancel, 5),
        ("test", &cancel, 4),
        ("lvie", &cancel, 2),
    ] {
        let output = run(&[&["--context", context], arguments].concat(), &[]);
        assert_eq!(output.status.code(), Some(status), "{context} {arguments:?}: {}", said(&output));
    }
    let other = run(&["--context", "live", "list"], &[("DATABASE_URL", "postgres://localhost/other")]);
    assert_eq!(other.status.code(), Some(2), "{}", said(&other));
    let both = run(&["--context", "live", "--config", "worker.toml", "list"], &[]);
    assert_eq!(both.status.code(), Some(2), "{}", said(&both));
}

#[test]
fn completions_and_man_pages_name_the_commands() {
    let program = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_payout-link-worker"))
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        said(&output)
    };
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = program(&["completions", shell]);
        assert!(script.contains("verify-history") && script.contains("payout-link-worker"), "{shell}");
    }
    assert!(program(&["man"]).contains(".TH payout-link-worker 1"));
    let folder = std::env::temp_dir().join(format!("man-{}", Uuid::new_v4()));
    std::fs::create_dir(&folder).unwrap();
    program(&["man", "--directory", folder.to_str().unwrap()]);
    let page = std::fs::read_to_string(folder.join("payout-link-worker-list.1")).unwrap();
    assert!(page.contains("oldest"), "{page}");
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Measures the reading commands, and prints their plans. `RECORDS=10000000 cargo nextest run --run-ignored only
/// --no-capture -E 'test(reading_commands_at_ten_million)'` needs 12 GB and half an hour.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "half an hour and 12 GB at ten million records"]
async fn reading_commands_at_ten_million_records() {
    let records = std::env::var("RECORDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000_000);
    let env = Setup::default().build().await;
    let _worker = env.start_worker().await;
    make_records(&env, records).await;
    let middle = format!("po_{}", records / 2);
    let mut commands: Vec<Vec<&str>> =
        vec![vec!["status"], vec!["status", "--without-broker"], vec!["show", &middle]];
    for (condition, _) in CONDITIONS {
        commands.push(vec!["list", "--where", condition]);
        commands.push(vec!["list", "--where", condition, "--oldest-first"]);
        commands.push(vec!["list", "--where", condition, "--count"]);
    }
    for command in &commands {
        // The first run reads what was not in memory; the second is measured.
        env.run(command);
        let started = Instant::now();
        let output = env.run(command);
        let took = started.elapsed();
        let rows = String::from_utf8_lossy(&output.stdout).lines().count();
        println!("{:>6} ms  {rows:>3} lines  {}", took.as_millis(), command.join(" "));
        if !output.stderr.is_empty() {
            println!("           {}", String::from_utf8_lossy(&output.stderr).trim_end());
        }
    }
    // The plans, as the server made them.
    let database = env.pool.connect_options().get_database().unwrap().to_owned();
    let explain = format!(
        "ALTER DATABASE {database} SET session_preload_libraries = 'auto_explain';
         ALTER DATABASE {database} SET auto_explain.log_min_duration = 0;
         ALTER DATABASE {database} SET auto_explain.log_analyze = on;
         ALTER DATABASE {database} SET auto_explain.log_level = warning;"
    );
    sqlx::raw_sql(AssertSqlSafe(explain)).execute(&env.pool).await.unwrap();
    for command in commands {
        let output = env.run(&command);
        println!("--- {}\n{}", command.join(" "), String::from_utf8_lossy(&output.stderr));
    }
}
