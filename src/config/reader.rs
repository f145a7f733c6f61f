//! Reads variables one by one, with their defaults and their forms.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::{ConfigError, parse_duration, parse_size};

pub(super) const SIZE: &str = "a size above zero such as 10MB, 10MiB, or a number of bytes";

/// Looks variables up and remembers which there are.
pub(super) struct Reader {
    pub(super) vars: HashMap<String, String>,
    pub(super) known: BTreeSet<&'static str>,
}

impl Reader {
    pub(super) fn new(vars: impl IntoIterator<Item = (String, String)>) -> Self {
        let vars = vars.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        Self { vars, known: BTreeSet::new() }
    }

    pub(super) fn read<T>(
        &mut self,
        variable: &'static str,
        default: T,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        self.known.insert(variable);
        let Some(value) = self.vars.get(variable) else { return Ok(default) };
        parse(value).ok_or_else(|| ConfigError {
            variable: variable.to_owned(),
            value: if variable == "API_TOKEN" { "(not shown)".to_owned() } else { value.clone() },
            expected: expected.to_owned(),
        })
    }

    pub(super) fn duration(&mut self, variable: &'static str, seconds: u64) -> Result<Duration, ConfigError> {
        let expected = "a duration above zero such as 10s, 500ms, 5m, or a number of seconds";
        self.read(variable, Duration::from_secs(seconds), expected, parse_duration)
    }

    pub(super) fn size(&mut self, variable: &'static str, bytes: u64) -> Result<u64, ConfigError> {
        self.read(variable, bytes, SIZE, parse_size)
    }

    pub(super) fn count(
        &mut self,
        variable: &'static str,
        default: u32,
        least: u32,
        most: u32,
    ) -> Result<u32, ConfigError> {
        self.read(variable, default, &format!("a whole number from {least} to {most}"), |text| {
            text.parse().ok().filter(|count| (least..=most).contains(count))
        })
    }
}
