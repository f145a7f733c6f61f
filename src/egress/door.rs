//! The doors of a function: listening sockets on loopback addresses of the container. Pure.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::config::Rule;
use crate::domain::settings::network::Network;
use crate::domain::settings::variable::PROXIES;

/// The address of the proxy's door.
const PROXY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 1, 0, 1), 3128);
/// The address of the first name; the next names have the next addresses.
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 2);

/// What is reached without the proxy: loopback, as clients write the addresses in NO_PROXY. Python knows no ranges.
const DIRECT: &str = "localhost,127.0.0.1,127.0.0.0/8,::1";

/// What a connection at a door wants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Gate {
    /// A connection to this host.
    Host {
        /// The host's name, as in the function's rule.
        name: String,
        /// The port, inside and outside.
        port: u16,
    },
    /// The client names the host by HTTP.
    Proxy,
}

/// A gate, and the address inside the container on which the gate listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// The gate.
    pub gate: Gate,
    /// A loopback address of the container's own network.
    pub address: SocketAddrV4,
}

/// The doors of a function, no two with the same address and port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doors(Vec<Door>);

impl Doors {
    /// The doors for a function's rules. Each exact name has a loopback address of its own, by the order of the rules,
    /// and a door for each port. The proxy has a door where a rule is no exact name.
    pub fn of(network: &Network) -> Self {
        let mut names: Vec<&str> = Vec::new();
        let mut doors = Vec::new();
        if network.allow.iter().any(|rule| rule.name().is_none()) {
            doors.push(Door { gate: Gate::Proxy, address: PROXY });
        }
        for (name, port) in network.allow.iter().filter_map(|rule: &Rule| Some((rule.name()?, rule.port))) {
            let number = names.iter().position(|known| *known == name).unwrap_or(names.len());
            if number == names.len() {
                names.push(name);
            }
            let offset = u32::try_from(number).expect("a function has few rules");
            let address = SocketAddrV4::new(Ipv4Addr::from_bits(FIRST.to_bits() + offset), port);
            doors.push(Door { gate: Gate::Host { name: name.to_owned(), port }, address });
        }
        Self(doors)
    }

    /// The doors, in a fixed order for a function's rules.
    pub fn iter(&self) -> std::slice::Iter<'_, Door> {
        self.0.iter()
    }

    /// The number of doors.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no door.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names with their addresses inside the container, each name once.
    pub fn hosts(&self) -> Vec<(String, Ipv4Addr)> {
        let mut hosts: Vec<(String, Ipv4Addr)> = Vec::new();
        for door in &self.0 {
            if let Gate::Host { name, .. } = &door.gate
                && !hosts.iter().any(|(known, _)| known == name)
            {
                hosts.push((name.clone(), *door.address.ip()));
            }
        }
        hosts
    }

    /// The address of the proxy's door, where there is one.
    pub fn proxy(&self) -> Option<SocketAddrV4> {
        self.0.iter().find(|door| door.gate == Gate::Proxy).map(|door| door.address)
    }

    /// The environment variables by which programs find the proxy. There are none without a proxy.
    pub fn variables(&self) -> Vec<(String, String)> {
        let Some(proxy) = self.proxy() else { return Vec::new() };
        let value = |name: &str| match name {
            "NO_PROXY" | "no_proxy" => DIRECT.to_owned(),
            _ => format!("http://{proxy}"),
        };
        PROXIES.iter().map(|&name| (name.to_owned(), value(name))).collect()
    }
}

impl<'a> IntoIterator for &'a Doors {
    type Item = &'a Door;
    type IntoIter = std::slice::Iter<'a, Door>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn doors(rules: &[&str]) -> Doors {
        Doors::of(&Network::new(rules).unwrap())
    }

    #[test]
    fn each_name_has_an_address_and_each_port_a_door() {
        let doors = doors(&["b.example:443", "a.example:443", "b.example:80"]);
        let found: Vec<(String, String)> = doors
            .iter()
            .map(|door| match &door.gate {
                Gate::Host { name, port } => (format!("{name}:{port}"), door.address.to_string()),
                Gate::Proxy => panic!("a proxy without a need"),
            })
            .collect();
        let expected =
            [("b.example:443", "127.1.0.2:443"), ("a.example:443", "127.1.0.3:443"), ("b.example:80", "127.1.0.2:80")];
        assert_eq!(found, expected.map(|(to, address)| (to.to_owned(), address.to_owned())));
        let hosts = [("b.example", [127, 1, 0, 2]), ("a.example", [127, 1, 0, 3])];
        assert_eq!(doors.hosts(), hosts.map(|(name, address)| (name.to_owned(), Ipv4Addr::from(address))));
        assert_eq!((doors.proxy(), doors.variables()), (None, Vec::new()));
        assert_eq!((doors.len(), doors.is_empty()), (3, false));
    }

    #[test]
    fn other_rules_have_the_proxy() {
        for rule in ["*.example.org:443", "10.0.0.0/8:6379", "10.1.2.3:6379", "[2001:db8::/32]:443", "*:443"] {
            let doors = doors(&["a.example:443", rule]);
            assert_eq!(doors.proxy(), Some("127.1.0.1:3128".parse().unwrap()), "{rule}");
            assert_eq!(doors.len(), 2);
            assert_eq!(doors.hosts().len(), 1);
        }
        let variables = doors(&["*:443", "*:80"]).variables();
        let value = |name: &str| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
            assert_eq!(value(name), Some("http://127.1.0.1:3128"), "{name}");
        }
        assert_eq!(value("NO_PROXY"), Some("localhost,127.0.0.1,127.0.0.0/8,::1"));
        assert_eq!((value("no_proxy"), variables.len()), (value("NO_PROXY"), 8));
    }

    #[test]
    fn no_two_doors_have_the_same_address() {
        // A name may have the port of the proxy.
        let many = (1..=31).map(|number| format!("{number}.example:3128")).chain(["*:3128".to_owned()]);
        let doors = Doors::of(&Network::new(many).unwrap());
        let addresses: HashSet<SocketAddrV4> = doors.iter().map(|door| door.address).collect();
        assert_eq!((doors.len(), addresses.len()), (32, 32));
        assert!(addresses.iter().all(|address| address.ip().is_loopback()));
    }
}
