//! The documents: links lead somewhere, and every variable and route is described.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::tidy::sources;

const WIDEST: usize = 120;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// All documents, by their path from the repository's root.
fn documents() -> Vec<(String, String)> {
    let mut names: Vec<String> = ["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(str::to_owned).into();
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        names.extend(name.ends_with(".md").then(|| format!("docs/{name}")));
    }
    names.into_iter().map(|name| (name.clone(), read(&name))).collect()
}

/// The lines outside code blocks.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    text.lines().enumerate().filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// The anchors of a document's headings, by GitHub's rules.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter_map(|(_, line)| line.strip_prefix('#').map(|rest| rest.trim_start_matches('#')));
    let anchor = |heading: &str| {
        let kept = heading.trim().to_lowercase();
        kept.chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn links_lead_somewhere() {
    for (name, text) in documents() {
        for (number, line) in prose(&text) {
            for link in line.split("](").skip(1) {
                let link = link.split(')').next().unwrap();
                if link.starts_with("http") {
                    continue;
                }
                let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
                let place = format!("{name}:{}: {link}", number + 1);
                let beside = root().join(Path::new(&name).parent().unwrap());
                let target = if path.is_empty() { root().join(&name) } else { beside.join(path) };
                assert!(target.exists(), "{place} leads nowhere");
                if !anchor.is_empty() {
                    let text = fs::read_to_string(&target).unwrap();
                    assert!(anchors(&text).contains(anchor), "{place} has no such heading");
                }
            }
        }
    }
}

#[test]
fn each_variable_is_in_both_lists() {
    let example = read(".env.example");
    let known: BTreeSet<&str> = example
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    let text = read("docs/configuration.md");
    let rows = text.lines().filter(|line| line.starts_with("| ")).filter_map(|line| line.split('|').nth(1));
    let names = rows.flat_map(|names| names.split(", ")).map(str::trim);
    let described: BTreeSet<&str> = names.filter(|name| !["variable", "---"].contains(name)).collect();
    assert_eq!(described, known, "docs/configuration.md on the left, .env.example on the right");
}

#[test]
fn each_route_is_described() {
    let text = read("docs/api.md");
    let mut count = 0;
    for (name, source) in sources("src/http") {
        for route in source.split("utoipa::path(").skip(1) {
            let words: Vec<&str> = route.split(['(', ',', '"']).map(str::trim).collect();
            let method = words[0].to_uppercase();
            let path = route.split("path = \"").nth(1).unwrap().split('"').next().unwrap();
            // A parameter may have a shorter name in the text.
            let pieces: Vec<&str> = path.split('{').collect();
            let is_described = text.lines().any(|line| {
                line.contains(&method)
                    && pieces.iter().all(|piece| line.contains(piece.split('}').next_back().unwrap()))
            });
            assert!(is_described, "docs/api.md lacks {method} {path} of {name}");
            count += 1;
        }
    }
    assert!(count > 15, "{count} routes were found");
}

#[test]
fn lines_are_short() {
    for (name, text) in documents() {
        for (number, line) in prose(&text).filter(|(_, line)| !line.starts_with('|')) {
            assert!(line.chars().count() <= WIDEST, "{name}:{} has more than {WIDEST} columns", number + 1);
        }
    }
}
