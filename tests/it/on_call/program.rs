//! Tests rights, contexts, completions and man pages of the reading commands.

use payout_link_worker::postgres;
use serde_json::Value;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{make_records, said};
use crate::support::TestEnv;

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
    // and a configuration with only the database, beside secrets that this user may not read,
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
    // and a command that writes still needs the whole configuration.
    let output = run(&["cancel", "po_1", "--reason", "test"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let drop = format!("DROP OWNED BY {role}; DROP ROLE {role}");
    sqlx::raw_sql(AssertSqlSafe(drop)).execute(&env.pool).await.unwrap();
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

#[test]
fn every_command_that_acts_needs_a_reason() {
    for command in [
        "cancel po_1",
        "dead-letters delete --all",
        "dead-letters export --to letters.jsonl",
        "dead-letters requeue --all",
        "erase po_1",
        "look-up po_1",
        "pause consumption",
        "resolve po_1 --not-created",
        "results republish --from 2026-11-28T22:00:00Z --to 2026-11-29T02:00:00Z",
        "resume account xendit",
        "retry po_1",
        "webhooks pause-host merchant.example",
        "webhooks redeliver po_1",
        "webhooks resume-host merchant.example",
    ] {
        let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_payout-link-worker"));
        let output = program.args(command.split(' ')).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{command}: {}", said(&output));
        assert!(said(&output).contains("--reason <TEXT>"), "{command}: {}", said(&output));
    }
}
