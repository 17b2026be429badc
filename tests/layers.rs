//! The layers of `src/`: which module may use which. The compiler allows any arrow; this table does not.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// From the bottom to the top. A module uses modules above its own line only, and of those the ones that are named.
const LAYERS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("lock", &[]),
    ("tasks", &["lock"]),
    ("setting_url", &[]),
    ("contract", &["domain"]),
    ("http_client", &["domain", "lock"]),
    ("limits", &["domain", "lock"]),
    // The ports: they do not know each other.
    ("connectors", &["contract", "domain", "http_client", "limits", "lock", "setting_url"]),
    ("postgres", &["contract", "domain", "lock", "setting_url", "tasks"]),
    ("rabbitmq", &["domain", "lock", "setting_url"]),
    ("webhooks", &["domain", "http_client", "limits", "lock"]),
    // What joins the ports.
    ("metrics", &["connectors", "contract", "domain", "postgres", "rabbitmq", "tasks"]),
    (
        "pipeline",
        &[
            "connectors",
            "contract",
            "domain",
            "limits",
            "lock",
            "metrics",
            "postgres",
            "rabbitmq",
            "tasks",
            "webhooks",
        ],
    ),
    // What builds and runs it.
    (
        "config",
        &[
            "connectors",
            "contract",
            "domain",
            "http_client",
            "limits",
            "pipeline",
            "postgres",
            "rabbitmq",
            "setting_url",
            "webhooks",
        ],
    ),
    ("runtime", &["config", "domain", "metrics", "pipeline", "postgres", "rabbitmq", "tasks", "webhooks"]),
    (
        "cli",
        &[
            "config",
            "connectors",
            "contract",
            "domain",
            "http_client",
            "pipeline",
            "postgres",
            "rabbitmq",
            "runtime",
            "webhooks",
        ],
    ),
];

#[test]
fn every_module_uses_the_modules_below_it_alone() {
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut used);
    for (module, uses) in &used {
        let place = LAYERS.iter().position(|(name, _)| name == module);
        let place = place.unwrap_or_else(|| panic!("{module} has no layer"));
        for other in uses {
            assert!(LAYERS[place].1.contains(&other.as_str()), "{module} may not use {other}");
        }
    }
    for (place, (module, allowed)) in LAYERS.iter().enumerate() {
        for other in *allowed {
            let below = LAYERS[..place].iter().any(|(name, _)| name == other);
            assert!(below, "{module}: {other} does not stand above it in the table");
        }
    }
}

/// The files of a connector, which a reader of one connector finds in every other.
const CONNECTOR: [&str; 6] = ["mod", "request", "response", "settings", "status", "webhook"];
/// Files that a connector may have beside them: access tokens, and one list for many links.
const EXTRA: [&str; 3] = ["auth", "follow", "tests"];

#[test]
fn every_connector_has_the_same_files() {
    let connectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/connectors");
    let folders = std::fs::read_dir(connectors).unwrap().map(|entry| entry.unwrap().path());
    let folders: Vec<_> = folders.filter(|path| path.join("mod.rs").exists()).collect();
    assert!(folders.len() >= 5, "{folders:?}");
    for folder in folders {
        let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let files: BTreeSet<String> =
            files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
        let shared = files.iter().map(String::as_str).filter(|name| !EXTRA.contains(name));
        assert!(shared.eq(CONNECTOR), "{}: {files:?}", folder.display());
    }
}

/// Files beside each other do not import each other in a circle: each can be read without the ones that use it. The
/// root of a module may import from all of its files and is left out.
#[test]
fn files_of_one_module_do_not_use_each_other_in_a_circle() {
    let mut circles = Vec::new();
    for tree in
        ["src", "crates/provider-simulators/src", "crates/history-checker/src", "crates/test-support/src"]
    {
        look_for_circles(&Path::new(env!("CARGO_MANIFEST_DIR")).join(tree), &mut circles);
    }
    assert!(circles.is_empty(), "{circles:#?}");
}

fn look_for_circles(folder: &Path, circles: &mut Vec<String>) {
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            look_for_circles(&path, circles);
            used.entry(name).or_default();
        } else if !matches!(name.as_str(), "mod" | "lib" | "main" | "tests") {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            used.entry(name).or_default().extend(uses(code, "super::"));
        }
    }
    for start in used.keys() {
        let (mut reached, mut next) = (BTreeSet::new(), vec![start]);
        while let Some(name) = next.pop() {
            for other in used.get(name).into_iter().flatten().filter(|other| used.contains_key(*other)) {
                if reached.insert(other) {
                    next.push(other);
                }
            }
        }
        if reached.contains(start) {
            circles.push(folder.join(start).display().to_string());
        }
    }
}

/// No file of the product is longer than a reader takes in at once.
#[test]
fn no_file_of_the_product_is_longer_than_400_lines() {
    let mut long = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut |path, text| {
        let lines = text.lines().count();
        if lines > 400 {
            long.push(format!("{}: {lines}", path.display()));
        }
    });
    assert!(long.is_empty(), "{long:#?}");
}

fn read(source: &Path, used: &mut BTreeMap<String, BTreeSet<String>>) {
    files(source, &mut |path, text| {
        let inside = path.strip_prefix(source).unwrap();
        let module =
            inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        // Unit tests may use what they like.
        if matches!(module, "lib" | "main") || inside.to_str().unwrap().contains("tests") {
            return;
        }
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let of = used.entry(module.to_owned()).or_default();
        of.extend(uses(code, "crate::").into_iter().filter(|other| other != module));
    });
}

fn files(folder: &Path, each: &mut impl FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, each);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            each(&path, &std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// Returns the first names of all paths that begin with `root`, in and out of `use` trees.
fn uses(code: &str, root: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (start, _) in code.match_indices(root) {
        let rest = &code[start + root.len()..];
        let Some(tree) = rest.strip_prefix('{') else {
            names.insert(name(rest));
            continue;
        };
        let mut depth = 0;
        let mut item = 0;
        for (at, letter) in tree.char_indices() {
            match letter {
                '{' => depth += 1,
                '}' if depth == 0 => {
                    names.insert(name(&tree[item..]));
                    break;
                }
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    names.insert(name(&tree[item..]));
                    item = at + 1;
                }
                _ => {}
            }
        }
    }
    names.retain(|name| name.starts_with(char::is_lowercase));
    names
}

fn name(text: &str) -> String {
    let text = text.trim_start();
    text.chars().take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_').collect()
}

#[test]
fn uses_are_found_in_paths_and_in_trees() {
    let code = "use crate::{a::{b, c}, d, E};\nfn f() { crate::g::h(); }\n";
    assert_eq!(uses(code, "crate::"), BTreeSet::from(["a", "d", "g"].map(str::to_owned)));
}
