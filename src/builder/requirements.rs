//! Whether a `requirements.txt` can be installed without running code of the packages.
//!
//! `--only-binary :all:` on pip's command line is not enough: an option in the file can take it back, and it does not hold
//! for what is given by URL or path (<https://pip.pypa.io/en/stable/reference/requirements-file-format/>).

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::BuildError;

/// A longer file, in bytes, is no list of packages.
pub(super) const MAX_SIZE: u64 = 1 << 20;

/// Refuses a file by which a package could be built from its source.
pub(super) fn check(path: &Path) -> Result<(), BuildError> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_SIZE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_SIZE {
        return Err(BuildError::Requirements);
    }
    source_build(&String::from_utf8_lossy(&text)).map_or(Ok(()), |line| Err(BuildError::SourceBuild(line)))
}

/// Options that make pip run no code of a package.
const HARMLESS: [&str; 9] = [
    "--hash",
    "--index-url",
    "-i",
    "--extra-index-url",
    "--no-index",
    "--trusted-host",
    "--require-hashes",
    "--prefer-binary",
    "--pre",
];

/// The first line that would, or might.
fn source_build(requirements: &str) -> Option<String> {
    let lines = joined(requirements);
    let mut lines = lines.iter().enumerate().map(|(number, line)| (number, line.trim()));
    let line = lines.find(|&(number, line)| {
        // In the first lines pip looks for an encoding, in which the rest may read otherwise.
        let is_encoded = number < 2 && line.starts_with('#') && line.contains("coding");
        is_encoded || line.contains(ends_a_line_in_pip) || (!line.is_empty() && !line.starts_with('#') && !is_wheels_only(line))
    });
    line.map(|(_, line)| line).map(|line| line.chars().take(200).collect())
}

/// A backslash at the end of a line continues it, but not a comment.
fn joined(requirements: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut is_open = false;
    for line in requirements.lines() {
        let is_comment = line.trim_start().starts_with('#');
        let (text, continues) = line.strip_suffix('\\').map_or((line, false), |text| (text, !is_comment));
        match lines.last_mut().filter(|_| is_open) {
            Some(last) if is_comment => last.push_str(&format!(" {text}")),
            Some(last) => last.push_str(text),
            None => lines.push(text.to_owned()),
        }
        is_open = continues;
    }
    lines
}

/// What Python's `str.splitlines` takes for the end of a line, and Rust's `lines` does not.
fn ends_a_line_in_pip(c: char) -> bool {
    matches!(c, '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_wheels_only(line: &str) -> bool {
    let line = line.split(" #").next().unwrap_or(line).trim();
    let mut options = line.split_whitespace().filter(|word| word.starts_with('-')).peekable();
    // After an option pip reads the rest of the line as a shell would, quotes included.
    let is_quoted = options.peek().is_some() && line.contains(['"', '\'', '\\']);
    if is_quoted || !options.all(|option| HARMLESS.contains(&option.split('=').next().unwrap_or(option))) {
        return false;
    }
    if line.starts_with('-') {
        return true;
    }
    let requirement = line.split([';', ' ']).next().unwrap_or(line);
    let is_by_name = requirement.starts_with(|c: char| c.is_ascii_alphanumeric()) && !requirement.contains('/');
    let target = line.split_once('@').map_or(line, |(_, target)| target).trim();
    let target = target.split(['#', '?', ';', ' ']).next().unwrap_or(target);
    let is_reference = line.contains("://") || line.contains('@') || !is_by_name;
    !is_reference || target.ends_with(".whl")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_wheels_are_taken() {
        for good in [
            "six",
            "six==1.16.0  # pinned",
            "requests[socks] >= 2.8.1, == 2.8.* ; python_version < \"3.13\"",
            "# a comment\n\n",
            "--index-url https://pypi.example.org/simple\nsix",
            "six==1.16.0 \\\n    --hash=sha256:8abb2f1d",
            "six @ https://example.org/six-1.16.0-py2.py3-none-any.whl",
            "https://example.org/six-1.16.0-py2.py3-none-any.whl#sha256=8abb",
        ] {
            assert_eq!(source_build(good), None, "{good}");
        }
    }

    #[test]
    fn what_may_run_code_is_found() {
        for bad in [
            "--no-binary :all:",
            "--no-binary=six",
            "--pre --no-binary :all:",
            "--pre \"--no-binary\" :all:",
            "--only-binary :none:",
            "six --config-settings=x=y",
            "-e .",
            "-r other.txt",
            "-c constraints.txt",
            "--find-links ./wheels",
            "git+https://example.org/x.git",
            "x @ git+https://example.org/x.git",
            "x@https://example.org/x.tar.gz",
            "https://example.org/x-1.0.tar.gz",
            "https://example.org/x.zip?a=.whl",
            "./local",
            "../up",
            "/app/pkg",
            "pkg/",
            "file:///app/x.tar.gz",
            "--no-\\\nbinary :all:",
            "# a comment \\\n--no-binary :all:",
            "six\u{c}--no-binary :all:",
            "six\r--no-binary :all:",
            "six # \u{2028}--no-binary :all:",
            "+AC0ALQ-no-binary :all:",
        ] {
            assert!(source_build(&format!("six\n{bad}\n")).is_some(), "{bad}");
        }
        assert!(source_build("# coding: utf-7\nsix+AAo---no-binary +ADo-all+ADo-\n").is_some());
    }
}
