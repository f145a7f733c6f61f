//! The configuration of containers.

use super::ConfigError;
use super::parse::{parse_cpus, parse_memory};
use super::value::{CPUS, MEMORY, var};
use super::variables::Variables;

/// Limits of one container.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// DOCKER_MEMORY_LIMIT, in bytes; swap is off.
    pub memory: u64,
    /// DOCKER_CPU_LIMIT, in processors.
    pub cpus: f64,
    /// DOCKER_PIDS_LIMIT: processes and threads, our supervisor's few included.
    pub pids: u32,
    /// DOCKER_TMPFS_SIZE of /tmp, in bytes.
    pub tmpfs: u64,
    /// DOCKER_RUNTIME, such as `runsc`.
    pub runtime: Option<String>,
    /// REQUIRE_ISOLATION: where Docker does not give all of this, the service does not start.
    pub required: bool,
}

impl Sandbox {
    pub(super) fn read(variables: &Variables) -> Result<Self, ConfigError> {
        Ok(Self {
            memory: var!(variables.docker_memory_limit).read(128_000_000, MEMORY, parse_memory)?,
            cpus: var!(variables.docker_cpu_limit).read(1.0, CPUS, parse_cpus)?,
            pids: var!(variables.docker_pids_limit).count(64, 16, 4_000_000)?,
            tmpfs: var!(variables.docker_tmpfs_size).size(64_000_000)?,
            runtime: var!(variables.docker_runtime).read(None, "the name of a runtime such as runsc", parse_runtime)?,
            required: var!(variables.require_isolation).flag(false)?,
        })
    }
}

fn parse_runtime(text: &str) -> Option<Option<String>> {
    let valid = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b)) && !text.starts_with('-');
    valid.then(|| Some(text.to_owned()))
}
