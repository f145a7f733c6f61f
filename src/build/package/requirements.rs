//! Reads requirement files, and reduces them to the lines that an installer may see. Pure.
//!
//! An installer gets only text that this module understands: one requirement or option a line, no comments, no lines
//! that continue, no names of other files. The installer interprets what a line says about packages.

use super::refusal::{DependencyError, MAX_FILES, MAX_TOTAL, Refusal};

/// A complete set of requirement files: the set has each file that another file of the set names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Requirements {
    /// The files, each once per role.
    pub files: Vec<RequirementFile>,
    /// Whether a file has `--pre`.
    pub prereleases: bool,
    /// Whether a file has `--require-hashes`.
    pub require_hashes: bool,
    /// The place of the first `--no-binary`, if any. With this option an installer builds packages, whatever its other
    /// options are.
    pub source_builds: Option<String>,
}

/// A requirement file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequirementFile {
    /// The file's path in the zip.
    pub name: String,
    /// The file's role.
    pub role: Role,
    /// The lines for the installer, with the same line numbers as in the zip's file.
    pub text: String,
}

/// The role of a requirement file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The file names packages to install.
    Requirements,
    /// The file limits the versions of packages that other files or packages require.
    Constraints,
}

impl Requirements {
    /// Whether there is nothing to install.
    pub fn is_empty(&self) -> bool {
        let mut lines =
            self.files.iter().filter(|file| file.role == Role::Requirements).flat_map(|file| file.text.lines());
        !lines.any(|line| !line.is_empty() && !line.starts_with('-'))
    }
}

/// A parsed line.
enum Line {
    Nothing,
    Kept(String),
    NoBinary(String),
    Prereleases,
    RequireHashes,
    Other(Role, String),
}

/// The requirements of the file `first` and of all files that `first` names, directly or through other files.
pub(super) fn of_files(
    read: &dyn Fn(&str) -> Result<String, DependencyError>,
    is_there: &dyn Fn(&str) -> bool,
    first: &str,
) -> Result<Requirements, DependencyError> {
    let mut found = Requirements::default();
    let mut waiting = vec![(first.to_owned(), Role::Requirements)];
    let mut total = 0;
    while let Some((name, role)) = waiting.pop() {
        if found.files.iter().any(|file| file.name == name && file.role == role) {
            continue;
        }
        if found.files.len() == MAX_FILES {
            return Err(DependencyError::TooMany);
        }
        let given = read(&name)?;
        total += given.len();
        if total > MAX_TOTAL {
            return Err(DependencyError::TooLargeTogether);
        }
        let mut text = String::new();
        let mut lines = 0;
        for (number, line) in logical_lines(&given) {
            let refused =
                |reason| DependencyError::Refused { file: name.clone(), place: format!("line {number}"), reason };
            let line = understood(&line).map_err(refused)?;
            if let Line::NoBinary(_) = line {
                found.source_builds.get_or_insert_with(|| format!("{name}, line {number}"));
            }
            match line {
                Line::Nothing => {}
                Line::Kept(line) | Line::NoBinary(line) => {
                    // Empty lines take the place of lines that say nothing to an installer, so that line numbers stay.
                    text.extend(std::iter::repeat_n('\n', number - 1 - lines));
                    text.extend([&line, "\n"]);
                    lines = number;
                }
                Line::Prereleases => found.prereleases = true,
                Line::RequireHashes => found.require_hashes = true,
                Line::Other(_, target) if target.contains('\\') => return Err(refused(Refusal::Backslash(target))),
                Line::Other(role, target) => {
                    let path = beside(&name, &target).ok_or_else(|| refused(Refusal::Outside(target)))?;
                    if !is_there(&path) {
                        return Err(refused(Refusal::Missing(path)));
                    }
                    waiting.push((path, role));
                }
            }
        }
        found.files.push(RequirementFile { name, role, text });
    }
    Ok(found)
}

/// The requirements that a file of another format lists one by one.
pub(super) fn of_list(file: &str, listed: &[&str]) -> Result<Requirements, DependencyError> {
    let mut text = String::new();
    for (index, requirement) in listed.iter().enumerate() {
        let place = || format!("dependency {}", index + 1);
        let refused = |reason| DependencyError::Refused { file: file.to_owned(), place: place(), reason };
        if requirement.contains(['\n', '\\']) {
            return Err(refused(Refusal::NotARequirement));
        }
        match understood(requirement.trim()).map_err(refused)? {
            Line::Kept(line) if !line.starts_with('-') => text.extend([&line, "\n"]),
            _ => return Err(refused(Refusal::NotARequirement)),
        }
    }
    let file = RequirementFile { name: file.to_owned(), role: Role::Requirements, text };
    Ok(Requirements { files: vec![file], ..Requirements::default() })
}

/// The requirements in the text that was exported from a lock.
pub fn of_export(text: &str) -> Result<Requirements, DependencyError> {
    of_files(&|_| Ok(text.to_owned()), &|_| false, "uv.lock")
}

/// Joins each line with the lines that continue the line, removes comments, and gives the number of each first line.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut is_open = false;
    for (number, line) in (1..).zip(text.split('\n')) {
        let is_comment = |(at, _): &(usize, char)| line[..*at].chars().next_back().is_none_or(char::is_whitespace);
        let code = line.char_indices().filter(|&(_, c)| c == '#').find(is_comment).map_or(line, |(at, _)| &line[..at]);
        let (code, continues) = code.trim_end().strip_suffix('\\').map_or((code, false), |code| (code, true));
        match lines.last_mut().filter(|_| is_open) {
            Some((_, last)) => last.push_str(code),
            None => lines.push((number, code.to_owned())),
        }
        is_open = continues;
    }
    lines
}

fn understood(line: &str) -> Result<Line, Refusal> {
    let is_control = |&c: &char| c != '\t' && (c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}'));
    if let Some(c) = line.chars().find(is_control) {
        return Err(Refusal::Control(c));
    }
    // A backslash at the end of the text continues no line.
    let line = line.trim().trim_end_matches('\\').trim_end();
    if line.contains("${") {
        return Err(Refusal::Variable);
    }
    if line.starts_with('-') {
        return option(line);
    }
    let options = line.split_whitespace().filter(|word| word.starts_with('-'));
    if let Some(name) = options.map(|word| word.split('=').next().unwrap_or(word)).find(|name| *name != "--hash") {
        return Err(Refusal::Option(name.to_owned()));
    }
    match requirement(line) {
        Some(local) => Err(Refusal::Local(local)),
        None if line.is_empty() => Ok(Line::Nothing),
        None => Ok(Line::Kept(line.to_owned())),
    }
}

/// Options that name another requirement file.
const FILES: [(&str, Role); 4] = [
    ("--requirements", Role::Requirements),
    ("--requirement", Role::Requirements),
    ("--constraints", Role::Constraints),
    ("--constraint", Role::Constraints),
];
/// Options whose value is a place of packages.
const PLACES: [&str; 5] = ["--index-url", "--extra-index-url", "--find-links", "-i", "-f"];

/// Other options that an installer gets.
const KEPT: [&str; 2] = ["--no-index", "--only-binary"];
/// Options of pip that have no meaning here, and are dropped.
const WITHOUT_MEANING: [&str; 3] = ["--prefer-binary", "--use-feature", "--disable-pip-version-check"];

fn option(line: &str) -> Result<Line, Refusal> {
    // The value may follow a short option without a space.
    let is_short = !line.starts_with("--");
    let end = if is_short {
        line.len().min(2)
    } else {
        line.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(line.len())
    };
    let (name, value) = line.split_at_checked(end).ok_or(Refusal::NotARequirement)?;
    let value = value.trim_start();
    let value = value.strip_prefix('=').unwrap_or(value).trim();
    let value = ['"', '\''].iter().find_map(|&q| value.strip_prefix(q)?.strip_suffix(q)).unwrap_or(value);
    let role = match name {
        "-r" => Some(Role::Requirements),
        "-c" => Some(Role::Constraints),
        name => FILES.iter().find(|(option, _)| *option == name).map(|&(_, role)| role),
    };
    if matches!(name, "-e" | "--editable") {
        return Err(Refusal::Editable);
    }
    if value.split_whitespace().skip(usize::from(role.is_some())).any(|word| word.starts_with('-')) {
        return Err(Refusal::Several);
    }
    match (name, role) {
        (_, Some(_)) if value.contains("://") => Err(Refusal::Remote),
        (_, Some(role)) => Ok(Line::Other(role, value.to_owned())),
        ("--pre", None) => Ok(Line::Prereleases),
        ("--require-hashes", None) => Ok(Line::RequireHashes),
        ("--no-binary", None) => Ok(Line::NoBinary(line.to_owned())),
        ("--trusted-host", None) => Err(Refusal::TrustedHost),
        (name, None) if WITHOUT_MEANING.contains(&name) => Ok(Line::Nothing),
        (name, None) if PLACES.contains(&name) && !is_remote(value) => Err(Refusal::Local(value.to_owned())),
        (name, None) if PLACES.contains(&name) || KEPT.contains(&name) => Ok(Line::Kept(line.to_owned())),
        (name, None) => Err(Refusal::Option(name.to_owned())),
    }
}

/// Whether a place is a URL of another machine.
fn is_remote(place: &str) -> bool {
    let scheme = place.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    let is_word =
        |scheme: &str| !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+.-".contains(&b));
    scheme.is_some_and(|scheme| is_word(&scheme) && !scheme.split('+').any(|part| part == "file"))
}

/// The local file or folder that a requirement is or names, if any.
fn requirement(line: &str) -> Option<String> {
    const ARCHIVES: [&str; 8] = [".whl", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst"];
    let after_name = line.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "._-".contains(c)).trim_start();
    let extras = after_name.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let after_extras = extras.map_or(after_name, |(_, rest)| rest).trim_start();
    let first = |text: &str| text.split(|c: char| c.is_whitespace() || c == ';').next().unwrap_or_default().to_owned();
    if let Some(target) = after_extras.strip_prefix('@') {
        let target = first(target.trim_start());
        return (!is_remote(&target)).then_some(target);
    }
    let word = first(line);
    let lower = word.to_ascii_lowercase();
    let is_path = lower.contains(['/', '\\'])
        || lower.starts_with(['.', '~'])
        || lower.starts_with("file:")
        || ARCHIVES.iter().any(|end| lower.split('[').next().is_some_and(|name| name.ends_with(end)));
    (is_path && !is_remote(&word)).then_some(word)
}

/// The path of `target` as seen from the folder of `file`. None when the path leads out of the package.
fn beside(file: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = file.split('/').collect();
    parts.pop();
    if target.starts_with('/') || target.contains('\0') {
        return None;
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests;
