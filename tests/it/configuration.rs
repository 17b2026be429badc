//! Tests errors in a configuration: each message names the setting, the problem and the expected value. The real
//! program reads `config.example.toml` with one error in it.

use std::process::Command;

const EXAMPLE: &str = include_str!("../../config.example.toml");

/// An error: the replaced line of the example, the variables, and the expected message.
struct Mistake {
    name: &'static str,
    line: (&'static str, &'static str),
    variables: &'static [(&'static str, &'static str)],
    said: &'static [&'static str],
}

const fn file(
    name: &'static str,
    from: &'static str,
    to: &'static str,
    said: &'static [&'static str],
) -> Mistake {
    Mistake { name, line: (from, to), variables: &[], said }
}

const fn variable(
    name: &'static str,
    variables: &'static [(&'static str, &'static str)],
    said: &'static [&'static str],
) -> Mistake {
    Mistake { name, line: ("", ""), variables, said }
}

const MISTAKES: &[Mistake] = &[
    file(
        "a setting misspelt",
        "lease_seconds = 45",
        "lease_second = 45",
        &["worker.lease_second: the setting is unknown. Did you mean \"lease_seconds\"?"],
    ),
    file(
        "a setting of calls misspelt",
        "breaker_failures = 10",
        "breaker_failure = 10",
        &[
            "connectors.sandbox.calls.breaker_failure: the setting is unknown. Did you mean \"breaker_failures\"?",
        ],
    ),
    file(
        "a setting that is near to none",
        "default_connector = \"sandbox\"",
        "provider = \"sandbox\"",
        &["jobs.provider: the setting is unknown. Known here are: default_connector, allow_http_webhooks"],
    ),
    file(
        "a section misspelt",
        "[retention]",
        "[retentions]",
        &[
            "unknown section [retentions], expected one of worker, database, broker, keys, jobs, retry, limits, connectors, webhooks, \
           retention, log. Did you mean \"retention\"?",
        ],
    ),
    file(
        "a lease shorter than a call",
        "lease_seconds = 45",
        "lease_seconds = 20",
        &[
            "worker.lease_seconds (20) is not 2 above connectors.sandbox.calls.timeout_seconds (30): a lease must outlast a call",
        ],
    ),
    file(
        "a default connector that is not there",
        "default_connector = \"sandbox\"",
        "default_connector = \"sandbx\"",
        &["jobs.default_connector: there is no [connectors.sandbx]. Did you mean \"sandbox\"?"],
    ),
    file(
        "a kind misspelt",
        "kind = \"sandbox\"",
        "kind = \"sandbx\"",
        &[
            "connectors.sandbox.kind: unknown kind, expected one of hyperswitch, razorpayx, revolut, sandbox, xendit. Did you \
           mean \"sandbox\"?",
        ],
    ),
    file(
        "a file that is not there",
        "token = \"demo\"",
        "token_file = \"/nonexistent/token\"",
        &["connectors.sandbox.token_file \"/nonexistent/token\": No such file or directory (os error 2)"],
    ),
    file(
        "an empty secret",
        "token = \"demo\"",
        "token = \"\"",
        &["connectors.sandbox.token is empty (or its file is)"],
    ),
    file(
        "an empty file of a secret",
        "token = \"demo\"",
        "token_file = \"/dev/null\"",
        &["connectors.sandbox.token is empty (or its file is)"],
    ),
    file(
        "a number in quotes",
        "lease_seconds = 45",
        "lease_seconds = \"canary\"",
        &[
            "worker.lease_seconds: expected a whole number from 0 on, without quotes, found a string in quotes",
        ],
    ),
    file(
        "a number below 0",
        "sweep_batch = 256",
        "sweep_batch = -1",
        &["worker.sweep_batch: expected a whole number from 0 on, without quotes, found another number"],
    ),
    file(
        "a number that is too large",
        "prefetch = 512",
        "prefetch = 70000",
        &["broker.prefetch: expected a whole number from 0 to 65535, without quotes, found another number"],
    ),
    file(
        "a switch in quotes",
        "migrate = true",
        "migrate = \"canary\"",
        &["worker.migrate: expected true or false, without quotes, found a string in quotes"],
    ),
    file(
        "one of several networks",
        "allowed_networks = []",
        "allowed_networks = [\"10.0.0.0/8\", \"canary\"]",
        &["webhooks.allowed_networks: value 2: expected a network, such as 10.0.0.0/8"],
    ),
    file(
        "a DNS server without its port",
        "dns_servers = []",
        "dns_servers = [\"192.0.2.53\"]",
        &["webhooks.dns_servers: value 1: expected ADDRESS:PORT, such as 192.0.2.53:53"],
    ),
    file(
        "a port without an address",
        "# health_listen = \"127.0.0.1:8086\"",
        "health_listen = \"8086\"",
        &["worker.health_listen: expected ADDRESS:PORT, such as 127.0.0.1:8086"],
    ),
    file(
        "a log filter that is a module",
        "filter = \"info\"",
        "filter = \"infoo\"",
        &[
            "log.filter has a word that is not a level, expected a level (off, error, warn, info, debug, trace), or MODULE=LEVEL, \
           with commas between. Did you mean \"info\"?",
        ],
    ),
    file(
        "a log filter that cannot be read",
        "filter = \"info\"",
        "filter = \"info,payout_link_worker=debgu\"",
        &[
            "log.filter cannot be read, expected a level (off, error, warn, info, debug, trace), or MODULE=LEVEL, with commas \
           between",
        ],
    ),
    file(
        "a log format misspelt",
        "format = \"auto\"",
        "format = \"humane\"",
        &["log.format: the value is unknown, expected one of auto, human, json. Did you mean \"human\"?"],
    ),
    file(
        "a key of another length",
        "sealing = [\"2026-11:AAEC",
        "sealing = [\"2026-11:canary",
        &["keys: key \"2026-11\""],
    ),
    variable(
        "one underscore in place of two, first",
        &[("PAYOUT_LINK_WORKER__LEASE_SECONDS", "20")],
        &[
            "PAYOUT_LINK_WORKER__LEASE_SECONDS is not a setting: did you mean PAYOUT_LINK__WORKER__LEASE_SECONDS?",
        ],
    ),
    variable(
        "one underscore in place of two, second",
        &[("PAYOUT_LINK__WORKER_LEASE_SECONDS", "20")],
        &["PAYOUT_LINK__WORKER_LEASE_SECONDS is not a setting, expected PAYOUT_LINK__SECTION__KEY"],
    ),
    variable(
        "a variable misspelt",
        &[("PAYOUT_LINK__WORKER__LEASE_SECOND", "20")],
        &["worker.lease_second: the setting is unknown. Did you mean \"lease_seconds\"?"],
    ),
];

#[test]
fn a_mistake_in_the_configuration_names_its_setting_and_what_is_expected() {
    let folder = tempfile();
    let mut wrong = Vec::new();
    for mistake in MISTAKES {
        let (from, to) = mistake.line;
        assert!(EXAMPLE.contains(from), "{}", mistake.name);
        let path = folder.join("worker.toml");
        std::fs::write(&path, EXAMPLE.replacen(from, to, 1)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_payout-link-worker"));
        let output = command
            .args(["check", "--config"])
            .arg(&path)
            .env_remove("DATABASE_URL")
            .env_remove("AMQP_URL")
            .envs(mistake.variables.iter().copied())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        let said: Vec<&str> = text.lines().skip(1).map(|line| line.trim_start_matches("  - ")).collect();
        let is_said = said.len() == mistake.said.len()
            && said.iter().zip(mistake.said).all(|(said, expected)| said.starts_with(expected));
        if output.status.code() != Some(2) || !is_said || text.contains("canary") {
            wrong.push(format!(
                "{} ({:?}): {said:#?}\nin place of {:#?}",
                mistake.name,
                output.status.code(),
                mistake.said
            ));
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Kubernetes sets variables from the names of services. They may begin like this program's, and none of them is an
/// error.
#[test]
fn variables_of_kubernetes_are_no_errors() {
    let folder = tempfile();
    let path = folder.join("worker.toml");
    std::fs::write(&path, EXAMPLE).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_payout-link-worker"))
        .args(["connectors", "--config"])
        .arg(&path)
        .env_remove("DATABASE_URL")
        .env_remove("AMQP_URL")
        .env("PAYOUT_LINK_WORKER_SERVICE_HOST", "10.0.0.1")
        .env("PAYOUT_LINK_WORKER_PORT_8086_TCP", "tcp://10.0.0.1:8086")
        .output()
        .unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn tempfile() -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("configuration-{}", uuid::Uuid::new_v4().simple()));
    std::fs::create_dir(&folder).unwrap();
    folder
}
