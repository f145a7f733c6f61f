//! Parses the name of a zip's entry into a path that can't lead out of a folder on any system.

use thiserror::Error;

const MAX_COMPONENT: usize = 255;
const MAX_PATH: usize = 1000;
/// How many parts a path may have: each part costs a look-up.
const MAX_PARTS: usize = 64;

/// A relative path: no `..`, no root, only `/` between components, and no empty component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EntryPath(Vec<String>);

/// Why a name is refused. The text follows the name in the error.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum InvalidPath {
    /// The name is empty.
    #[error("has an empty name")]
    Empty,
    /// The name is not UTF-8.
    #[error("has a name that is not UTF-8; zip it again with a tool that writes UTF-8 names")]
    NotUtf8,
    /// The name begins with `/`.
    #[error("is absolute; names must be relative")]
    Absolute,
    /// The name has a `..`.
    #[error("holds `..`, which could lead out of the package")]
    Parent,
    /// The name has a backslash, the separator of Windows.
    #[error("holds a backslash; zip it again with a tool that writes `/`")]
    Backslash,
    /// The name begins with a drive letter of Windows.
    #[error("begins with a drive letter; names must be relative")]
    DriveLetter,
    /// The name has a control character.
    #[error("holds a control character")]
    Control,
    /// The name is longer, or has more parts, than the limits allow.
    #[error("is longer than 1000 bytes, has a part longer than 255, or more than 64 parts")]
    TooLong,
}

impl EntryPath {
    /// Parses a raw name. Empty components and `.` are dropped: `a/`, `./a` and `a//b` become `a`, `a` and `a/b`.
    pub(super) fn parse(raw: &[u8]) -> Result<Self, InvalidPath> {
        let name = std::str::from_utf8(raw).map_err(|_| InvalidPath::NotUtf8)?;
        let mut start = name.chars();
        if name.chars().any(char::is_control) {
            return Err(InvalidPath::Control);
        }
        if name.contains('\\') {
            return Err(InvalidPath::Backslash);
        }
        if name.starts_with('/') {
            return Err(InvalidPath::Absolute);
        }
        if start.next().is_some_and(|c| c.is_ascii_alphabetic()) && start.next() == Some(':') {
            return Err(InvalidPath::DriveLetter);
        }
        let parts: Vec<String> = name.split('/').filter(|part| !matches!(*part, "" | ".")).map(str::to_owned).collect();
        if parts.iter().any(|part| part == "..") {
            return Err(InvalidPath::Parent);
        }
        if name.len() > MAX_PATH || parts.len() > MAX_PARTS || parts.iter().any(|part| part.len() > MAX_COMPONENT) {
            return Err(InvalidPath::TooLong);
        }
        if parts.is_empty() { Err(InvalidPath::Empty) } else { Ok(Self(parts)) }
    }

    /// Whether archivers and other tools add an entry of this name on their own. Such an entry is ignored.
    pub(super) fn is_ignored(&self) -> bool {
        let last = self.0.last().map(String::as_str);
        self.0[0] == "__MACOSX"
            || self.0.iter().any(|part| part == ".git")
            || matches!(last, Some(".DS_Store" | "Thumbs.db"))
    }

    pub(super) fn first(&self) -> &str {
        &self.0[0]
    }

    /// The path without its first component; None when the path has only one component.
    pub(super) fn without_first(&self) -> Option<Self> {
        (self.0.len() > 1).then(|| Self(self.0[1..].to_vec()))
    }

    /// The folders above the path, outermost first, and then the path itself, all joined with `/`.
    pub(super) fn ancestors_and_self(&self) -> impl Iterator<Item = String> {
        (1..=self.0.len()).map(|n| self.0[..n].join("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &[u8], expected: Result<&str, InvalidPath>) {
        let parsed = EntryPath::parse(name).map(|path| path.0.join("/"));
        assert_eq!(parsed, expected.map(str::to_owned), "{:?}", String::from_utf8_lossy(name));
    }

    #[test]
    fn relative_names_are_kept() {
        check(b"main.py", Ok("main.py"));
        check(b"a/b/c.py", Ok("a/b/c.py"));
        check(b"./a//b/", Ok("a/b"));
        check("naïve/日本.py".as_bytes(), Ok("naïve/日本.py"));
        check(b"..a/b..", Ok("..a/b.."));
    }

    #[test]
    fn names_that_could_lead_out_are_refused() {
        check(b"../a", Err(InvalidPath::Parent));
        check(b"a/../../b", Err(InvalidPath::Parent));
        check(b"a/..", Err(InvalidPath::Parent));
        check(b"/etc/passwd", Err(InvalidPath::Absolute));
        check(b"//server/share", Err(InvalidPath::Absolute));
        check(b"..\\a", Err(InvalidPath::Backslash));
        check(b"C:/a", Err(InvalidPath::DriveLetter));
        check(b"c:a", Err(InvalidPath::DriveLetter));
    }

    #[test]
    fn names_that_are_no_good_are_refused() {
        check(b"", Err(InvalidPath::Empty));
        check(b"./", Err(InvalidPath::Empty));
        check(b"a\0b", Err(InvalidPath::Control));
        check(b"a\nb", Err(InvalidPath::Control));
        check(b"a\x7f", Err(InvalidPath::Control));
        check(b"a\xff", Err(InvalidPath::NotUtf8));
        check(&[b'x'; 256], Err(InvalidPath::TooLong));
        check("x/".repeat(501).as_bytes(), Err(InvalidPath::TooLong));
    }

    #[test]
    fn what_archivers_add_is_ignored() {
        let ignored = |name: &str| EntryPath::parse(name.as_bytes()).unwrap().is_ignored();
        assert!(
            ignored("__MACOSX/._main.py") && ignored("a/.DS_Store") && ignored("Thumbs.db") && ignored("x/.git/config")
        );
        assert!(!ignored(".gitignore") && !ignored("a/__MACOSX") && !ignored("main.py"));
    }
}
