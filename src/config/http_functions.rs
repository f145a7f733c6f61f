//! Functions that answer HTTP requests of their own.

use std::net::IpAddr;

use ipnet::IpNet;

use super::ConfigError;
use super::egress::{list, range};
use super::parse::{parse, parse_size};
use super::value::var;
use super::variables::Variables;

const RANGES: &str = "addresses or ranges such as 127.0.0.1 or 10.0.0.0/8, with commas between";
const DOMAIN: &str = "a host name such as functions.example.com, without a port";
const SIZE: &str = "a size from 1 byte to 100MB, such as 10MB";
/// The largest MAX_REQUEST_SIZE: an instance has the whole body in its memory while a program reads the body.
const MOST: u64 = 100_000_000;

/// Whose requests reach a function over HTTP, from nobody's to everybody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum HttpMode {
    /// No requests.
    #[default]
    Off,
    /// Requests with a token of the platform.
    Token,
    /// All requests.
    Public,
}

impl HttpMode {
    /// All modes.
    pub const ALL: [Self; 3] = [Self::Off, Self::Token, Self::Public];

    /// The mode's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Token => "token",
            Self::Public => "public",
        }
    }

    /// The mode of this name. None when no mode has the name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }
}

/// Configuration of the listener for functions.
#[derive(Clone, Debug)]
pub struct HttpFunctions {
    /// FUNCTIONS_PORT; 0 takes any free port. None for no such listener.
    pub port: Option<u16>,
    /// FUNCTIONS_HOST.
    pub host: IpAddr,
    /// FUNCTIONS_DOMAIN, in lower case: each function is also the host of its name below this domain.
    pub domain: Option<String>,
    /// HTTP_FUNCTIONS: the most that functions get.
    pub most: HttpMode,
    /// TRUSTED_PROXIES: the peers whose word counts for a client's address and for TLS.
    pub trusted_proxies: Vec<IpNet>,
    /// MAX_REQUEST_SIZE of a body, in bytes.
    pub max_request_size: u64,
}

impl HttpFunctions {
    /// `host` is that of the API, which counts without FUNCTIONS_HOST.
    pub(super) fn read(variables: &Variables, host: IpAddr) -> Result<Self, ConfigError> {
        let port = |text: &str| text.parse().ok().map(Some);
        Ok(Self {
            port: var!(variables.functions_port).read(None, "a port from 0 to 65535", port)?,
            host: var!(variables.functions_host).read(host, "an IP address such as 127.0.0.1", parse)?,
            domain: var!(variables.functions_domain).read(None, DOMAIN, |text| domain(text).map(Some))?,
            most: var!(variables.http_functions).read(HttpMode::Token, "off, token or public", HttpMode::from_name)?,
            trusted_proxies: var!(variables.trusted_proxies).read(Vec::new(), RANGES, |text| list(text, range))?,
            max_request_size: var!(variables.max_request_size)
                .read(10_000_000, SIZE, |text| parse_size(text).filter(|&bytes| bytes <= MOST))?,
        })
    }

    /// The most that functions get here: nothing where there is no listener.
    pub fn limit(&self) -> HttpMode {
        if self.port.is_some() { self.most } else { HttpMode::Off }
    }
}

fn domain(text: &str) -> Option<String> {
    let is_label = |label: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(is_plain) && !label.starts_with('-')
    };
    (text.len() <= 253 && text.split('.').all(is_label)).then(|| text.to_ascii_lowercase())
}
