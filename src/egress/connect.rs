//! Connections to a host of several addresses, as in RFC 8305 ("happy eyeballs"): a dead address costs a quarter of a
//! second, not the time limit.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{AbortHandle, Aborted, abortable};
use futures_util::stream::FuturesUnordered;
use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::time::{self, Instant};

use super::names::{Lookup, NameError};

/// The time after which the next address is tried beside the addresses that have not answered.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// The most attempts at one time. The oldest makes room for the next.
const MAX_ATTEMPTS: usize = 4;
/// When a silent host is asked whether the host is there, how often, and how many times in vain.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_EACH: Duration = Duration::from_secs(5);
const PROBES: u32 = 4;
/// The most addresses of a family that are tried.
const MAX_ADDRESSES: usize = 16;

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// The name has no addresses.
    Name(NameError),
    /// No address may be connected to, and the reason for the first one.
    Refused(String),
    /// No address has taken the connection, and the reason of the last one.
    Failed(io::Error),
}

/// The addresses to try, IPv6 and IPv4 by turns.
#[derive(Default)]
struct Queue {
    v6: VecDeque<IpAddr>,
    v4: VecDeque<IpAddr>,
    is_v4_next: bool,
}

/// What has happened.
enum Event {
    Addresses(Result<Option<Vec<IpAddr>>, NameError>),
    Attempt(io::Result<TcpStream>),
    /// The attempts under way have had their time alone, or an attempt has made room.
    Due,
}

/// Connects to an address of a name that is being resolved. Only addresses that pass `check` are connected to, and all
/// other attempts are reset. The caller limits the time.
pub(super) async fn connect(
    mut lookup: Lookup,
    port: u16,
    check: impl Fn(IpAddr) -> Result<(), String>,
) -> Result<TcpStream, ConnectError> {
    let (mut queue, mut attempts, mut handles) =
        (Queue::default(), FuturesUnordered::new(), VecDeque::<(IpAddr, AbortHandle)>::new());
    let (mut is_resolving, mut due) = (true, Instant::now());
    let mut error = ConnectError::Name(NameError::Unknown);
    loop {
        if (attempts.is_empty() || due <= Instant::now())
            && let Some(address) = queue.next()
        {
            if attempts.len() >= MAX_ATTEMPTS
                && let Some((_, oldest)) = handles.pop_front()
            {
                oldest.abort();
            }
            let (attempt, handle) = abortable(attempt(SocketAddr::new(address, port)));
            attempts.push(async move { (address, attempt.await) });
            handles.push_back((address, handle));
            due = Instant::now() + ATTEMPT_DELAY;
        }
        if attempts.is_empty() && !is_resolving {
            return Err(error);
        }
        let event = tokio::select! {
            addresses = lookup.next(), if is_resolving => Event::Addresses(addresses),
            Some((address, ended)) = attempts.next(), if !attempts.is_empty() => {
                handles.retain(|(other, _)| *other != address);
                match ended {
                    Ok(ended) => Event::Attempt(ended),
                    Err(Aborted) => Event::Due,
                }
            }
            () = time::sleep_until(due), if !queue.is_empty() => Event::Due,
        };
        match event {
            Event::Addresses(Ok(Some(addresses))) => {
                for address in addresses {
                    match check(address) {
                        Ok(()) => queue.push(address),
                        Err(reason) if matches!(error, ConnectError::Name(_)) => error = ConnectError::Refused(reason),
                        Err(_) => {}
                    }
                }
            }
            Event::Addresses(Ok(None)) => is_resolving = false,
            Event::Addresses(Err(reason)) => {
                is_resolving = false;
                error = ConnectError::Name(reason);
            }
            Event::Attempt(Ok(stream)) => return Ok(stream),
            Event::Attempt(Err(reason)) => {
                error = ConnectError::Failed(reason);
                // The next address need not wait for an address that has failed.
                due = Instant::now();
            }
            Event::Due => {}
        }
    }
}

async fn attempt(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // A connection to a free port of this machine may meet itself.
    if stream.local_addr()? == stream.peer_addr()? {
        let _ = stream.set_zero_linger();
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    // Bytes are passed on as they come.
    stream.set_nodelay(true)?;
    // The program's own probes end at the door, so a host that is gone must be noticed here.
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(&stream, PROBE_EACH)?;
    sockopt::set_tcp_keepcnt(&stream, PROBES)?;
    Ok(stream)
}

impl Queue {
    fn push(&mut self, address: IpAddr) {
        let family = if address.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        if family.len() < MAX_ADDRESSES && !family.contains(&address) {
            family.push_back(address);
        }
    }

    fn next(&mut self) -> Option<IpAddr> {
        let (first, second) = if self.is_v4_next { (&mut self.v4, &mut self.v6) } else { (&mut self.v6, &mut self.v4) };
        let address = first.pop_front().or_else(|| second.pop_front())?;
        self.is_v4_next = !address.is_ipv4();
        Some(address)
    }

    fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

#[cfg(test)]
mod tests;
