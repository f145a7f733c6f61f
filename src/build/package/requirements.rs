//! Requirement files, reduced to what an installer may see of them. Pure.
//!
//! Only text that was understood here goes on: one requirement or option a line, no comments, no lines that continue, no
//! names of other files. What is said in it about packages is the installer's to understand.

use std::fmt::{self, Display, Formatter};

use super::dependencies::{DependencyError, MAX_FILES, MAX_TOTAL};

/// Requirement files that need no other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Requirements {
    /// All that there are, each once for what it is used as.
    pub files: Vec<RequirementFile>,
    /// One of them has `--pre`.
    pub prereleases: bool,
    /// One of them has `--require-hashes`.
    pub require_hashes: bool,
    /// Where one has `--no-binary`: with that an installer builds packages, whatever it is told besides.
    pub source_builds: Option<String>,
}

/// A requirement file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequirementFile {
    /// As the zip calls it.
    pub name: String,
    /// What it is used as.
    pub role: Role,
    /// Its lines, at the places where the zip's file has them.
    pub text: String,
}

/// What a file of requirements does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It names what is to be installed.
    Requirements,
    /// It names versions of what is installed for other reasons.
    Constraints,
}

/// Why a line is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `-e`.
    Editable,
    /// A file or folder in place of a package.
    Local(String),
    /// A place for the value of a variable.
    Variable,
    /// A requirement file at a URL.
    Remote,
    /// A requirement file that the zip does not have.
    Missing(String),
    /// A requirement file outside the zip.
    Outside(String),
    /// A requirement file by a path of Windows.
    Backslash(String),
    /// A host of which certificates are not checked.
    TrustedHost,
    /// Several options, of which not all are the installer's.
    Several,
    /// A character that some take for the end of a line.
    Control(char),
    /// An option in a list of requirements.
    NotARequirement,
    /// An option that is none of a requirement file's, or that only builds have.
    Option(String),
}

impl Display for Refusal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Editable => f.write_str(
                "an editable requirement has a project built, which runs its code; modules of the zip can be imported as they are, \
                 so leave it out, and list what the project itself needs",
            ),
            Self::Local(what) => write!(
                f,
                "{what:?} is a file or folder, and only packages of an index or at an http or https URL are installed; modules of \
                 the zip can be imported as they are"
            ),
            Self::Variable => f.write_str("`${` would be replaced by a variable of the service; write the value itself"),
            Self::Remote => f.write_str("the requirement file is at a URL; put it into the zip"),
            Self::Missing(name) => write!(f, "the zip has no file {name:?}"),
            Self::Outside(name) => write!(f, "{name:?} is outside the zip"),
            Self::Backslash(name) => write!(f, "{name:?} has a backslash; write {:?}", name.replace('\\', "/")),
            Self::TrustedHost => f.write_str(
                "`--trusted-host` would have certificates not checked, and the service decides on that; leave it out",
            ),
            Self::Several => f.write_str("there are several options in one line; give each a line of its own"),
            Self::Control(c) => write!(f, "there is a control character ({}); save it as plain text", c.escape_unicode()),
            Self::NotARequirement => f.write_str("this is not one requirement"),
            Self::Option(name) => write!(f, "the option {name:?} is not known; leave it out"),
        }
    }
}

impl Requirements {
    /// Nothing is to be installed.
    pub fn is_empty(&self) -> bool {
        let mut lines =
            self.files.iter().filter(|file| file.role == Role::Requirements).flat_map(|file| file.text.lines());
        !lines.any(|line| !line.is_empty() && !line.starts_with('-'))
    }
}

/// A line as it was understood.
enum Line {
    Nothing,
    Kept(String),
    NoBinary(String),
    Prereleases,
    RequireHashes,
    Other(Role, String),
}

/// Those of a file and of those that it names.
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
                    // In the place of the lines before it that say nothing to an installer.
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

/// Those that are listed one by one in a file of another form.
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

/// What was exported from a lock.
pub fn of_export(text: &str) -> Result<Requirements, DependencyError> {
    of_files(&|_| Ok(text.to_owned()), &|_| false, "uv.lock")
}

/// Lines with what continues them, without comments, by the number of their first.
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
    // A backslash that is still there continues nothing.
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

/// Options with which another file is meant.
const FILES: [(&str, Role); 4] = [
    ("--requirements", Role::Requirements),
    ("--requirement", Role::Requirements),
    ("--constraints", Role::Constraints),
    ("--constraint", Role::Constraints),
];
/// Options that have a place of packages as their value.
const PLACES: [&str; 5] = ["--index-url", "--extra-index-url", "--find-links", "-i", "-f"];

/// Other options that an installer of packages needs to know.
const KEPT: [&str; 2] = ["--no-index", "--only-binary"];
/// Options of pip's that mean nothing here.
const WITHOUT_MEANING: [&str; 3] = ["--prefer-binary", "--use-feature", "--disable-pip-version-check"];

fn option(line: &str) -> Result<Line, Refusal> {
    // Short ones may stand right before their values.
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

/// Whether it is a URL of another machine.
fn is_remote(place: &str) -> bool {
    let scheme = place.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    let is_word =
        |scheme: &str| !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+.-".contains(&b));
    scheme.is_some_and(|scheme| is_word(&scheme) && !scheme.split('+').any(|part| part == "file"))
}

/// Of a requirement, the file or folder that it is or names, if it does.
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

/// A path beside a file's; None when it leads out of the folder that both are in.
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
