//! What the README shows is what was tried.

const README: &str = include_str!("../README.md");

#[test]
fn the_readme_shows_the_examples_to_the_letter() {
    for example in [
        include_str!("../docs/examples/publish.py"),
        include_str!("../docs/examples/publish.js"),
        include_str!("../docs/examples/verify_webhook.py"),
        include_str!("../docs/examples/verify_webhook.js"),
    ] {
        assert!(README.contains(example), "{}", example.lines().next().unwrap());
    }
}

#[test]
fn the_readme_names_every_command() {
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
        assert!(README.contains(&format!("| `{command}")), "{command}");
        count += 1;
    }
    assert!(count >= 5, "{help}");
}
