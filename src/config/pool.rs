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
    /// SLOTS_PYTHON and SLOTS_GO.
    pub slots: Slots,
    /// SLOT_CACHE_SIZE: the disk space of the files that slots may take, in bytes.
    pub slot_cache: u64,
    /// INSTANCE_IDLE_TIMEOUT: how long an instance is kept that nobody uses.
    pub idle_timeout: Duration,
    /// INSTANCE_TRANSPORT: whether instances are reached by pipes, although sockets may work.
    pub wants_pipes: bool,
    /// INSTANCE_MAX_INVOCATIONS: after how many an instance is replaced; 0 for never.
    pub max_invocations: u32,
}

/// How many containers without a function are held ready at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    /// SLOTS_PYTHON.
    pub python: u32,
    /// SLOTS_GO.
    pub go: u32,
}

impl Slots {
    /// At most half of all containers are slots.
    fn within(self, container_limit: u32) -> Self {
        let half = container_limit / 2;
        let go = self.go.min(half - self.python.min(half.div_ceil(2)).min(half));
        Self { python: self.python.min(half - go), go }
    }
}

const OUTPUT: &str = "a size of at most 64MB, such as 1MB";
const MAX_OUTPUT: u64 = 64_000_000;

impl Pool {
    pub(super) fn read(variables: &Variables) -> Result<Self, ConfigError> {
        let container_limit = var!(variables.docker_container_limit).count(10, 1, 100_000)?;
        let python = var!(variables.slots_python).count(2, 0, 1000)?;
        let go = var!(variables.slots_go).count(2, 0, 1000)?;
        Ok(Self {
            container_limit,
            slots: Slots { python, go }.within(container_limit),
            slot_cache: var!(variables.slot_cache_size).size(512_000_000)?,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_half_of_all_containers_are_slots() {
        let within = |python, go, limit| {
            let slots = Slots { python, go }.within(limit);
            (slots.python, slots.go)
        };
        assert_eq!(within(2, 2, 10), (2, 2));
        assert_eq!(within(2, 2, 6), (2, 1));
        assert_eq!(within(2, 2, 2), (1, 0));
        assert_eq!(within(2, 2, 1), (0, 0));
        assert_eq!(within(0, 9, 10), (0, 5));
        assert_eq!(within(9, 0, 10), (5, 0));
        assert_eq!(within(9, 1, 10), (4, 1));
    }
}
