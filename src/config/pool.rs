//! The configuration of executions.

use std::time::Duration;

use super::ConfigError;
use super::parse::parse_size;
use super::value::var;
use super::variables::Variables;

/// Limits of executions.
#[derive(Clone, Debug)]
pub struct Pool {
    /// DOCKER_CONTAINER_LIMIT over all functions.
    pub container_limit: u32,
    /// DOCKER_RUN_TIMEOUT of one invocation.
    pub run_timeout: Duration,
    /// MAX_OUTPUT_SIZE kept of each stream, in bytes.
    pub max_output_size: u32,
    /// QUEUE_LIMIT: how many executions may wait for a container.
    pub queue_limit: u32,
    /// QUEUE_TIMEOUT: how long an execution may wait.
    pub queue_timeout: Duration,
    /// ASYNC_QUEUE_LIMIT: how many asynchronous executions may wait.
    pub async_queue_limit: u32,
    /// INSTANCE_IDLE_TIMEOUT: how long an instance is kept that nobody uses.
    pub idle_timeout: Duration,
    /// INSTANCE_TRANSPORT: whether instances are reached by pipes, although sockets may work.
    pub wants_pipes: bool,
    /// INSTANCE_MAX_INVOCATIONS: after how many an instance is replaced; 0 for never.
    pub max_invocations: u32,
}

const OUTPUT: &str = "a size of at most 64MB, such as 1MB";
const MAX_OUTPUT: u64 = 64_000_000;

impl Pool {
    pub(super) fn read(variables: &Variables) -> Result<Self, ConfigError> {
        Ok(Self {
            container_limit: var!(variables.docker_container_limit).count(10, 1, 100_000)?,
            run_timeout: var!(variables.docker_run_timeout).duration(30)?,
            max_output_size: var!(variables.max_output_size).read(1_000_000, OUTPUT, |text| {
                parse_size(text).filter(|&bytes| bytes <= MAX_OUTPUT).map(|bytes| bytes as u32)
            })?,
            queue_limit: var!(variables.queue_limit).count(1000, 0, 1_000_000)?,
            queue_timeout: var!(variables.queue_timeout).duration(10)?,
            async_queue_limit: var!(variables.async_queue_limit).count(10_000, 0, 10_000_000)?,
            idle_timeout: var!(variables.instance_idle_timeout).duration(300)?,
            wants_pipes: var!(variables.instance_transport).read(false, "auto or pipes", parse_transport)?,
            max_invocations: var!(variables.instance_max_invocations).count(0, 0, u32::MAX)?,
        })
    }
}

fn parse_transport(text: &str) -> Option<bool> {
    match text {
        "auto" => Some(false),
        "pipes" => Some(true),
        _ => None,
    }
}
