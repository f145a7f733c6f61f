//! The words of this platform as types: parsed at the edge, trusted everywhere else. No I/O.

mod function;
mod idempotency;
mod invocation;
mod outcome;
mod preload;
pub mod settings;
mod version;

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use uuid::Uuid;

pub use function::{Executions, Package, Record, Update};
pub use idempotency::{Deployed, IdempotencyKey, Known, Queued};
pub use invocation::{InvocationRecord, Open, Page};
pub use outcome::{Outcome, signal_name};
pub use preload::{Excluded, InvalidPreload, Preload, Preloaded};
pub use version::{Image, VersionRecord};

/// Defines a type for one kind of id. An id is a UUID in its hyphenated form, which is the form that clients know.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $(#[$error_doc:meta])* $error:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// A new, random id.
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                match Uuid::try_parse(text) {
                    Ok(uuid) if text.len() == uuid::fmt::Hyphenated::LENGTH => Ok(Self(uuid)),
                    _ => Err($error(text.chars().take(64).collect())),
                }
            }
        }

        $(#[$error_doc])*
        #[derive(Debug, Error)]
        #[error("`{0}` is not {what}, which is a UUID such as 123e4567-e89b-42d3-a456-426614174000", what = $what)]
        pub struct $error(String);
    };
}

id!(
    /// Identifies a function for its whole life.
    FunctionId,
    /// The text is not the id of a function.
    NotAFunctionId,
    "a function id"
);
id!(
    /// Identifies an invocation.
    InvocationId,
    /// The text is not the id of an invocation.
    NotAnInvocationId,
    "an invocation id"
);

/// Identifies a version of a function: what was built of one zip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionId {
    /// The function's id.
    pub function: FunctionId,
    /// The version's number: from 1 on, in the order of the requests. A failed build leaves a gap.
    pub number: u32,
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} version {}", self.function, self.number)
    }
}

/// There is no function of this id.
#[derive(Clone, Debug, Error)]
#[error("no function with id {0}; GET /api/functions lists those there are")]
pub struct UnknownFunction(pub FunctionId);

/// There is no such version.
#[derive(Debug, Error)]
#[error("there is no version {} of function {}; GET /api/functions/{}/versions lists those there \
         are", .0.number, .0.function, .0.function)]
pub struct UnknownVersion(pub VersionId);

/// There is no function of this name.
#[derive(Debug, Error)]
#[error("no function has the name or id {0:?}; GET /api/functions lists those there are")]
pub struct UnknownName(pub String);

/// There is no invocation of this id.
#[derive(Debug, Error)]
#[error("no invocation with id {0}; it may have been forgotten after INVOCATION_RETENTION, or with its function")]
pub struct UnknownInvocation(pub InvocationId);

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

/// A language that functions can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Language {
    /// Run by the interpreter in PYTHON_IMAGE.
    Python,
    /// Compiled with the toolchain in GO_IMAGE.
    Go,
}

impl Language {
    /// All languages.
    pub const ALL: [Self; 2] = [Self::Python, Self::Go];

    /// The language's name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Go => "golang",
        }
    }
}

impl FromStr for Language {
    type Err = UnknownLanguage;

    fn from_str(text: &str) -> Result<Self, UnknownLanguage> {
        let known = Self::ALL.into_iter().find(|language| language.as_str() == text);
        known.ok_or_else(|| UnknownLanguage(text.chars().take(64).collect()))
    }
}

/// The text names no language that this platform runs.
#[derive(Debug, Error)]
#[error("`language` is {0:?}; it can be `python` or `golang`")]
pub struct UnknownLanguage(String);

/// Docker's content id of an image, `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageId(String);

impl ImageId {
    /// None when the text is not such an id.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("sha256:")?;
        let valid = digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        valid.then(|| Self(text.to_owned()))
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

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

    #[test]
    fn only_hyphenated_uuids_are_ids() {
        assert!("123e4567-e89b-42d3-a456-426614174000".parse::<FunctionId>().is_ok());
        assert!("123e4567e89b42d3a456426614174000".parse::<FunctionId>().is_err());
        assert!("{123e4567-e89b-42d3-a456-426614174000}".parse::<FunctionId>().is_err());
        assert!("".parse::<FunctionId>().is_err());
    }
}
