//! Rules about the source. Each test reads the source.

use std::fs;
use std::path::{Path, PathBuf};

const LONGEST: usize = 400;
const WIDEST: usize = 120;

/// All files below a folder of this repository, with their text.
pub(crate) fn sources(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<PathBuf> = vec![root.join(folder)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

fn assert_only_in(what: &str, allowed: &[&str]) {
    for (name, text) in sources("src") {
        let is_allowed = allowed.iter().any(|place| name.starts_with(place));
        assert!(is_allowed || !text.contains(what), "{name} uses {what}, which belongs in {allowed:?}");
    }
}

#[test]
fn no_file_is_too_long() {
    for folder in ["src", "tests", "scripts"] {
        for (name, text) in sources(folder) {
            let lines = text.lines().count();
            assert!(lines <= LONGEST, "{name} has {lines} lines; split it");
        }
    }
}

#[test]
fn things_stay_in_their_place() {
    assert_only_in("axum::", &["src/http"]);
    assert_only_in("hyper::", &["src/http", "src/nodes/connection.rs", "src/notifications/post.rs"]);
    assert_only_in("StatusCode::", &["src/http"]);
    assert_only_in("sqlx::", &["src/store"]);
    // A browser is no command with an end.
    assert_only_in("process::Command", &["src/docker/command.rs", "src/cli/browser.rs"]);
    assert_only_in("std::env::", &["src/config.rs", "src/config/"]);
    assert_only_in("UNIX_EPOCH", &["src/resources/clock.rs", "src/docker/container.rs", "src/http/routes/health.rs"]);
}

#[test]
fn the_pools_bookkeeping_knows_no_docker() {
    for name in ["state", "policy", "uids"] {
        let (_, text) =
            sources("src/sandbox/pool").into_iter().find(|(path, _)| path.ends_with(&format!("{name}.rs"))).unwrap();
        for other in ["crate::docker", "sandbox::instance", "super::lease", "std::process", "tokio::process"] {
            assert!(!text.contains(other), "{name}.rs uses {other}");
        }
    }
}

#[test]
fn lines_are_short() {
    for folder in ["src", "tests", "scripts", "examples"] {
        for (name, text) in sources(folder) {
            let is_of_console = name.starts_with("src/http/routes/console/");
            if !is_of_console && ![".rs", ".md", ".py", ".go"].iter().any(|end| name.ends_with(end)) {
                continue;
            }
            // In a test, a function's program is one literal.
            let may_have_program = folder == "tests" && name.ends_with(".rs");
            for (number, line) in text.lines().enumerate() {
                if may_have_program && !line.trim_start().starts_with("//") {
                    continue;
                }
                assert!(line.chars().count() <= WIDEST, "{name}:{} has more than {WIDEST} columns", number + 1);
            }
        }
    }
}

#[test]
fn layers_use_only_those_below() {
    // From the top to the bottom, as in docs/architecture.md.
    let layers = [
        &["app", "cli"][..],
        &["http"],
        &["deployments"],
        &["schedules"],
        &["invocations"],
        &["sandbox"],
        &["functions"],
        &["build"],
        &["notifications"],
        &["egress"],
        &["tokens"],
        &["nodes"],
        &["store"],
        &["resources"],
        &["docker"],
        &["telemetry"],
        &["runtimes", "starters"],
        &["domain"],
        &["config"],
    ];
    let level = |module: &str| layers.iter().position(|layer| layer.contains(&module));
    for (name, text) in sources("src") {
        let module = name.trim_start_matches("src/").split(['/', '.']).next().unwrap().to_owned();
        let own = level(&module).or(["lib", "main"].contains(&module.as_str()).then_some(0));
        let own = own.unwrap_or_else(|| panic!("{name} is in no layer"));
        let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for used in code.split("crate::").skip(1) {
            let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let upward = level(&used).is_some_and(|other| other < own);
            assert!(!upward, "{name} uses crate::{used}, which is above it");
        }
    }
}
