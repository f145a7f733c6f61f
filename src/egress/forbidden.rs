//! What no function reaches, whatever the operator allows: the service itself, its database, its registry of images,
//! and the other nodes.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use parking_lot::Mutex;
use thiserror::Error;
use tokio::time::{self, Instant};

use super::address;
use super::names::{NameError, Names};
use crate::config::Destination;
use crate::nodes::NodeUrls;

/// The time for which the addresses of a server count as known.
const MAX_AGE: Duration = Duration::from_secs(5);
/// The longest wait for the addresses of all servers with one port.
const LIMIT: Duration = Duration::from_secs(1);
/// A server may have had another address a moment ago: so many of its last addresses are refused, too.
const MAX_ADDRESSES: usize = 64;

/// What no function reaches.
#[derive(Clone, Debug, Default)]
pub struct Forbidden {
    /// The ports on which this process listens, on each address of this machine.
    pub ports: Vec<u16>,
    /// The servers that the service itself needs.
    pub servers: Vec<Server>,
    /// The nodes that share the store.
    pub nodes: NodeUrls,
}

/// A server that the service itself needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// What the server is, such as "the database of STORE_URL".
    pub kind: &'static str,
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// A destination that no function reaches.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(super) enum Prohibition {
    /// The destination is such a server.
    #[error("this is {0}, which no function reaches")]
    Server(&'static str),
    /// Whether the destination is such a server can't be told.
    #[error("this may be {0}, whose name does not resolve just now; no function reaches that server")]
    Unknown(&'static str),
}

/// The port for datagrams that nobody reads.
const DISCARD: u16 = 9;

const OWN: &str = "the service itself";
const NODE: &str = "a node of the service";

/// Compares destinations with what is forbidden, and remembers the addresses of the servers.
#[derive(Debug)]
pub(super) struct Guard {
    forbidden: Forbidden,
    known: Mutex<HashMap<String, Known>>,
}

/// What is known of a server's name.
#[derive(Clone, Debug)]
struct Known {
    asked: Instant,
    /// The last addresses, the newest first.
    addresses: Vec<IpAddr>,
    /// Whether the name has never resolved, and may yet.
    is_unknown: bool,
}

/// The addresses with one port that no function reaches.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// Addresses with what they are of.
    known: Vec<(IpAddr, &'static str)>,
    /// What all addresses of this machine are of.
    own: Option<&'static str>,
}

impl Guard {
    pub(super) fn new(forbidden: Forbidden) -> Self {
        Self { forbidden, known: Mutex::default() }
    }

    /// The addresses that are forbidden with a port. Fails where the destination is forbidden by its name.
    pub(super) async fn addresses(
        &self,
        names: &Names,
        destination: &Destination,
        port: u16,
    ) -> Result<Addresses, Prohibition> {
        let mut addresses = Addresses::default();
        if self.forbidden.ports.contains(&port) {
            addresses.own = Some(OWN);
        }
        let servers: Vec<(Destination, &'static str)> = self.servers(port);
        if let Some((_, kind)) = servers.iter().find(|(host, _)| host == destination) {
            return Err(Prohibition::Server(kind));
        }
        let deadline = Instant::now() + LIMIT;
        for (host, kind) in servers {
            let known = self.known(names, &host, deadline).await.ok_or(Prohibition::Unknown(kind))?;
            // A server of this machine may listen on all addresses of the machine.
            if addresses.own.is_none() && known.iter().any(|address| is_of_this_machine(*address)) {
                addresses.own = Some(kind);
            }
            addresses.known.extend(known.into_iter().map(|address| (address.to_canonical(), kind)));
        }
        Ok(addresses)
    }

    /// The servers that have a port.
    fn servers(&self, port: u16) -> Vec<(Destination, &'static str)> {
        let Forbidden { servers, nodes, .. } = &self.forbidden;
        let servers = servers.iter().map(|server| (server.host.clone(), server.port, server.kind));
        let nodes = nodes.hosts().into_iter().map(|(host, port)| (host, port, NODE));
        let servers = servers.chain(nodes).filter(|(_, other, _)| *other == port);
        let destination = |host: &str| match host.parse() {
            Ok(address) => Some(Destination::Address(address)),
            Err(_) => host.parse().ok(),
        };
        servers.filter_map(|(host, _, kind)| Some((destination(&host)?, kind))).collect()
    }

    /// The addresses of a server. None where these are not known, and may be any.
    async fn known(&self, names: &Names, host: &Destination, deadline: Instant) -> Option<Vec<IpAddr>> {
        let name = match host {
            Destination::Address(address) => return Some(vec![*address]),
            Destination::Name(name) => name,
        };
        let known = self.known.lock().get(name).cloned();
        if let Some(known) = known.as_ref().filter(|known| known.asked.elapsed() < MAX_AGE) {
            return known.usable();
        }
        let (mut addresses, was_unknown) =
            known.map_or((Vec::new(), true), |known| (known.addresses, known.is_unknown));
        let is_unknown = match time::timeout_at(deadline, names.addresses(name)).await {
            Ok(Ok(found)) => {
                addresses.retain(|address| !found.contains(address));
                addresses.splice(0..0, found);
                addresses.truncate(MAX_ADDRESSES);
                false
            }
            // A name that does not exist has no server.
            Ok(Err(NameError::Unknown)) => false,
            Ok(Err(NameError::Unresolved(_))) | Err(_) => was_unknown,
        };
        let known = Known { asked: Instant::now(), addresses, is_unknown };
        let usable = known.usable();
        let mut all = self.known.lock();
        // Nodes come and go.
        all.retain(|other, known| other == name || known.asked.elapsed() < Duration::from_secs(3600));
        all.insert(name.clone(), known);
        usable
    }
}

impl Known {
    fn usable(&self) -> Option<Vec<IpAddr>> {
        (!self.is_unknown).then(|| self.addresses.clone())
    }
}

impl Addresses {
    /// Fails where an address is forbidden.
    pub(super) fn check(&self, address: IpAddr) -> Result<(), Prohibition> {
        for meaning in address::meanings(address) {
            if let Some((_, kind)) = self.known.iter().find(|(known, _)| *known == meaning) {
                return Err(Prohibition::Server(kind));
            }
            if let Some(kind) = self.own.filter(|_| is_of_this_machine(meaning)) {
                return Err(Prohibition::Server(kind));
            }
        }
        Ok(())
    }
}

/// Whether an address is one of this machine's. The kernel sends to such an address from that address itself. Nothing
/// is sent here. A try to bind a socket would not tell where `ip_nonlocal_bind` is set.
pub(super) fn is_of_this_machine(address: IpAddr) -> bool {
    let sender = || {
        let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((address, DISCARD))?;
        socket.local_addr()
    };
    address.is_loopback() || address.is_unspecified() || matches!(sender(), Ok(own) if own.ip() == address)
}

#[cfg(test)]
mod tests;
