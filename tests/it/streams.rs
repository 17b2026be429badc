//! Tests closed and full standard streams, and signals: no command panics, and each ends with its documented status.

use std::{
    fs::File,
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
};

use crate::support::{TestEnv, eventually, job};

/// Returns a pipe that nobody reads any more.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// Returns a full disk.
fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_panics_where_standard_output_is_closed_or_full() {
    let env = TestEnv::new().await;
    let _worker = env.start_worker().await;
    env.publish(job("po_1").with("webhook_url", env.webhook_url())).await;
    env.wait_until_delivered("po_1").await;
    env.publish(job("po_bad").amount(0)).await;
    eventually("a dead letter", async || (env.ready(&env.names.dead_queue).await == 1).then_some(())).await;
    let jobs = env.folder.join("job.json");
    std::fs::write(&jobs, job("po_2").body).unwrap();
    let published = env.folder.join("published.jsonl");
    std::fs::write(&published, "").unwrap();
    let (jobs, published) = (jobs.to_str().unwrap(), published.to_str().unwrap());
    for arguments in [
        &["show", "po_1"][..],
        &["show", "--json", "po_1"],
        &["list"],
        &["list", "--count"],
        &["status"],
        &["webhooks", "list"],
        &["webhooks", "show", "po_1"],
        &["dead-letters", "list"],
        &["dead-letters", "show"],
        &["connectors"],
        &["config"],
        &["check"],
        &["keys", "status"],
        &["keys", "rotate"],
        &["migrate"],
        &["verify-history", "--published", published],
        &["submit", "--wait", jobs],
    ] {
        let usual = env.run(arguments);
        assert!(!usual.stdout.is_empty(), "{arguments:?}");
        // A reader that stops early is no error.
        let output = env.command(arguments).stdout(closed()).stderr(Stdio::piped()).spawn().unwrap();
        let output = output.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), usual.status.code(), "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
        // Output that cannot be written makes the command fail.
        let output = env.command(arguments).stdout(full()).stderr(Stdio::piped()).spawn().unwrap();
        let output = output.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
        assert!(said.contains("cannot write to standard output: No space left"), "{arguments:?}: {said}");
    }
    // The same holds if the error cannot be written.
    for arguments in [&["show", "po_9"][..], &["show", "po_1"], &["--help"], &["nonsense"]] {
        for (out, err) in [(closed(), closed()), (full(), full())] {
            let status = env.command(arguments).stdout(out).stderr(err).status().unwrap();
            assert!(matches!(status.code(), Some(0..=2 | 4)), "{arguments:?}: {status}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_log_cannot_be_written_works_on() {
    for log in [closed, full] {
        let env = TestEnv::new().await;
        let mut worker = env.command(&["run"]).stdout(Stdio::null()).stderr(log()).spawn().unwrap();
        let file = env.folder.join("job.json");
        std::fs::write(&file, job("po_1").body).unwrap();
        let output = env.run(&["submit", "--wait", file.to_str().unwrap()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        signal(worker.id(), "TERM");
        assert_eq!(worker.wait().unwrap().code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_a_worker_in_order_and_any_other_command_at_once() {
    let env = TestEnv::new().await;
    // A worker finishes its calls first.
    let mut worker = env.start_worker().await;
    let call = env.provider.hold_next_call();
    env.publish(job("po_1")).await;
    call.arrived().await;
    signal(worker.id(), "INT");
    worker.says("stopping").await;
    call.release();
    assert_eq!(worker.exited().await.code(), Some(0));
    assert_eq!(env.result_of("po_1").await.kind(), "payout_link.created");
    assert!(!worker.log().contains("panicked"), "{}", worker.log());
    // `submit --wait` without a worker would wait for a minute.
    let file = env.folder.join("job.json");
    std::fs::write(&file, job("po_2").body).unwrap();
    let submitting = env
        .command(&["submit", "--wait", file.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("the job is in its queue", async || {
        (env.ready(&env.names.jobs_queue).await == 1).then_some(())
    })
    .await;
    signal(submitting.id(), "INT");
    let output = submitting.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), Some(2));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_do_not_come_are_counted_and_the_next_step_is_named() {
    let env = TestEnv::new().await;
    env.start_worker().await.stop().await;
    let file = env.folder.join("job.json");
    std::fs::write(&file, job("po_1").body).unwrap();
    let output = env.run(&["submit", "--wait", "--timeout", "1", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("0 of 1 results came within 1 s"), "{said}");
    assert!(said.contains("Does a worker run?") && said.contains("show ID"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_health_port_that_is_taken_is_reported_before_anything_else_and_without_a_panic() {
    let mut env = TestEnv::new().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    env.set("worker.health_listen", address);
    let mut worker = env.launch_worker(&[]);
    assert_eq!(worker.exited().await.code(), Some(1));
    let log = worker.log();
    let expected =
        format!("worker.health_listen: cannot listen on {address}: Address already in use (os error 98)");
    assert!(log.contains(&expected), "{log}");
    // The command connected neither to RabbitMQ nor to the database.
    assert!(!log.contains("panicked") && !log.contains("RabbitMQ"), "{log}");
    let output = env.run(&["check"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains(&format!("note    health port: worker.health_listen {address}")), "{said}");
    assert!(output.status.success(), "{said}");
}
