//! The languages of functions.

use std::str::FromStr;

use thiserror::Error;

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
