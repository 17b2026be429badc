//! Tests commands on a terminal: width, colours, questions, and progress.

use std::{
    ffi::OsStr,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use provider_simulators::sandbox::Fault;
use serde_json::Value;

use super::{make_records, said};
use crate::support::{TestEnv, eventually, job};

/// A terminal, and what a person does in it.
struct Terminal<'a> {
    env: &'a TestEnv,
    columns: usize,
    variables: &'a [(&'a str, &'a str)],
    /// Standard output goes to this file; `None`: to the terminal.
    output: Option<&'a Path>,
    typed: &'a str,
}

impl<'a> Terminal<'a> {
    fn new(env: &'a TestEnv, columns: usize) -> Self {
        Self { env, columns, variables: &[], output: None, typed: "" }
    }

    /// Runs a command, and returns its exit status and what the terminal shows.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let quoted = |word: &OsStr| format!(" '{}'", word.to_str().unwrap().replace('\'', "'\\''"));
        let command = self.env.command(arguments);
        let mut script = format!("stty cols {} -echo && exec", self.columns);
        script.extend(std::iter::once(command.get_program()).chain(command.get_args()).map(quoted));
        script.extend(self.output.map(|file| format!(" >{}", quoted(file.as_os_str()))));
        let mut terminal = Command::new("script");
        terminal.args(["--quiet", "--return", "--command", &script, "/dev/null"]);
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => terminal.env(name, value),
                None => terminal.env_remove(name),
            };
        }
        terminal.env_remove("NO_COLOR").env("TERM", "xterm").env("SHELL", "/bin/sh");
        terminal.envs(self.variables.iter().copied());
        let mut process = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        process.stdin.take().unwrap().write_all(self.typed.as_bytes()).unwrap();
        let output = process.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_fits_the_terminal_and_has_colours_only_there() {
    let env = TestEnv::new().await;
    env.start_worker().await.stop().await;
    make_records(&env, 200).await;
    let list = ["list", "--state", "failed,unknown"];
    // A wide terminal has every column, and every value is complete.
    let (status, wide) = Terminal::new(&env, 200).run(&list);
    assert_eq!(status, Some(0));
    let title = wide.lines().next().unwrap();
    assert!(title.contains("CONNECTOR") && title.contains("WAITS"), "{wide}");
    assert!(wide.contains("CONNECTOR_REJECTED"), "{wide}");
    assert!(!wide.contains('…') && !wide.contains("too narrow"), "{wide}");
    // Narrower ones cut long texts, then leave columns out and name them. No line is longer than the terminal.
    for (columns, left_out) in [(100, false), (80, true)] {
        let (status, narrow) = Terminal::new(&env, columns).run(&list);
        assert_eq!(status, Some(0));
        let plain = narrow.replace("\u{1b}[31m", "").replace("\u{1b}[33m", "").replace("\u{1b}[0m", "");
        for line in plain.lines().filter(|line| !line.starts_with("payout-link-worker:")) {
            assert!(line.chars().count() <= columns, "{columns}: {line}");
        }
        assert!(plain.contains('…') && plain.contains("po_183 "), "{plain}");
        assert_eq!(plain.contains("the terminal is too narrow for CONNECTOR, WAITS"), left_out, "{plain}");
        assert_eq!(plain.lines().next().unwrap().contains("CONNECTOR"), !left_out, "{plain}");
    }
    // Colours are on a terminal only, and only if nobody forbids them.
    let coloured = |variables: &[(&str, &str)]| {
        let terminal = Terminal { variables, ..Terminal::new(&env, 200) };
        let (status, shown) = terminal.run(&list);
        assert_eq!(status, Some(0));
        let colours = ["\u{1b}[33mfailed", "\u{1b}[31munknown"].map(|state| shown.contains(state));
        assert_eq!(colours, [shown.contains('\u{1b}'); 2], "{shown:?}");
        colours[0]
    };
    assert!(coloured(&[]) && coloured(&[("NO_COLOR", "")]));
    for plain in [("NO_COLOR", "1"), ("NO_COLOR", "anything"), ("TERM", "dumb")] {
        assert!(!coloured(&[plain]), "{plain:?}");
    }
    let file = env.folder.join("list.txt");
    let to_a_file = Terminal { output: Some(&file), ..Terminal::new(&env, 40) };
    assert_eq!(to_a_file.run(&list).0, Some(0));
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(written.contains("CONNECTOR_REJECTED"), "{written}");
    assert!(!written.contains('\u{1b}') && !written.contains('…'), "{written}");
    // JSON has neither.
    let (_, json) = Terminal::new(&env, 40).run(&["list", "--output", "json", "--state", "failed"]);
    assert!(serde_json::from_str::<Value>(&json).is_ok() && !json.contains('\u{1b}'), "{json}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_asks_on_a_terminal_and_acts_only_after_a_yes() {
    // Given two declined payouts,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    for id in ["po_1", "po_2"] {
        env.provider.inject_fault(Fault::status(422));
        env.publish(job(id)).await;
        env.wait_until_delivered(id).await;
    }
    let retry = ["retry", "--where", "state=failed", "--reason", "limit raised"];
    let answer = |typed| Terminal { typed, ..Terminal::new(&env, 200) }.run(&retry);
    // when the answer is no yes, then nothing is done;
    for no in ["n\n", "\n", "yesterday\n"] {
        let (status, shown) = answer(no);
        assert_eq!(status, Some(5), "{shown}");
        assert!(shown.contains("retry 2 records? [y/N]") && shown.contains("nothing was changed"), "{shown}");
    }
    assert_eq!(env.shown("po_1").unwrap()["state"], "failed");
    // when it is a yes, then both are.
    let (status, shown) = answer("y\n");
    assert_eq!(status, Some(0), "{shown}");
    for id in ["po_1", "po_2"] {
        assert!(shown.contains(&format!("{id}: open again")), "{shown}");
        assert_eq!(env.wait_for_results(id, 2).await[1].kind(), "payout_link.created");
    }
    // A production context is changed once its name was typed.
    let file = env.folder.join("contexts.toml");
    std::fs::write(&file, "[live]\nconfig = \"worker.toml\"\nproduction = true\n").unwrap();
    for (typed, expected) in [("test\n", 5), ("live\n", 0)] {
        let script = format!(
            "exec '{}' --contexts '{}' --context live cancel po_1 --reason test",
            env!("CARGO_BIN_EXE_payout-link-worker"),
            file.display()
        );
        let mut terminal = Command::new("script");
        terminal.args(["--quiet", "--return", "--command", &script, "/dev/null"]).env("SHELL", "/bin/sh");
        terminal.env_remove("DATABASE_URL").env_remove("AMQP_URL");
        let mut process = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        process.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        let output = process.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(expected), "{typed}: {}", said(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_long_has_its_progress_on_the_terminal_and_never_in_its_output() {
    // Given records for every command that acts on many,
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    for (id, merchant, connector, fault) in [
        ("po_1", "m1", "sandbox", Some(Fault::status(422))),
        ("po_2", "m1", "sandbox", Some(Fault::status(422))),
        ("po_3", "m2", "mute", Some(Fault::Reset)),
        ("po_4", "m2", "mute", Some(Fault::Reset)),
        ("po_5", "m3", "sandbox", None),
        ("po_6", "m3", "sandbox", None),
    ] {
        env.provider.clear_faults();
        if let Some(fault) = fault {
            env.provider.inject_fault(fault);
        }
        let job = job(id).merchant(merchant).connector(connector);
        env.publish(job.with("webhook_url", env.webhook_url())).await;
        env.wait_until_delivered(id).await;
    }
    for id in ["bad_1", "bad_2"] {
        env.publish(job(id).amount(0)).await;
        env.result_of(id).await;
    }
    eventually("two dead letters", async || (env.ready(&env.names.dead_queue).await == 2).then_some(()))
        .await;
    let statement = env.folder.join("statement.csv");
    std::fs::write(&statement, "id\nplink_1\n").unwrap();
    let (statement, letters) = (statement.to_str().unwrap(), env.folder.join("letters.jsonl"));
    let letters = letters.to_str().unwrap();
    let file = env.folder.join("output");
    let delivered = async || {
        let due = "SELECT count(*) FROM events WHERE due_at IS NOT NULL";
        eventually("everything is delivered", async || {
            (sqlx::query_scalar::<_, i64>(due).fetch_one(&env.pool).await.unwrap() == 0).then_some(())
        })
        .await;
    };
    for (command, progress, expected) in [
        ("retry --where merchant=m1 --yes --reason test", "\r1 of 2 records processed", 0),
        (
            "resolve --not-created --force --where merchant=m2 --yes --reason test",
            "\r1 of 2 records processed",
            0,
        ),
        (
            "webhooks redeliver --merchant m3 --only delivered --yes --reason test",
            "\r2 webhooks processed",
            0,
        ),
        ("results republish --from 1h --to 2100-01-01 --yes --reason test", " results published again", 0),
        ("cancel --where merchant=m3 --yes --reason test", "\r1 of 2 cancels carried out", 0),
        ("erase --where merchant=m3 --yes --reason test", "\r1 of 2 records processed", 0),
        ("erase po_5 --reason test", "\r2 letters read, 0 deleted", 0),
        (&format!("reconcile --account sandbox --from {statement}"), "\r1 lines compared", 3),
        (&format!("dead-letters export --to {letters} --reason test"), "\r2 letters exported", 0),
        ("dead-letters requeue --all --force --limit 1 --yes --reason test", "\r1 letter processed", 0),
        ("dead-letters delete bad_2 --yes --reason test", "\r1 letter processed", 0),
        ("keys status", " records read", 0),
        ("keys rotate", " records read, 0 values encrypted again", 0),
    ] {
        delivered().await;
        let arguments: Vec<&str> = command.split(' ').chain(["--output", "json"]).collect();
        // when it runs on a terminal, and its output goes to a file, then its progress is on the terminal,
        let (status, shown) = Terminal { output: Some(&file), ..Terminal::new(&env, 200) }.run(&arguments);
        assert_eq!(status, Some(expected), "{command}: {shown}");
        assert!(shown.contains(progress), "{command}: {shown:?}");
        // and the file has the document alone.
        let written = std::fs::read_to_string(&file).unwrap();
        assert!(!written.contains(['\r', '\u{1b}']), "{command}: {written:?}");
        if !command.starts_with("keys ") && !command.starts_with("dead-letters export") {
            assert!(serde_json::from_str::<Value>(&written).is_ok(), "{command}: {written:?}");
        }
    }
    // Without a terminal there is none.
    for command in ["keys status", "keys rotate", "cancel po_5 po_6 --reason test"] {
        let output = env.run(&command.split(' ').collect::<Vec<_>>());
        assert!(!said(&output).contains(['\r', '\u{1b}']), "{command}: {}", said(&output));
    }
}
