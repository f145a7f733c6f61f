//! Doors: what a function may reach, who decides, and how the bytes get there.
//!
//! A container has no network. A program connects to a door, which is a listening socket in the container whose
//! connections the service takes. The service then decides: a rule of the function and of the operator must allow the
//! destination, and the address that a name leads to is checked before that very address is connected to.
//!
//! ```text
//! program ── door ── serve ── gate: a host ──────────────── rules ─ names ─ addresses ─ connect ─┬─ carry
//!                          └─ gate: the proxy ─ head of HTTP ─┘                                   └─ forward
//! ```
//! No task outlives [`Egress::serve`], and a drop of its future resets both connections.

mod address;
mod body;
mod carry;
mod connect;
mod door;
mod forbidden;
mod head;
mod names;
mod proxy;
mod splice;
mod traffic;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time;
use tracing::field::Empty;
use tracing::{Instrument, Span};

pub use door::{Door, Doors, Gate};
pub use forbidden::{Forbidden, Server};
pub use traffic::Traffic;

use crate::config::{self, Destination, Hosts, Rule};
use crate::domain::settings::network::Network;
use crate::resources::descriptors;
use crate::telemetry::metrics;
use address::Reach;
use carry::{End, carry};
use connect::{ConnectError, connect};
use forbidden::Guard;
use names::{Lookup, Names};
use traffic::{Logged, Meter};

/// The connections of all functions together take no more than this part of the descriptors that the process has.
const PART_OF_DESCRIPTORS: u64 = 4;
/// The descriptors of a connection, which has both ends, and a pipe for a stream. Attempts to reach hosts take more,
/// and for a moment.
const DESCRIPTORS: u64 = 4;
/// The time that a client of the proxy has for the head of its request.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";
const DNS_PORT: u16 = 53;

/// The way out of all functions of this process. All clones are the same.
#[derive(Clone, Debug)]
pub struct Egress(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    config: config::Egress,
    guard: Guard,
    names: Names,
    head_limit: Duration,
}

/// Why a connection does not come about.
#[derive(Debug)]
enum Denial {
    /// The destination is not allowed, or the client's request is none.
    Refused(String),
    /// The destination does not take the connection.
    Failed(String),
    /// EGRESS_CONNECT_TIMEOUT is over.
    Timeout(String),
}

/// Why the service itself does not get a connection for a function, in words.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct NotReached(String);

/// What the connections of an invocation have in common.
#[derive(Clone, Copy, Debug)]
struct Context<'a> {
    network: &'a Network,
    traffic: &'a Traffic,
}

impl Egress {
    /// The way out. Names are resolved as this machine resolves names, and a machine without name servers has none.
    pub fn new(config: &config::Egress, forbidden: Forbidden) -> Self {
        let names = Names::new(PathBuf::from(HOSTS), PathBuf::from(RESOLV_CONF), DNS_PORT, config.connect_timeout);
        Self::with(config, forbidden, names, HEAD_LIMIT)
    }

    fn with(config: &config::Egress, forbidden: Forbidden, names: Names, head_limit: Duration) -> Self {
        Self(Arc::new(Parts { config: config.clone(), guard: Guard::new(forbidden), names, head_limit }))
    }

    /// Serves one connection that a program has opened at a door: connects to the destination, and carries bytes until
    /// both sides have ended their halves. What does not come about is reset, or answered where the gate speaks HTTP.
    /// Dropping the future resets both connections.
    pub async fn serve(&self, gate: &Gate, network: &Network, inner: TcpStream, traffic: &Traffic) {
        let inner = End::new(inner);
        // Bytes are passed on as they come.
        let _ = inner.set_nodelay(true);
        let _open = metrics::egress_open();
        let context = Context { network, traffic };
        let span = match traffic.has_span() {
            true => tracing::debug_span!(
                "door",
                egress.to = Empty,
                egress.sent_bytes = Empty,
                egress.received_bytes = Empty,
                egress.reason = Empty
            ),
            false => Span::none(),
        };
        let served = async {
            match gate {
                Gate::Host { name, port } => self.serve_host(name, *port, inner, context).await,
                Gate::Proxy => self.serve_proxy(inner, context).await,
            }
        };
        served.instrument(span).await;
    }

    /// Connects to the one host of a rule, for a function whose settings name the host: by the same checks as a
    /// connection at a door of that rule, EGRESS_ALLOW included.
    pub async fn dial(&self, rule: &Rule) -> Result<TcpStream, NotReached> {
        let destination = match &rule.hosts {
            Hosts::Name(name) => Destination::Name(name.clone()),
            Hosts::Range(range) if range.prefix_len() == range.max_prefix_len() => Destination::Address(range.addr()),
            Hosts::Range(_) | Hosts::Under(_) | Hosts::All => {
                return Err(NotReached(format!("{rule}: this is no single host")));
            }
        };
        let (network, limit) = (Network { allow: vec![rule.clone()] }, self.0.config.connect_timeout);
        let connected = time::timeout(limit, self.connect(&destination, rule.port, &network)).await;
        let connected = connected.unwrap_or_else(|_| Err(timed_out(&rule.to_string(), limit)));
        connected.map_err(|denial| NotReached(denial.reason().to_owned()))
    }

    async fn serve_host(&self, name: &str, port: u16, inner: End, context: Context<'_>) {
        let destination = Destination::Name(name.to_owned());
        if let Ok((outer, meter)) = self.reach(&destination, port, context).await {
            ended(carry(inner, outer, &[], &meter).await, &meter);
        }
    }

    /// Connects to a destination, and notes what came of that.
    async fn reach(&self, destination: &Destination, port: u16, context: Context<'_>) -> Result<(End, Meter), Denial> {
        let to = format!("{destination}:{port}");
        Span::current().record("egress.to", &to);
        let limit = self.0.config.connect_timeout;
        let connected = time::timeout(limit, self.connect(destination, port, context.network)).await;
        let connected = connected.unwrap_or_else(|_| Err(timed_out(&to, limit)));
        match connected {
            Ok(stream) => {
                metrics::egress_connection("ok");
                Ok((End::new(stream), context.traffic.connected(&to)))
            }
            Err(denial) => {
                context.deny(&to, &denial);
                Err(denial)
            }
        }
    }

    async fn connect(&self, destination: &Destination, port: u16, network: &Network) -> Result<TcpStream, Denial> {
        let Parts { guard, names, .. } = &*self.0;
        let to = format!("{destination}:{port}");
        let refused = |reason: String| Denial::Refused(format!("{to}: {reason}"));
        let failed = |reason: String| Denial::Failed(format!("{to}: {reason}"));
        let reach = self.0.reach(destination, port, network).map_err(|reason| refused(reason.to_owned()))?;
        let forbidden = guard.addresses(names, destination, port).await.map_err(|error| refused(error.to_string()))?;
        let lookup = match destination {
            Destination::Name(name) => names.look_up(name).await,
            Destination::Address(address) => Lookup::of(vec![*address]),
        };
        let check = |address| {
            address::judge(address, reach, forbidden::is_of_this_machine).map_err(|error| error.to_string())?;
            forbidden.check(address).map_err(|error| error.to_string())
        };
        connect(lookup, port, check).await.map_err(|error| match error {
            ConnectError::Refused(reason) => refused(reason),
            ConnectError::Name(error) => failed(error.to_string()),
            ConnectError::Failed(error) => failed(error.to_string()),
        })
    }
}

impl Parts {
    /// What a connection to a destination may reach. Fails where the destination is not allowed.
    fn reach(&self, destination: &Destination, port: u16, network: &Network) -> Result<Reach<'_>, &'static str> {
        let mut is_allowed = false;
        let mut is_exact = false;
        for rule in network.allow.iter().filter(|rule| rule.allows(destination, port)) {
            is_allowed = true;
            is_exact |= matches!(rule.hosts, Hosts::Name(_) | Hosts::Range(_));
        }
        if !is_allowed {
            return Err("no rule of the function's network allows this");
        }
        // The operator may have taken back what was allowed when the function was submitted.
        if !self.config.allow.iter().any(|rule| rule.allows(destination, port)) {
            return Err("EGRESS_ALLOW does not allow this");
        }
        Ok(Reach { private: &self.config.private, is_exact })
    }
}

impl Context<'_> {
    /// Notes a connection that does not come about.
    fn deny(&self, to: &str, denial: &Denial) {
        metrics::egress_connection(denial.result());
        self.note(to, denial.reason());
    }

    /// Notes what was not done. The log has the reason, unless the invocation has filled the log.
    fn note(&self, to: &str, reason: &str) {
        Span::current().record("egress.reason", reason);
        match self.traffic.refused(to, reason) {
            Logged::Each => tracing::info!(egress.to = to, reason, "no connection for a function"),
            Logged::Last => {
                tracing::info!(
                    egress.to = to,
                    reason,
                    "no connection for a function; no more lines for the invocation"
                );
            }
            Logged::No => {}
        }
    }
}

impl Denial {
    fn reason(&self) -> &str {
        let (Self::Refused(reason) | Self::Failed(reason) | Self::Timeout(reason)) = self;
        reason
    }

    /// The result in the metrics.
    fn result(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Failed(_) => "failed",
            Self::Timeout(_) => "timeout",
        }
    }
}

/// The most connections of an instance at one time, where there are so many instances: EGRESS_CONNECTIONS, or less
/// where the process may not have the descriptors for that. So no function takes the connections of another.
pub fn connections_of_each(config: &config::Egress, instances: u32) -> u32 {
    let descriptors = descriptors::most();
    let share = share_of_each(descriptors, instances);
    if share < config.connections && !config.allow.is_empty() {
        tracing::warn!(
            descriptors,
            "an instance has at most {share} connections at one time, not {} (EGRESS_CONNECTIONS): the limit of open \
             files (ulimit -Hn) is too low for {instances} containers (DOCKER_CONTAINER_LIMIT)",
            config.connections
        );
    }
    share.min(config.connections)
}

fn share_of_each(descriptors: u64, instances: u32) -> u32 {
    let all = descriptors / PART_OF_DESCRIPTORS / DESCRIPTORS;
    u32::try_from(all / u64::from(instances.max(1))).unwrap_or(u32::MAX).max(1)
}

fn timed_out(to: &str, limit: Duration) -> Denial {
    Denial::Timeout(format!("{to}: no connection within {limit:?} (EGRESS_CONNECT_TIMEOUT)"))
}

/// Notes the end of a connection. That a side resets a connection is no fault.
fn ended(carried: std::io::Result<()>, meter: &Meter) {
    let (sent, received) = meter.totals();
    Span::current().record("egress.sent_bytes", sent).record("egress.received_bytes", received);
    match carried {
        Ok(()) => tracing::debug!(sent, received, "a connection of a function has ended"),
        Err(error) => tracing::debug!(sent, received, %error, "a connection of a function was cut off"),
    }
}

#[cfg(test)]
mod tests;
