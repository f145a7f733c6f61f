//! What functions may reach beyond their containers.

use std::time::Duration;

use ipnet::IpNet;

use super::value::var;
use super::variables::Variables;
use super::{ConfigError, Rule};

const RULES: &str =
    "rules such as api.example.com:443, *.example.org:443, 10.0.0.0/8:5432 or *:443, with commas between";
const RANGES: &str = "ranges of addresses such as 10.0.0.0/8 or fd00::/8, with commas between";

/// The operator's limits on the networks of functions.
#[derive(Clone, Debug)]
pub struct Egress {
    /// EGRESS_ALLOW: what a function's own rules may allow. Empty where no function may have a network.
    pub allow: Vec<Rule>,
    /// EGRESS_PRIVATE: the private and other special ranges that functions may reach.
    pub private: Vec<IpNet>,
    /// EGRESS_CONNECTIONS: the most connections of an instance at one time.
    pub connections: u32,
    /// EGRESS_CONNECT_TIMEOUT: the longest time from a program's connection to the connection with the host.
    pub connect_timeout: Duration,
}

impl Egress {
    pub(super) fn read(variables: &Variables) -> Result<Self, ConfigError> {
        Ok(Self {
            allow: var!(variables.egress_allow).read(Vec::new(), RULES, |text| list(text, |rule| rule.parse().ok()))?,
            private: var!(variables.egress_private).read(Vec::new(), RANGES, |text| list(text, range))?,
            connections: var!(variables.egress_connections).count(64, 1, 1000)?,
            connect_timeout: var!(variables.egress_connect_timeout).duration(5)?,
        })
    }
}

/// The parts of a list with commas.
pub(super) fn list<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    text.split(',').map(|part| parse(part.trim())).collect()
}

/// A range, or an address as a range of one.
pub(super) fn range(text: &str) -> Option<IpNet> {
    let range = text.parse().or_else(|_| text.parse().map(|address: std::net::IpAddr| address.into())).ok()?;
    (IpNet::trunc(&range) == range).then_some(range)
}
