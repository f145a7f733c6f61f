//! Preloading: the modules that an instance of a Python function imports before its first invocation. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::PreloadLimit;

/// The largest number of modules that a function can name.
const MAX_MODULES: usize = 200;
/// The longest name of a module, in bytes.
const MAX_NAME: usize = 200;
/// The time of an import that a warning is worth.
const SLOW: Duration = Duration::from_millis(50);

/// What a function asks to be preloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preload {
    /// The program's top-level imports from the standard library and from installed packages.
    Auto,
    /// The program's top-level imports from the standard library.
    Stdlib,
    /// Nothing.
    Off,
    /// These modules.
    Modules(Vec<String>),
}

/// The reason to refuse a text as [`Preload`].
#[derive(Debug, Error, PartialEq)]
#[error("`preload` is neither \"auto\", \"stdlib\", \"off\" nor a JSON list of up to {MAX_MODULES} module names")]
pub struct InvalidPreload;

/// What an instance has found out: which modules it imports before its invocations, and which it must leave out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preloaded {
    /// What was asked for, as [`Preload`] within the operator's limit is written.
    pub asked: String,
    /// The modules that are imported, in the order of their imports.
    pub modules: Vec<String>,
    /// The modules that are left out.
    pub excluded: Vec<Excluded>,
    /// The time that the imports took, which each invocation saves.
    pub saved: Duration,
}

/// A module that is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excluded {
    /// The module's name.
    pub module: String,
    /// What the module does that a new process must not inherit, for people.
    pub reason: String,
    /// The time of the module's import.
    pub took: Duration,
}

impl Preloaded {
    /// A warning for each module whose import costs each invocation more than `SLOW`.
    pub fn warnings(&self) -> Vec<String> {
        let slow = self.excluded.iter().filter(|excluded| excluded.took > SLOW);
        slow.map(|Excluded { module, reason, took }| {
            let took = took.as_millis();
            format!(
                "the import of {module} takes {took} ms of each invocation: the module can't be preloaded, because the \
                 module {reason}"
            )
        })
        .collect()
    }
}

impl Preload {
    /// What a function gets for this wish where the operator allows no more than `limit`.
    pub fn within(&self, limit: PreloadLimit) -> Self {
        match (limit, self) {
            (PreloadLimit::Off, _) => Self::Off,
            (PreloadLimit::Stdlib, Self::Auto) => Self::Stdlib,
            (PreloadLimit::Stdlib | PreloadLimit::Auto, wish) => wish.clone(),
        }
    }
}

impl fmt::Display for Preload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Stdlib => f.write_str("stdlib"),
            Self::Off => f.write_str("off"),
            Self::Modules(names) => f.write_str(&serde_json::to_string(names).map_err(|_| fmt::Error)?),
        }
    }
}

impl FromStr for Preload {
    type Err = InvalidPreload;

    fn from_str(text: &str) -> Result<Self, InvalidPreload> {
        match text {
            "auto" => return Ok(Self::Auto),
            "stdlib" => return Ok(Self::Stdlib),
            "off" => return Ok(Self::Off),
            _ => {}
        }
        let names: Vec<String> = serde_json::from_str(text).map_err(|_| InvalidPreload)?;
        let is_fine = names.len() <= MAX_MODULES && names.iter().all(|name| is_module(name));
        is_fine.then_some(Self::Modules(names)).ok_or(InvalidPreload)
    }
}

/// Whether a text can be a module's name: identifiers with dots between.
fn is_module(name: &str) -> bool {
    let is_identifier = |part: &str| {
        part.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    name.len() <= MAX_NAME && name.split('.').all(is_identifier)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read_as_written() {
        for text in ["auto", "stdlib", "off", r#"["json","os.path"]"#, "[]"] {
            assert_eq!(text.parse::<Preload>().unwrap().to_string(), text);
        }
        for text in ["", "on", "json", r#"{"json": 1}"#, r#"["a b"]"#, r#"["a..b"]"#, r#"["1a"]"#, r#"["a,b"]"#, "[1]"]
        {
            assert_eq!(text.parse::<Preload>(), Err(InvalidPreload), "{text}");
        }
    }

    #[test]
    fn the_operator_s_limit_is_the_most() {
        let list = Preload::Modules(vec!["json".to_owned()]);
        assert_eq!(list.within(PreloadLimit::Auto), list);
        assert_eq!(Preload::Auto.within(PreloadLimit::Stdlib), Preload::Stdlib);
        assert_eq!(list.within(PreloadLimit::Off), Preload::Off);
    }
}
