//! The operator's configuration: read once, checked, handed out in parts. No other file reads the environment.
//!
//! `config/variables.rs` lists the variables, and the file of each part has their defaults. `.env.example` has both; a
//! test compares.

mod build_env;
mod builds;
mod egress;
mod files;
mod functions;
mod history;
mod http;
mod http_functions;
mod node;
mod parse;
mod pool;
mod rule;
mod sandbox;
mod store;
mod uids;
mod value;
mod variables;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use tracing::Level;

use parse::parse;
use value::var;
use variables::Variables;

pub use builds::{BuildNetwork, Builds, ImageBuilder};
pub use egress::Egress;
pub use functions::{Functions, PreloadLimit};
pub use history::History;
pub use http::{Http, MAX_FILE, RateLimit};
pub use http_functions::{HttpFunctions, HttpMode};
pub use node::Node;
pub use parse::{MIN_MEMORY, parse_duration, parse_size, whole_millis};
pub use pool::{Pool, Slots};
pub use rule::{Destination, Hosts, Rule, RuleError};
pub use sandbox::Sandbox;
pub use store::{SecretKey, Store};
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
    /// For requests that functions answer.
    pub http_functions: HttpFunctions,
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
    /// For what functions may reach.
    pub egress: Egress,
    /// For what is kept of them.
    pub history: History,
    /// TEMP_DIR_BASE: uploads and build contexts are kept here while they are needed.
    pub temp_dir_base: PathBuf,
    /// DATA_DIR: what must outlive a restart.
    pub data_dir: PathBuf,
    /// For the database.
    pub store: Store,
    /// For this node among others.
    pub node: Node,
    /// LOG_LEVEL.
    pub log_level: Level,
    /// LOG_FORMAT.
    pub log_format: LogFormat,
}

/// A value that must not appear in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
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
    /// Reads the configuration from pairs of name and value. An empty value counts as no value. `NAME_FILE`
    /// names a file with the value of NAME.
    pub fn from_vars(vars: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let vars: HashMap<_, _> = vars.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let variables = &Variables::from_vars(&vars)?;
        let sandbox = Sandbox::read(variables)?;
        let pool = Pool::read(variables)?;
        let http = Http::read(variables)?;
        let http_functions = HttpFunctions::read(variables, http.host)?;
        Ok(Self {
            builds: Builds::read(variables, var!(variables.build_env).build_environment(&vars)?, &sandbox)?,
            uids: var!(variables.instance_uids).uids(Uids::DEFAULT, pool.container_limit)?,
            functions: Functions::read(variables, &sandbox, &pool, &http_functions)?,
            http,
            http_functions,
            sandbox,
            pool,
            egress: Egress::read(variables)?,
            history: History::read(variables)?,
            temp_dir_base: var!(variables.temp_dir_base).read(std::env::temp_dir(), "a directory", parse)?,
            store: Store::read(variables)?,
            node: Node::read(variables)?,
            data_dir: var!(variables.data_dir).read(PathBuf::from("data"), "a directory", parse)?,
            log_level: var!(variables.log_level).read(Level::INFO, "debug, info, warn or error", parse_level)?,
            log_format: var!(variables.log_format).read(LogFormat::Text, "text or json", parse_format)?,
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

/// The file in which `docker login` leaves what registries want to see. The docker client, too, reads these variables
/// of the environment, so the variables do not count in a `.env`.
pub fn docker_logins() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("DOCKER_CONFIG").or_else(|| Some(set("HOME")?.join(".docker")))?;
    Some(folder.join("config.json"))
}

fn parse_level(text: &str) -> Option<Level> {
    match text {
        "debug" => Some(Level::DEBUG),
        "info" => Some(Level::INFO),
        "warn" => Some(Level::WARN),
        "error" => Some(Level::ERROR),
        _ => None,
    }
}

fn parse_format(text: &str) -> Option<LogFormat> {
    match text {
        "text" => Some(LogFormat::Text),
        "json" => Some(LogFormat::Json),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
