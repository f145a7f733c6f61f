//! Advice and warnings for the uploader, derived from a build's log. Pure.

use std::collections::HashSet;

use crate::build::package::{Dependencies, Program, Requirements};

/// The advice when go.mod and go.sum are not complete.
const TIDY: &str =
    "go.mod and go.sum do not name all modules that the program imports: run `go mod tidy`, and upload both files.";

/// Puts advice before the log of a failed build, when the log's errors are known here.
pub(super) fn advised(program: &Program, log: String) -> String {
    let modules = match program {
        Program::Go { modules, .. } => modules,
        Program::Python { dependencies: Some(Dependencies::Requirements(requirements)), .. } => {
            let lines = blamed(requirements, &log);
            return if lines.is_empty() { log } else { format!("{}\n{log}", lines.join("\n")) };
        }
        Program::Python { .. } => return log,
    };
    // Go does not build with a module that go.sum lacks, whether the module's download succeeded or not.
    let lacks_sums = !modules.is_empty() && !modules.iter().any(|(path, _)| path.ends_with("go.sum"));
    match of_go(&log).or_else(|| lacks_sums.then(|| TIDY.to_owned())) {
        Some(advice) => format!("{advice}\n{log}"),
        None => log,
    }
}

/// The requirement lines whose package the installer's error names, each with its file and line number.
fn blamed(requirements: &Requirements, log: &str) -> Vec<String> {
    let Some((_, error)) = log.split_once("error: ") else { return Vec::new() };
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let normal = |name: &str| name.trim_end_matches('.').to_ascii_lowercase().replace(['_', '.'], "-");
    let named: HashSet<String> = error.split(|c| !is_part(c)).filter(|word| !word.is_empty()).map(normal).collect();
    let mut lines = Vec::new();
    for file in &requirements.files {
        for (number, line) in file.text.lines().enumerate() {
            let name = line.trim_start().split(|c| !is_part(c)).next().unwrap_or_default();
            if !name.is_empty() && named.contains(&normal(name)) {
                lines.push(format!("{}, line {}: {}", file.name, number + 1, line.trim()));
            }
        }
    }
    lines.truncate(MAX_NAMED);
    lines
}

fn of_go(log: &str) -> Option<String> {
    let is_too_new = log.contains("invalid go version") || log.contains("requires go >=");
    let missing =
        ["is not in GOROOT", "is not in std"].iter().find_map(|words| log.split_once(words)).map(|(before, _)| before);
    // An import path without a dot in its first part names a package of the standard library or a folder of the zip.
    let path = missing.and_then(|before| before.trim_end().rsplit(' ').next());
    if is_too_new || log.contains("note: module requires Go") || path.is_some() {
        let platform = log.lines().find_map(|line| line.strip_prefix("go version ")?.split(' ').next());
        let platform = platform.unwrap_or("an older Go");
        return Some(match path {
            Some(path) if !is_too_new => format!(
                "{platform}, with which this platform builds, has no package `{path}` in its standard library. To \
                 import a folder of the zip, write MODULE/{path}, where MODULE is the module's name in go.mod."
            ),
            Some(_) | None => format!(
                "This platform builds with {platform} and downloads no other toolchain: lower the version in the `go` \
                 line of go.mod, and use only the features of that version."
            ),
        });
    }
    if log.contains("missing go.sum entry") || log.contains("no required module provides package") {
        return Some(TIDY.to_owned());
    }
    if log.contains("build constraints exclude all Go files") {
        let advice = "No Go file of the root is for this platform (Linux, cgo off): a file with `import \"C\"`, or \
                      with a build constraint that does not hold, is left out.";
        return Some(advice.to_owned());
    }
    if log.contains("no Go files in") || log.contains("no non-test Go files in") {
        return Some("The program's `package main` must be in the zip's root, beside go.mod.".to_owned());
    }
    None
}

/// How many files or lines the advice and the warnings name at most.
const MAX_NAMED: usize = 10;

/// A warning for each Python file that does not compile, as the build's log reports.
pub(super) fn uncompiled(log: &str) -> Vec<String> {
    let mut reports = log.split("*** Error compiling '/app/");
    // The text before the first separator is not a report.
    reports.next();
    reports.take(MAX_NAMED).filter_map(uncompiled_file).collect()
}

/// `report` begins with the file's path and a quote, and ends with the compiler's message.
fn uncompiled_file(report: &str) -> Option<String> {
    let (file, words) = report.split_once('\'')?;
    let error = words.lines().find(|line| line.split_once("Error: ").is_some_and(|(kind, _)| !kind.contains(' ')));
    Some(format!("{file} does not compile: {}", error.unwrap_or("see the stderr of an execution").trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::package::{RequirementFile, Role};

    #[track_caller]
    fn check(log: &str, expected: &str) {
        let hint = of_go(log).unwrap_or_default();
        assert!(hint.contains(expected), "{hint:?} for {log:?}");
    }

    #[test]
    fn a_hint_stands_before_the_compilers_words() {
        let too_new = "go version go1.19.8 linux/amd64\ngo: errors parsing go.mod:\n/app/go.mod:3: invalid go version \
                       '1.22.0': must match format 1.23\n";
        check(too_new, "builds with go1.19.8");
        check("go version go1.24.4 linux/amd64\ngo: go.mod requires go >= 1.99.0 (running go 1.24.4)\n", "go1.24.4");
        check("go: module lib listed in go.work file requires go >= 1.99 (running go 1.24.4)", "no other toolchain");
        let missing =
            "go version go1.19.8 linux/amd64\nm.go:2:8: package slices is not in GOROOT (/usr/lib/go-1.19/src/slices)";
        check(missing, "go1.19.8, with which this platform builds, has no package `slices`");
        check("m.go:2:8: package util is not in std (/usr/lib/go-1.24/src/util)", "MODULE/util");
        check("go: github.com/pkg/errors@v0.9.1: missing go.sum entry; to add it:", "go mod tidy");
        check("m.go:2:8: no required module provides package github.com/pkg/errors; to add it:", "go mod tidy");
        check("package h: build constraints exclude all Go files in /app", "cgo off");
        check("no Go files in /app", "in the zip's root");
        check("go build h: no non-test Go files in /app", "in the zip's root");
        assert_eq!(of_go("./main.go:3:1: syntax error"), None);
    }

    #[test]
    fn the_line_that_an_installer_refuses_is_named() {
        let file = |name: &str, text: &str| RequirementFile {
            name: name.to_owned(),
            role: Role::Requirements,
            text: text.to_owned(),
        };
        let files = vec![
            file("requirements.txt", "six\n# gone\nNo_Such.Package==9.9 ; python_version > '3'\n"),
            file("b.txt", "\nsix\n"),
        ];
        let requirements = Requirements { files, ..Requirements::default() };
        let log = "Using CPython 3.13.5\nerror: No solution found when resolving dependencies\n  cause: Because \
                   no-such-package was not found in the package registry and you require \
                   no-such-package==9.9, we can conclude";
        let expected = "requirements.txt, line 3: No_Such.Package==9.9 ; python_version > '3'";
        assert_eq!(blamed(&requirements, log), [expected]);
        assert!(blamed(&requirements, "Installed 1 package\n + six==1.16.0").is_empty());
    }

    #[test]
    fn files_that_do_not_compile_are_named() {
        let log = "*** Error compiling '/app/lib/broken.py'...\n  File \"/app/lib/broken.py\", line 1\n\
                   SyntaxError: invalid syntax\n";
        let warnings = uncompiled(log);
        assert_eq!(warnings, ["lib/broken.py does not compile: SyntaxError: invalid syntax"]);
        assert!(uncompiled("Collecting six\n").is_empty());
    }
}
