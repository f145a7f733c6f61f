//! The operator's limits on functions.

use std::time::Duration;

use super::parse::{parse_cpus, parse_memory};
use super::value::{CPUS, MEMORY, var};
use super::variables::Variables;
use super::{ConfigError, HttpFunctions, HttpMode, Pool, Sandbox};

/// The most that instances of Python functions import before their first invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreloadLimit {
    /// Nothing.
    Off,
    /// Modules of the standard library.
    Stdlib,
    /// Modules of installed packages, too.
    Auto,
}

/// The operator's limits on functions' own settings.
#[derive(Clone, Debug)]
pub struct Functions {
    /// MAX_FUNCTION_MEMORY of a container, in bytes; never less than what functions have by default.
    pub max_memory: u64,
    /// MAX_FUNCTION_CPUS of a container, in processors; never less than what functions have by default.
    pub max_cpus: f64,
    /// MAX_FUNCTION_TIMEOUT of one invocation; never less than what functions have by default.
    pub max_timeout: Duration,
    /// MAX_FUNCTION_VERSIONS: how many of the last versions are kept.
    pub max_versions: u32,
    /// How many instances of all functions a node keeps at most: one less than DOCKER_CONTAINER_LIMIT, so that the
    /// other functions have a container.
    pub max_kept: u32,
    /// PRELOAD: the most that functions get preloaded.
    pub preload: PreloadLimit,
    /// HTTP_FUNCTIONS: whose requests may reach functions over HTTP. None where FUNCTIONS_PORT has no value.
    pub http: Option<HttpMode>,
    /// DOCKER_CONTAINER_LIMIT. A public function gets half of the containers where its own settings say nothing.
    pub containers: u32,
}

impl Functions {
    /// No limit is below what functions have by default, which is in `sandbox` and `pool`.
    pub(super) fn read(
        variables: &Variables,
        sandbox: &Sandbox,
        pool: &Pool,
        http: &HttpFunctions,
    ) -> Result<Self, ConfigError> {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64;
        let max_memory = var!(variables.max_function_memory).read(1_000_000_000, MEMORY, parse_memory)?;
        let max_cpus = var!(variables.max_function_cpus).read(processors, CPUS, parse_cpus)?;
        Ok(Self {
            max_memory: max_memory.max(sandbox.memory),
            max_cpus: max_cpus.max(sandbox.cpus),
            max_timeout: var!(variables.max_function_timeout).duration(900)?.max(pool.run_timeout),
            max_kept: pool.container_limit - 1,
            max_versions: var!(variables.max_function_versions).count(10, 2, 1000)?,
            preload: var!(variables.preload).read(PreloadLimit::Auto, "auto, stdlib or off", parse_preload)?,
            http: http.port.map(|_| http.most),
            containers: pool.container_limit,
        })
    }
}

fn parse_preload(text: &str) -> Option<PreloadLimit> {
    match text {
        "auto" => Some(PreloadLimit::Auto),
        "stdlib" => Some(PreloadLimit::Stdlib),
        "off" => Some(PreloadLimit::Off),
        _ => None,
    }
}
