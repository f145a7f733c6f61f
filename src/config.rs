//! The operator's configuration: read once, checked, handed out in parts. No other file reads the environment.
//!
//! `config/raw.rs` lists the variables, and [`Config::from_vars`] has their defaults. `.env.example` has both; a test
//! compares.

mod environment;
mod parse;
mod raw;
mod uids;
mod variable;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use tracing::Level;

use parse::{
    parse, parse_builder, parse_cpus, parse_format, parse_hosts, parse_image, parse_level, parse_memory, parse_network,
    parse_preload, parse_rate, parse_repository, parse_runtime, parse_token, parse_transport,
};
use raw::Raw;
use variable::{SIZE, var};

pub use parse::{parse_duration, parse_size, whole_millis};
pub use uids::Uids;

/// The form of a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object each, for machines.
    Json,
}

/// The whole configuration, as at the start.
#[derive(Clone, Debug)]
pub struct Config {
    /// For the HTTP server.
    pub http: Http,
    /// For what is built.
    pub builds: Builds,
    /// For each container.
    pub sandbox: Sandbox,
    /// INSTANCE_UIDS: the users that containers run as, of which no two have the same.
    pub uids: Uids,
    /// For executions as a whole.
    pub pool: Pool,
    /// For each function.
    pub functions: Functions,
    /// For what is kept of them.
    pub history: History,
    /// TEMP_DIR_BASE: uploads and build contexts are kept here while they are needed.
    pub temp_dir_base: PathBuf,
    /// DATA_DIR: what must outlive a restart.
    pub data_dir: PathBuf,
    /// LOG_LEVEL.
    pub log_level: Level,
    /// LOG_FORMAT.
    pub log_format: LogFormat,
}

/// Configuration of the HTTP server.
#[derive(Clone, Debug)]
pub struct Http {
    /// SERVER_HOST.
    pub host: IpAddr,
    /// SERVER_PORT; 0 takes any free port.
    pub port: u16,
    /// SERVER_READ_TIMEOUT: the time a client has to deliver its whole request.
    pub read_timeout: Duration,
    /// SERVER_WRITE_TIMEOUT: the time a client may stall while it takes the response.
    pub write_timeout: Duration,
    /// SERVER_SHUTDOWN_TIMEOUT: the time running executions have to end after a signal.
    pub shutdown_timeout: Duration,
    /// MAX_FILE_SIZE of an uploaded zip, in bytes.
    pub max_file_size: u64,
    /// API_TOKEN: the bearer token that every request but health probes must carry.
    pub api_token: Option<Secret>,
    /// ALLOWED_HOSTS: this service's own names; addresses and localhost need not be among them.
    pub allowed_hosts: Vec<String>,
    /// RATE_LIMIT of each client's address; None for no limit.
    pub rate_limit: Option<RateLimit>,
}

/// A limit on a client's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// The number of requests, at once or spread.
    pub requests: NonZeroU32,
    /// The time in which the requests may come.
    pub period: Duration,
}

/// A value that must not appear in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// Configuration of builds.
#[derive(Clone, Debug)]
pub struct Builds {
    /// DOCKER_IMAGE_PREFIX: functions' images are named PREFIX/ID, runtime images PREFIX-runtime/LANGUAGE.
    pub image_prefix: String,
    /// PYTHON_IMAGE.
    pub python_image: String,
    /// GO_IMAGE.
    pub go_image: String,
    /// DOCKER_BUILD_TIMEOUT.
    pub timeout: Duration,
    /// MAX_CONCURRENT_BUILDS.
    pub max_concurrent: u32,
    /// BUILD_QUEUE_LIMIT: how many builds may wait for their turn.
    pub queue_limit: u32,
    /// MAX_UNPACKED_SIZE of a zip's content, in bytes.
    pub max_unpacked_size: u64,
    /// PYTHON_ALLOW_SOURCE_BUILDS: packages that have no wheel may be built, which runs their code.
    pub allow_source_builds: bool,
    /// DOCKER_BUILD_MEMORY_LIMIT of each step of a build, in bytes; without swap.
    pub memory: u64,
    /// DOCKER_BUILD_CPU_LIMIT of each step of a build, in processors.
    pub cpus: f64,
    /// DOCKER_BUILDKIT.
    pub builder: ImageBuilder,
    /// BUILD_NETWORK of downloads.
    pub network: BuildNetwork,
    /// BUILD_ENV: the service's own variables that downloads see, where they are set, with their values.
    pub environment: Vec<(String, Secret)>,
    /// DOCKER_RUNTIME of the containers that download.
    pub runtime: Option<String>,
    /// IMAGE_CACHE_LIMIT: what functions' images may take together, in bytes; None for no limit.
    pub image_cache_limit: Option<u64>,
    /// MIN_FREE_DISK: with less than this free, in bytes, no submit is taken.
    pub min_free_disk: u64,
}

/// The part of Docker that builds images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageBuilder {
    /// The classic builder, which limits the steps of a build.
    Classic,
    /// BuildKit, which takes no limits.
    BuildKit,
}

/// The network of downloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildNetwork {
    /// The network that Docker gives to a container.
    Default,
    /// No network.
    None,
}

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
    /// PRELOAD: the most that functions get preloaded.
    pub preload: PreloadLimit,
}

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

/// A variable with a value in a wrong form.
#[derive(Debug, Error)]
#[error("{variable} is {value:?}; expected {expected}")]
pub struct ConfigError {
    /// Its name.
    pub variable: String,
    /// Its value.
    pub value: String,
    /// The form expected.
    pub expected: String,
}

impl Config {
    /// Reads the configuration from pairs of name and value. An empty value counts as no value.
    pub fn from_vars(vars: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let vars: HashMap<_, _> = vars.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let raw = Raw::from_vars(&vars);
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let sandbox = Sandbox {
            memory: var!(raw.docker_memory_limit).read(128_000_000, MEMORY, parse_memory)?,
            cpus: var!(raw.docker_cpu_limit).read(1.0, CPUS, parse_cpus)?,
            pids: var!(raw.docker_pids_limit).count(64, 16, 4_000_000)?,
            tmpfs: var!(raw.docker_tmpfs_size).size(64_000_000)?,
            runtime: var!(raw.docker_runtime).read(None, "the name of a runtime such as runsc", parse_runtime)?,
            required: var!(raw.require_isolation).read(false, "true or false", parse)?,
        };
        let container_limit = var!(raw.docker_container_limit).count(10, 1, 100_000)?;
        let uids = var!(raw.instance_uids).uids(Uids::DEFAULT, container_limit)?;
        let run_timeout = var!(raw.docker_run_timeout).duration(30)?;
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64;
        let functions = Functions {
            max_memory: var!(raw.max_function_memory).read(1_000_000_000, MEMORY, parse_memory)?.max(sandbox.memory),
            max_cpus: var!(raw.max_function_cpus).read(processors, CPUS, parse_cpus)?.max(sandbox.cpus),
            max_timeout: var!(raw.max_function_timeout).duration(900)?.max(run_timeout),
            max_versions: var!(raw.max_function_versions).count(10, 2, 1000)?,
            preload: var!(raw.preload).read(PreloadLimit::Auto, "auto, stdlib or off", parse_preload)?,
        };
        Ok(Self {
            http: Http {
                host: var!(raw.server_host).read(localhost, "an IP address such as 127.0.0.1", parse)?,
                port: var!(raw.server_port).read(8080, "a port from 0 to 65535", parse)?,
                read_timeout: var!(raw.server_read_timeout).duration(10)?,
                write_timeout: var!(raw.server_write_timeout).duration(10)?,
                shutdown_timeout: var!(raw.server_shutdown_timeout).duration(5)?,
                max_file_size: var!(raw.max_file_size)
                    .read(10_000_000, FILE, |text| parse_size(text).filter(|&bytes| bytes <= MAX_FILE))?,
                api_token: var!(raw.api_token).read(None, "1 to 256 visible ASCII characters", parse_token)?,
                allowed_hosts: var!(raw.allowed_hosts).read(
                    Vec::new(),
                    "host names separated by commas",
                    parse_hosts,
                )?,
                rate_limit: var!(raw.rate_limit).read(
                    None,
                    "requests in a time such as 100/s, 600/m or 1000/5m",
                    parse_rate,
                )?,
            },
            builds: Builds {
                image_prefix: var!(raw.docker_image_prefix).read(
                    "youtube-serverless".to_owned(),
                    "a Docker repository name: lower-case letters and digits, separated by `.`, `_`, `-` or `/`",
                    parse_repository,
                )?,
                python_image: var!(raw.python_image).read("python:3.13-slim".to_owned(), IMAGE, parse_image)?,
                go_image: var!(raw.go_image).read("golang:1.25-bookworm".to_owned(), IMAGE, parse_image)?,
                timeout: var!(raw.docker_build_timeout).duration(300)?,
                max_concurrent: var!(raw.max_concurrent_builds).count(2, 1, 1000)?,
                queue_limit: var!(raw.build_queue_limit).count(100, 0, 100_000)?,
                max_unpacked_size: var!(raw.max_unpacked_size).size(100_000_000)?,
                allow_source_builds: var!(raw.python_allow_source_builds).read(false, "true or false", parse)?,
                memory: var!(raw.docker_build_memory_limit).read(2_000_000_000, MEMORY, parse_memory)?,
                cpus: var!(raw.docker_build_cpu_limit).read(2.0, CPUS, parse_cpus)?,
                builder: var!(raw.docker_buildkit).read(ImageBuilder::Classic, "0 or 1", parse_builder)?,
                network: var!(raw.build_network).read(BuildNetwork::Default, "default or none", parse_network)?,
                environment: var!(raw.build_env).build_environment(&vars)?,
                runtime: sandbox.runtime.clone(),
                image_cache_limit: var!(raw.image_cache_limit).read(None, SIZE, |text| parse_size(text).map(Some))?,
                min_free_disk: var!(raw.min_free_disk).size(500_000_000)?,
            },
            sandbox,
            uids,
            functions,
            pool: Pool {
                container_limit,
                run_timeout,
                max_output_size: var!(raw.max_output_size).read(1_000_000, OUTPUT, |text| {
                    parse_size(text).filter(|&bytes| bytes <= MAX_OUTPUT).map(|bytes| bytes as u32)
                })?,
                queue_limit: var!(raw.queue_limit).count(1000, 0, 1_000_000)?,
                queue_timeout: var!(raw.queue_timeout).duration(10)?,
                async_queue_limit: var!(raw.async_queue_limit).count(10_000, 0, 10_000_000)?,
                idle_timeout: var!(raw.instance_idle_timeout).duration(300)?,
                wants_pipes: var!(raw.instance_transport).read(false, "auto or pipes", parse_transport)?,
                max_invocations: var!(raw.instance_max_invocations).count(0, 0, u32::MAX)?,
            },
            history: History {
                retention: var!(raw.invocation_retention).duration(7 * 24 * 3600)?,
                max_invocations: var!(raw.invocation_limit).count(100_000, 1, u32::MAX)?.into(),
                max_output: var!(raw.invocation_output_size).size(64_000)?,
            },
            temp_dir_base: var!(raw.temp_dir_base).read(std::env::temp_dir(), "a directory", parse)?,
            data_dir: var!(raw.data_dir).read(PathBuf::from("data"), "a directory", parse)?,
            log_level: var!(raw.log_level).read(Level::INFO, "debug, info, warn or error", parse_level)?,
            log_format: var!(raw.log_format).read(LogFormat::Text, "text or json", parse_format)?,
        })
    }
}

/// The environment of this process, and below it the `.env` of the working directory if there is one.
///
/// # Errors
/// When there is a `.env` that can't be read.
pub fn environment() -> Result<HashMap<String, String>, dotenvy::Error> {
    let mut vars = HashMap::new();
    match dotenvy::from_filename_iter(".env") {
        Ok(lines) => vars.extend(lines.collect::<Result<Vec<_>, _>>()?),
        Err(error) if error.not_found() => {}
        Err(error) => return Err(error),
    }
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    let real = std::env::vars_os();
    // None of ours can be meant by what is not UTF-8.
    vars.extend(real.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))));
    Ok(vars)
}

/// The time limit of an export to a collector of traces, where the environment of this process names a collector by
/// OpenTelemetry's own variables. The library reads all other variables where the library needs them, so these
/// variables do not count in a `.env`.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn collector_limit() -> Option<Duration> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let is_named = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]
        .into_iter()
        .any(|name| set(name).is_some());
    let is_off = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let is_wanted = is_named && !is_off && set("OTEL_TRACES_EXPORTER").is_none_or(|exporter| exporter == "otlp");
    let limits = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
    let limit = limits.into_iter().find_map(|name| set(name)?.parse().ok().filter(|&limit| limit > 0));
    is_wanted.then(|| Duration::from_millis(limit.unwrap_or(10_000)))
}

const FILE: &str = "a size from 1 byte to 999MB, such as 10MB; the database takes no larger zip";
/// SQLite takes a billion bytes in a value, and in a row with what else stands there.
pub const MAX_FILE: u64 = 999_000_000;
const IMAGE: &str = "the name of a Docker image such as python:3.13-slim";
const MEMORY: &str = "a size of at least 16MB, such as 128MB";
/// The least that a container can live with, in bytes.
pub const MIN_MEMORY: u64 = 16_000_000;
const CPUS: &str = "a number of processors from 0.01, such as 0.5";
const OUTPUT: &str = "a size of at most 64MB, such as 1MB";
const MAX_OUTPUT: u64 = 64_000_000;

#[cfg(test)]
mod tests;
