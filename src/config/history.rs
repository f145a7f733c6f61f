//! The configuration of the history.

use std::time::Duration;

use super::ConfigError;
use super::value::var;
use super::variables::Variables;

/// Configuration of the history.
#[derive(Clone, Debug)]
pub struct History {
    /// INVOCATION_RETENTION: for how long.
    pub retention: Duration,
    /// INVOCATION_LIMIT: how many, over all functions.
    pub max_invocations: u64,
    /// INVOCATION_OUTPUT_SIZE: of input, stdout and stderr of a synchronous one, in bytes each.
    pub max_output: u64,
}

impl History {
    pub(super) fn read(variables: &Variables) -> Result<Self, ConfigError> {
        Ok(Self {
            retention: var!(variables.invocation_retention).duration(7 * 24 * 3600)?,
            max_invocations: var!(variables.invocation_limit).count(100_000, 1, u32::MAX)?.into(),
            max_output: var!(variables.invocation_output_size).size(64_000)?,
        })
    }
}
