//! The name of a function.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A function's name: 1 to 63 of letters, digits, `.`, `_`, `-` and space. Several functions may share a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionName(String);

const MAX_NAME_LENGTH: usize = 63;

impl FunctionName {
    /// Makes a name of a file's name: without `.zip` and without the characters that a name can't have. The name is
    /// `function` when no character is left.
    pub fn from_file_name(file_name: &str) -> Self {
        let base = file_name.rsplit(['/', '\\']).next().unwrap_or_default();
        let stem = match base.len().checked_sub(4) {
            Some(end) if base.is_char_boundary(end) && base[end..].eq_ignore_ascii_case(".zip") => &base[..end],
            _ => base,
        };
        let name: String = stem.chars().filter(|&c| is_name_character(c)).take(MAX_NAME_LENGTH).collect();
        match name.trim() {
            "" => Self("function".to_owned()),
            name => Self(name.to_owned()),
        }
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FunctionName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        let length = name.chars().count();
        let fits = (1..=MAX_NAME_LENGTH).contains(&length) && !name.trim().is_empty();
        match name.chars().find(|&c| !is_name_character(c)) {
            None if fits => Ok(Self(name.to_owned())),
            None => Err(InvalidName::Length(length)),
            Some(character) => Err(InvalidName::Character(character)),
        }
    }
}

impl fmt::Display for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn is_name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ' ')
}

/// Why a text can't be the name of a function.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InvalidName {
    /// Empty, blank or too long.
    #[error("`name` has {0} characters; give it 1 to 63, not only spaces")]
    Length(usize),
    /// A character outside the allowed set.
    #[error("`name` holds {0:?}; allowed are letters, digits, `.`, `_`, `-` and space")]
    Character(char),
}

/// There is no function of this name.
#[derive(Debug, Error)]
#[error("no function has the name or id {0:?}; GET /api/functions lists those there are")]
pub struct UnknownName(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_file_name(file_name: &str, expected: &str) {
        assert_eq!(FunctionName::from_file_name(file_name).as_str(), expected);
    }

    #[test]
    fn a_file_name_becomes_a_name() {
        check_file_name("hello.zip", "hello");
        check_file_name("Hello World.ZIP", "Hello World");
        check_file_name("../../etc/passwd.zip", "passwd");
        check_file_name("C:\\code\\thing.zip", "thing");
        check_file_name("naïve/ünï.zip", "n");
        check_file_name(".zip", "function");
        check_file_name("日本", "function");
        check_file_name(&"x".repeat(80), &"x".repeat(63));
    }

    #[test]
    fn names_are_checked() {
        assert!("a-b_c.d 9".parse::<FunctionName>().is_ok());
        assert_eq!("".parse::<FunctionName>(), Err(InvalidName::Length(0)));
        assert_eq!("  ".parse::<FunctionName>(), Err(InvalidName::Length(2)));
        assert_eq!("x".repeat(64).parse::<FunctionName>(), Err(InvalidName::Length(64)));
        assert_eq!("a/b".parse::<FunctionName>(), Err(InvalidName::Character('/')));
        assert_eq!("a\nb".parse::<FunctionName>(), Err(InvalidName::Character('\n')));
    }
}
