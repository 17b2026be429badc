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

/// Returns the output of `--help`, of the program or of a command.
fn help(command: &[&str]) -> String {
    let program = env!("CARGO_BIN_EXE_payout-link-worker");
    let mut program = std::process::Command::new(program);
    // The help shows the values of these.
    for variable in ["CONFIG", "CONTEXT", "CONTEXTS"] {
        program.env_remove(format!("PAYOUT_LINK_{variable}"));
    }
    let output = program.args(command).arg("--help").output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_reference_names_every_command_and_every_option() {
    let page = include_str!("../docs/reference/cli.md");
    let help_of_all = help(&[]);
    let commands = help_of_all
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty());
    let mut count = 0;
    // A line that continues the one above is indented further.
    let commands = commands.filter(|line| !line.starts_with("   "));
    for command in
        commands.filter_map(|line| line.split_whitespace().next()).filter(|command| *command != "help")
    {
        assert!(page.contains(&format!("| `{command}")), "{command}");
        for line in help(&[command]).lines().map(str::trim_start) {
            let line =
                line.split_once(", ").filter(|(short, _)| short.len() == 2).map_or(line, |(_, long)| long);
            let Some(option) = line.strip_prefix("--") else { continue };
            let name =
                option.split(|letter: char| !letter.is_ascii_lowercase() && letter != '-').next().unwrap();
            let is_there = page.contains(&format!("`--{name}`")) || page.contains(&format!("`--{name} "));
            assert!(is_there, "{command} --{name}");
        }
        count += 1;
    }
    assert!(count >= 5, "{help_of_all}");
}

/// Returns the names under "Commands:" in the help of a command.
fn subcommands(help: &str) -> Vec<String> {
    let listed =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // A line that continues the one above is indented further.
    let listed = listed.filter(|line| !line.starts_with("   "));
    let names = listed.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// Returns the reference page of a command, from the help of it and of its subcommands.
fn reference(command: &str) -> String {
    let mut page = format!(
        "# `{command}`\n\n<!-- Generated from `--help`: scripts/generate-cli-pages -->\n\n\
         [Command line](../cli.md) has what is common to all commands.\n"
    );
    let own = help(&[command]);
    let mut add = |heading: &str, help: &str| {
        let help: String = help.trim_end().lines().map(|line| format!("{}\n", line.trim_end())).collect();
        page.push_str(&format!("{heading}\n```text\n{help}```\n"));
    };
    add("", &own);
    for subcommand in subcommands(&own) {
        add(&format!("\n## `{command} {subcommand}`\n"), &help(&[command, &subcommand]));
    }
    page
}

/// Compares the pages with the help. With `WRITE_CLI_PAGES`, writes them.
#[test]
fn every_command_has_a_page_with_its_help() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/cli");
    let index = include_str!("../docs/reference/cli.md");
    let commands = subcommands(&help(&[]));
    assert!(commands.len() >= 20, "{commands:?}");
    let mut pages = Vec::new();
    for command in &commands {
        let (path, page) = (folder.join(format!("{command}.md")), reference(command));
        if std::env::var_os("WRITE_CLI_PAGES").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == page, "{}: run scripts/generate-cli-pages", path.display());
        assert!(index.contains(&format!("[{command}](cli/{command}.md)")), "cli.md has no link to {command}");
        pages.push(path);
    }
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        assert!(pages.contains(&path), "{}: there is no such command", path.display());
    }
}

#[test]
fn the_upgrade_pages_name_the_last_migration() {
    let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let names = std::fs::read_dir(migrations).unwrap().map(|entry| entry.unwrap().file_name());
    let numbers = names.filter_map(|name| name.to_str()?.split_once('_')?.0.parse::<u32>().ok());
    let last = numbers.max().unwrap();
    for page in ["docs/how-to/upgrade.md", "CHANGELOG.md"] {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
        assert!(text.contains(&format!("igrations 5 to {last}")), "{page}: {last}");
    }
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

const VERIFICATION: &str = include_str!("../docs/explanation/verification.md");

#[test]
fn every_claim_of_security_names_tests_that_exist() {
    let sources: String =
        ["src", "tests", "crates"].iter().map(|folder| sources_in(Path::new(folder))).collect();
    let (_, section) =
        VERIFICATION.split_once("\n## Claims and their tests\n").expect("the section of the claims");
    let section = section.split("\n## ").next().unwrap();
    let mut claims = 0;
    for line in section.lines().filter(|line| line.starts_with("| ") && !line.contains("---")) {
        let columns: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [claim, tests] = columns[..] else { panic!("a row has a claim and its tests: {line}") };
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
    assert!(claims > 50, "{claims}");
}

/// The example's setting, its value, and whether a default stands there: one that is REQUIRED, or a comment, has none.
struct Setting<'a> {
    section: &'a str,
    name: &'a str,
    default: Option<&'a str>,
}

fn settings(example: &str) -> Vec<Setting<'_>> {
    let (mut all, mut section, mut required) = (Vec::new(), "", false);
    for line in example.lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let name = bare.split_once(" = ").map(|(name, _)| name).filter(|name| {
            !name.is_empty() && name.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_')
        });
        if let Some(name) = name {
            let default = bare.split_once(" = ").map(|(_, value)| value);
            let has_default = !required && !line.starts_with('#');
            all.push(Setting { section, name, default: default.filter(|_| has_default) });
            required = false;
        } else if line.starts_with('[') {
            section = line;
        } else if line.starts_with('#') {
            required |= line.starts_with("# REQUIRED");
        }
    }
    all
}

#[test]
fn the_reference_has_every_setting_with_its_default() {
    let page = include_str!("../docs/reference/configuration.md");
    let all = settings(include_str!("../config.example.toml"));
    assert!(all.len() > 60, "{}", all.len());
    for Setting { section, name, default } in all {
        let part = page.split_once(&format!("\n## `{section}`\n"));
        let (_, part) = part.unwrap_or_else(|| panic!("no part for {section}"));
        let part = part.split("\n## ").next().unwrap();
        let row = part.lines().find_map(|line| line.strip_prefix(&format!("| `{name}` | ")));
        let row = row.unwrap_or_else(|| panic!("{section} {name} has no row"));
        let said = row.split(" | ").next().unwrap();
        // A value of the example that is no default, such as the connector of jobs that name none, is `none` there.
        match default {
            Some(default) => {
                assert!(
                    said == format!("`{default}`") || said == "none",
                    "{section} {name}: {said}, not {default}"
                );
            }
            None => assert!(said == "REQUIRED" || said == "none", "{section} {name}: {said}"),
        }
    }
}

/// Returns every Markdown page of the repository, by its path.
fn pages(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            if !name.starts_with('.')
                && !["target", "node_modules", "corpus", "artifacts"].contains(&name.as_str())
            {
                all.extend(pages(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            all.push(path);
        }
    }
    all
}

/// Returns the lines of a page that are text, not code.
fn text_lines(page: &str) -> Vec<&str> {
    let mut is_code = false;
    page.lines()
        .filter(|line| {
            let is_fence = line.trim_start().starts_with("```");
            is_code ^= is_fence;
            !is_code && !is_fence
        })
        .collect()
}

/// Returns the anchors of a page's headings, as forges make them.
fn anchors(page: &str) -> Vec<String> {
    let headings = text_lines(page).into_iter().filter(|line| line.starts_with('#'));
    let slug = |heading: &str| -> String {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let letters = heading.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
        letters.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
    };
    headings.map(slug).collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut links = 0;
    for path in pages(root) {
        let page = std::fs::read_to_string(&path).unwrap();
        for line in text_lines(&page) {
            for link in line.split("](").skip(1) {
                let link = link.split(')').next().unwrap();
                if link.contains("://") || link.starts_with("mailto:") {
                    continue;
                }
                let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
                let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
                assert!(target.exists(), "{}: {link} leads to nothing", path.display());
                if !anchor.is_empty() {
                    let there = anchors(&std::fs::read_to_string(&target).unwrap());
                    assert!(there.iter().any(|name| name == anchor), "{}: {link}: {there:?}", path.display());
                }
                links += 1;
            }
        }
    }
    assert!(links > 50, "{links}");
}

#[test]
fn the_log_lines_of_the_reference_are_in_the_code() {
    let page = include_str!("../docs/reference/metrics-and-logs.md");
    let table = page.split("| line | meaning |\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let sources = sources_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let mut lines = 0;
    for row in table.lines().skip(1) {
        let cell = row.trim_start_matches("| ").split(" | ").next().unwrap();
        for line in cell.split('`').skip(1).step_by(2) {
            assert!(sources.contains(&format!("\"{line}")), "{line}");
            lines += 1;
        }
    }
    assert!(lines > 5, "{table}");
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
