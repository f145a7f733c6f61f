//! The configuration of the HTTP server.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use super::parse::{parse, parse_duration, parse_size};
use super::value::var;
use super::variables::Variables;
use super::{ConfigError, Secret};

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
    /// SERVER_DRAIN_TIME: after a signal, the time for which requests are still taken while the service reports not to
    /// be ready.
    pub drain_time: Duration,
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

/// SQLite takes a billion bytes in a value, and in a row with what else stands there.
pub const MAX_FILE: u64 = 999_000_000;
const FILE: &str = "a size from 1 byte to 999MB, such as 10MB; the database takes no larger zip";

const DRAIN: &str = "0, or a duration such as 3s";

impl Http {
    pub(super) fn read(variables: &Variables) -> Result<Self, ConfigError> {
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Ok(Self {
            host: var!(variables.server_host).read(localhost, "an IP address such as 127.0.0.1", parse)?,
            port: var!(variables.server_port).read(8080, "a port from 0 to 65535", parse)?,
            read_timeout: var!(variables.server_read_timeout).duration(10)?,
            write_timeout: var!(variables.server_write_timeout).duration(10)?,
            shutdown_timeout: var!(variables.server_shutdown_timeout).duration(5)?,
            drain_time: var!(variables.server_drain_time).read(Duration::ZERO, DRAIN, parse_drain)?,
            max_file_size: var!(variables.max_file_size)
                .read(10_000_000, FILE, |text| parse_size(text).filter(|&bytes| bytes <= MAX_FILE))?,
            api_token: var!(variables.api_token).read(None, "1 to 256 visible ASCII characters", parse_token)?,
            allowed_hosts: var!(variables.allowed_hosts).read(
                Vec::new(),
                "host names separated by commas",
                parse_hosts,
            )?,
            rate_limit: var!(variables.rate_limit).read(
                None,
                "requests in a time such as 100/s, 600/m or 1000/5m",
                parse_rate,
            )?,
        })
    }
}

fn parse_token(text: &str) -> Option<Option<Secret>> {
    let valid = text.len() <= 256 && text.bytes().all(|b| b.is_ascii_graphic());
    valid.then(|| Some(Secret(text.to_owned())))
}

fn parse_hosts(text: &str) -> Option<Vec<String>> {
    let is_name =
        |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    names.iter().all(|name| is_name(name)).then_some(names)
}

fn parse_rate(text: &str) -> Option<Option<RateLimit>> {
    let (requests, period) = text.split_once('/')?;
    let period = if matches!(period, "s" | "m" | "h") { format!("1{period}") } else { period.to_owned() };
    Some(Some(RateLimit { requests: requests.parse().ok()?, period: parse_duration(&period)? }))
}

fn parse_drain(text: &str) -> Option<Duration> {
    if text == "0" { Some(Duration::ZERO) } else { parse_duration(text) }
}
