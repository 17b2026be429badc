//! The documentation says what the code says: examples, commands, metrics, settings, names of tests, and links.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use std::path::Path;

#[test]
fn the_how_to_pages_show_the_examples_to_the_letter() {
    let publish = include_str!("../docs/how-to/publish-a-job.md");
    let verify = include_str!("../docs/how-to/verify-webhooks.md");
    for (page, example) in [
        (publish, include_str!("../docs/examples/publish.py")),
        (publish, include_str!("../docs/examples/publish.js")),
        (verify, include_str!("../docs/examples/verify_webhook.py")),
        (verify, include_str!("../docs/examples/verify_webhook.js")),
        (verify, include_str!("../docs/examples/verify_ed25519.py")),
    ] {
        assert!(page.contains(example), "{}", example.lines().next().unwrap());
    }
}

#[test]
fn the_reference_names_every_command() {
    let page = include_str!("../docs/reference/cli.md");
    let help =
        std::process::Command::new(env!("CARGO_BIN_EXE_payout-link-worker")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let commands =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let mut count = 0;
    // A line that goes on in the next one is indented further.
    let commands = commands.filter(|line| !line.starts_with("   "));
    for command in
        commands.filter_map(|line| line.split_whitespace().next()).filter(|command| *command != "help")
    {
        assert!(page.contains(&format!("| `{command}")), "{command}");
        count += 1;
    }
    assert!(count >= 5, "{help}");
}

/// Rows of tables about metrics.
fn metrics_in<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
    let rows = text.lines().filter_map(|line| line.strip_prefix(before));
    rows.filter(|row| row.starts_with("| `payout_links_")).collect()
}

#[test]
fn the_metrics_are_described_to_operators_as_in_the_source() {
    let described = metrics_in(include_str!("../docs/reference/metrics-and-logs.md"), "");
    assert!(!described.is_empty());
    assert_eq!(described, metrics_in(include_str!("../src/metrics.rs"), "//! "));
}

const SECURITY: &str = include_str!("../SECURITY.md");

#[test]
fn every_claim_of_security_names_tests_that_exist() {
    let sources: String = ["src", "tests", "crates"].iter().map(|folder| sources_in(Path::new(folder))).collect();
    let mut claims = 0;
    for line in SECURITY.lines().filter(|line| line.starts_with("| ") && !line.contains("---")) {
        let columns: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [claim, tests] = columns[..] else { continue };
        if tests == "test" {
            continue;
        }
        let names: Vec<&str> = tests.split(", ").map(|name| name.trim_matches('`')).collect();
        assert!(!names.is_empty() && names.iter().all(|name| !name.is_empty()), "{claim}");
        for name in names {
            assert!(sources.contains(&format!("fn {name}(")), "{claim}: there is no test {name}");
        }
        claims += 1;
    }
    assert!(claims > 30, "{claims}");
}

#[test]
fn no_unsafe_code() {
    assert!(include_str!("../Cargo.toml").contains("unsafe_code = \"forbid\""));
}

#[test]
fn the_containers_are_as_tight_as_that() {
    let image = include_str!("../Dockerfile");
    let user = image.lines().rev().find_map(|line| line.strip_prefix("USER ")).expect("a user");
    // By its number: an orchestrator that forbids root cannot tell by a name.
    assert_ne!(user.trim().parse::<u32>().expect("a number"), 0);
    let compose = include_str!("../docker-compose.yml");
    for service in ["sandbox", "worker"] {
        let own = compose.split(&format!("\n  {service}:\n")).nth(1).expect(service);
        let own: String =
            own.lines().take_while(|line| line.is_empty() || line.starts_with("    ")).collect();
        for setting in ["read_only: true", "cap_drop: [ALL]", "no-new-privileges:true"] {
            assert!(own.contains(setting), "{service}: {setting}");
        }
    }
}

fn sources_in(folder: &Path) -> String {
    let mut all = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all += &sources_in(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all += &std::fs::read_to_string(&path).unwrap();
        }
    }
    all
}
