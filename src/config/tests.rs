//! The example is the documentation of every setting: it has them all, with their defaults.

use std::collections::BTreeSet;

use super::*;

const EXAMPLE: &str = include_str!("../../config.example.toml");

fn load_text(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::from_text(text, environment)
}

fn problems(text: &str, environment: &[(&str, &str)]) -> String {
    load_text(text, environment).unwrap_err().to_string()
}

/// The parts of a URL and what holds a connector's own settings, which `Debug` shows like fields.
const PARTS: [&str; 10] = [
    "settings",
    "scheme",
    "cannot_be_a_base",
    "username",
    "password",
    "host",
    "port",
    "path",
    "query",
    "fragment",
];

/// Returns the names of all fields, as `Debug` shows them.
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

/// Returns the settings that a kind's page shows.
fn page(kind: &str) -> String {
    let page = format!("{}/docs/reference/connectors/{kind}.md", env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{page}: {error}"));
    let (_, settings) = page.split_once("```toml\n").expect("the page shows its settings");
    settings.split_once("```").unwrap().0.to_owned()
}

#[test]
fn every_connector_has_a_page_with_every_setting_and_its_default() {
    for kind in crate::connectors::KINDS {
        let page = page(kind.name);
        let read = |section: &str| {
            let whole: toml::Table = section.parse().unwrap();
            let section = whole["connectors"][kind.name].as_table().unwrap().clone();
            format!("{:#?}", ConnectorSection::read(kind.name, section).unwrap().settings)
        };
        for field in fields(&read(&page)) {
            let is_there = page.lines().any(|line| {
                let line = line.trim_start_matches("# ");
                line.starts_with(&format!("{field} = ")) || line.ends_with(&format!(".{field}]"))
            });
            assert!(is_there, "{}: {field}", kind.name);
        }
        let required = |line: &str| {
            let needed = kind.needs.iter().any(|needed| line.starts_with(&format!("{needed} = ")));
            line.starts_with('[') || line.starts_with("kind = ") || needed
        };
        let bare: Vec<&str> = page.lines().filter(|line| required(line)).collect();
        assert_eq!(read(&bare.join("\n")), read(&page), "{}", kind.name);
        // Every key of connector_feature_data and every required field of a job is reported.
        let whole = std::fs::read_to_string(format!(
            "{}/docs/reference/connectors/{}.md",
            env!("CARGO_MANIFEST_DIR"),
            kind.name
        ));
        let whole = whole.unwrap();
        for key in kind.supports.feature_data {
            assert!(whole.contains(&format!("| `{key}` |")), "{}: {key}", kind.name);
        }
        for field in kind.supports.job_fields.iter().flat_map(|fields| fields.split(" or ")) {
            assert!(whole.contains(&format!("`{field}`")), "{}: {field}", kind.name);
        }
    }
}

#[test]
fn every_problem_is_reported_at_once_and_no_value_with_it() {
    let text = EXAMPLE
        .replace("prefetch = 512", "prefetsh = 512")
        .replace("lease_seconds = 45", "lease_seconds = \"canary\"")
        .replace("[log]", "[logs]");
    let said = problems(&text, &[]);
    for name in ["prefetsh", "worker", "[logs]"] {
        assert!(said.contains(name), "{name}: {said}");
    }
    assert!(said.contains("worker.lease_seconds") && !said.contains("canary"), "{said}");
    let said = problems("", &[]);
    for name in
        ["database.url", "broker.url", "keys.sealing", "keys.fingerprint", "webhooks.secrets", "connectors"]
    {
        assert!(said.contains(name), "{name}: {said}");
    }
    let said = problems(&EXAMPLE.replace("2026-11:AAEC", "2026-11:canary!"), &[]);
    assert!(said.contains("keys") && !said.contains("canary"), "{said}");
}

/// A secret in the wrong place, or of the wrong type, is not repeated with the problem.
#[test]
fn no_problem_shows_a_value() {
    for (text, setting) in [
        ("[keys]\nsealing = \"canary\"", "keys.sealing"),
        ("[keys]\nfingerprint = { a = \"canary\" }", "keys.fingerprint"),
        ("[webhooks]\nsecrets = \"canary\"", "webhooks.secrets"),
        ("[webhooks]\nallowed_networks = [\"canary\"]", "webhooks.allowed_networks"),
        ("[worker]\nhealth_listen = \"canary\"", "worker.health_listen"),
        ("[log]\nformat = \"canary\"", "log.format"),
        ("[database.tls]\nmode = \"canary\"", "database.tls.mode"),
        ("[broker]\nprefetch = \"amqp://canary\"", "broker.prefetch"),
        ("[connectors.a]\nkind = \"canary\"", "connectors.a.kind"),
        ("[connectors.a]\nkind = \"sandbox\"\ntoken = \"canary\"\nurl = \"canary\"", "connectors.a"),
        ("[connectors.a]\nkind = \"sandbox\"\ntoken = \"t\"\nurl = \"http://a:canary@\"", "connectors.a"),
        (
            "[connectors.a]\nkind = \"sandbox\"\nurl = \"http://a/\"\ntoken = { a = \"canary\" }",
            "connectors.a",
        ),
        ("[keys]\nsealing = canary", "line 2"),
        ("[keys]\nsealing = \"canary", "line 2"),
        ("[keys]\n\"canary\"", "line 2"),
    ] {
        let said = problems(text, &[]);
        assert!(said.contains(setting) && !said.contains("canary"), "{text}: {said}");
    }
}

#[test]
fn a_certificate_that_would_not_be_looked_at_is_refused() {
    let pem = std::env::temp_dir().join(format!("{}.pem", uuid::Uuid::new_v4()));
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    std::fs::write(&pem, certificate.cert.pem()).unwrap();
    let (ca, amqps) = (format!("ca_file = {pem:?}"), EXAMPLE.replace("amqp://", "amqps://"));
    let with = |text: &str, section: &str, lines: &str| {
        load_text(&text.replace(&format!("\n[{section}]"), &format!("\n[{section}]\n{lines}")), &[])
            .map_or_else(|error| error.to_string(), |_| String::new())
    };
    for (text, section, lines, wrong) in [
        (EXAMPLE, "database.tls", ca.clone(), "database.tls.mode"),
        (EXAMPLE, "database.tls", format!("mode = \"require\"\n{ca}"), "database.tls.mode"),
        (EXAMPLE, "database.tls", format!("mode = \"verify-ca\"\n{ca}"), ""),
        (EXAMPLE, "database.tls", "ca_file = \"/nowhere\"".into(), "database.tls.ca_file"),
        (EXAMPLE, "database.tls", format!("client_key_file = {pem:?}"), "database.tls.client_key_file"),
        (EXAMPLE, "database.tls", format!("client_certificate_file = {pem:?}"), "go together"),
        (EXAMPLE, "broker.tls", ca.clone(), "amqps://"),
        (&amqps, "broker.tls", ca.clone(), ""),
        (&amqps, "broker.tls", "mode = \"verify-ca\"".into(), "broker.tls.ca_file"),
        (&amqps, "broker.tls", format!("mode = \"require\"\n{ca}"), "broker.tls.mode"),
        (
            EXAMPLE,
            "connectors.sandbox.calls",
            "ca_file = \"Cargo.toml\"".into(),
            "connectors.sandbox.calls.ca_file",
        ),
        (EXAMPLE, "webhooks", "ca_file = \"/nowhere\"".into(), "webhooks.ca_file"),
    ] {
        let said = with(text, section, &lines);
        assert!(said.contains(wrong) && said.is_empty() == wrong.is_empty(), "[{section}] {lines}: {said}");
    }
    // libpq would verify with this one: sqlx would not.
    let url = EXAMPLE.replace("sslmode=prefer", "sslmode=require&sslrootcert=ca.pem");
    assert!(problems(&url, &[]).contains("database.tls.mode"));
    std::fs::remove_file(pem).unwrap();
}

#[test]
fn what_does_not_go_together_is_refused() {
    for (from, to, name) in [
        ("lease_seconds = 45", "lease_seconds = 31", "worker.lease_seconds"),
        ("settle_seconds = 60", "settle_seconds = 44", "connectors.sandbox.settle_seconds"),
        ("delivery_limit = 1000000000", "delivery_limit = 0", "broker.delivery_limit"),
        ("default_connector = \"sandbox\"", "default_connector = \"nobody\"", "jobs.default_connector"),
        ("heartbeat_seconds = 10", "heartbeat_seconds = 0", "broker.heartbeat_seconds"),
        ("# dead_letters_days = 90", "dead_letters_days = 0", "retention.dead_letters_days is 0"),
        ("whsec_MfKQ", "MfKQ", "webhooks.secrets[0]"),
        ("fingerprint = \"Hx4d", "fingerprint = \"!x4d", "keys.fingerprint"),
        ("prefetch = 512", "prefetch = 0", "broker.prefetch"),
        ("timeout_seconds = 10", "timeout_seconds = 0", "database.timeout_seconds"),
    ] {
        assert!(EXAMPLE.contains(from));
        let said = problems(&EXAMPLE.replace(from, to), &[]);
        assert!(said.contains(name), "{name}: {said}");
    }
}

#[test]
fn dead_letters_have_no_retention_where_reading_them_may_delete_them() {
    let with_retention = EXAMPLE.replace("# dead_letters_days = 90", "dead_letters_days = 90");
    let said = problems(
        &with_retention.replace("letter_delivery_limit = 1000000000", "letter_delivery_limit = 0"),
        &[],
    );
    assert!(said.contains("retention.dead_letters_days needs broker.letter_delivery_limit"), "{said}");
}

#[test]
fn webhooks_of_an_account_that_asks_nothing_are_refused() {
    let silent = EXAMPLE.replace("\nenabled = true", "\nenabled = false");
    assert!(load_text(&silent, &[]).is_ok());
    let said = problems(&silent.replace("webhook_secrets = []", "webhook_secrets = [\"canary\"]"), &[]);
    assert!(said.contains("follow.webhook_secrets") && said.contains("follow.enabled"), "{said}");
    assert!(!said.contains("canary"), "{said}");
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
    assert_eq!(config.connectors["sandbox"].calls.concurrency, 3);
    assert_eq!(config.webhooks.schedule_seconds, [1, 2]);
    let url = secrecy::ExposeSecret::expose_secret(config.database.url.as_ref().unwrap());
    assert_eq!(url, "postgres://elsewhere/");
}

#[test]
fn a_secret_may_stand_in_a_file_of_its_own() {
    let file = std::env::temp_dir().join(format!("secret-{}", uuid::Uuid::new_v4()));
    std::fs::write(&file, "  amqp://from-a-file\n").unwrap();
    let path = file.to_str().unwrap();
    let environment = [("PAYOUT_LINK__CONNECTORS__SANDBOX__TOKEN_FILE", path), ("AMQP_URL_FILE", path)];
    let config = load_text(EXAMPLE, &environment);
    let config = config.unwrap();
    assert_eq!(
        secrecy::ExposeSecret::expose_secret(config.broker.url.as_ref().unwrap()),
        "amqp://from-a-file"
    );
    std::fs::remove_file(&file).unwrap();
    let said = problems(EXAMPLE, &[("AMQP_URL_FILE", path)]);
    assert!(said.contains("broker.url_file"), "{said}");
}

#[test]
fn two_sources_that_disagree_are_an_error_in_whatever_order_they_come() {
    let (a, b) = ("postgres://canary/a", "postgres://canary/b");
    let file = std::env::temp_dir().join(format!("url-{}", uuid::Uuid::new_v4()));
    std::fs::write(&file, format!("{a}\n")).unwrap();
    let path = file.to_str().unwrap();
    for (first, second, agrees) in [
        (("DATABASE_URL", a), ("PAYOUT_LINK__DATABASE__URL", b), false),
        (("DATABASE_URL", a), ("PAYOUT_LINK__DATABASE__URL", a), true),
        (("DATABASE_URL", b), ("DATABASE_URL_FILE", path), false),
        (("DATABASE_URL", a), ("DATABASE_URL_FILE", path), true),
        (("PAYOUT_LINK__DATABASE__URL", b), ("PAYOUT_LINK__DATABASE__URL_FILE", path), false),
        (("DATABASE_URL", a), ("DATABASE_URL_FILE", "/nowhere"), false),
        (("PAYOUT_LINK__BROKER__PREFETCH", "1"), ("PAYOUT_LINK__Broker__Prefetch", "2"), false),
    ] {
        for environment in [[first, second], [second, first]] {
            let said =
                load_text(EXAMPLE, &environment).map_or_else(|error| error.to_string(), |_| String::new());
            assert_eq!(said.is_empty(), agrees, "{environment:?}: {said}");
            assert!(agrees || said.contains(first.0) && said.contains(second.0), "{environment:?}: {said}");
            assert!(!said.contains("canary"), "{said}");
        }
    }
    // In the file as well; one that lies over it takes the place of both.
    let both = EXAMPLE.replace("[broker]\n", &format!("[broker]\nurl_file = {path:?}\n"));
    let said = problems(&both, &[]);
    assert!(said.contains("broker.url and broker.url_file") && !said.contains("canary"), "{said}");
    assert!(load_text(&both, &[("AMQP_URL", "amqp://elsewhere")]).is_ok());
    std::fs::remove_file(file).unwrap();
}

#[test]
fn every_url_has_one_form_of_error_before_anything_connects() {
    let amqp = "amqp://worker:password@127.0.0.1:5672/%2f";
    let postgres = "postgres://worker:password@127.0.0.1:5432/payout_links?sslmode=prefer";
    assert!(EXAMPLE.contains(amqp) && EXAMPLE.contains(postgres));
    let connectors = |kind: &str, url: &str| {
        let text = page(kind);
        let whole: toml::Table = text.parse().unwrap();
        let mut section = whole["connectors"][kind].as_table().unwrap().clone();
        section.insert("url".into(), url.into());
        ConnectorSection::read(&format!("connectors.{kind}"), section).err().unwrap_or_default()
    };
    for (setting, said) in [
        ("broker.url", problems(&EXAMPLE.replace(amqp, "amqp://u:1#canary@host/"), &[])),
        ("broker.url", problems(&EXAMPLE.replace(amqp, "amqp://u@host/?heartbeat=canary"), &[])),
        ("database.url", problems(&EXAMPLE.replace(postgres, "postgres://u:1/canary@host/db"), &[])),
        ("database.url", problems(&EXAMPLE.replace(postgres, "postgres://h/db?sslmode=canary"), &[])),
        (
            "connectors.sandbox.url",
            problems(EXAMPLE, &[("PAYOUT_LINK__CONNECTORS__SANDBOX__URL", "canary:1")]),
        ),
        ("connectors.hyperswitch.url", connectors("hyperswitch", "https://u:canary@host/")),
        ("connectors.revolut.url", connectors("revolut", "ftp://canary/")),
        ("connectors.razorpayx.url", connectors("razorpayx", "https://host/?a=canary")),
        ("connectors.xendit.url", connectors("xendit", "https://[canary]/")),
    ] {
        assert!(said.contains(&format!("{setting}: ")) && !said.contains("canary"), "{setting}: {said}");
        assert!(said.contains("the URL") || said.contains("a parameter"), "{setting}: {said}");
    }
}

#[test]
fn a_dump_shows_no_secret() {
    let text = EXAMPLE.replace(":password@", ":canary@").replace("token = \"demo\"", "token = \"canary\"");
    let shown = format!("{:?}", load_text(&text, &[]).unwrap());
    assert!(!shown.contains("canary") && !shown.contains("AAECAw"), "{shown}");
}

#[test]
fn a_named_account_is_one_account_at_every_url_and_an_unnamed_one_is_not() {
    const URL: &str = "PAYOUT_LINK__CONNECTORS__SANDBOX__URL";
    const ACCOUNT: &str = "PAYOUT_LINK__CONNECTORS__SANDBOX__ACCOUNT";
    let id = |environment: &[(&str, &str)]| {
        load_text(EXAMPLE, environment).unwrap().connectors["sandbox"].account_id()
    };
    let (first, second) = ((URL, "http://127.0.0.1:9001"), (URL, "http://127.0.0.1:9002"));
    assert_ne!(id(&[first]), id(&[second]));
    assert_eq!(id(&[first, (ACCOUNT, "acme")]), id(&[second, (ACCOUNT, "acme")]));
    assert_ne!(id(&[first, (ACCOUNT, "acme")]), id(&[first, (ACCOUNT, "other")]));
    assert_ne!(id(&[first, (ACCOUNT, "acme")]), id(&[first]));
}

#[test]
fn reading_needs_the_database_alone_and_reports_what_it_needs() {
    let load = |text: &str| {
        let file = std::env::temp_dir().join(format!("reading-{}.toml", uuid::Uuid::new_v4()));
        std::fs::write(&file, text).unwrap();
        let config = load_for_reading(Some(&file), std::iter::empty());
        std::fs::remove_file(&file).unwrap();
        config
    };
    // Secrets that this user may not read are left out; what can be read is there.
    let config = load(
        "[database]\nurl = \"postgres://localhost/payouts\"\n[worker]\ndeployment = \"live\"\n\
         [keys]\nsealing_file = \"/nonexistent\"\n[broker]\nurl = \"amqp://localhost\"\n[webhooks]\nnonsense = 1\n",
    )
    .unwrap();
    assert_eq!(config.worker.deployment, "live");
    assert!(config.keys.sealing.is_empty() && config.broker.url.is_some());
    for (text, problem) in [
        ("", "database.url is missing"),
        ("[database]\nurl = \"postgres://localhost/x\"\nurll = 1\n", "database.urll"),
        ("[database]\nurl = \"postgres://localhost/x\"\n[wroker]\n", "unknown section [wroker]"),
        (
            "[database]\nurl = \"postgres://localhost/x\"\n[worker]\nmax_deliveries = 5\n",
            "worker.max_deliveries: the setting was replaced by worker.max_unfinished_begins: set that one instead",
        ),
        (
            "[database]\nurl = \"postgres://localhost/x\"\n[worker]\nlease_seconds = \"a\"\n",
            "worker.lease_seconds",
        ),
    ] {
        let problems = load(text).unwrap_err().to_string();
        assert!(problems.contains(problem), "{text}: {problems}");
    }
}
