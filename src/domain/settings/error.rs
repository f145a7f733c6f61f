//! Why settings are refused.

use std::time::Duration;

use thiserror::Error;

use super::variable;
use super::{MAX_CONCURRENCY, MAX_COUNT, MAX_KEEP_WARM, MAX_VARIABLES};
use crate::config::{HttpMode, MIN_MEMORY};

/// The reason to refuse settings.
#[derive(Debug, Error, PartialEq)]
pub enum SettingsError {
    /// The memory limit is out of range.
    #[error("`memory` is {0} bytes; it can be {MIN_MEMORY} to {1} (MAX_FUNCTION_MEMORY)")]
    Memory(u64, u64),
    /// The share of processors is out of range.
    #[error("`cpus` is {0}; it can be 0.01 to {1} (MAX_FUNCTION_CPUS)")]
    Cpus(f64, f64),
    /// The time limit is out of range.
    #[error("`timeout` is {0:?}; it can be up to {1:?} (MAX_FUNCTION_TIMEOUT)")]
    Timeout(Duration, Duration),
    /// The number of invocations at one time is out of range.
    #[error("`concurrency` is {0}; it can be 1 to {MAX_CONCURRENCY}")]
    Concurrency(u32),
    /// The number of kept instances is out of range.
    #[error("`keepWarm` is {0}; it can be 0 to {MAX_KEEP_WARM}")]
    KeepWarm(u32),
    /// All functions together would have too many kept instances.
    #[error(
        "`keepWarm` of all functions would be {0} together; it can be {1}, as DOCKER_CONTAINER_LIMIT leaves one \
         container for the others"
    )]
    KeptTogether(u32, u32),
    /// No function answers requests over HTTP.
    #[error(
        "`http` is `{}`, and no function answers HTTP here, as {variable} {value}; leave `http` out, or have the \
         operator set {variable}",
        .mode.name()
    )]
    HttpOff {
        /// What the function asks for.
        mode: HttpMode,
        /// The operator's variable.
        variable: &'static str,
        /// What the variable says.
        value: &'static str,
    },
    /// The operator allows less.
    #[error("`http` is `{}`; it can be `off` or `{}` (HTTP_FUNCTIONS)", .0.name(), .1.name())]
    HttpNotAllowed(HttpMode, HttpMode),
    /// No variable can have this name.
    #[error("{0:?} can't be the name of an environment variable; use letters, digits and `_`, not a digit first")]
    Name(String),
    /// The variable belongs to the platform or to the language's runtime.
    #[error("the environment variable {0} is reserved; use another name")]
    Reserved(String),
    /// The variable names a proxy, and the function has a network.
    #[error(
        "the environment variable {0} is reserved where `network` is set, as programs find the way to their network by \
         the variable; take {0} away by null, or use another name"
    )]
    ReservedByNetwork(String),
    /// The value can't stand in an environment.
    #[error("the value of {0} holds a NUL character")]
    Nul(String),
    /// A value is over the limit.
    #[error("the value of {0} has {1} bytes; the limit is {max}", max = variable::MAX_VALUE)]
    TooLarge(String, usize),
    /// All variables and secrets together are over the limit.
    #[error("environment and secrets have {0} bytes together; the limit is {MAX_VARIABLES}")]
    TooMuch(usize),
    /// There are too many variables and secrets.
    #[error("environment and secrets have {0} variables together; the limit is {MAX_COUNT}")]
    TooMany(usize),
    /// One name is both a variable and a secret.
    #[error("{0} stands in `environment` and in `secrets`; take it out of one of them, by null")]
    Both(String),
}
