//! Rules of the repository that a compiler does not check.
#![expect(
    clippy::unwrap_used,
    reason = "a file that cannot be read fails the test as it should"
)]

use std::collections::BTreeMap;
use std::fs;

use bobbin_tests::{root, tracked_files};

/// Lines of a file before its test module.
const FILE_LINES_MAX: usize = 800;
/// Lines of a function, signature and closing brace included.
const FUNCTION_LINES_MAX: usize = 70;

fn rust_files() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for path in tracked_files() {
        if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(root().join(&path)).unwrap();
            files.push((path.display().to_string(), text));
        }
    }
    assert!(files.len() > 50, "the list of files is not whole");
    files
}

fn before_tests(text: &str) -> Vec<&str> {
    text.lines()
        .take_while(|l| l.trim_end() != "#[cfg(test)]")
        .collect()
}

fn is_test_file(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("_tests.rs") || path.ends_with("/tests.rs")
}

#[test]
fn files_are_short() {
    let mut long = Vec::new();
    for (path, text) in rust_files() {
        let lines = before_tests(&text).len();
        if lines > FILE_LINES_MAX {
            long.push(format!("{path}: {lines} lines"));
        }
    }
    assert!(
        long.is_empty(),
        "over {FILE_LINES_MAX} lines before their tests: {long:#?}"
    );
}

/// Functions by rustfmt's layout: from the line with `fn` to the closing brace of the same depth.
fn long_functions(path: &str, text: &str) -> Vec<String> {
    let lines = before_tests(text);
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let words = line.trim_start();
        let is_function = !words.starts_with("//")
            && (words.starts_with("fn ") || words.contains(" fn "))
            && words.contains('(')
            && !words.ends_with(';');
        if !is_function {
            continue;
        }
        let close = format!("{}}}", " ".repeat(indent));
        let signature_end = format!("{})", " ".repeat(indent));
        // A trait's method without a body ends with its signature.
        let declared = lines[start..]
            .iter()
            .find(|l| **l == close || l.starts_with(&signature_end))
            .is_some_and(|l| l.ends_with(';'));
        if declared {
            continue;
        }
        let length = lines[start..]
            .iter()
            .position(|l| *l == close)
            .map_or(1, |n| n + 1);
        if length > FUNCTION_LINES_MAX {
            found.push(format!("{path}:{}: {length} lines: {}", start + 1, words));
        }
    }
    found
}

#[test]
fn functions_are_short() {
    let long: Vec<_> = rust_files()
        .iter()
        .filter(|(path, _)| !is_test_file(path))
        .flat_map(|(path, text)| long_functions(path, text))
        .collect();
    assert!(
        long.is_empty(),
        "over {FUNCTION_LINES_MAX} lines: {long:#?}"
    );
}

/// Crates of this workspace, and libraries, that each crate may use outside its tests.
/// `None`: anything but what `NEVER` names.
fn allowed(name: &str) -> Option<&'static [&'static str]> {
    Some(match name {
        "bobbin-types" => &["thiserror"],
        "bobbin-rm-core" | "bobbin-na-core" | "bobbin-am-core" => &["bobbin-types", "thiserror"],
        "bobbin-proto" => &["bobbin-types", "prost", "tonic", "tonic-prost", "thiserror"],
        "bobbin-hadoop" => &[
            "bobbin-types",
            "prost",
            "bytes",
            "thiserror",
            "hmac",
            "sha1",
            "md-5",
            "des",
            "getrandom",
            "base64",
            "tokio",
        ],
        "bobbin-sandbox" => &[
            "bobbin-types",
            "nix",
            "libc",
            "seccompiler",
            "caps",
            "thiserror",
        ],
        "bobbin-sim" => &[
            "bobbin-types",
            "bobbin-rm-core",
            "bobbin-na-core",
            "bobbin-am-core",
            "clap",
            "anyhow",
        ],
        _ => return None,
    })
}

/// Crates of this workspace that a crate may never use: daemons not each other, the command line no
/// cores and no daemons.
fn never(name: &str) -> &'static [&'static str] {
    const DAEMONS: [&str; 2] = ["bobbin-resourcemanager", "bobbin-nodeagent"];
    match name {
        "bobbin" => &[
            "bobbin-rm-core",
            "bobbin-na-core",
            "bobbin-am-core",
            "bobbin-resourcemanager",
            "bobbin-nodeagent",
        ],
        "bobbin-resourcemanager" => &[
            "bobbin-na-core",
            "bobbin-am-core",
            "bobbin-nodeagent",
            "bobbin-appmaster",
            "bobbin-sandbox",
        ],
        "bobbin-nodeagent" => &[
            "bobbin-rm-core",
            "bobbin-am-core",
            "bobbin-resourcemanager",
            "bobbin-appmaster",
        ],
        "bobbin-appmaster" => &[
            "bobbin-rm-core",
            "bobbin-na-core",
            "bobbin-resourcemanager",
            "bobbin-nodeagent",
            "bobbin-sandbox",
        ],
        "bobbin-journal" => &["bobbin-rm-core", "bobbin-proto", "bobbin-service"],
        "bobbin-tests" => &["bobbin-types", "bobbin-proto", "bobbin-service"],
        _ => DAEMONS.as_slice(),
    }
}

fn manifests() -> BTreeMap<String, toml::Table> {
    let workspace: toml::Table = fs::read_to_string(root().join("Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let mut found = BTreeMap::new();
    for member in members {
        let path = root().join(member.as_str().unwrap()).join("Cargo.toml");
        let manifest: toml::Table = fs::read_to_string(path).unwrap().parse().unwrap();
        found.insert(
            manifest["package"]["name"].as_str().unwrap().to_owned(),
            manifest,
        );
    }
    found
}

#[test]
fn crates_keep_their_borders() {
    let manifests = manifests();
    for known in ["bobbin-types", "bobbin-rm-core", "bobbin-sandbox", "bobbin"] {
        assert!(
            manifests.contains_key(known),
            "{known} is no member of the workspace"
        );
    }
    let mut crossed = Vec::new();
    for (name, manifest) in &manifests {
        let used: Vec<_> = manifest
            .get("dependencies")
            .and_then(|d| d.as_table())
            .map(|d| d.keys().cloned().collect())
            .unwrap_or_default();
        for dependency in used {
            let fine = match allowed(name) {
                Some(list) => list.contains(&dependency.as_str()),
                None => !never(name).contains(&dependency.as_str()),
            };
            if !fine {
                crossed.push(format!("{name} uses {dependency}"));
            }
        }
        if manifest
            .get("lints")
            .and_then(|l| l.get("workspace"))
            .is_none()
            && name != "bobbin-sandbox"
        {
            crossed.push(format!("{name} does not take the workspace's lints"));
        }
    }
    assert!(crossed.is_empty(), "{crossed:#?}");
}

#[test]
fn cores_ban_clocks_and_hash_maps() {
    for core in [
        "types",
        "resourcemanager/core",
        "nodeagent/core",
        "appmaster/core",
    ] {
        let text = fs::read_to_string(root().join(core).join("clippy.toml")).unwrap();
        for banned in ["Instant::now", "SystemTime::now", "HashMap", "HashSet"] {
            assert!(
                text.contains(banned),
                "{core}/clippy.toml does not ban {banned}"
            );
        }
    }
}

#[test]
fn unsafe_is_only_in_the_sandbox() {
    let outside: Vec<_> = rust_files()
        .into_iter()
        .filter(|(path, _)| {
            !path.starts_with("nodeagent/sandbox/") && path != "tests/tests/tidy.rs"
        })
        .filter(|(path, text)| {
            // The benchmarks' floor programs do by hand what the sandbox does.
            !path.starts_with("bench/src/floor") && text.contains("unsafe {")
        })
        .map(|(path, _)| path)
        .collect();
    assert!(outside.is_empty(), "{outside:#?}");
}

#[test]
fn tests_neither_sleep_nor_are_ignored() {
    let mut found = Vec::new();
    for (path, text) in rust_files() {
        if path == "tests/tests/tidy.rs" {
            continue;
        }
        let in_tests = if is_test_file(&path) {
            text.clone()
        } else {
            text.split("#[cfg(test)]").skip(1).collect()
        };
        for line in in_tests.lines() {
            if line.contains("thread::sleep(") || line.contains("time::sleep(") {
                found.push(format!("{path}: {}", line.trim()));
            }
        }
        if text.contains("#[ignore") {
            found.push(format!("{path}: an ignored test"));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn nothing_is_left_open() {
    let marks = ["TODO", "FIXME", "todo!(", "unimplemented!("];
    let found: Vec<_> = rust_files()
        .into_iter()
        .filter(|(path, _)| path != "tests/tests/tidy.rs")
        .flat_map(|(path, text)| {
            let lines: Vec<_> = text
                .lines()
                .filter(|l| marks.iter().any(|m| l.contains(m)))
                .map(|l| format!("{path}: {}", l.trim()))
                .collect();
            lines
        })
        .collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn american_spelling() {
    // In code only: prose quotes others.
    let british = ["localis", "serialis", "initialis"];
    let mut found = Vec::new();
    for (path, text) in rust_files() {
        if path == "tests/tests/tidy.rs" {
            continue;
        }
        for line in text.lines().filter(|l| {
            let code = l.split("//").next().unwrap_or("").to_ascii_lowercase();
            british.iter().any(|w| code.contains(w))
        }) {
            found.push(format!("{path}: {}", line.trim()));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn documents_name_what_there_is() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for command in ["make demo", "make test", "bobbin up", "bobbin submit"] {
        assert!(
            readme.contains(command),
            "README.md does not name `{command}`"
        );
    }
    assert!(
        readme.lines().count() <= 100,
        "README.md is longer than two screens"
    );
    let architecture = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    for name in manifests().keys() {
        assert!(
            architecture.contains(&format!("`{name}`")),
            "docs/ARCHITECTURE.md does not name {name}"
        );
    }
}
