//! Runs the steps of the tutorial and of the sandbox's page, unchanged, in a fresh directory.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

const TUTORIAL: &str = include_str!("../../docs/tutorial/first-payout-link.md");
const SANDBOX: &str = include_str!("../../docs/reference/connectors/sandbox.md");

/// Returns the commands of a page, or of its part after a heading: every block marked `sh`, in order.
fn steps(page: &str, heading: Option<&str>) -> String {
    let part = heading.map_or(page, |heading| {
        let rest = page.split_once(&format!("\n## {heading}\n"));
        let (_, rest) = rest.unwrap_or_else(|| panic!("no section {heading}"));
        rest.split("\n## ").next().unwrap()
    });
    let blocks = part.split("```sh\n").skip(1).map(|block| block.split_once("```").unwrap().0);
    let steps: String = blocks.collect();
    assert!(!steps.is_empty(), "the page has commands");
    steps
}

/// Creates a directory with the files that the steps use from a checkout.
fn fresh_directory() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("by-hand-{}", uuid::Uuid::new_v4().simple()));
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::create_dir_all(folder.join("target")).unwrap();
    std::fs::copy(checkout.join("config.example.toml"), folder.join("config.example.toml")).unwrap();
    std::os::unix::fs::symlink(checkout.join("scripts"), folder.join("scripts")).unwrap();
    // The steps run a release's programs. Here they are the tests' programs.
    let built = Path::new(env!("CARGO_BIN_EXE_payout-link-worker")).parent().unwrap();
    std::os::unix::fs::symlink(built, folder.join("target/release")).unwrap();
    folder
}

/// Runs the steps. Only the sandbox's port is changed, because another program may use it.
fn done(folder: &Path, steps: &str) -> String {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let config = folder.join("config.example.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("8085", &port)).unwrap();
    let steps = steps.replace("8085", &port).replace(
        "sandbox-connector --token demo",
        &format!("sandbox-connector --listen 127.0.0.1:{port} --token demo"),
    );
    let output = Command::new("bash")
        .arg("-c")
        .arg(format!("exec 2>&1\n{steps}"))
        .current_dir(folder)
        .env("SERVICES_DIR", folder.join("services"))
        .env_remove("DATABASE_URL")
        .env_remove("AMQP_URL")
        .output()
        .unwrap();
    let _ = Command::new(folder.join("scripts/services"))
        .arg("down")
        .env("SERVICES_DIR", folder.join("services"))
        .output();
    std::fs::remove_dir_all(folder).unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_steps_of_the_tutorial_end_with_a_link() {
    let said = done(&fresh_directory(), &steps(TUTORIAL, None));
    for what in ["configuration", "broker", "database", "connector sandbox"] {
        assert!(said.contains(&format!("ok      {what}")), "{what}: {said}");
    }
    assert!(said.contains("\"payout_status\":\"REQUIRES_FULFILLMENT\""), "{said}");
    assert!(said.contains("\"payout_link\":{\"url\":\"http://127.0.0.1:"), "{said}");
    assert!(said.contains("po_1000 created"), "{said}");
}

#[test]
fn the_steps_of_the_sandboxs_page_end_with_a_verified_webhook() {
    let said = done(&fresh_directory(), &steps(SANDBOX, Some("Webhooks on this machine")));
    assert!(said.contains("\"verified\":true"), "{said}");
    assert!(said.contains("\"event_type\":\"payout_link.created\""), "{said}");
}

/// Checks that the examples and the example configuration have the same secrets, so that they work together.
#[test]
fn the_examples_and_the_example_configuration_have_the_same_secrets() {
    let config: toml::Table = include_str!("../../config.example.toml").parse().unwrap();
    let secret = config["webhooks"]["secrets"][0].as_str().unwrap();
    for (name, example) in [
        ("verify-webhooks.md", include_str!("../../docs/how-to/verify-webhooks.md")),
        ("sandbox.md", SANDBOX),
        ("verify_webhook.py", include_str!("../../docs/examples/verify_webhook.py")),
        ("verify_webhook.js", include_str!("../../docs/examples/verify_webhook.js")),
    ] {
        let words = example.split(|c: char| !c.is_ascii_alphanumeric() && !"_+/=".contains(c));
        let secrets: Vec<&str> = words.filter(|word| word.len() > 20 && word.starts_with("whsec_")).collect();
        assert!(!secrets.is_empty() && secrets.iter().all(|found| *found == secret), "{name}: {secrets:?}");
    }
    let token = config["connectors"]["sandbox"]["token"].as_str().unwrap();
    for (name, page) in [("first-payout-link.md", TUTORIAL), ("sandbox.md", SANDBOX)] {
        assert!(page.contains(&format!("--token {token}")), "{name}");
    }
}
