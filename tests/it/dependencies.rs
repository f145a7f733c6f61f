//! The dependencies: licences that this project may ship, one source, and no crate twice without a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Licences whose terms are kept by naming them.
const LICENCES: [&str; 10] = [
    "MIT",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "Unicode-3.0",
    "CDLA-Permissive-2.0",
    "Unlicense",
];

/// Crates of which other crates need different versions. This project chooses none of these versions.
const TWICE: [&str; 12] = [
    "base64",
    "block-buffer",
    "constant_time_eq",
    "cpufeatures",
    "crypto-common",
    "digest",
    "getrandom",
    "hashbrown",
    "rand",
    "rand_core",
    "sha2",
    "syn",
];

fn packages() -> Vec<Value> {
    let metadata = cargo(&["metadata", "--format-version=1", "--locked", "--filter-platform=x86_64-unknown-linux-gnu"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let resolved: Vec<&Value> =
        metadata["resolve"]["nodes"].as_array().unwrap().iter().map(|node| &node["id"]).collect();
    let packages = metadata["packages"].as_array().unwrap().iter().filter(|package| resolved.contains(&&package["id"]));
    let packages: Vec<Value> = packages.cloned().collect();
    assert!(packages.len() > 100, "{}", packages.len());
    packages
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_licence_is_one_that_may_be_shipped() {
    for package in packages() {
        let licence = package["license"].as_str().unwrap_or_else(|| panic!("{} names no licence", package["name"]));
        let expression = spdx::Expression::parse_mode(licence, spdx::ParseMode::LAX).unwrap();
        let may = expression.evaluate(|needed| needed.license.id().is_some_and(|id| LICENCES.contains(&id.name)));
        assert!(may, "{} is under {licence}", package["name"]);
    }
}

#[test]
fn every_dependency_comes_from_the_registry() {
    for package in packages() {
        let (name, source) = (&package["name"], &package["source"]);
        let is_own = source.is_null() && name == env!("CARGO_PKG_NAME");
        assert!(
            is_own || source.as_str().is_some_and(|source| source.starts_with("registry+")),
            "{name} comes from {source}"
        );
    }
}

#[test]
fn no_crate_is_built_twice_without_a_reason() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in cargo(&["tree", "--locked", "--duplicates", "--depth=0", "--prefix=none", "--format={p}"]).lines() {
        if let Some((name, version)) = line.split_once(" v") {
            versions.entry(name.to_owned()).or_default().insert(version.trim_end_matches(" (*)").to_owned());
        }
    }
    let twice: Vec<String> =
        versions.into_iter().filter(|(_, versions)| versions.len() > 1).map(|(name, _)| name).collect();
    assert_eq!(twice, TWICE, "crates in more than one version");
}
