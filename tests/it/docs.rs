//! The documentation: links lead somewhere, and documents have every variable and route of the program.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

const LONGEST_LINE: usize = 120;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// All documents, by their path in this repository.
fn documents() -> BTreeMap<PathBuf, String> {
    let mut names: Vec<PathBuf> = ["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(PathBuf::from).into();
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            names.push(path.strip_prefix(root()).unwrap().to_owned());
        }
    }
    names.into_iter().map(|name| (name.clone(), read(name.to_str().unwrap()))).collect()
}

/// The lines outside code fences, with their numbers.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut is_code = false;
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            lines.push((index + 1, line));
        }
    }
    assert!(!is_code, "a code fence is not closed");
    lines
}

/// The anchors of a document, as GitHub makes them of headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen = BTreeMap::new();
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(text) {
        let title = line.trim_start_matches('#');
        if !line.starts_with('#') || !title.starts_with(' ') {
            continue;
        }
        let kept = title.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor = kept.collect::<String>().to_lowercase().replace(' ', "-");
        let n_before = seen.entry(anchor.clone()).or_insert(0);
        anchors.insert(if *n_before == 0 { anchor } else { format!("{anchor}-{n_before}") });
        *n_before += 1;
    }
    anchors
}

/// The targets of the links and pictures in a line.
fn links(line: &str) -> Vec<&str> {
    line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target).collect()
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => assert!(plain.pop(), "{} leaves the repository", path.display()),
            Component::CurDir => {}
            _ => plain.push(component),
        }
    }
    plain
}

/// The names of the variables of `.env.example`.
fn variables_of_example() -> BTreeSet<String> {
    let text = read(".env.example");
    let named = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    named.map(|(name, _)| name.to_owned()).collect()
}

/// The routes of the API's description: `GET /health` and so on.
fn routes() -> BTreeSet<String> {
    let mut routes = BTreeSet::new();
    let folders = ["src/http", "src/http/routes"].map(|folder| fs::read_dir(root().join(folder)).unwrap());
    for entry in folders.into_iter().flatten() {
        let path = entry.unwrap().path();
        if !path.is_file() {
            continue;
        }
        let source = fs::read_to_string(&path).unwrap();
        for description in source.split("#[utoipa::path(").skip(1) {
            let (method, rest) = description.split_once(',').unwrap();
            let path = rest.split_once("path = \"").unwrap().1.split_once('"').unwrap().0;
            routes.insert(format!("{} {path}", method.trim().to_uppercase()));
        }
    }
    assert!(routes.contains("GET /health"), "{routes:?}");
    routes
}

#[test]
fn links_lead_somewhere() {
    let documents = documents();
    for (name, text) in &documents {
        for (number, line) in prose(text) {
            for link in links(line) {
                if link.contains("://") || link.starts_with("mailto:") {
                    continue;
                }
                let place = format!("{}:{number}: {link}", name.display());
                let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
                let target = if file.is_empty() { name.clone() } else { plain(&name.with_file_name(file)) };
                assert!(root().join(&target).exists(), "{place}: there is no {}", target.display());
                if let Some(anchor) = anchor {
                    let headings = documents.get(&target).map(|text| anchors(text)).unwrap_or_default();
                    assert!(headings.contains(anchor), "{place}: no such heading; there are {headings:?}");
                }
            }
        }
    }
}

#[test]
fn each_variable_is_documented() {
    let text = read("docs/configuration.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")).filter_map(|row| row.split_once('`'));
    let documented: BTreeSet<String> = rows.map(|(name, _)| name.to_owned()).collect();
    assert_eq!(documented, variables_of_example(), "the table of docs/configuration.md, and .env.example");
}

#[test]
fn each_route_is_documented() {
    let text = read("docs/api.md");
    let headings: BTreeSet<String> =
        text.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).map(str::to_owned).collect();
    assert_eq!(headings, routes(), "the headings of docs/api.md, and the routes of src/http");
}

#[test]
fn no_line_of_prose_is_too_long() {
    for (name, text) in documents() {
        for (number, line) in prose(&text) {
            let is_free = line.starts_with('|') || line.contains("](") || line.contains("://");
            let n_columns = line.chars().count();
            assert!(is_free || n_columns <= LONGEST_LINE, "{}:{number} has {n_columns} columns", name.display());
        }
    }
}

#[test]
fn anchors_are_those_of_github() {
    let text = "# `GET /health`\n## What's in it?\n```sh\n# not a heading\n```\n## What's in it?\n#none\n";
    let expected = ["get-health", "whats-in-it", "whats-in-it-1"].map(str::to_owned);
    assert_eq!(anchors(text), BTreeSet::from(expected));
}
