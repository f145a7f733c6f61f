//! Rules that say which hosts and ports may be reached. Pure.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use thiserror::Error;
use url::Host;

/// Hosts that may be reached on one port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The hosts.
    pub hosts: Hosts,
    /// The port, which is not 0.
    pub port: u16,
}

/// A set of hosts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Hosts {
    /// The host of this name, in lower case and with labels of IDNA in ASCII, without a dot at the end.
    Name(String),
    /// All hosts below this name, which is written like a name.
    Under(String),
    /// All addresses of a range. An address is a range of one.
    Range(IpNet),
    /// All hosts.
    All,
}

/// A host that a program asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// A name, in the form of [`Hosts::Name`].
    Name(String),
    /// An address.
    Address(IpAddr),
}

/// The reason to refuse a text as a rule.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{rule:?} is no rule of a network: {reason}")]
pub struct RuleError {
    /// The text.
    pub rule: String,
    /// What is wrong, and what to do.
    pub reason: &'static str,
}

impl Rule {
    /// Whether a program may reach a destination by this rule. A range holds addresses, and no name: otherwise each
    /// name would have to be resolved, which tells the name to the outside.
    pub fn allows(&self, destination: &Destination, port: u16) -> bool {
        self.port == port
            && match (&self.hosts, destination) {
                (Hosts::All, _) => true,
                (Hosts::Name(own), Destination::Name(name)) => own == name,
                (Hosts::Under(parent), Destination::Name(name)) => is_below(name, parent),
                (Hosts::Range(range), Destination::Address(address)) => range.contains(address),
                (Hosts::Name(_) | Hosts::Under(_), Destination::Address(_))
                | (Hosts::Range(_), Destination::Name(_)) => false,
            }
    }

    /// Whether everything that the other rule allows is allowed by this rule.
    pub fn covers(&self, other: &Self) -> bool {
        self.port == other.port
            && match (&self.hosts, &other.hosts) {
                (Hosts::All, _) => true,
                (Hosts::Name(own), Hosts::Name(name)) => own == name,
                (Hosts::Under(parent), Hosts::Name(name)) => is_below(name, parent),
                (Hosts::Under(parent), Hosts::Under(name)) => name == parent || is_below(name, parent),
                (Hosts::Range(range), Hosts::Range(part)) => range.contains(part),
                (Hosts::Name(_), _) | (Hosts::Under(_), _) | (Hosts::Range(_), _) => false,
            }
    }

    /// The name of a rule of one named host.
    pub fn name(&self) -> Option<&str> {
        match &self.hosts {
            Hosts::Name(name) => Some(name),
            Hosts::Under(_) | Hosts::Range(_) | Hosts::All => None,
        }
    }
}

/// Whether a name is below a parent: one label or more before the parent's.
fn is_below(name: &str, parent: &str) -> bool {
    name.strip_suffix(parent).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let refuse = |reason| RuleError { rule: text.chars().take(300).collect(), reason };
        let (hosts, port) = text.rsplit_once(':').ok_or_else(|| refuse("write HOST:PORT, such as example.com:443"))?;
        let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
        let port = port.parse().ok().filter(|_| is_number);
        let port = port.ok_or_else(|| refuse("the port is a number from 1 to 65535"))?;
        Ok(Self { hosts: parse_hosts(hosts).map_err(refuse)?, port })
    }
}

fn parse_hosts(text: &str) -> Result<Hosts, &'static str> {
    if text == "*" {
        return Ok(Hosts::All);
    }
    let is_bracketed = text.starts_with('[') && text.ends_with(']');
    let bare = if is_bracketed { &text[1..text.len() - 1] } else { text };
    if let Some(range) = parse_range(bare)? {
        return match range {
            IpNet::V6(_) if !is_bracketed => Err("an IPv6 address or range stands in brackets: [2001:db8::/32]:443"),
            IpNet::V4(_) if is_bracketed => Err("only IPv6 stands in brackets"),
            range => Ok(Hosts::Range(range)),
        };
    }
    if let Some(parent) = text.strip_prefix("*.") {
        return Ok(Hosts::Under(parse_name(parent)?));
    }
    Ok(Hosts::Name(parse_name(text)?))
}

fn parse_range(text: &str) -> Result<Option<IpNet>, &'static str> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Some(address.into()));
    }
    let Some((_, prefix)) = text.split_once('/') else { return Ok(None) };
    let range: IpNet = text.parse().map_err(|_| "a range is an address, a slash and a number of bits: 10.0.0.0/8")?;
    if prefix != range.prefix_len().to_string() || range.trunc() != range {
        return Err("the range has bits set behind its prefix; 10.0.0.0/8 is a range, 10.1.2.3/8 is not");
    }
    Ok(Some(range))
}

/// A host name of a rule.
fn parse_name(text: &str) -> Result<String, &'static str> {
    let Destination::Name(name) = text.parse()? else {
        return Err("the host is an address in an unusual form; write four numbers with dots, or a name");
    };
    if text.contains('*') {
        return Err("a star stands alone or before the first dot: *:443 or *.example.com:443");
    }
    let is_local = name == "localhost" || name.ends_with(".localhost") || name.starts_with("ip6-");
    // Docker names a container by the beginning of its id.
    let is_container = name.len() == 12 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_local || is_container {
        return Err("this name means the container itself");
    }
    Ok(name)
}

impl FromStr for Destination {
    type Err = &'static str;

    /// Reads a host as browsers do: IDNA becomes ASCII, and an IPv4 address may have the forms of the C library.
    fn from_str(text: &str) -> Result<Self, &'static str> {
        const NO_NAME: &str = "the host is no name of letters, digits, `-` and dots";
        match Host::parse(text).map_err(|_| NO_NAME)? {
            Host::Ipv4(address) => Ok(Self::Address(address.into())),
            Host::Ipv6(address) => Ok(Self::Address(address.into())),
            Host::Domain(name) => {
                let name = name.strip_suffix('.').unwrap_or(&name).to_owned();
                let is_label = |label: &str| {
                    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
                    (1..=63).contains(&label.len()) && label.bytes().all(is_plain) && !label.starts_with('-')
                };
                if name.len() > 253 || !name.split('.').all(is_label) {
                    return Err(NO_NAME);
                }
                Ok(Self::Name(name))
            }
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.hosts, self.port)
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Under(parent) => write!(f, "*.{parent}"),
            Self::Range(IpNet::V4(range)) if range.prefix_len() == 32 => write!(f, "{}", range.addr()),
            Self::Range(IpNet::V4(range)) => write!(f, "{range}"),
            Self::Range(IpNet::V6(range)) if range.prefix_len() == 128 => write!(f, "[{}]", range.addr()),
            Self::Range(IpNet::V6(range)) => write!(f, "[{range}]"),
            Self::All => f.write_str("*"),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn rule(text: &str) -> Rule {
        text.parse().unwrap()
    }

    #[test]
    fn a_rule_has_one_written_form() {
        let forms = [
            ("api.example.com:443", "api.example.com:443"),
            ("API.Example.COM.:443", "api.example.com:443"),
            ("bücher.example:80", "xn--bcher-kva.example:80"),
            ("*.example.org:443", "*.example.org:443"),
            ("10.1.2.3:6379", "10.1.2.3:6379"),
            ("10.0.0.0/8:6379", "10.0.0.0/8:6379"),
            ("[2001:DB8::/32]:443", "[2001:db8::/32]:443"),
            ("[::1]:443", "[::1]:443"),
            ("*:443", "*:443"),
            ("db_1.internal:65535", "db_1.internal:65535"),
        ];
        for (text, expected) in forms {
            assert_eq!(rule(text).to_string(), expected);
            assert_eq!(rule(expected), rule(text));
        }
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        let texts = [
            "",
            "example.com",
            ":443",
            "example.com:",
            "example.com:0",
            "example.com:65536",
            "example.com:0443",
            "example.com:+1",
            "example.com:https",
            "a b:443",
            "a/b:443",
            "http://example.com:443",
            "a*.example.com:443",
            "*.*.example.com:443",
            "*example.com:443",
            "**:443",
            "2001:db8::1:443",
            "[10.1.2.3]:443",
            "10.1.2.3/8:443",
            "10.0.0.0/33:443",
            "10.0.0.0/08:443",
            "0x7f.1:443",
            "010.1.2.3:443",
            "2130706433:443",
            "[fe80::1%eth0]:443",
            "localhost:443",
            "LOCALHOST.:443",
            "a.localhost:443",
            "*.localhost:443",
            "ip6-loopback:443",
            "ip6-localhost:80",
            "0123456789ab:443",
            "a..b:443",
            "-a.example:443",
            "user@example.com:443",
            "example.com:443:443",
            "example.com?:443",
            "example\0.com:443",
            "\u{ff0e}:443",
        ];
        for text in texts {
            assert!(text.parse::<Rule>().is_err(), "{text:?}");
        }
        assert!(format!("{}.com:443", "a".repeat(64)).parse::<Rule>().is_err());
        assert!(format!("{}com:443", "a.".repeat(130)).parse::<Rule>().is_err());
    }

    #[test]
    fn a_rule_allows_its_hosts_on_its_port() {
        let allows = |text: &str, host: &str, port| rule(text).allows(&host.parse().unwrap(), port);
        assert!(allows("a.example:443", "A.example.", 443));
        assert!(!allows("a.example:443", "a.example", 80));
        assert!(!allows("a.example:443", "b.a.example", 443));
        assert!(allows("*.a.example:443", "b.a.example", 443) && allows("*.a.example:443", "c.b.a.example", 443));
        assert!(!allows("*.a.example:443", "a.example", 443) && !allows("*.a.example:443", "ba.example", 443));
        assert!(!allows("*.a.example:443", ".a.example".trim_start_matches('.'), 443));
        assert!(allows("10.0.0.0/8:443", "10.1.2.3", 443) && allows("10.0.0.0/8:443", "0x0a010203", 443));
        assert!(!allows("10.0.0.0/8:443", "11.1.2.3", 443) && !allows("10.0.0.0/8:443", "a.example", 443));
        assert!(!allows("10.0.0.0/8:443", "[::ffff:10.1.2.3]", 443), "another address for a range");
        assert!(allows("*:443", "a.example", 443) && allows("*:443", "1.2.3.4", 443) && !allows("*:443", "a", 80));
        assert!(!allows("a.example:443", "1.2.3.4", 443));
    }

    #[test]
    fn a_rule_covers_what_allows_no_more() {
        let covers = |own: &str, other: &str| rule(own).covers(&rule(other));
        for text in ["a.example:443", "*.a.example:443", "10.0.0.0/8:443", "[2001:db8::/32]:443", "*:443"] {
            assert!(covers(text, text) && covers("*:443", text) && !covers("*:80", text), "{text}");
        }
        assert!(covers("*.example:443", "a.example:443") && covers("*.example:443", "*.a.example:443"));
        assert!(!covers("*.a.example:443", "*.example:443") && !covers("*.a.example:443", "a.example:443"));
        assert!(covers("10.0.0.0/8:443", "10.1.0.0/16:443") && covers("10.0.0.0/8:443", "10.1.2.3:443"));
        assert!(!covers("10.1.0.0/16:443", "10.0.0.0/8:443") && !covers("10.0.0.0/8:443", "*:443"));
        assert!(!covers("a.example:443", "*:443") && !covers("a.example:443", "10.1.2.3:443"));
    }
}
