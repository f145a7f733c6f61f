//! The value of one variable, and the way from its text to a type.

use std::time::Duration;

use super::{ConfigError, parse_duration, parse_size};

pub(super) const SIZE: &str = "a size above zero such as 10MB, 10MiB, or a number of bytes";
pub(super) const MEMORY: &str = "a size of at least 16MB, such as 128MB";
pub(super) const CPUS: &str = "a number of processors from 0.01, such as 0.5";

/// The variables whose values no message shows.
const SECRET: [&str; 4] = ["api_token", "cluster_token", "secrets_key", "store_url"];

/// A variable's value as the operator writes it. A variable without a value has its default.
pub(super) struct Value<'a> {
    /// The variable's name in lower case.
    pub(super) name: &'static str,
    pub(super) value: Option<&'a str>,
}

/// The [`Value`] of a field of [`Variables`](super::variables::Variables).
macro_rules! var {
    ($variables:ident.$field:ident) => {
        $crate::config::value::Value { name: stringify!($field), value: $variables.$field.as_deref() }
    };
}
pub(super) use var;

impl Value<'_> {
    pub(super) fn read<T>(
        &self,
        default: T,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        let Some(value) = self.value else { return Ok(default) };
        parse(value).ok_or_else(|| {
            let value = if SECRET.contains(&self.name) { "(not shown)" } else { value };
            self.refuse(value, expected)
        })
    }

    pub(super) fn duration(&self, seconds: u64) -> Result<Duration, ConfigError> {
        let expected = "a duration above zero such as 10s, 500ms, 5m, or a number of seconds";
        self.read(Duration::from_secs(seconds), expected, parse_duration)
    }

    pub(super) fn size(&self, bytes: u64) -> Result<u64, ConfigError> {
        self.read(bytes, SIZE, parse_size)
    }

    pub(super) fn flag(&self, default: bool) -> Result<bool, ConfigError> {
        self.read(default, "true or false", |text| text.parse().ok())
    }

    pub(super) fn count(&self, default: u32, least: u32, most: u32) -> Result<u32, ConfigError> {
        self.read(default, &format!("a whole number from {least} to {most}"), |text| {
            text.parse().ok().filter(|count| (least..=most).contains(count))
        })
    }

    /// The error for a value that the variable must not have.
    pub(super) fn refuse(&self, value: &str, expected: &str) -> ConfigError {
        ConfigError { variable: self.name.to_ascii_uppercase(), value: value.to_owned(), expected: expected.to_owned() }
    }
}
