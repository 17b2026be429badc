//! Tests the commands about a connector account, with the real program.

use std::process::Output;

use payout_link_worker::{config::load, connectors::Kind, domain::PayoutStatus};
use provider_simulators::providers::ProviderSimulator;

use crate::{
    description::{Became, Description},
    support::{Setup, TestEnv, job},
};

/// Builds a test environment whose worker has the connector as `tested`, and returns its simulator.
async fn env(description: &Description) -> (TestEnv, ProviderSimulator) {
    let simulator = description.simulator().await;
    let section = description.section(simulator.url());
    let setup = Setup::default().short_leases().only_connector("sandbox").connector(&section);
    (
        setup
            // A provider's default may be minutes.
            .set("connectors.tested.follow.confirm_cancel_seconds", 1)
            .build()
            .await,
        simulator,
    )
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Rewrites the test environment's configuration.
fn change(env: &TestEnv, change: impl FnOnce(&str) -> String) {
    let file = env.folder.join("worker.toml");
    let changed = change(&std::fs::read_to_string(&file).unwrap());
    std::fs::write(file, changed).unwrap();
}

pub async fn check_tries_each_account(description: &Description) {
    // Given an account with its right credential,
    let (env, simulator) = env(description).await;
    let output = env.run(&["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    for account in ["sandbox", "tested"] {
        assert!(said(&output).contains(&format!("ok      connector {account}\n")), "{}", said(&output));
    }
    assert!(simulator.ledger().links.is_empty(), "it is harmless");
    // when it has another beside it, with a wrong one,
    let wrong = description.section(simulator.url()).replace(description.account.secret, "wrong-canary");
    let wrong = wrong.replace("[connectors.tested]", "[connectors.mistaken]");
    change(&env, |configuration| format!("{configuration}\n{wrong}"));
    let output = env.run(&["check"]);
    // then that one is reported, the others are well, and nothing of a credential is shown.
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("failed  connector mistaken: "), "{said}");
    assert!(said.contains("ok      connector tested\n"), "{said}");
    assert!(!said.contains("canary") && !said.contains("PRIVATE KEY"), "{said}");
}

pub async fn cancel_cancels_a_link(description: &Description) {
    // Given a link that nobody has claimed,
    let (env, simulator) = env(description).await;
    let _worker = env.start_worker().await;
    env.publish(job("po_1").connector("tested").raw(description.json("po_1").to_string().as_bytes())).await;
    let id = env.result_of("po_1").await.json()["connector_payout_id"].as_str().unwrap().to_owned();
    env.wait_until_delivered("po_1").await;
    // when it is cancelled,
    let output = env.run(&["cancel", "--reason", "wrong amount", "po_1"]);
    // then it is gone at the provider, and the record stays as it was published.
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains(&format!("{id} is cancelled at tested")), "{}", said(&output));
    let status = simulator.ledger().links[0].status.clone();
    let became = description.statuses.iter().find(|(name, _)| *name == status).map(|(_, became)| became);
    assert_eq!(became, Some(&Became::Ended(PayoutStatus::Cancelled)), "{status}");
    assert_eq!(env.shown("po_1").unwrap()["state"], "created");
    // A second cancel reports that the link is cancelled already. An unknown payout has no link.
    let output = env.run(&["cancel", "--reason", "wrong amount", "po_1"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(!said(&output).contains("canary"), "{}", said(&output));
    let output = env.run(&["cancel", "--reason", "wrong amount", "po_9"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(said(&output).contains(r#"no record has the id "po_9""#), "{}", said(&output));
}

pub async fn connectors_says_what_an_account_needs(description: &Description) {
    let (env, _stand_in) = env(description).await;
    let output = env.run(&["connectors"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let listed = said(&output);
    assert!(!listed.contains("canary"), "{listed}");
    // These are the lines after the line of its kind.
    let kind = Kind::named(description.account.kind).unwrap();
    let lines: Vec<&str> = listed
        .lines()
        .skip_while(|line| *line != format!("{}: {}", kind.name, kind.title))
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .collect();
    let value = |name: &str| {
        let line = lines.iter().find_map(|line| line.trim_start().strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name}: {listed}")).trim()
    };
    assert_eq!(value("configured as"), "tested");
    assert_eq!(value("links can be cancelled"), "yes");
    // Given the fields that `connectors` lists for jobs: a job without one of them is rejected.
    for (_, field) in description.required {
        assert!(value("required in a job").contains(field), "{field}: {listed}");
    }
    // And the settings that it lists: a configuration without one of them has an error that names it.
    let file = env.folder.join("less.toml");
    let whole = std::fs::read_to_string(env.folder.join("worker.toml")).unwrap();
    for setting in value("required settings").split(", ") {
        std::fs::write(&file, without(&whole, setting)).unwrap();
        let problem = load(Some(&file), std::iter::empty()).unwrap_err().to_string();
        assert!(problem.contains("connectors.tested") && problem.contains(setting), "{setting}: {problem}");
    }
}

/// Returns the configuration without the lines of a setting.
fn without(configuration: &str, setting: &str) -> String {
    let (before, rest) = configuration.split_once(&format!("\n{setting} = ")).unwrap();
    let end = match rest.strip_prefix("\"\"\"") {
        Some(text) => text.find("\"\"\"").unwrap() + 6,
        None => rest.find('\n').unwrap(),
    };
    format!("{before}{}", &rest[end..])
}
