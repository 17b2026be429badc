//! The example is the documentation of every setting: it has them all, with their defaults.

use std::collections::BTreeSet;

use super::*;

const EXAMPLE: &str = include_str!("../../config.example.toml");

fn load_text(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let file = std::env::temp_dir().join(format!("config-{}.toml", uuid::Uuid::new_v4()));
    std::fs::write(&file, text).unwrap();
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let loaded = load(Some(&file), environment);
    std::fs::remove_file(file).unwrap();
    loaded
}

fn problems(text: &str, environment: &[(&str, &str)]) -> String {
    load_text(text, environment).unwrap_err().to_string()
}

/// The parts of a URL, which `Debug` shows like fields.
const PARTS: [&str; 9] =
    ["scheme", "cannot_be_a_base", "username", "password", "host", "port", "path", "query", "fragment"];

/// The names of all fields, as `Debug` shows them.
fn fields(shown: &str) -> BTreeSet<String> {
    let names =
        shown.lines().filter_map(|line| line.trim().split_once(": ")).map(|(name, _)| name.to_owned());
    let names = names.filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
    names.filter(|name| !PARTS.contains(&name.as_str())).collect()
}

#[test]
fn the_example_has_every_setting() {
    let config = load_text(EXAMPLE, &[]).unwrap();
    for field in fields(&format!("{config:#?}")) {
        let is_there = EXAMPLE.lines().any(|line| {
            let line = line.trim_start_matches("# ");
            line.starts_with(&format!("{field} = "))
                || line.starts_with(&format!("[{field}"))
                || line.ends_with(&format!("{field}]"))
        });
        assert!(is_there, "{field}");
    }
}

#[test]
fn the_example_says_the_defaults() {
    let whole = format!("{:#?}", load_text(EXAMPLE, &[]).unwrap());
    let required = ["url", "token", "kind", "sealing", "fingerprint", "secrets", "default_connector"];
    let bare: Vec<&str> = EXAMPLE
        .lines()
        .filter(|line| match line.split_once(" = ") {
            Some((name, _)) if !line.starts_with('#') => required.contains(&name),
            _ => true,
        })
        .collect();
    assert!(bare.len() < EXAMPLE.lines().count() - 40);
    assert_eq!(format!("{:#?}", load_text(&bare.join("\n"), &[]).unwrap()), whole);
}

#[test]
fn every_problem_is_told_at_once_and_no_value_with_it() {
    let text = EXAMPLE
        .replace("prefetch = 512", "prefetsh = 512")
        .replace("lease_seconds = 45", "lease_seconds = \"canary\"")
        .replace("[log]", "[logs]");
    let said = problems(&text, &[]);
    for name in ["prefetsh", "worker", "[logs]"] {
        assert!(said.contains(name), "{name}: {said}");
    }
    let said = problems("", &[]);
    for name in
        ["database.url", "broker.url", "keys.sealing", "keys.fingerprint", "webhooks.secrets", "connectors"]
    {
        assert!(said.contains(name), "{name}: {said}");
    }
    let said = problems(&EXAMPLE.replace("2026-11:AAEC", "2026-11:canary!"), &[]);
    assert!(said.contains("keys") && !said.contains("canary"), "{said}");
}

#[test]
fn what_does_not_go_together_is_refused() {
    for (from, to, name) in [
        ("lease_seconds = 45", "lease_seconds = 31", "worker.lease_seconds"),
        ("settle_seconds = 60", "settle_seconds = 30", "connectors.sandbox.settle_seconds"),
        ("max_deliveries = 15", "max_deliveries = 20", "worker.max_deliveries"),
        ("default_connector = \"sandbox\"", "default_connector = \"nobody\"", "jobs.default_connector"),
        ("heartbeat_seconds = 10", "heartbeat_seconds = 0", "broker.heartbeat_seconds"),
        ("whsec_AAEC", "AAEC", "webhooks.secrets[0]"),
        ("prefetch = 512", "prefetch = 0", "broker.prefetch"),
    ] {
        assert!(EXAMPLE.contains(from));
        let said = problems(&EXAMPLE.replace(from, to), &[]);
        assert!(said.contains(name), "{name}: {said}");
    }
}

#[test]
fn the_environment_lies_over_the_file() {
    let config = load_text(
        EXAMPLE,
        &[
            ("PAYOUT_LINK__BROKER__PREFETCH", "7"),
            ("PAYOUT_LINK__CONNECTORS__SANDBOX__CALLS__CONCURRENCY", "3"),
            ("PAYOUT_LINK__CONNECTORS__SANDBOX__TOKEN", "12345"),
            ("PAYOUT_LINK__WEBHOOKS__SCHEDULE_SECONDS", "[1, 2]"),
            ("DATABASE_URL", "postgres://elsewhere/"),
        ],
    )
    .unwrap();
    assert_eq!(config.broker.prefetch, 7);
    assert_eq!(config.connectors["sandbox"].calls().concurrency, 3);
    assert_eq!(config.webhooks.schedule_seconds, [1, 2]);
    let url = secrecy::ExposeSecret::expose_secret(config.database.url.as_ref().unwrap());
    assert_eq!(url, "postgres://elsewhere/");
}

#[test]
fn a_secret_may_stand_in_a_file_of_its_own() {
    let file = std::env::temp_dir().join(format!("secret-{}", uuid::Uuid::new_v4()));
    std::fs::write(&file, "  from-a-file\n").unwrap();
    let path = file.to_str().unwrap();
    let config = load_text(
        EXAMPLE,
        &[("PAYOUT_LINK__CONNECTORS__SANDBOX__TOKEN_FILE", path), ("AMQP_URL_FILE", path)],
    );
    let config = config.unwrap();
    assert_eq!(secrecy::ExposeSecret::expose_secret(config.broker.url.as_ref().unwrap()), "from-a-file");
    std::fs::remove_file(&file).unwrap();
    let said = problems(EXAMPLE, &[("AMQP_URL_FILE", path)]);
    assert!(said.contains("broker.url_file"), "{said}");
}

#[test]
fn a_dump_shows_no_secret() {
    let text = EXAMPLE.replace(":password@", ":canary@").replace("token = \"demo\"", "token = \"canary\"");
    let shown = format!("{:?}", load_text(&text, &[]).unwrap());
    assert!(!shown.contains("canary") && !shown.contains("AAECAw"), "{shown}");
}
